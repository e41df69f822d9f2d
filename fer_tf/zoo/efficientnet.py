"""EfficientNet B0 and B4 from keras.applications, as one flat graph with their preprocessing inside.

Tan and Le, "EfficientNet: rethinking model scaling for convolutional neural networks", ICML 2019.
"""

import keras
import numpy as np
from keras import layers

from fer_tf import zoo
from fer_tf.zoo.applications import dropout_head, pretrained, set_norm_momentum
from fer_tf.zoo.grey import grey_crops

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of red, green and blue in 0..1
SIZES = {"b0": keras.applications.EfficientNetB0, "b4": keras.applications.EfficientNetB4}


def build(*, emotions: int, image_size: int, weights: str | None = None, size="b0", dropout=0.3, norm_momentum=0.9):
    """Return EfficientNet: RGB 0..255 (n, image_size, image_size, 3) -> logits (n, emotions).

    weights  None, "imagenet" or a `.weights.h5` file, as in `applications.pretrained`
    """
    if size not in SIZES:
        raise ValueError(f"unknown size {size!r}; known are {', '.join(SIZES)}")

    # --- preprocessing ---
    _, x = grey_crops(image_size, channels=3)

    # --- backbone: scales to 0..1 and normalises by ImageNet's statistics itself ---
    made = SIZES[size](input_tensor=x, include_top=False, weights=None)
    backbone = keras.models.clone_model(made, clone_function=_named)
    if weights:
        source = pretrained(weights, SIZES[size], image_size)
        _check_scaling(source, weights)
        learned = keras.Model(source.get_layer("stem_conv_pad").input, source.output)  # without their preprocessing
        zoo.copy_backbone(learned, backbone, path=weights)
    set_norm_momentum(backbone, norm_momentum)

    # --- head ---
    logits = dropout_head(backbone.output, emotions=emotions, dropout=dropout)
    return keras.Model(backbone.input, logits, name=f"efficientnet_{size}")


def _named(operation: keras.Operation) -> keras.Operation:
    """Return a copy of a step of the graph, preprocessing under names of its own.

    Keras counts these names up, and divides by the square root of ImageNet's deviations twice, the second time only in
    a network that it gives ImageNet's weights: here one layer does all of it, whatever the weights.
    """
    if isinstance(operation, layers.Normalization):
        offset = [-mean / deviation for mean, deviation in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)]
        return layers.Rescaling([1 / deviation for deviation in IMAGENET_STD], offset=offset, name="normalise")
    config = operation.get_config()
    if isinstance(operation, layers.Rescaling):
        config["name"] = "to_unit"
    return type(operation).from_config(config)


def _check_scaling(source: keras.Model, weights: str) -> None:
    """Raise ValueError for weights that were trained on pixels of other statistics than ImageNet's."""
    for layer in source.layers:
        if isinstance(layer, layers.Normalization):
            mean, variance = (np.ravel(value)[:3] for value in layer.get_weights()[:2])
            if not (np.allclose(mean, IMAGENET_MEAN, atol=1e-3) and np.allclose(variance, IMAGENET_STD, atol=1e-3)):
                raise ValueError(f"{weights} scales pixels in another way than ImageNet's weights: start from those")
