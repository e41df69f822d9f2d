import json

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import small_options, small_size

from fer_tf import labels, zoo
from fer_tf.card import ModelCard
from fer_tf.data.drawn import draw_faces
from fer_tf.inference.engine import BACKENDS, load_engine
from fer_tf.training import export as exporting
from fer_tf.training.compare import count_parameters
from fer_tf.training.export import OPSET, TOLERANCE, export, golden_batch
from fer_tf.training.keras_engine import load_keras


def saved(folder, name: str, *, emotions=labels.FER2013, image_size: int | None = None, **options):
    """Save an untrained network with a card, as a run folder has them."""
    keras.utils.set_random_seed(0)
    size = image_size or small_size(name)
    model = zoo.build(name, emotions=len(emotions), image_size=size, **(small_options(name) | options))
    model.save(folder / "model.keras")
    about = {"architecture": name, "image_size": size, "window": zoo.architecture(name).window}
    card = ModelCard(name=f"toy {name}", emotions=emotions, **about)
    card.save(folder / "card.json")
    return card


@pytest.mark.parametrize("name", [n for n in zoo.ARCHITECTURES if n != "efficientnet_b4"])  # b0 is its like
def test_three_runtimes_agree_with_keras(name, tmp_path):
    card = saved(tmp_path, name)
    exported = export(tmp_path)
    assert set(exported.parity) == set(BACKENDS) and max(exported.parity.values()) <= TOLERANCE
    described = ModelCard.load(tmp_path / "card.json").files["model.onnx"]
    assert described["opset"] == OPSET and described["bytes"] == exported.path.stat().st_size
    assert described["multiply_adds"] > 1e5 and described["parameters"] == count_parameters(tmp_path / "model.keras")
    crops = np.random.default_rng(0).integers(0, 256, (7, *card.input_shape), dtype=np.uint8)
    expected = load_keras(tmp_path).run(crops)
    for backend in BACKENDS:
        engine = load_engine(exported.path, backend=backend)
        assert engine.card == card  # it travels inside the file
        for n in (1, 3, 7):
            found = engine.run(crops[:n])
            assert set(found) == set(expected)
            for output, values in expected.items():
                np.testing.assert_allclose(found[output], values[:n], atol=TOLERANCE)


NARROW = {"emotions": labels.FERPLUS, "image_size": 64, "width": 4, "dense": 16}
TABLE = ["neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt"]


@pytest.fixture(scope="module")
def model_zoo(tmp_path_factory):
    """A narrow FER+ network in a run folder, exported under the ONNX Model Zoo's contract."""
    folder = tmp_path_factory.mktemp("run")
    saved(folder, "ferplus_vgg13", **NARROW)
    return folder, export(folder, contract="model-zoo")


def test_it_drops_in_for_the_model_zoo_s_file(model_zoo):
    """Plain ONNX Runtime, as the Model Zoo's page has it: grey pixels, scores, a table of names."""
    folder, exported = model_zoo
    session = onnxruntime.InferenceSession(exported.path, providers=["CPUExecutionProvider"])
    (port,), (scores,) = session.get_inputs(), session.get_outputs()
    assert (port.name, port.type, port.shape[1:]) == ("Input3", "tensor(float)", [1, 64, 64])
    assert (scores.name, scores.type, scores.shape[1:]) == ("Plus692_Output_0", "tensor(float)", [8])
    grey = np.random.default_rng(0).integers(0, 256, (3, 64, 64), dtype=np.uint8)
    crops = np.repeat(grey[..., None], 3, axis=-1)
    expected = load_keras(folder).logits(crops)
    for n in (1, 3):
        (found,) = session.run(["Plus692_Output_0"], {"Input3": grey[:n, None].astype(np.float32)})
        for name, column in zip(TABLE, found.T, strict=True):
            ours = labels.FERPLUS.index(labels.canonical(name))
            np.testing.assert_allclose(column, expected[:n, ours], atol=TOLERANCE)


def test_the_three_runtimes_agree_under_the_model_zoo_s_contract(model_zoo):
    folder, exported = model_zoo
    assert set(exported.parity) == set(BACKENDS) and max(exported.parity.values()) <= TOLERANCE
    assert exported.path == folder / "model-zoo" / "model.onnx"
    assert {path.name for path in folder.iterdir()} == {"model.keras", "card.json", "model-zoo"}
    assert ModelCard.load(folder / "card.json").emotions == labels.FERPLUS  # of the Keras model, untouched
    beside = ModelCard.load(folder / "model-zoo" / "card.json")
    assert set(beside.files) == {"model.onnx"} and (beside.colour, beside.layout) == ("GREY", "NCHW")
    assert beside.emotions == ("neutral", "happy", "surprise", "sad", "angry", "disgust", "fear", "contempt")
    faces = draw_faces(5, size=64)  # in colour
    for backend in BACKENDS:
        engine = load_engine(folder / "model-zoo", backend=backend)
        assert engine.card == beside.with_(files={})
        ours = [engine.card.emotions.index(emotion) for emotion in labels.FERPLUS]
        np.testing.assert_allclose(
            engine.logits(faces.images)[:, ours], load_keras(folder).logits(faces.images), atol=TOLERANCE
        )


@pytest.mark.parametrize(
    ("changes", "contract", "message"),
    [
        ({"emotions": labels.FER2013}, "model-zoo", "8 emotions of FER.*knows angry, disgust.* at 64 px"),
        ({"image_size": 48}, "model-zoo", "of 64 px.*at 48 px: train ferplus_vgg13"),
        ({}, "onnx", "unknown contract 'onnx'; known are fer-tf, model-zoo"),
    ],
)
def test_a_contract_that_cannot_be_kept_is_refused(changes, contract, message, tmp_path):
    saved(tmp_path, "ferplus_vgg13", **NARROW | changes)
    with pytest.raises(ValueError, match=message):
        export(tmp_path, contract=contract)
    assert {path.name for path in tmp_path.iterdir()} == {"model.keras", "card.json"}


def test_a_clip_cannot_keep_the_model_zoo_s_contract():
    card = ModelCard(name="clips", architecture="cnn_lstm", emotions=labels.FERPLUS, image_size=64, window=4)
    with pytest.raises(ValueError, match="at 64 px, 4 frames"):
        exporting._promise(card, "model-zoo")


def test_the_model_zoo_s_test_vectors_have_our_order(shared_data, model_zoo):
    """Three faces and the published network's scores: a scream, a laugh and a smile."""
    session = onnxruntime.InferenceSession(model_zoo[1].path, providers=["CPUExecutionProvider"])
    for number, name in enumerate(("anger", "happiness", "happiness")):
        folder = shared_data / "ferplus_onnx_vectors" / f"test_data_set_{number}"
        grey, scores = (onnx.numpy_helper.to_array(onnx.load_tensor(folder / f"{f}_0.pb")) for f in ("input", "output"))
        assert (grey.dtype, grey.shape) == (np.float32, (1, 1, 64, 64)) and (scores.shape == (1, 8))
        assert 0 <= grey.min() < 64 < 192 < grey.max() <= 255 and (grey == grey.round()).all()  # unscaled pixels
        assert labels.FERPLUS_PUBLISHED[scores.argmax()] == name
        assert not np.allclose(scores.sum(), 1)  # scores, before any softmax
        assert session.run(None, {"Input3": grey})[0].shape == scores.shape


def test_disagreement_is_an_error_and_leaves_nothing(tmp_path, monkeypatch):
    saved(tmp_path, "lenet")
    before = {path.name for path in tmp_path.iterdir()}
    with pytest.raises(RuntimeError, match="was not saved: outputs differ"):
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
