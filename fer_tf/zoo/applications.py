"""What the backbones of keras.applications share: weights by layer name, batch norm's momentum, a dropout head."""

import keras
from keras import layers

from fer_tf import paths, zoo


def load_weights(backbone: keras.Model, weights: str | None, *, make, image_size: int) -> None:
    """Copy weights, None or as in `pretrained`, into the layers of the same names; ValueError for another network's."""
    if weights is not None:
        zoo.copy_backbone(pretrained(weights, make, image_size), backbone, path=weights)


def dropout_head(features: keras.KerasTensor, *, emotions: int, dropout: float) -> keras.KerasTensor:
    """Return logits (n, emotions) of a feature map (n, h, w, c): mean over places, dropout, one dense layer."""
    x = layers.GlobalAveragePooling2D(name="head_pool")(features)  # (n, c)
    x = layers.Dropout(dropout, name="head_dropout")(x)
    return layers.Dense(emotions, name="head_logits")(x)


def set_norm_momentum(backbone: keras.Model, momentum: float) -> None:
    """Set how slowly batch norm's moving averages follow; Keras's 0.99 and 0.999 lag behind in short runs."""
    for layer in backbone.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = momentum


def pretrained(weights: str, make, image_size: int) -> keras.Model:
    """Return a backbone of keras.applications with its weights.

    weights  "imagenet" (Keras downloads them), or a `.weights.h5` file of the backbone without its top
    make     the function of keras.applications that builds the backbone

    Raises FileNotFoundError for a file that is not there.
    """
    shape = (image_size, image_size, 3)
    if weights == "imagenet":
        return make(input_shape=shape, include_top=False, weights="imagenet")
    path = paths.ROOT / weights  # an absolute path stays itself
    if not path.is_file():
        raise FileNotFoundError(
            f"no weights at {path}: expected 'imagenet', a .weights.h5 without top or a .keras file"
        )
    backbone = make(input_shape=shape, include_top=False, weights=None)
    backbone.load_weights(path)
    return backbone
