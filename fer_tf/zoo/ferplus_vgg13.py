"""The FER+ network: a VGG of ten 3x3 convolutions and three dense layers, without batch norm, for grey faces of 64 px.

Barsoum, Zhang, Canton Ferrer and Zhang, "Training deep networks for facial expression recognition with crowd-sourced
label distribution", ICMI 2016. Pixels are scaled as in the file that the ONNX Model Zoo has of it. Changed: He's
initialisation (He et al. 2015), for with Glorot's a signal fades on its way through so many layers with ReLU.
"""

import keras
from keras import layers

from fer_tf.zoo.grey import grey_crops

STAGES = ((1, 2), (2, 2), (4, 3), (4, 3))  # filters in widths, convolutions


def build(
    *, emotions: int, image_size: int, weights: None = None, width=64, dense=1024, dropout=0.25, head_dropout=0.5
):
    """Return VGG13: RGB 0..255 (n, image_size, image_size, 3) -> logits (n, emotions).

    width         filters of the first stage; the next have 2, 4 and 4 times as many; 16 trains on a CPU
    dense         units of both hidden layers
    dropout       after every pooling
    head_dropout  after both hidden layers
    """
    if weights is not None:
        raise ValueError(
            f"ferplus_vgg13 has no pretrained weights: leave it empty, or take a trained one (got {weights!r})"
        )

    # --- preprocessing ---
    crops, x = grey_crops(image_size, channels=1)
    x = layers.Rescaling(1 / 255, offset=-0.5, name="rescale")(x)  # (x - 127.5) / 255

    # --- backbone ---
    for stage, (times, convolutions) in enumerate(STAGES, start=1):
        for conv in range(1, convolutions + 1):
            name = f"{stage}_{conv}"
            conv_2d = layers.Conv2D(
                times * width, 3, padding="same", kernel_initializer="he_normal", name=f"conv_{name}"
            )
            x = layers.ReLU(name=f"relu_{name}")(conv_2d(x))
        x = layers.MaxPooling2D(name=f"pool_{stage}")(x)  # (n, s / 2**stage, s / 2**stage, times * width)
        x = layers.Dropout(dropout, name=f"dropout_{stage}")(x)

    # --- head ---
    x = layers.Flatten(name="head_flatten")(x)
    for hidden in (1, 2):
        x = layers.Dense(dense, kernel_initializer="he_normal", name=f"head_dense_{hidden}")(x)
        x = layers.ReLU(name=f"head_relu_{hidden}")(x)
        x = layers.Dropout(head_dropout, name=f"head_dropout_{hidden}")(x)
    logits = layers.Dense(emotions, name="head_logits")(x)
    return keras.Model(crops, logits, name="ferplus_vgg13")
