"""MobileNetV2 from keras.applications, as one flat graph with its preprocessing inside.

Sandler, Howard, Zhu, Zhmoginov and Chen, "MobileNetV2: inverted residuals and linear bottlenecks", CVPR 2018.
"""

import keras
from keras import layers

from fer_tf.zoo.applications import dropout_head, load_weights, set_norm_momentum
from fer_tf.zoo.grey import grey_crops


def build(*, emotions: int, image_size: int, weights: str | None = None, dropout=0.3, norm_momentum=0.9):
    """Return MobileNetV2: RGB 0..255 (n, image_size, image_size, 3) -> logits (n, emotions).

    weights  None, "imagenet" or a `.weights.h5` file, as in `applications.pretrained`
    """
    # --- preprocessing ---
    crops, x = grey_crops(image_size, channels=3)
    x = layers.Rescaling(1 / 127.5, offset=-1, name="rescale")(x)  # -1..1

    # --- backbone ---
    make = keras.applications.MobileNetV2
    backbone = make(input_tensor=x, include_top=False, weights=None)
    load_weights(backbone, weights, make=make, image_size=image_size)
    set_norm_momentum(backbone, norm_momentum)

    # --- head ---
    logits = dropout_head(backbone.output, emotions=emotions, dropout=dropout)
    return keras.Model(crops, logits, name="mobilenet_v2")
