"""A whole classifier in a few ONNX nodes: no Keras and no training needed."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fer_tf.card import METADATA_KEY, ModelCard
from fer_tf.labels import FER2013

HAPPY_IS_RED = np.zeros((3, 7), np.float32)
HAPPY_IS_RED[0, FER2013.index("happy")] = HAPPY_IS_RED[2, FER2013.index("sad")] = 8.0


def write_onnx(
    path: Path,
    *,
    image_size: int = 48,
    window: int = 1,
    card: ModelCard | str | None = "",
    embedding: bool = False,
    nodes: int = 5,
) -> Path:
    """Write a model that sees red crops as happy and blue ones as sad.

    window  above 1 it sees the mean colour of so many crops
    card    "" for a fitting one, None for none
    nodes   3 makes the same model in so few nodes that OpenVINO's provider leaves them to another
    """
    if card == "":
        size = {"image_size": image_size, "window": window}
        card = ModelCard(name="colours", architecture="mean colour", emotions=FER2013, **size)
    frames = [window] if window > 1 else []
    weights = {
        "axes": np.arange(1, 3 + len(frames)),
        "unit": np.float32([1 / 255]),
        "w": HAPPY_IS_RED,
        "b": np.zeros(7, np.float32),
        "v": np.ones((3, 4), np.float32),
    }
    mean = [helper.make_node("Cast", ["crops"], ["pixels"], to=TensorProto.FLOAT)]
    if nodes == 3:
        mean += [helper.make_node("ReduceMean", ["pixels", "axes"], ["mean"], keepdims=0)]
        head = [helper.make_node("Gemm", ["mean", "w", "b"], ["logits"])]
    else:
        mean += [helper.make_node("Mul", ["pixels", "unit"], ["scaled"])]
        mean += [helper.make_node("ReduceMean", ["scaled", "axes"], ["mean"], keepdims=0)]
        head = [helper.make_node("MatMul", ["mean", "w"], ["product"])]
        head += [helper.make_node("Add", ["product", "b"], ["logits"])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 7])]
    if embedding:
        head += [helper.make_node("MatMul", ["mean", "v"], ["embedding"])]
        outputs += [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", 4])]
    inputs = [helper.make_tensor_value_info("crops", TensorProto.UINT8, ["N", *frames, image_size, image_size, 3])]
    used = {name for node in mean + head for name in node.input}
    initializers = [numpy_helper.from_array(value, name) for name, value in weights.items() if name in used]
    graph = helper.make_graph(mean + head, "colours", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    if card is not None:
        helper.set_model_props(model, {METADATA_KEY: card.to_json()})
    onnx.save(model, path)
    return path


def write_model_zoo(path: Path, *, seed: int = 0) -> np.ndarray:
    """Write a random classifier with the ports, the opset and the missing metadata of the ONNX Model Zoo's files.

    It is linear: returns float32 (64 * 64, 8), what it multiplies (pixels - 127.5) / 255 with. The batch is fixed at 1,
    and weights are listed as inputs, as files of that age have them.
    """
    matrix = np.random.default_rng(seed).normal(0, 0.05, (64 * 64, 8)).astype(np.float32)
    weights = {"centre": np.float32(127.5), "scale": np.float32(255), "shape": np.array([1, 4096]), "w": matrix}
    weights |= {"b": np.zeros(8, np.float32)}
    nodes = [
        helper.make_node("Sub", ["Input3", "centre"], ["centred"]),
        helper.make_node("Div", ["centred", "scale"], ["scaled"]),
        helper.make_node("Reshape", ["scaled", "shape"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["product"]),
        helper.make_node("Add", ["product", "b"], ["Plus692_Output_0"]),
    ]
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
    listed = [helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in initializers]
    inputs = [helper.make_tensor_value_info("Input3", TensorProto.FLOAT, [1, 1, 64, 64]), *listed]
    outputs = [helper.make_tensor_value_info("Plus692_Output_0", TensorProto.FLOAT, [1, 8])]
    graph = helper.make_graph(nodes, "CNTKGraph", inputs, outputs, initializers)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 8)], ir_version=3), path)
    return matrix
