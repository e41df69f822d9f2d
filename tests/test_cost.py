"""Multiply-adds are those that a hand counts."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fer_tf import paths
from fer_tf.inference.cost import multiply_adds


def saved(path, nodes, *, x=("N", 4, 6), opset=18, **weights):
    """Save a graph that maps float "x" to "y"; `weights` are shapes of float constants, or arrays."""
    arrays = {k: w if isinstance(w, np.ndarray) else np.ones(w, np.float32) for k, w in weights.items()}
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, x)]
    outputs = [helper.make_empty_tensor_value_info("y")]
    constants = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "cost", inputs, outputs, constants)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


def node(operator, *inputs, **attributes):
    return helper.make_node(operator, ["x", *inputs], ["y"], **attributes)


IMAGE = ("N", 4, 9, 9)


@pytest.mark.parametrize(
    ("nodes", "graph", "expected"),
    [
        ([node("Conv", "w", strides=[2, 2])], {"x": IMAGE, "w": (8, 4, 3, 3)}, 8 * 4 * 4 * (4 * 3 * 3)),
        ([node("Conv", "w", pads=[1, 1, 1, 1])], {"x": IMAGE, "w": (8, 4, 3, 3)}, 8 * 9 * 9 * (4 * 3 * 3)),
        ([node("Conv", "w", group=4)], {"x": IMAGE, "w": (4, 1, 3, 3)}, 4 * 7 * 7 * (3 * 3)),
        ([node("ConvTranspose", "w", strides=[2, 2])], {"x": IMAGE, "w": (4, 5, 2, 2)}, 4 * 9 * 9 * (5 * 2 * 2)),
        ([node("Gemm", "w", transA=1)], {"x": (1, 5), "w": (1, 3)}, 5 * 1 * 3),
        ([node("Gemm", "w", transB=1)], {"x": ("N", 5), "w": (3, 5)}, 5 * 3),
        ([node("MatMul", "w")], {"w": (6, 3)}, 4 * 6 * 3),
        ([node("Einsum", "w", equation="nab,bcd->nacd")], {"w": (6, 2, 5)}, 4 * 6 * 2 * 5),
        ([node("Einsum", equation="nab->nba")], {}, 0),
        ([node("Relu")], {}, 0),
        ([node("MaxPool", kernel_shape=[2, 2])], {"x": IMAGE}, 0),
        (
            # rows are 4 steps of one sequence; two directions of 4 gates, 5 units, 6 inputs
            [
                helper.make_node("Transpose", ["x"], ["steps"], perm=[1, 0, 2]),
                helper.make_node("LSTM", ["steps", "w", "r"], ["y"], hidden_size=5, direction="bidirectional"),
            ],
            {"w": (2, 20, 6), "r": (2, 20, 5)},
            4 * 2 * 20 * (6 + 5),
        ),
        (
            # what is free only in name: the graph computes its own shape
            [
                helper.make_node("Shape", ["x"], ["batch"], start=0, end=1),
                helper.make_node("Concat", ["batch", "rest"], ["shape"], axis=0),
                helper.make_node("Reshape", ["x", "shape"], ["flat"]),
                helper.make_node("MatMul", ["flat", "w"], ["y"]),
            ],
            {"rest": np.array([24]), "w": (24, 3)},
            24 * 3,
        ),
    ],
    ids=lambda value: value[-1].op_type if isinstance(value, list) else "",
)
def test_counts_as_a_hand_does(nodes, graph, expected, tmp_path):
    assert multiply_adds(saved(tmp_path / "model.onnx", nodes, **graph)) == expected


def test_a_loop_counts_as_often_as_it_runs(tmp_path):
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["state", "w"], ["next"]),
            helper.make_node("Identity", ["going"], ["on"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("step", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, None),
        ],
    )
    loop = helper.make_node("Loop", ["times", "", "x"], ["y"], body=body)
    path = saved(tmp_path / "model.onnx", [loop], times=np.array(7), w=(6, 6))
    assert multiply_adds(path) == 7 * (4 * 6 * 6)


@pytest.mark.parametrize(
    ("nodes", "graph", "words"),
    [
        ([helper.make_node("FusedMatMul", ["x", "w"], ["y"], domain="com.microsoft")], {"w": (6, 3)}, "FusedMatMul"),
        ([node("DFT")], {"x": ("N", 6, 1)}, "of DFT are unknown: give cost.py a rule"),
        ([node("Einsum", "w", "w", equation="nab,bb,bb->na")], {"w": (6, 6)}, "Einsum 'nab,bb,bb->na'"),
        ([node("Relu")], {"x": ("N", "rows", 3)}, r"only the batch of input x may be free"),
    ],
    ids=["foreign", "no rule", "three factors", "free side"],
)
def test_what_cannot_be_counted_is_no_silent_zero(nodes, graph, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        multiply_adds(saved(tmp_path / "model.onnx", nodes, **graph))


def test_shipped_models_cost_what_is_published():
    """MobileNetV2 at 224 px has 300 M (Sandler et al. 2018), 1.28 M of them in its classifier of 1000 classes."""
    shipped = multiply_adds(paths.MODELS / "mobilenet_v2" / "model.onnx")
    assert shipped == pytest.approx((300e6 - 1.28e6) * (96 / 224) ** 2, rel=0.01)
    grey, convolutions = 48 * 48 * 3, 25 * (48**2 * 32 + 24**2 * 32 * 64 + 12**2 * 64 * 120)
    dense = 6 * 6 * 120 * 84 + 84 * 7
    assert multiply_adds(paths.MODELS / "lenet" / "model.onnx") == grey + convolutions + dense


@pytest.mark.parametrize(("name", "published"), [("resnet50", 4.09e9), ("squeezenet", 0.35e9)])
def test_known_networks_cost_what_is_published(name, published):
    """Of torchvision's table of models; the networks, without their weights, come with onnx."""
    path = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light" / f"light_{name}.onnx"
    assert multiply_adds(path) == pytest.approx(published, rel=0.005)
