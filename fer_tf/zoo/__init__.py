"""The architectures: one file each, one line each in `ARCHITECTURES`. Keras 3 only; Keras is imported by `build`.

A file `fer_tf/zoo/<name>.py` holds one function `build(*, emotions, image_size, weights, **options) -> keras.Model`:
RGB 0..255 (n, image_size, image_size, 3) in, logits (n, emotions) out, every preprocessing step a layer of the graph.
Layers of the head are named `head_...`; everything else is the backbone.
"""

from dataclasses import dataclass, field
from importlib import import_module


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """What the suite must know of an architecture before it is built.

    image_size      default side of the input in pixels
    module          its file, where that is not named like it; `options` are then what it fixes there
    saliency_layer  name of the layer where Grad-CAM looks: the last one whose map has at least 6x6 cells
    """

    image_size: int
    saliency_layer: str
    source: str
    module: str = ""
    options: dict = field(default_factory=dict)


ARCHITECTURES = {
    "lenet": Architecture(image_size=48, saliency_layer="relu_3", source="LeCun et al. 1998, widened"),
    "mobilenet_v2": Architecture(image_size=96, saliency_layer="block_13_expand_relu", source="Sandler et al. 2018"),
    "vgg": Architecture(image_size=48, saliency_layer="relu_4_2", source="Simonyan and Zisserman 2015, for 48 px"),
    "resnet50": Architecture(image_size=96, saliency_layer="conv4_block6_out", source="He et al. 2016"),
    "efficientnet_b0": Architecture(
        image_size=96, saliency_layer="block6a_expand_activation", source="Tan and Le 2019", module="efficientnet"
    ),
    "efficientnet_b4": Architecture(
        image_size=96,
        saliency_layer="block6a_expand_activation",
        source="Tan and Le 2019",
        module="efficientnet",
        options={"size": "b4"},
    ),
    "vit": Architecture(image_size=48, saliency_layer="block_11_norm_1", source="Dosovitskiy et al. 2021"),
}


def architecture(name: str) -> Architecture:
    """Return the registry's line; an unknown name raises ValueError and lists the known ones."""
    if name not in ARCHITECTURES:
        raise ValueError(f"unknown architecture {name!r}; known are {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[name]


def build(name: str, *, emotions: int, image_size: int | None = None, weights: str | None = None, **options):
    """Return a new Keras model of this architecture.

    emotions    number of logits
    image_size  32 to 256 px; the architecture's default if None
    weights     None for random ones, or what the architecture takes ("imagenet", a file relative to the project)
    options     the architecture's own, such as `dropout`; an unknown one raises ValueError
    """
    found = architecture(name)
    size = found.image_size if image_size is None else image_size
    if not 32 <= size <= 256:
        raise ValueError(f"image_size must be 32 to 256 px, got {size}")
    module = import_module(f"fer_tf.zoo.{found.module or name}")
    known = [option for option in module.build.__kwdefaults__ or {} if option not in found.options]
    if unknown := sorted(set(options) - set(known)):
        raise ValueError(f"{name} has no option {', '.join(unknown)}; it has {', '.join(known) or 'none'}")
    return module.build(emotions=emotions, image_size=size, weights=weights, **found.options, **options)


def backbone_layers(model) -> list:
    """Return the layers that belong to the backbone: all but those named `head_...`."""
    return [layer for layer in model.layers if not layer.name.startswith("head_")]
