"""Keras to ONNX: convert, put the card inside, and prove that three runtimes agree before anything is called saved."""

from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from fer_tf.card import METADATA_KEY, ModelCard, describe_file
from fer_tf.data.drawn import draw_faces
from fer_tf.inference.engine import BACKENDS, load_engine
from fer_tf.training.keras_engine import KerasEngine, load_keras

OPSET = 18
TOLERANCE = 1e-4  # largest difference of a logit between Keras and a runtime
RUNTIMES = BACKENDS


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A saved ONNX file. `parity`: runtime -> largest absolute logit difference from Keras on the golden batch."""

    path: Path
    opset: int
    parity: dict


def export(source: Path, target: Path | None = None, *, tolerance: float = TOLERANCE) -> Exported:
    """Write the ONNX file of a run folder or `.keras` file; beside it, card.json says what it is.

    The graph takes `crops` uint8 (n, s, s, 3) RGB with any n and gives `logits` float32 (n, emotions). Raises
    RuntimeError, and writes nothing, if a runtime's logits differ from Keras by more than `tolerance`.
    """
    engine = load_keras(source)
    folder = source if source.is_dir() else source.parent
    target = target or folder / "model.onnx"
    if target.suffix != ".onnx" or not target.parent.is_dir():
        raise ValueError(f"expected a path that ends in .onnx in a folder that exists, got {target}")
    card, card_path = engine.card, target.with_name("card.json")
    if target.parent.resolve() != folder.resolve():
        card = card.with_(files={})
        if card_path.is_file() and ModelCard.load(card_path).with_(files={}) != card:
            raise ValueError(f"{target.parent} holds the card of another model: export into a folder of its own")
    temporary = target.with_name(f"converting-{target.name}")
    try:
        _convert(engine, temporary)
        parity = {backend: _difference(engine, load_engine(temporary, backend=backend)) for backend in RUNTIMES}
        if worst := {b: d for b, d in parity.items() if not d <= tolerance}:
            raise RuntimeError(
                f"{target.name} was not saved: logits differ from Keras by {worst}, allowed is {tolerance}"
            )
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    described = describe_file(target) | {"opset": OPSET, "parity": parity}
    card.with_(files=card.files | {target.name: described}).save(card_path)
    return Exported(path=target, opset=OPSET, parity=parity)


def golden_batch(image_size: int) -> np.ndarray:
    """Return uint8 (8, image_size, image_size, 3): drawn faces, one black and one of noise."""
    crops = draw_faces(8, size=48, seed=7).crops(image_size).copy()
    crops[6] = 0
    crops[7] = np.random.default_rng(7).integers(0, 256, crops[7].shape)
    return crops


def _convert(engine: KerasEngine, path: Path) -> None:
    if keras.backend.backend() != "tensorflow":
        raise RuntimeError("export converts a TensorFlow graph: start Python with KERAS_BACKEND=tensorflow")
    import onnx
    import tensorflow as tf
    import tf2onnx

    size = engine.card.image_size
    signature = [tf.TensorSpec((None, size, size, 3), tf.uint8, name="crops")]

    @tf.function(input_signature=signature)
    def logits(crops):
        return tf.identity(engine.model(tf.cast(crops, tf.float32), training=False), name="logits")

    model, _ = tf2onnx.convert.from_function(logits, input_signature=signature, opset=OPSET)
    _rename_output(model.graph, "logits")
    onnx.helper.set_model_props(model, {METADATA_KEY: engine.card.with_(files={}).to_json()})
    onnx.checker.check_model(model)
    onnx.save(model, path)


def _rename_output(graph, name: str) -> None:
    """Name the graph's only output."""
    old, graph.output[0].name = graph.output[0].name, name
    for node in graph.node:
        node.output[:] = [name if output == old else output for output in node.output]
        node.input[:] = [name if value == old else value for value in node.input]


def _difference(engine: KerasEngine, runtime) -> float:
    """Return the largest absolute logit difference over the golden batch, at batch sizes 8, 3 and 1."""
    crops = golden_batch(engine.card.image_size)
    expected = engine.logits(crops)
    return max(float(np.abs(runtime.logits(crops[:n]) - expected[:n]).max()) for n in (8, 3, 1))
