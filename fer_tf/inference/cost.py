"""What a model costs: the multiply-adds of an ONNX file, counted over the nodes that one run of it executes."""

import json
from collections.abc import Iterator
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnxruntime

Shape = list[int]

# Multiply-adds of a node from the shapes of its inputs and of its first output. A weight of a convolution is (out, in /
# groups, ...), of a transposed one (in, out / groups, ...); recurrent weights are (directions, gates * units, inputs).
RULES = {
    "Conv": lambda inputs, output: prod(output) * prod(inputs[1][1:]),
    "ConvInteger": lambda inputs, output: prod(output) * prod(inputs[1][1:]),
    "QLinearConv": lambda inputs, output: prod(output) * prod(inputs[3][1:]),
    "ConvTranspose": lambda inputs, output: prod(inputs[0]) * prod(inputs[1][1:]),
    "Gemm": lambda inputs, output: prod(inputs[0]) * output[1],  # whichever way A lies, it holds rows * inner
    **dict.fromkeys(("MatMul", "MatMulInteger", "QLinearMatMul"), lambda inputs, output: prod(output) * inputs[0][-1]),
    **dict.fromkeys(
        ("LSTM", "GRU", "RNN"), lambda inputs, output: prod(inputs[0][:-1]) * (prod(inputs[1]) + prod(inputs[2]))
    ),
}
WITHOUT_RULE = {"Attention", "DFT", "DeformConv", "Det", "STFT"}  # they multiply and add, but no model here has them


def multiply_adds(path: Path) -> int:
    """Count the multiply-adds that an ONNX model needs for one face, or for one clip.

    A batch of one runs once in ONNX Runtime, unoptimised, and every node that ran tells its shapes: those in a loop's
    body as often as they ran. Convolutions, matrix products, Einsum and recurrent cells count. Elementwise work,
    pooling, normalisation and softmax do not: so the published figures are counted, too.

    Raises ValueError for a node of which it is unknown how to count it, and for an input of which more than the batch
    is free.
    """
    model = onnx.load(path)
    nodes = {}
    for node in _nodes(model.graph):
        node.name = f"node_{len(nodes)}"  # a trace knows nodes by name only
        nodes[node.name] = node
    ran, total = set(), 0
    for name, operator, inputs, output in _trace(model, path):
        ran.add(name)
        if operator == "Einsum":
            equation = next(a.s.decode() for a in nodes[name].attribute if a.name == "equation")
            total += _einsum(equation, inputs, path)
        elif operator in RULES:
            total += RULES[operator](inputs, output)
        elif operator in WITHOUT_RULE or not onnx.defs.has(operator):
            raise ValueError(f"{path}: multiply-adds of {operator} are unknown: give cost.py a rule for it")
    for node in model.graph.node:
        if (node.op_type in RULES or node.op_type == "Einsum") and node.name not in ran:
            raise ValueError(f"{path}: ONNX Runtime ran its {node.op_type} as something else, so it cannot be counted")
    return total


def _nodes(graph) -> Iterator:
    """Yield the nodes of a graph and of the bodies inside it."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for body in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from _nodes(body)


def _trace(model, path: Path) -> Iterator[tuple[str, str, list[Shape], Shape]]:
    """Run a batch of one and yield every node that ran: name, operator, shapes of the inputs and the first output."""
    constants = {value.name for value in model.graph.initializer}
    feeds = {value.name: _zeros(value, path) for value in model.graph.input if value.name not in constants}
    with TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.add_session_config_entry("session.disable_prepacking", "1")  # packed weights have no shape in the trace
        options.log_severity_level = 4  # what goes wrong is raised
        options.enable_profiling, options.profile_file_prefix = True, str(Path(folder) / "trace")
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        session.run(None, feeds)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    for event in events:
        if event.get("cat") == "Node":
            about = event["args"]
            inputs, outputs = ([_shape(port) for port in about[f"{side}_type_shape"]] for side in ("input", "output"))
            yield event["name"].removesuffix("_kernel_time"), about["op_name"], inputs, next(iter(outputs), [])


def _shape(port: dict[str, Shape]) -> Shape:
    return next(iter(port.values()), [])  # {"float": [1, 3, 96, 96]}


def _zeros(value, path: Path) -> np.ndarray:
    kind = value.type.tensor_type
    batch, *rest = (side.dim_value if side.HasField("dim_value") else None for side in kind.shape.dim)
    if None in rest:
        raise ValueError(f"{path}: only the batch of input {value.name} may be free, its shape is {[batch, *rest]}")
    return np.zeros((1, *rest), onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type))


def _einsum(equation: str, inputs: list[Shape], path: Path) -> int:
    """A product of two runs once over every index; one alone only moves and adds."""
    terms = equation.replace(" ", "").partition("->")[0].split(",")
    if len(terms) > 2 or "." in equation:
        raise ValueError(f"{path}: multiply-adds of Einsum {equation!r} are unknown: give cost.py a rule for it")
    sides = {}
    for term, shape in zip(terms, inputs, strict=True):
        sides |= zip(term, shape, strict=True)
    return prod(sides.values()) if len(terms) == 2 else 0
