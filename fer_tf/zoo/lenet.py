"""LeNet-5, the first convolutional network that read cheques, widened for faces.

LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition", 1998. Kept: three 5x5
convolutions with pooling between, then a small dense layer. Changed: more filters, ReLU for tanh, max for average
pooling, batch norm and dropout.
"""

import keras
from keras import layers

from fer_tf.zoo.grey import grey_crops


def build(*, emotions: int, image_size: int, weights: None = None, filters=(32, 64, 120), dense=84, dropout=0.3):
    """Return LeNet: RGB 0..255 (n, image_size, image_size, 3) -> logits (n, emotions)."""
    if weights is not None:
        raise ValueError(f"lenet has no pretrained weights: leave it empty, or give a trained one (got {weights!r})")

    # --- preprocessing ---
    crops, x = grey_crops(image_size, channels=1)
    x = layers.Rescaling(1 / 127.5, offset=-1, name="rescale")(x)  # -1..1

    # --- backbone: each stage halves the side ---
    for stage, width in enumerate(filters, start=1):
        x = layers.Conv2D(width, 5, padding="same", use_bias=False, name=f"conv_{stage}")(x)
        x = layers.BatchNormalization(momentum=0.9, name=f"norm_{stage}")(x)
        x = layers.ReLU(name=f"relu_{stage}")(x)
        x = layers.MaxPooling2D(name=f"pool_{stage}")(x)  # (n, s / 2**stage, s / 2**stage, width)

    # --- head ---
    x = layers.Flatten(name="head_flatten")(x)
    x = layers.Dense(dense, use_bias=False, name="head_dense")(x)
    x = layers.BatchNormalization(momentum=0.9, name="head_norm")(x)
    x = layers.ReLU(name="head_relu")(x)
    x = layers.Dropout(dropout, name="head_dropout")(x)
    logits = layers.Dense(emotions, name="head_logits")(x)
    return keras.Model(crops, logits, name="lenet")
