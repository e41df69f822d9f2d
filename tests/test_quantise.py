"""INT8: calibrated, judged on valid, and refused where it costs too much."""

from dataclasses import replace

import numpy as np
import onnx
import pytest

from fer_tf.card import ModelCard
from fer_tf.inference.engine import BACKENDS, load_engine
from fer_tf.training.evaluate import predict
from fer_tf.training.export import export
from fer_tf.training.fit import build_model, fit
from fer_tf.training.quantise import FP16, INT8, quantise
from fer_tf.training.recipe import Augmentation, Recipe


@pytest.fixture(scope="module")
def exported(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("int8") / "run"
    still = Augmentation(flip=False, shift=0.0, rotate=0.0)
    choices = {
        "options": {"filters": [8, 8, 8]},
        "image_size": 32,
        "batch_size": 16,
        "epochs": 3,
        "learning_rate": 5e-3,
    }
    recipe = Recipe(augmentation=still, **choices)
    fit(build_model(recipe, emotions=7), tiny, recipe, folder, report=lambda line: None)
    export(folder)
    return folder


def test_it_is_smaller_and_about_as_good(exported, tiny):
    done = quantise(exported, tiny, rows=30, allowed=0.1)
    assert done.path == exported / INT8 and done.bytes[1] < 0.6 * done.bytes[0]
    full, small = load_engine(exported), load_engine(done.path)
    assert small.card.name == "run-int8" and small.card.temperature == full.card.temperature
    expected, found = (predict(engine, tiny.test) for engine in (full, small))
    assert 0 < np.abs(expected - found).max() < 1.5
    accuracy = np.mean(found.argmax(axis=1) == tiny.test.labels)
    assert small.card.metrics["test"]["accuracy"] == accuracy and small.card.metrics["test"]["n"] == 35
    about = ModelCard.load(exported / "card.json").files
    assert (
        about[INT8]["valid_accuracy"] == done.accuracy[1]
        and about[INT8]["calibrated_on"] == "30 train rows of patterns"
    )
    assert {node.op_type for node in onnx.load(done.path).graph.node} >= {"QuantizeLinear", "DequantizeLinear"}


def test_weights_of_16_bits_are_half_the_file_and_change_little(exported, tiny):
    done = quantise(exported, tiny, precision="fp16")
    assert done.path == exported / FP16 and done.bytes[1] < 0.6 * done.bytes[0]
    full, small = load_engine(exported), load_engine(done.path)
    assert small.card.name == "run-fp16" and ModelCard.load(exported / "card.json").files[FP16]["valid_accuracy"]
    for backend in BACKENDS:
        found = predict(load_engine(done.path, backend=backend), tiny.test)
        assert 0 < np.abs(predict(full, tiny.test) - found).max() < 0.05
    with pytest.raises(ValueError, match="unknown precision 'int4'; known are int8, fp16"):
        quantise(exported, tiny, precision="int4")


def test_a_loss_of_accuracy_is_refused_and_leaves_nothing(exported, tiny, tmp_path, monkeypatch):
    for path in (exported / "model.onnx", exported / "card.json"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(RuntimeError, match=r"was not saved: accuracy on valid falls"):
        quantise(tmp_path, tiny, rows=30, allowed=-1.0)
    assert {path.name for path in tmp_path.iterdir()} == {"model.onnx", "card.json"}

    def slowly(*given):
        ModelCard.load(tmp_path / "card.json").with_(files={"meanwhile": {}}).save(tmp_path / "card.json")
        return predict(*given)

    with monkeypatch.context() as patch:
        patch.setattr("fer_tf.training.quantise.predict", slowly)
        quantise(tmp_path, tiny, precision="fp16")
    assert set(ModelCard.load(tmp_path / "card.json").files) == {"meanwhile", FP16}
    with pytest.raises(ValueError, match="was trained on patterns, not on patterns as it is cut here"):
        quantise(tmp_path, replace(tiny, train=tiny.valid), rows=30)
    with pytest.raises(FileNotFoundError, match="run `fer-tf export` first"):
        quantise(tmp_path / "elsewhere", tiny)
