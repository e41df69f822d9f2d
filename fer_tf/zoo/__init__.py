"""The architectures: one file each, one line each in `ARCHITECTURES`. Keras 3 only; Keras is imported by `build`.

A file `fer_tf/zoo/<name>.py` holds one function `build(*, emotions, image_size, weights, **options) -> keras.Model`:
RGB 0..255 (n, image_size, image_size, 3) in, logits (n, emotions) out, every preprocessing step a layer of the graph;
a temporal one takes clips (n, window, image_size, image_size, 3).
Layers of the head are named `head_...`; everything else is the backbone. The default of an option says what it takes:
a whole number is a count, 1 or more; a fraction is a share, 0 or more and below 1; a tuple holds several of the kind.
"""

import json
import re
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from fer_tf import paths


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """What the suite must know of an architecture before it is built.

    image_size      default side of the input in pixels
    module          its file, where that is not named like it; `options` are then what it fixes there
    window          frames that it takes at once, unless its option `window` says otherwise; 1 is a picture
    saliency_layer  name of the layer where saliency maps look: the last one with 6x6 cells or more at `image_size`;
                    a layer inside another one has a path, such as "backbone/stage_1"
    """

    image_size: int
    saliency_layer: str
    source: str
    module: str = ""
    options: dict = field(default_factory=dict)
    window: int = 1


ARCHITECTURES = {
    "lenet": Architecture(image_size=48, saliency_layer="relu_3", source="LeCun et al. 1998, widened"),
    "mobilenet_v2": Architecture(image_size=96, saliency_layer="block_13_expand_relu", source="Sandler et al. 2018"),
    "vgg": Architecture(image_size=48, saliency_layer="relu_4_2", source="Simonyan and Zisserman 2015, for 48 px"),
    "ferplus_vgg13": Architecture(image_size=64, saliency_layer="relu_4_3", source="Barsoum et al. 2016"),
    # Not at the end of stage 4: stage 5 begins with strides of 2 and sees every second place of it alone.
    "resnet50": Architecture(image_size=96, saliency_layer="conv4_block5_out", source="He et al. 2016"),
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
    "vit": Architecture(image_size=48, saliency_layer="last_block", source="Dosovitskiy et al. 2021"),
    "swin": Architecture(image_size=96, saliency_layer="backbone/stage_1", source="Liu et al. 2021"),
    "esr": Architecture(image_size=96, saliency_layer="base_relu_4", source="Siqueira et al. 2020"),
    "cnn_lstm": Architecture(
        image_size=48, saliency_layer="backbone/relu_3", source="Donahue et al. 2015 (LRCN)", window=16
    ),
}


