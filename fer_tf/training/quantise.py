"""ONNX to INT8: calibrated on train faces, held against valid ones before anything is called saved."""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fer_tf.card import METADATA_KEY, ModelCard, describe_file
from fer_tf.data.labelled import Splits
from fer_tf.data.split import sample
from fer_tf.inference.cost import multiply_adds
from fer_tf.inference.engine import load_engine
from fer_tf.training.evaluate import predict

ALLOWED = 0.005  # accuracy on valid that INT8 may cost
INT8 = "model-int8.onnx"


@dataclass(frozen=True, kw_only=True)
class Quantised:
    """A saved INT8 file: accuracy on valid and bytes, each (before, after)."""

    path: Path
    accuracy: tuple[float, float]
    bytes: tuple[int, int]


def quantise(source: Path, data: Splits, *, rows: int = 300, seed: int = 0, allowed: float = ALLOWED) -> Quantised:
    """Write model-int8.onnx beside the model.onnx of a folder, and what it is into the card there.

    Weights become 8-bit numbers, and so do activations, over ranges that `rows` faces of train show, every emotion in
    proportion. The file has ONNX's QDQ form and is for OpenVINO, which computes in integers. The card inside it has the
    name with "-int8", and no figures. Source: NNCF (Kozlov et al., "Neural network compression framework for fast model
    inference", 2020).

    Raises FileNotFoundError for a folder without model.onnx; ValueError for a file that takes grey pictures and for
    data that the model was not trained on; RuntimeError, and writes nothing, if accuracy on valid falls by more than
    `allowed`, a share.
    """
    import nncf
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
        raise ValueError(f"{card.name} was trained on {card.data['name']}, not on {data.name} as it is cut here")
    before = _accuracy(engine, data)
    faces = data.train.take(sample(data.train.labels, rows, seed=seed))
    items = [{"crops": crop[None]} for crop in faces.crops(card.image_size)]
    logging.getLogger("nncf").setLevel(logging.ERROR)
    quantised = nncf.quantize(onnx.load(path), nncf.Dataset(items), subset_size=len(items))
    inside = card.with_(name=f"{card.name}-int8", metrics={}, files={})
    onnx.helper.set_model_props(quantised, {METADATA_KEY: inside.to_json()})
    temporary, target = source / f"converting-{INT8}", source / INT8
    try:
        onnx.save(quantised, temporary)
        after = _accuracy(load_engine(temporary), data)
        if before - after > allowed:
            fall = f"from {before:.2%} to {after:.2%}, by more than {allowed:.1%}"
            raise RuntimeError(f"{INT8} was not saved: accuracy on valid falls {fall}")
        about = {"parameters": card.files[path.name].get("parameters"), "multiply_adds": multiply_adds(temporary)}
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    about |= {"valid_accuracy": after, "calibrated_on": f"{len(faces)} train rows of {data.name}"}
    card.with_(files=card.files | {INT8: describe_file(target) | about}).save(source / "card.json")
    return Quantised(path=target, accuracy=(before, after), bytes=(path.stat().st_size, target.stat().st_size))


def _accuracy(engine, data: Splits) -> float:
    return float(np.mean(predict(engine, data.valid).argmax(axis=1) == data.valid.labels))
