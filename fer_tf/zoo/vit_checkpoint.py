"""Hugging Face ViT and DeiT checkpoints into the layers of `zoo.vit`, and back.

Configuration and image processor are read through transformers, tensors from safetensors; PyTorch is not needed.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import keras
import numpy as np

from fer_tf import labels, paths

PREFIX_TOKENS = {"vit": ("cls_token",), "deit": ("cls_token", "distillation_token")}
BLOCK = {  # layer of `zoo.vit` -> its name in a checkpoint
    "norm_1": "layernorm_before",
    "query": "attention.attention.query",
    "key": "attention.attention.key",
    "value": "attention.attention.value",
    "out": "attention.output.dense",
    "norm_2": "layernorm_after",
    "hidden": "intermediate.dense",
    "mlp": "output.dense",
}
ROOT = {"patches": "embeddings.patch_embeddings.projection", "norm": "layernorm"}
NOT_OURS = ("pooler.", "classifier.", "cls_classifier.", "distillation_classifier.")
FILES = ["config.json", "preprocessor_config.json", "model.safetensors"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """What a checkpoint holds.

    kind      "vit" or "deit"
    shape     what `zoo.vit` builds from: width, blocks, heads ...
    tensors   name, without the model's own prefix -> array
    emotions  what its classifier names, in our spelling; empty if it names anything but emotions
    """

    source: str
    kind: str
    shape: dict
    tensors: dict
    emotions: tuple[str, ...]

    def load_into(self, model: keras.Model) -> None:
        """Copy every tensor into its layer, positions interpolated to the model's grid.

        The classifier comes along where it names our emotions, in whatever order; else the head stays fresh. Raises
        ValueError for a tensor that is missing, unexpected or of another shape.
        """
        layers = tensor_names(self.shape["blocks"])
        place = model.get_layer("position")
        prefix = [f"embeddings.{token}" for token in PREFIX_TOKENS[self.kind]]
        known = [f"{name}.{part}" for name in layers.values() for part in ("weight", "bias")]
        known += [*prefix, "embeddings.position_embeddings"]
        if missing := [name for name in known if name not in self.tensors]:
            raise ValueError(f"{self.source} lacks {len(missing)} tensors of a ViT, the first is {missing[0]}")
        unexpected = [name for name in self.tensors if name not in known and not name.startswith(NOT_OURS)]
        if unexpected:
            raise ValueError(f"{self.source} holds {len(unexpected)} tensors that no ViT has, first {unexpected[0]}")

        for ours, theirs in layers.items():
            weight, bias = (self.tensors[f"{theirs}.{part}"] for part in ("weight", "bias"))
            axes = {1: (0,), 2: (1, 0), 4: (2, 3, 1, 0)}[weight.ndim]  # outputs first there, last here
            self._set(theirs, model.get_layer(ours).weights, [weight.transpose(axes), bias])
        positions = self.tensors["embeddings.position_embeddings"]
        positions = interpolate(positions, tokens=place.positions.shape[1], prefix=len(prefix))
        tokens = np.concatenate([self.tensors[name] for name in prefix], axis=1)
        self._set("embeddings", [place.tokens, place.positions], [tokens, positions])

        ours = labels.FERPLUS[: model.output_shape[-1]]
        if set(self.emotions) == set(ours):
            for part in ("weight", "bias"):
                if len(self.tensors.get(f"classifier.{part}", ())) != len(ours):
                    raise ValueError(f"{self.source}: classifier.{part} should have {len(ours)} rows, one per label")
            order = [self.emotions.index(emotion) for emotion in ours]
            weight, bias = (self.tensors[f"classifier.{part}"][order] for part in ("weight", "bias"))
            self._set("classifier", model.get_layer("head_logits").weights, [weight.T, bias])

    def _set(self, name: str, variables: list, arrays: list[np.ndarray]) -> None:
        for variable, array in zip(variables, arrays, strict=True):
            if tuple(variable.shape) != array.shape:
                raise ValueError(f"{self.source}: {name} should be {tuple(variable.shape)}, but is {array.shape}")
            variable.assign(array)


def read_checkpoint(weights: str) -> Checkpoint:
    """Read "hf:<name>" from the Hugging Face hub, or a directory (absolute, or relative to the project).

    Raises FileNotFoundError for what is not there, ValueError for what is no ViT or DeiT of the usual kind.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file
    from transformers import AutoConfig
    from transformers.utils import logging

    logging.set_verbosity_error()
    folder = _fetched(weights)
    config = AutoConfig.from_pretrained(folder)
    kind = config.model_type
    if kind not in PREFIX_TOKENS or config.hidden_act != "gelu" or not config.qkv_bias or config.num_channels != 3:
        raise ValueError(
            f"{weights}: expected a vit or deit with exact GELU, biases and 3 channels, got {kind} with "
            f"{getattr(config, 'hidden_act', 'no')} activation"
        )
    patch, side = config.patch_size, config.image_size
    if (
        not (isinstance(patch, int) and patch >= 1 and isinstance(side, int))
        or config.hidden_size % config.num_attention_heads
    ):
        raise ValueError(
            f"{weights}: expected square patches and a width that its heads divide, got patch_size {patch}, image_size "
            f"{side}, hidden_size {config.hidden_size} and {config.num_attention_heads} heads"
        )
    try:
        loaded = load_file(folder / "model.safetensors")
    except SafetensorError as error:
        raise ValueError(f"{folder / 'model.safetensors'} is damaged: {error}; fetch it again") from error
    tensors = {name.removeprefix(f"{kind}."): array for name, array in loaded.items()}
    mean, deviation = _statistics(folder)
    shape = {
        "width": config.hidden_size,
        "blocks": config.num_hidden_layers,
        "heads": config.num_attention_heads,
        "hidden": config.intermediate_size,
        "patch_size": config.patch_size,
        "prefix": len(PREFIX_TOKENS[kind]),
        "epsilon": config.layer_norm_eps,
        "mean": mean,
        "deviation": deviation,
    }
    emotions = _emotions(config.id2label) if "classifier.weight" in tensors else ()
    return Checkpoint(source=weights, kind=kind, shape=shape, tensors=tensors, emotions=emotions)


