"""ResNet50 from keras.applications, as one flat graph with its preprocessing inside.

He, Zhang, Ren and Sun, "Deep residual learning for image recognition", CVPR 2016. Its stages are the layers whose
names begin with conv1, conv2, conv3, conv4 and conv5: `unfreeze = ["conv5"]` in a recipe trains the last one only.
"""

from functools import partial

import keras
from keras import layers

from fer_tf.zoo.applications import dropout_head, load_weights, set_norm_momentum
from fer_tf.zoo.grey import grey_crops

IMAGENET_MEAN = (103.939, 116.779, 123.68)  # blue, green, red: the order that these weights were trained in


def build(*, emotions: int, image_size: int, weights: str | None = None, width=64, dropout=0.3, norm_momentum=0.9):
    """Return ResNet50: RGB 0..255 (n, image_size, image_size, 3) -> logits (n, emotions).

    weights  None, "imagenet" or a `.weights.h5` file, as in `applications.pretrained`
    width    filters of the first convolution, from which all others follow; 64 is ResNet50, 16 trains on a CPU
    """
    # --- preprocessing: in grey, blue and red are the same ---
    _, x = grey_crops(image_size, channels=3)
    x = layers.Rescaling(1.0, offset=[-mean for mean in IMAGENET_MEAN], name="centre")(x)

    # --- backbone ---
    make = keras.applications.ResNet50
    backbone = make(input_tensor=x, include_top=False, weights=None)
    if width != 64:
        backbone = keras.models.clone_model(backbone, clone_function=partial(_rescaled, share=width / 64))
    for layer in backbone.layers:
        if layer.name.endswith("_3_bn"):  # random blocks begin as the identity: Goyal et al. 2017, section 5.1
            layer.gamma.assign(keras.ops.zeros(layer.gamma.shape))
    load_weights(backbone, weights, make=make, image_size=image_size)
    set_norm_momentum(backbone, norm_momentum)

    # --- head ---
    logits = dropout_head(backbone.output, emotions=emotions, dropout=dropout)
    return keras.Model(backbone.input, logits, name="resnet50")


def _rescaled(operation: keras.Operation, *, share: float) -> keras.Operation:
    """Return a copy of a step of the graph; a convolution gets `share` times as many filters."""
    config = operation.get_config()
    if isinstance(operation, layers.Conv2D):
        config["filters"] = round(config["filters"] * share)
    return type(operation).from_config(config)
