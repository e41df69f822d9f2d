"""`fer-tf measure`: one architecture at a time, exported, each backend alone in its process."""

import json

import keras
import pytest

from fer_tf import zoo
from fer_tf.files import write_atomically
from fer_tf.inference.alone import measure_alone
from fer_tf.inference.engine import BACKENDS
from fer_tf.training.export import golden_batch
from fer_tf.training.measure import PUBLISHED, conditions, measure, others, scale_logits


@pytest.fixture
def toy(monkeypatch):
    """The zoo's only architecture: LeNet, narrow, on clips of two frames, which go through it as their mean."""
    lenet = zoo.build

    def build(name, *, emotions):
        clip = keras.Input((2, 48, 48, 3))
        return keras.Model(clip, lenet("lenet", emotions=emotions, filters=(4, 4, 4), dense=8)(keras.ops.mean(clip, 1)))

    monkeypatch.setattr(zoo, "build", build)
    monkeypatch.setitem(PUBLISHED, "lenet", {"images_per_s": 1.5, "cpu": "abacus", "method": "m", "source": "s"})


def test_measures_what_it_names(toy):
    heard = []
    ((name, figures),) = measure(["lenet"], runs=3, threads=1, progress=lambda *done: heard.append(done))
    assert name == "lenet" and heard == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert json.loads(json.dumps(figures))["input_shape"] == [2, 48, 48, 3]
    convolutions = 25 * (48**2 * 4 + 24**2 * 4 * 4 + 12**2 * 4 * 4)
    assert figures["multiply_adds"] == 48 * 48 * 3 + convolutions + 6 * 6 * 4 * 8 + 8 * 7
    weights = 25 * (4 + 16 + 16) + 6 * 6 * 4 * 8 + 8 * 7 + 7
    norms = 2 * (4 + 4 + 4 + 8)  # scale and offset, and as many statistics
    assert (figures["trainable_parameters"], figures["parameters"]) == (weights + norms, weights + 2 * norms)
    assert set(figures["parity"]) == set(figures["backends"]) == set(BACKENDS)
    for timed in figures["backends"].values():
        for batch in ("1", "8"):
            assert timed["batches"][batch]["images_per_s"] > 0
            assert timed["batches"][batch]["latency_ms"]["p50"] <= timed["batches"][batch]["latency_ms"]["p95"]
        memory = timed["memory_mb"]
        assert memory["imported"] is None or 20 < memory["imported"] < memory["peak"]
    assert figures["published"]["cpu"] == "abacus"


def test_a_new_networks_logits_are_as_large_as_a_trained_ones():
    model, crops = zoo.build("vgg", emotions=7, width=4, dense=8), golden_batch(48)
    assert not 0.5 < model.predict(crops, verbose=0).std() < 2
    scale_logits(model, crops)
    assert model.predict(crops, verbose=0).std() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("names", "runs", "words"),
    [(["lenet", "alexnet"], 5, "unknown architecture 'alexnet'"), (["lenet"], 0, "at least 1")],
)
def test_refuses_before_any_work(names, runs, words, monkeypatch):
    monkeypatch.setattr(zoo, "build", None)
    with pytest.raises(ValueError, match=words):
        next(measure(names, runs=runs))


def test_a_table_is_one_machines(tmp_path):
    path, about = tmp_path / "measured.json", conditions(runs=5, threads=None)
    assert others(path, ["lenet"], about) == {}
    write_atomically(path, json.dumps(about | {"architectures": {"lenet": {"a": 1}, "vgg": {"b": 2}}}).encode())
    assert others(path, ["lenet"], about) == {"vgg": {"b": 2}}
    slower = about | {"host": about["host"] | {"cpu": "abacus"}, "runs": 6}
    with pytest.raises(ValueError, match="measured with another cpu and runs: measure all of them anew"):
        others(path, ["lenet"], slower)
    assert others(path, ["lenet", "vgg"], slower) == {}  # nothing stays
    for text in ("no JSON", "[]", "{}"):
        path.write_text(text)
        with pytest.raises(ValueError, match="was not written by `fer-tf measure`"):
            others(path, ["lenet"], about)


def test_a_process_that_fails_says_why(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"cut")
    with pytest.raises(RuntimeError, match=r"could not be measured on cpu: ValueError: .* no ONNX model"):
        measure_alone(tmp_path / "model.onnx", backend="cpu")