def tensor_names(blocks: int) -> dict[str, str]:
    """Return layer of `zoo.vit` -> its name in a checkpoint, where it has a `.weight` and a `.bias`."""
    within = {
        f"block_{k}_{ours}": f"encoder.layer.{k}.{theirs}" for k in range(blocks) for ours, theirs in BLOCK.items()
    }
    return ROOT | within


def write_checkpoint(model: keras.Model, folder: Path, *, emotions: tuple[str, ...]) -> None:
    """Write a `zoo.vit` model as a Hugging Face directory, which transformers and `read_checkpoint` load.

    The picture that their model takes is our grey one, three times over, divided by 255 and normalised as
    preprocessor_config.json says. Raises ValueError for emotions that are not as many as the logits, and for a stem of
    convolutions, which their model does not have.
    """
    from safetensors.numpy import save_file
    from transformers import AutoConfig

    if len(emotions) != model.output_shape[-1]:
        raise ValueError(f"the model has {model.output_shape[-1]} logits, got {len(emotions)} emotions")
    if any(layer.name.startswith("stem_") for layer in model.layers):
        raise ValueError("a ViT of Hugging Face has no stem of convolutions: train one with stem 'patches'")
    place, rescale, norm = (model.get_layer(name) for name in ("position", "rescale", "norm"))
    attention = [layer.output for layer in model.layers if layer.name.endswith("_attention")]
    kind = {len(tokens): kind for kind, tokens in PREFIX_TOKENS.items()}[place.prefix]
    arrays = {"embeddings.position_embeddings": place.positions}
    for k, name in enumerate(PREFIX_TOKENS[kind]):
        arrays[f"embeddings.{name}"] = place.tokens[:, k : k + 1]
    tensors = {f"{kind}.{name}": array for name, array in arrays.items()}
    layers = {ours: f"{kind}.{theirs}" for ours, theirs in tensor_names(len(attention)).items()}
    for ours, theirs in (layers | {"head_logits": "classifier"}).items():
        weight, bias = model.get_layer(ours).get_weights()
        axes = {1: (0,), 2: (1, 0), 4: (3, 2, 0, 1)}[weight.ndim]  # outputs last here, first there
        tensors |= {f"{theirs}.weight": weight.transpose(axes), f"{theirs}.bias": bias}

    folder.mkdir(parents=True, exist_ok=True)
    plain = {name: np.ascontiguousarray(keras.ops.convert_to_numpy(array)) for name, array in tensors.items()}
    save_file(plain, folder / "model.safetensors", metadata={"format": "pt"})  # transformers asks for that mark
    patches = model.get_layer("patches").kernel.shape  # (patch, patch, 3, width)
    AutoConfig.for_model(
        kind,
        architectures=[{"vit": "ViTForImageClassification", "deit": "DeiTForImageClassification"}[kind]],
        image_size=model.input_shape[1],
        patch_size=patches[0],
        hidden_size=patches[3],
        num_hidden_layers=len(attention),
        num_attention_heads=attention[0].shape[1],
        intermediate_size=model.get_layer("block_0_hidden").units,
        layer_norm_eps=norm.epsilon,
        id2label=dict(enumerate(emotions)),
        label2id={emotion: k for k, emotion in enumerate(emotions)},
    ).save_pretrained(folder)
    scale, offset = (np.broadcast_to(value, 3) for value in (rescale.scale, rescale.offset))
    statistics = {"image_mean": (-offset / (255 * scale)).tolist(), "image_std": (1 / (255 * scale)).tolist()}
    processor = {"image_processor_type": "ViTImageProcessor", "rescale_factor": 1 / 255, **statistics}
    processor["size"] = {"height": model.input_shape[1], "width": model.input_shape[1]}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor, indent=2) + "\n", encoding="utf-8")


