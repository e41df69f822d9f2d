"""MobileNetV2 from keras.applications, as one flat graph with its preprocessing inside.

Sandler, Howard, Zhu, Zhmoginov and Chen, "MobileNetV2: inverted residuals and linear bottlenecks", CVPR 2018.
"""

from zipfile import is_zipfile

import keras
from keras import layers

from fer_tf import paths


def build(*, emotions: int, image_size: int, weights: str | None = None, dropout=0.3, norm_momentum=0.9):
    """Return MobileNetV2: RGB 0..255 (n, image_size, image_size, 3) -> logits (n, emotions).

    weights        None, "imagenet" (Keras downloads them), a `.weights.h5` file of the backbone without its top, or a
                   trained `.keras` file of this architecture, whose head is left out
    norm_momentum  Keras ships 0.999, which lags behind for many epochs of fine-tuning
    """
    # --- preprocessing: faces are judged in grey, as FER2013 has them ---
    crops = keras.Input((image_size, image_size, 3), name="crops")
    x = keras.ops.image.rgb_to_grayscale(crops)  # (n, s, s, 1)
    x = keras.ops.repeat(x, 3, axis=-1)  # (n, s, s, 3)
    x = layers.Rescaling(1 / 127.5, offset=-1, name="rescale")(x)  # -1..1

    # --- backbone ---
    backbone = keras.applications.MobileNetV2(input_tensor=x, include_top=False, weights=None)
    if weights is not None:
        pretrained = _pretrained(weights, image_size)
        for layer in backbone.layers:
            if layer.weights:
                layer.set_weights(pretrained.get_layer(layer.name).get_weights())
    for layer in backbone.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = norm_momentum

    # --- head ---
    x = layers.GlobalAveragePooling2D(name="head_pool")(backbone.output)  # (n, 1280)
    x = layers.Dropout(dropout, name="head_dropout")(x)
    logits = layers.Dense(emotions, name="head_logits")(x)
    return keras.Model(crops, logits, name="mobilenet_v2")


def _pretrained(weights: str, image_size: int) -> keras.Model:
    """Return a model whose layers of the same names hold the weights."""
    shape = (image_size, image_size, 3)
    if weights == "imagenet":
        return keras.applications.MobileNetV2(input_shape=shape, include_top=False, weights="imagenet")
    path = paths.ROOT / weights  # an absolute path stays itself
    if not path.is_file():
        raise FileNotFoundError(
            f"no weights at {path}: expected 'imagenet', a .weights.h5 without top or a .keras file"
        )
    if path.suffix == ".keras" and not is_zipfile(path):
        raise ValueError(f"{path} is damaged (no whole zip): copy it again, or train it again")
    if path.suffix == ".keras":
        return keras.saving.load_model(path, compile=False)
    backbone = keras.applications.MobileNetV2(input_shape=shape, include_top=False, weights=None)
    backbone.load_weights(path)
    return backbone
