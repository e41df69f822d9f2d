"""EfficientNet B0 and B4 from keras.applications, as one flat graph; their preprocessing is part of the backbone.

Tan and Le, "EfficientNet: rethinking model scaling for convolutional neural networks", ICML 2019.
"""

import keras

from fer_tf.zoo.applications import dropout_head, load_weights, set_norm_momentum
from fer_tf.zoo.grey import grey_crops

SIZES = {"b0": keras.applications.EfficientNetB0, "b4": keras.applications.EfficientNetB4}


def build(*, emotions: int, image_size: int, weights: str | None = None, size="b0", dropout=0.3, norm_momentum=0.9):
    """Return EfficientNet: RGB 0..255 (n, image_size, image_size, 3) -> logits (n, emotions).

    weights  None, "imagenet" or a `.weights.h5` file, as in `applications.load_weights`
    """
    if size not in SIZES:
        raise ValueError(f"unknown size {size!r}; known are {', '.join(SIZES)}")

    # --- preprocessing ---
    crops, x = grey_crops(image_size, channels=3)

    # --- backbone: scales to 0..1 and normalises by ImageNet's statistics itself ---
    backbone = SIZES[size](input_tensor=x, include_top=False, weights=None)
    load_weights(backbone, weights, make=SIZES[size], image_size=image_size)
    set_norm_momentum(backbone, norm_momentum)

    # --- head ---
    logits = dropout_head(backbone.output, emotions=emotions, dropout=dropout)
    return keras.Model(crops, logits, name=f"efficientnet_{size}")
