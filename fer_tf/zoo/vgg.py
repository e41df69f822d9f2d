"""A VGG for faces of 48 px: four stages of two 3x3 convolutions each, then a dense layer.

Simonyan and Zisserman, "Very deep convolutional networks for large-scale image recognition", ICLR 2015; in the shape
that Khaireddin and Chen, "Facial emotion recognition: state of the art performance on FER2013", 2021, trained. Added:
batch norm after every convolution.
"""

import keras
from keras import layers

from fer_tf.zoo.grey import grey_crops


def build(*, emotions: int, image_size: int, weights: None = None, width=64, stages=4, dense=512, dropout=0.5):
    """Return a VGG: RGB 0..255 (n, image_size, image_size, 3) -> logits (n, emotions).

    width   filters of the first stage, doubled from stage to stage; 16 trains on a CPU
    stages  each ends with a pooling that halves the side
    dense   units of the hidden layer
    """
    if weights is not None:
        raise ValueError(f"vgg has no pretrained weights: leave it empty, or give a trained one (got {weights!r})")

    # --- preprocessing ---
    crops, x = grey_crops(image_size, channels=1)
    x = layers.Rescaling(1 / 127.5, offset=-1, name="rescale")(x)  # -1..1

    # --- backbone ---
    for stage in range(1, stages + 1):
        for conv in (1, 2):
            name = f"{stage}_{conv}"
            filters = width * 2 ** (stage - 1)
            x = layers.Conv2D(filters, 3, padding="same", use_bias=False, name=f"conv_{name}")(x)
            x = layers.BatchNormalization(momentum=0.9, name=f"norm_{name}")(x)
            x = layers.ReLU(name=f"relu_{name}")(x)
        x = layers.MaxPooling2D(name=f"pool_{stage}")(x)  # (n, s / 2**stage, s / 2**stage, filters)

    # --- head ---
    x = layers.Flatten(name="head_flatten")(x)
    x = layers.Dropout(dropout, name="head_dropout_1")(x)
    x = layers.Dense(dense, use_bias=False, name="head_dense")(x)
    x = layers.BatchNormalization(momentum=0.9, name="head_norm")(x)
    x = layers.ReLU(name="head_relu")(x)
    x = layers.Dropout(dropout, name="head_dropout_2")(x)
    logits = layers.Dense(emotions, name="head_logits")(x)
    return keras.Model(crops, logits, name="vgg")