def interpolate(positions: np.ndarray, *, tokens: int, prefix: int) -> np.ndarray:
    """Return position embeddings (1, tokens, width) for another square grid, bicubic; the first `prefix` stay."""
    if positions.shape[1] == tokens:
        return positions
    old, new = (round((count - prefix) ** 0.5) for count in (positions.shape[1], tokens))
    grid = positions[0, prefix:].reshape(old, old, -1)
    # A channel at a time: OpenCV resizes four at most.
    resized = np.stack(
        [cv2.resize(grid[..., c], (new, new), interpolation=cv2.INTER_CUBIC) for c in range(grid.shape[2])]
    )
    moved = resized.reshape(len(resized), -1).T[None]  # (1, new * new, width)
    return np.concatenate([positions[:, :prefix], moved], axis=1)


def _fetched(weights: str) -> Path:
    if weights.startswith("hf:"):
        from huggingface_hub import snapshot_download

        try:
            return Path(snapshot_download(weights.removeprefix("hf:"), allow_patterns=FILES))
        except Exception as error:  # the hub's and the network's errors share no narrower base
            raise FileNotFoundError(f"{weights} could not be fetched: check the name and the network") from error
    folder = paths.ROOT / weights
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} is no checkpoint: it has no {name}; expected 'hf:<name>' or a directory")
    return folder


def _statistics(folder: Path) -> tuple[tuple, tuple]:
    """Return what to subtract and divide by, per channel, for values 0..1, so that the image processor is met."""
    values = {}
    if (folder / "preprocessor_config.json").is_file():
        from transformers import ImageProcessingMixin

        values, _ = ImageProcessingMixin.get_image_processor_dict(folder)
    # Theirs: (pixels * factor - mean) / deviation. Where it does not rescale or normalise, these are 1, 0 and 1.
    factor = values.get("rescale_factor", 1 / 255) if values.get("do_rescale", True) else 1
    normalise = values.get("do_normalize", True)
    mean, deviation = values.get("image_mean", [0.5] * 3), values.get("image_std", [0.5] * 3)
    mean, deviation = (mean, deviation) if normalise else ([0.0] * 3, [1.0] * 3)
    return tuple(m / (255 * factor) for m in mean), tuple(d / (255 * factor) for d in deviation)


def _emotions(id2label: dict) -> tuple[str, ...]:
    try:
        return tuple(labels.canonical(id2label[k]) for k in sorted(id2label))
    except ValueError:
        return ()  # classes of another task
