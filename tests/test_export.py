import json

import keras
import numpy as np
import pytest
from conftest import small_size

from fer_tf import labels, zoo
from fer_tf.card import ModelCard
from fer_tf.inference.engine import load_engine
from fer_tf.training import export as exporting
from fer_tf.training.compare import count_parameters
from fer_tf.training.export import OPSET, RUNTIMES, TOLERANCE, export, golden_batch
from fer_tf.training.keras_engine import load_keras


def saved(folder, name: str):
    """Save an untrained network with a card, as a run folder has them."""
    keras.utils.set_random_seed(0)
    size = small_size(name)
    model = zoo.build(name, emotions=7, image_size=size)
    model.save(folder / "model.keras")
    card = ModelCard(name=f"toy {name}", architecture=name, emotions=labels.FER2013, image_size=size)
    card.save(folder / "card.json")
    return card


@pytest.mark.parametrize("name", [n for n in zoo.ARCHITECTURES if n != "efficientnet_b4"])  # b0 is its like
def test_three_runtimes_agree_with_keras(name, tmp_path):
    card = saved(tmp_path, name)
    exported = export(tmp_path)
    assert set(exported.parity) == set(RUNTIMES) and max(exported.parity.values()) <= TOLERANCE
    described = ModelCard.load(tmp_path / "card.json").files["model.onnx"]
    assert described["opset"] == OPSET and described["bytes"] == exported.path.stat().st_size
    assert described["multiply_adds"] > 1e6 and described["parameters"] == count_parameters(tmp_path / "model.keras")
    crops = np.random.default_rng(0).integers(0, 256, (7, card.image_size, card.image_size, 3), dtype=np.uint8)
    expected = load_keras(tmp_path).run(crops)
    for backend in RUNTIMES:
        engine = load_engine(exported.path, backend=backend)
        assert engine.card == card  # it travels inside the file
        for n in (1, 3, 7):
            found = engine.run(crops[:n])
            assert set(found) == set(expected)
            for output, values in expected.items():
                np.testing.assert_allclose(found[output], values[:n], atol=TOLERANCE)


def test_disagreement_is_an_error_and_leaves_nothing(tmp_path, monkeypatch):
    saved(tmp_path, "lenet")
    before = {path.name for path in tmp_path.iterdir()}
    with pytest.raises(RuntimeError, match="was not saved: logits differ"):
        export(tmp_path, tolerance=-1.0)
    assert {path.name for path in tmp_path.iterdir()} == before
    assert json.loads((tmp_path / "card.json").read_text())["files"] == {}
    monkeypatch.setattr(exporting, "_difference", lambda engine, runtime: float("nan"))
    with pytest.raises(RuntimeError, match="was not saved"):
        export(tmp_path)


@pytest.mark.parametrize(
    ("source", "target", "error", "message"),
    [
        ("nothing", None, FileNotFoundError, "no Keras model"),
        ("", "model.pb", ValueError, "ends in .onnx"),
        ("broken.keras", None, ValueError, "broken.keras is damaged"),
        ("cut.keras", None, ValueError, "cut.keras is damaged"),
        ("flipped.keras", None, ValueError, "flipped.keras is damaged"),
        ("alone/model.keras", None, FileNotFoundError, "no card.json beside it"),
    ],
)
def test_bad_sources_and_targets(source, target, error, message, tmp_path):
    saved(tmp_path, "lenet")
    (tmp_path / "broken.keras").write_bytes(b"PK no zip")
    whole = (tmp_path / "model.keras").read_bytes()
    (tmp_path / "cut.keras").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "flipped.keras").write_bytes(whole[:5000] + bytes(1000) + whole[6000:])
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "model.keras").write_bytes((tmp_path / "model.keras").read_bytes())
    with pytest.raises(error, match=message):
        export(tmp_path / source, None if target is None else tmp_path / target)


def test_the_golden_batch_is_fixed():
    batch = golden_batch(48)
    assert batch.shape == (8, 48, 48, 3) and batch.dtype == np.uint8
    assert not batch[6].any() and np.array_equal(batch, golden_batch(48))
