"""Keras to ONNX: convert, put the card inside, and prove that three runtimes agree before anything is called saved."""

from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from fer_tf import labels
from fer_tf.card import METADATA_KEY, ModelCard, describe_file
from fer_tf.data.drawn import draw_faces
from fer_tf.files import make_folder
from fer_tf.inference.cost import multiply_adds
from fer_tf.inference.engine import BACKENDS, load_engine
from fer_tf.training.compare import count_parameters
from fer_tf.training.folder import keras_file
from fer_tf.training.keras_engine import KerasEngine, load_keras

OPSET = 18
TOLERANCE = 1e-4  # largest difference of a logit between Keras and a runtime
CONTRACTS = {"fer-tf": "model.onnx", "model-zoo": "model-zoo/model.onnx"}  # and where its file goes by default


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A saved ONNX file. `parity`: runtime -> largest absolute logit difference from Keras on the golden batch."""

    path: Path
    opset: int
    parity: dict


def export(
    source: Path, target: Path | None = None, *, contract: str = "fer-tf", tolerance: float = TOLERANCE
) -> Exported:
    """Write the ONNX file of a run folder or `.keras` file; beside it, card.json says what it is.

    contract  what the graph takes and gives, for any n. "fer-tf": `crops` uint8 (n, s, s, 3) RGB in, `logits` float32
              (n, emotions) out, then the model's other outputs; a clip model takes a whole window (n, window, s, s, 3)
              and keeps no state between calls: one file serves any number of faces, and a frame that was missed spoils
              nothing. "model-zoo", that of emotion-ferplus-8.onnx in the ONNX Model Zoo: `Input3` float32
              (n, 1, 64, 64) grey 0..255 in, scores `Plus692_Output_0` float32 (n, 8) out, in the order of
              `labels.FERPLUS_PUBLISHED`
    target    by default model.onnx in the source's folder, under "model-zoo" in a folder model-zoo there

    Raises ValueError for a model that cannot keep the contract, RuntimeError, and writes nothing, if a runtime's logits
    differ from Keras by more than `tolerance`.
    """
    engine = load_keras(source)
    card = _promise(engine.card, contract)
    folder = source if source.is_dir() else source.parent
    if target and (target.suffix != ".onnx" or not target.parent.is_dir()):
        raise ValueError(f"expected a path that ends in .onnx in a folder that exists, got {target}")
    target = target or folder / CONTRACTS[contract]
    card_path = target.with_name("card.json")
    if target.parent.resolve() != folder.resolve() or card != engine.card:
        card = card.with_(files={})
        if card_path.is_file() and ModelCard.load(card_path).with_(files={}) != card:
            raise ValueError(f"{target.parent} holds the card of another model: export into a folder of its own")
    temporary = (target.parent if target.parent.is_dir() else folder) / f"converting-{target.name}"
    try:
        _convert(engine, card, temporary)
        parity = {backend: _difference(engine, load_engine(temporary, backend=backend)) for backend in BACKENDS}
        if worst := {b: d for b, d in parity.items() if not d <= tolerance}:
            raise RuntimeError(
                f"{target.name} was not saved: outputs differ from Keras by {worst}, allowed is {tolerance}"
            )
        cost = {"parameters": count_parameters(keras_file(source)), "multiply_adds": multiply_adds(temporary)}
        make_folder(target.parent)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    described = describe_file(target) | cost | {"opset": OPSET, "parity": parity}
    there = ModelCard.load(card_path).files if card_path.is_file() else {}  # more may have come in the meantime
    card.with_(files=card.files | there | {target.name: described}).save(card_path)
    return Exported(path=target, opset=OPSET, parity=parity)


def golden_batch(image_size: int, *, window: int = 1) -> np.ndarray:
    """Return uint8 (8, image_size, image_size, 3): drawn faces, one black and one of noise.

    For a `window` above 1 it is (8, window, image_size, image_size, 3), in which every frame is another one of these.
    """
    crops = draw_faces(8, size=48, seed=7).crops(image_size).copy()
    crops[6] = 0
    crops[7] = np.random.default_rng(7).integers(0, 256, crops[7].shape)
    return crops if window == 1 else crops[(np.arange(8)[:, None] + np.arange(window)) % 8]


def _promise(card: ModelCard, contract: str) -> ModelCard:
    """Return the card of the file that a model becomes under a contract; ValueError if it cannot keep it."""
    if contract not in CONTRACTS:
        raise ValueError(f"unknown contract {contract!r}; known are {', '.join(CONTRACTS)}")
    if contract == "fer-tf":
        return card
    emotions = tuple(map(labels.canonical, labels.FERPLUS_PUBLISHED))
    if set(card.emotions) != set(emotions) or card.image_size != 64 or card.window > 1:
        found = f"{', '.join(card.emotions)} at {card.image_size} px" + f", {card.window} frames" * (card.window > 1)
        raise ValueError(
            f"the ONNX Model Zoo's contract is one picture of 64 px and the 8 emotions of FER+, but {card.name} knows "
            f"{found}: train ferplus_vgg13 on the data set ferplus"
        )
    return card.with_(emotions=emotions, colour="GREY", layout="NCHW")


def _convert(engine: KerasEngine, card: ModelCard, path: Path) -> None:
    """Write the model as the ONNX file that `card` describes."""
    if keras.backend.backend() != "tensorflow":
        raise RuntimeError("export converts a TensorFlow graph: start Python with KERAS_BACKEND=tensorflow")
    import onnx
    import tensorflow as tf
    import tf2onnx
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    tf.get_logger().setLevel("ERROR")  # tf2onnx uses functions that TensorFlow calls old
    if card.layout == "NCHW":
        entry, names, columns = "Input3", ["Plus692_Output_0"], _columns(engine.card, card)
        signature = tf.TensorSpec((None, 1, card.image_size, card.image_size), tf.float32, name=entry)

        @tf.function(input_signature=[signature])
        def outputs(grey):
            crops = tf.tile(tf.transpose(grey, (0, 2, 3, 1)), (1, 1, 1, 3))  # the luma of grey is grey
            return [tf.gather(engine.model(crops, training=False), columns, axis=1)]
    else:
        entry, names = "crops", list(engine.model_outputs)
        model = keras.Model(engine.model.input, list(engine.model_outputs.values()))

        @tf.function(input_signature=[tf.TensorSpec((None, *card.input_shape), tf.uint8, name=entry)])
        def outputs(crops):
            return tf.nest.flatten(model(tf.cast(crops, tf.float32), training=False))

    # Frozen first: tf2onnx would make inputs of the constants that a layer captures, such as EfficientNet's statistics.
    frozen = convert_variables_to_constants_v2(outputs.get_concrete_function(), lower_control_flow=False)
    converted, _ = tf2onnx.convert.from_graph_def(
        frozen.graph.as_graph_def(),
        input_names=[value.name for value in frozen.inputs],
        output_names=[value.name for value in frozen.outputs],
        opset=OPSET,
        custom_op_handlers={"Erfc": (_erfc, [])},
    )
    _rename(converted.graph, dict(zip((value.name for value in frozen.outputs), names, strict=True)))
    _rename(converted.graph, {frozen.inputs[0].name: entry})
    onnx.helper.set_model_props(converted, {METADATA_KEY: card.with_(files={}).to_json()})
    onnx.checker.check_model(converted)
    onnx.save(converted, path)


def _erfc(context, node, name, args) -> None:
    """Write TensorFlow's Erfc, into which it turns GELU, as 1 - Erf(x): ONNX has no Erfc."""
    one = context.make_const(name + "_one", np.array(1, np.float32))
    erf = context.make_node("Erf", node.input)
    shapes, dtypes = node.output_shapes, node.output_dtypes
    context.remove_node(name)
    context.make_node(
        "Sub", [one.output[0], erf.output[0]], name=name, outputs=node.output, shapes=shapes, dtypes=dtypes
    )


def _rename(graph, new: dict[str, str]) -> None:
    """Rename values of an ONNX graph: old name -> new name."""
    for value in (*graph.input, *graph.output):
        value.name = new.get(value.name, value.name)
    for node in graph.node:
        node.output[:] = [new.get(value, value) for value in node.output]
        node.input[:] = [new.get(value, value) for value in node.input]


def _difference(engine: KerasEngine, runtime) -> float:
    """Return the largest absolute difference of any output over the golden batch, at batch sizes 8, 3 and 1.

    Where the file takes grey, its engine hands it the very luma, unrounded, that the model makes of the same crops.
    """
    crops = golden_batch(engine.card.image_size, window=engine.card.window)
    expected = engine.run(crops)
    expected["logits"] = expected["logits"][:, _columns(engine.card, runtime.card)]
    found = {n: runtime.run(crops[:n]) for n in (8, 3, 1)}
    return max(float(np.abs(run[name] - expected[name][:n]).max()) for n, run in found.items() for name in run)


def _columns(of: ModelCard, wanted: ModelCard) -> list[int]:
    """Return where the logits of one card's model lie in the order of another's emotions."""
    return [of.emotions.index(emotion) for emotion in wanted.emotions]
