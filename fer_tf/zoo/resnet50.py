"""ResNet50 from keras.applications, as one flat graph with its preprocessing inside.

He, Zhang, Ren and Sun, "Deep residual learning for image recognition", CVPR 2016. Its stages are the layers whose
names begin with conv1, conv2, conv3, conv4 and conv5: `unfreeze = ["conv5"]` in a recipe trains the last one only.
"""

import keras
from keras import layers

from fer_tf.zoo.applications import dropout_head, load_weights, set_norm_momentum
from fer_tf.zoo.grey import grey_crops

IMAGENET_MEAN = (103.939, 116.779, 123.68)  # blue, green, red: the order that these weights were trained in


def build(*, emotions: int, image_size: int, weights: str | None = None, dropout=0.3, norm_momentum=0.9):
    """Return ResNet50: RGB 0..255 (n, image_size, image_size, 3) -> logits (n, emotions).

    weights  None, "imagenet", a `.weights.h5` or a `.keras` file, as in `applications.load_weights`
    """
    # --- preprocessing: in grey, blue and red are the same ---
    crops, x = grey_crops(image_size, channels=3)
    x = layers.Rescaling(1.0, offset=[-mean for mean in IMAGENET_MEAN], name="centre")(x)

    # --- backbone ---
    make = keras.applications.ResNet50
    backbone = make(input_tensor=x, include_top=False, weights=None)
    load_weights(backbone, weights, make=make, image_size=image_size)
    set_norm_momentum(backbone, norm_momentum)

    # --- head ---
    logits = dropout_head(backbone.output, emotions=emotions, dropout=dropout)
    return keras.Model(crops, logits, name="resnet50")