def architecture(name: str) -> Architecture:
    """Return the registry's line; an unknown name raises ValueError and lists the known ones."""
    if name not in ARCHITECTURES:
        raise ValueError(f"unknown architecture {name!r}; known are {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[name]


def measured() -> dict:
    """Return what `fer-tf measure` wrote to measured.json: "date", "host" and so on, and "architectures" by name."""
    return json.loads(Path(__file__).with_name("measured.json").read_text(encoding="utf-8"))


def build(name: str, *, emotions: int, image_size: int | None = None, weights: str | None = None, **options):
    """Return a new Keras model of this architecture.

    emotions    number of logits
    image_size  32 to 256 px; the architecture's default if None
    weights     None for random ones; a trained `.keras` file of this architecture or its folder, relative to the
                project, whose backbone is taken; or what the architecture takes besides ("imagenet", a `.weights.h5`
                file; a cnn_lstm takes its frame network)
    options     the architecture's own, such as `dropout`; an unknown one, or one of the wrong kind, raises ValueError

    Raises FileNotFoundError for a file that is not there, ValueError for one that holds another network.
    """
    found = architecture(name)
    size = found.image_size if image_size is None else image_size
    if not 32 <= size <= 256:
        raise ValueError(f"image_size must be 32 to 256 px, got {size}")
    module = import_module(f"fer_tf.zoo.{found.module or name}")
    fixed = {"weights", *found.options}
    known = {option: default for option, default in (module.build.__kwdefaults__ or {}).items() if option not in fixed}
    if unknown := sorted(set(options) - set(known)):
        raise ValueError(f"{name} has no option {', '.join(unknown)}; it has {', '.join(known) or 'none'}")
    for option, value in options.items():
        if not _fits(value, known[option]):
            expected = EXPECTED[type(known[option])]
            raise ValueError(f"{name}'s {option} must be {expected}, such as {known[option]}, got {value!r}")
    file = weights_file(weights) if found.window == 1 else None
    trained = file if file and file.suffix == ".keras" else None
    start = None if trained else weights
    model = module.build(emotions=emotions, image_size=size, weights=start, **found.options, **options)
    if trained:
        source = load_model(trained)
        if source.name != model.name:
            raise ValueError(f"{trained} holds {source.name}; {name} starts from the model.keras of a trained {name}")
        copy_backbone(source, model, path=trained)
    return model


def copy_backbone(source, model, *, path) -> None:
    """Copy weights into the backbone layers of the same names; `source` came from `path`.

    Raises ValueError that names the first layer which only one of the two has, or each in another shape, and one for
    pixels that are scaled in another way.
    """
    theirs, ours = ({layer.name: layer for layer in backbone_layers(one)} for one in (source, model))
    for name in [*ours, *theirs]:
        here, there = (_shapes(layers.get(name)) for layers in (ours, theirs))
        if here != there:
            told = f"{name} is {here or 'not'} here and {there or 'not'} there"
            raise ValueError(f"{path} does not fit {model.name} as it is built here: {told}")
    if "rescale" in theirs and "rescale" in ours:
        here, there = (layers["rescale"].get_config() for layers in (ours, theirs))
        if (here["scale"], here["offset"]) != (there["scale"], there["offset"]):
            raise ValueError(
                f"{path} scales pixels in another way than {model.name} does here: start from another file"
            )
    for name, layer in ours.items():
        if layer.weights:
            layer.set_weights(theirs[name].get_weights())


def _shapes(layer) -> list:
    """Return the shapes of a layer's weights; none of no layer."""
    return [tuple(weight.shape) for weight in layer.weights] if layer else []


def weights_file(weights: str | None) -> Path | None:
    """Return the file that weights name, itself or as the model.keras of a run's folder; None if they name no file."""
    if not weights:
        return None
    path = paths.ROOT / weights  # an absolute path stays itself
    if (path / "model.keras").is_file():
        return path / "model.keras"
    if (path / "card.json").is_file() or (path.suffix == ".keras" and not path.is_file()):
        raise FileNotFoundError(f"no weights at {path}: expected the model.keras of a trained network, or its folder")
    return path if path.is_file() else None


def load_model(path: Path):
    """Load a `.keras` file as a Keras model, whatever layers of this package it holds; ValueError for a damaged one."""
    import keras

    try:
        with ZipFile(path) as file:
            config = file.read("config.json").decode()
        for module in sorted(set(re.findall(r'"module": "(fer_tf\.zoo\.\w+)"', config))):
            import_module(module)  # makes its layers known to Keras
        return keras.saving.load_model(path, compile=False)
    except (ValueError, OSError, TypeError, KeyError, BadZipFile) as error:
        raise ValueError(
            f"{path} is damaged, or no Keras model that can be read ({error}): copy it again, or train it again"
        ) from error


OUTPUTS = ("embedding", "affect", "branches")
"""Further outputs of the ONNX file, each of the layer `head_<name>` where a model has it."""

EXPECTED = {
    bool: "true or false",
    int: "a whole number, 1 or more",
    float: "a share, 0 or more and below 1",
    str: "a text",
    tuple: "a list",
}


def _fits(value, default) -> bool:
    """Tell whether an option's value is of the default's kind; a whole number passes as a share, a list as a tuple."""
    if isinstance(default, tuple):
        return isinstance(value, list | tuple) and len(value) > 0 and all(_fits(part, default[0]) for part in value)
    if isinstance(value, bool) or isinstance(default, bool | str):
        return type(value) is type(default)
    if isinstance(default, int):
        return isinstance(value, int) and value >= 1
    return isinstance(value, int | float) and 0 <= value < 1


def named_outputs(model) -> dict:
    """Return the tensors that a model tells: "logits" and those of its layers in `OUTPUTS`, by name."""
    names = {layer.name for layer in model.layers}
    others = {name: model.get_layer(f"head_{name}").output for name in OUTPUTS if f"head_{name}" in names}
    return {"logits": model.output, **others}


def branches(model, kind: str = "branch") -> list:
    """Return what the branches of an ensemble give, first to last: logits (n, emotions), or affect (n, 2) by `kind`.

    They are the outputs of the layers `head_<kind>_1`, `head_<kind>_2` and so on; none in other architectures.
    """
    found = {layer.name: layer.output for layer in model.layers if layer.name.startswith(f"head_{kind}_")}
    return [found[f"head_{kind}_{k}"] for k in range(1, len(found) + 1)]


def find_layer(model, path: str):
    """Return the layer of this name; "outer/inner" is one inside another. Raises ValueError for an unknown one."""
    for name in path.split("/"):
        model = model.get_layer(name)
    return model


def every_layer(model) -> list:
    """Return all layers of a model, those inside other layers as well."""
    return list(model._flatten_layers(include_self=False))


def backbone_layers(model) -> list:
    """Return the layers that belong to the backbone: all but those named `head_...`."""
    return [layer for layer in model.layers if not layer.name.startswith("head_")]
