"""ONNX to INT8 or to FP16 weights, held against valid faces before anything is called saved."""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fer_tf.card import METADATA_KEY, ModelCard, describe_file
from fer_tf.data.labelled import Splits
from fer_tf.data.split import sample
from fer_tf.inference.cost import multiply_adds
from fer_tf.inference.engine import load_engine
from fer_tf.training.evaluate import headline, judge, predict

ALLOWED = 0.005  # accuracy on valid that it may cost
INT8, FP16 = "model-int8.onnx", "model-fp16.onnx"
FILES = {"int8": INT8, "fp16": FP16}
HALF_MAX = 65504  # the largest number of 16 bits


@dataclass(frozen=True, kw_only=True)
class Quantised:
    """A saved file: accuracy on valid and bytes, each (before, after)."""

    path: Path
    accuracy: tuple[float, float]
    bytes: tuple[int, int]


def quantise(
    source: Path,
    data: Splits,
    *,
    precision: str = "int8",
    rows: int = 300,
    seed: int = 0,
    allowed: float = ALLOWED,
) -> Quantised:
    """Write model-int8.onnx or model-fp16.onnx beside the model.onnx of a folder, and what it is into the card there.

    int8  weights become 8-bit numbers, and so do activations, over ranges that `rows` faces of train show, every
          emotion in proportion. The file has ONNX's QDQ form and is for OpenVINO, which computes in integers. Source:
          NNCF (Kozlov et al., "Neural network compression framework for fast model inference", 2020)
    fp16  weights are kept in 16 bits, half the file; every runtime computes in 32 bits as before

    The card inside has the name with "-int8" or "-fp16", and the figures of that file.

    Raises FileNotFoundError for a folder without model.onnx; ValueError for a file that takes grey pictures, for data
    that the model was not trained on and for an unknown precision; RuntimeError, and writes nothing, if accuracy on
    valid falls by more than `allowed`, a share.
    """
    if precision not in FILES:
        raise ValueError(f"unknown precision {precision!r}; known are {', '.join(FILES)}")
    import onnx

    path = source / "model.onnx"
    if not path.is_file():
        raise FileNotFoundError(f"{source} has no model.onnx: run `fer-tf export` first, or give another folder")
    card, engine = ModelCard.load(source / "card.json"), load_engine(path)
    if card.layout != "NHWC":
        raise ValueError(
            f"{path} takes grey pictures, as the ONNX Model Zoo has them: quantise the run's own model.onnx"
        )
    known = card.data.get("fingerprint")
    if known and known != data.fingerprint:
        raise ValueError(
            f"{card.name} was trained on {card.data['name']}, not on {data.name} as it is cut here: take the data set, "
            "labels and limit of its training"
        )
    before = _accuracy(engine, data)
    about = {"parameters": card.files.get(path.name, {}).get("parameters")}
    if precision == "int8":
        faces = data.train.take(sample(data.train.labels, rows, seed=seed))
        smaller = _in_integers(onnx.load(path), faces.crops(card.image_size))
        about["calibrated_on"] = f"{len(faces)} train rows of {data.name}"
    else:
        smaller = _in_halves(onnx.load(path))
    inside = card.with_(name=f"{card.name}-{precision}", metrics={}, files={})
    target = source / FILES[precision]
    temporary = source / f"converting-{target.name}"
    try:
        _save(smaller, inside, temporary)
        after = _accuracy(load_engine(temporary), data)
        if before - after > allowed:
            fall = f"from {before:.2%} to {after:.2%}, by more than {allowed:.1%}"
            raise RuntimeError(f"{target.name} was not saved: accuracy on valid falls {fall}")
        judged, _ = judge(load_engine(temporary), data)
        _save(smaller, inside.with_(metrics={k: headline(r.to_dict()) for k, r in judged.items()}), temporary)
        about |= {"multiply_adds": multiply_adds(temporary), "valid_accuracy": after}
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    now = ModelCard.load(source / "card.json")  # another file may have come while this one was judged
    now.with_(files=now.files | {target.name: describe_file(target) | about}).save(source / "card.json")
    return Quantised(path=target, accuracy=(before, after), bytes=(path.stat().st_size, target.stat().st_size))


def _in_integers(model, crops: np.ndarray):
    """Return an ONNX model as NNCF quantises it, on crops uint8 (n, ...).

    What sees the pixels, up to the first convolution, stays as it is, and biases are corrected by what errors really
    come to: on MobileNetV2 accuracy on FER2013's valid rows falls by 0.2 points so, and by 1.2 with NNCF's defaults.
    """
    import nncf

    logging.getLogger("nncf").setLevel(logging.ERROR)
    items = [{"crops": crop[None]} for crop in crops]
    nodes = [node for node in model.graph.node if node.op_type in ("Conv", "MatMul", "Gemm")]
    first = next((k for k, node in enumerate(nodes) if node.op_type == "Conv"), 0)
    return nncf.quantize(
        model,
        nncf.Dataset(items),
        subset_size=len(items),
        preset=nncf.QuantizationPreset.MIXED,
        fast_bias_correction=False,
        ignored_scope=nncf.IgnoredScope(names=[node.name for node in nodes[: first + 1]]),
    )


def _in_halves(model):
    """Return an ONNX model with its weights in 16 bits, each cast to 32 where it is used."""
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if tensor.data_type == TensorProto.FLOAT and values.size > 1 and np.abs(values).max() <= HALF_MAX:
            name = tensor.name
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}_half"))
            casts.append(helper.make_node("Cast", [f"{name}_half"], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def _save(model, card: ModelCard, path: Path) -> None:
    import onnx

    onnx.helper.set_model_props(model, {METADATA_KEY: card.to_json()})
    onnx.save(model, path)


def _accuracy(engine, data: Splits) -> float:
    return float(np.mean(predict(engine, data.valid).argmax(axis=1) == data.valid.labels))
