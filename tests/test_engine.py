"""Every backend gives the same logits, and nothing is ever run by something else than what was asked for."""

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from tiny_onnx import HAPPY_IS_RED, write_model_zoo, write_onnx

from fer_tf import paths
from fer_tf.card import ModelCard, describe_file
from fer_tf.data.download import SOURCES
from fer_tf.inference.engine import BACKENDS, PROVIDERS, load_engine, resolve_model, shipped_model
from fer_tf.labels import FER2013

EVERYWHERE = pytest.mark.parametrize("backend", BACKENDS)


@pytest.fixture
def model(tmp_path):
    return write_onnx(tmp_path / "model.onnx")


@EVERYWHERE
@pytest.mark.parametrize("threads", [None, 1])
def test_gives_the_logits_of_the_model(backend, threads, model):
    engine = load_engine(model, backend=backend, threads=threads)
    rng = np.random.default_rng(0)
    for n in (1, 5, 2):  # the batch is free
        crops = rng.integers(0, 256, (n, 48, 48, 3), np.uint8)
        logits = engine.logits(crops)
        assert logits.dtype == np.float32
        np.testing.assert_allclose(logits, crops.mean(axis=(1, 2)) / 255 @ HAPPY_IS_RED, atol=1e-4)


@EVERYWHERE
def test_says_what_runs_it(backend, model):
    engine = load_engine(model, backend=backend)
    providers = {**PROVIDERS, "openvino": "OpenVINO CPU"}
    assert (engine.backend, engine.provider) == (backend, providers[backend])
    assert engine.card.emotions == FER2013 and engine.card.name == "colours"


@EVERYWHERE
def test_takes_no_crops_and_gives_every_output(backend, tmp_path):
    engine = load_engine(write_onnx(tmp_path / "two.onnx", embedding=True), backend=backend)
    for n in (0, 3):
        outputs = engine.run(np.full((n, 48, 48, 3), 255, np.uint8))
        assert {name: value.shape for name, value in outputs.items()} == {"logits": (n, 7), "embedding": (n, 4)}
    np.testing.assert_allclose(outputs["embedding"], 3, rtol=1e-5)


@pytest.mark.parametrize(
    "crops",
    [np.zeros((2, 48, 48, 3), np.float32), np.zeros((2, 48, 48, 1), np.uint8), np.zeros((48, 48, 3), np.uint8)],
    ids=["float", "grey", "no batch"],
)
def test_refuses_other_crops_and_prints_both_shapes(crops, model):
    with pytest.raises(ValueError, match=r"uint8 \(n, 48, 48, 3\), got .* \("):
        load_engine(model, backend="cpu").logits(crops)


def test_an_absent_provider_is_an_error_that_lists_the_present_ones(model):
    with pytest.raises(RuntimeError, match=r"CUDAExecutionProvider.*CPUExecutionProvider"):
        load_engine(model, backend="CUDAExecutionProvider")


def test_a_plain_onnxruntime_that_hides_openvino_is_named(model, monkeypatch):
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(RuntimeError, match="plain onnxruntime hides the OpenVINO build"):
        load_engine(model)


def test_nodes_that_the_provider_would_leave_to_another_are_an_error(tmp_path):
    model = write_onnx(tmp_path / "three_nodes.onnx", nodes=3)
    with pytest.raises(RuntimeError, match="does not run all of"):
        load_engine(model, backend="openvino-provider")
    assert load_engine(model, backend="cpu").provider == "CPUExecutionProvider"


@EVERYWHERE
@pytest.mark.parametrize("content", ["half", "text", "nothing"])
def test_a_file_that_is_no_model_is_named(content, backend, model):
    whole = model.read_bytes()
    model.write_bytes({"half": whole[: len(whole) // 2], "text": b"not a model", "nothing": b""}[content])
    with pytest.raises(ValueError, match=r"model\.onnx .* no ONNX model that can be read"):
        load_engine(model, backend=backend)


@EVERYWHERE
def test_a_model_without_a_card_needs_one(backend, tmp_path):
    path = write_onnx(tmp_path / "bare.onnx", card=None)
    with pytest.raises(ValueError, match="no model card"):
        load_engine(path, backend=backend)
    card = ModelCard(name="mine", architecture="mean colour", emotions=FER2013, image_size=48)
    assert load_engine(path, backend=backend, card=card).card is card


@EVERYWHERE
def test_a_card_of_another_model_is_refused(backend, model):
    card = ModelCard(name="other", architecture="other", emotions=FER2013, image_size=96)
    with pytest.raises(ValueError, match=r"\(n, 96, 96, 3\).*48, 48, 3"):
        load_engine(model, backend=backend, card=card)
    card = ModelCard(name="other", architecture="other", emotions=FER2013[:5], image_size=48)
    with pytest.raises(ValueError, match="does not fit its card"):
        load_engine(model, backend=backend, card=card)


@pytest.fixture
def model_zoo(tmp_path):
    """A stand-in for emotion-ferplus-8.onnx with the card that `fer-tf download` puts beside it, and its weights."""
    path = tmp_path / "emotion-ferplus-8.onnx"
    matrix = write_model_zoo(path)
    SOURCES["emotion-ferplus"].card.with_(files={path.name: describe_file(path)}).save(tmp_path / "card.json")
    return path, matrix


@EVERYWHERE
def test_a_file_of_the_model_zoo_runs_by_the_card_beside_it(backend, model_zoo):
    path, matrix = model_zoo
    engine = load_engine(path, backend=backend)
    assert engine.card.emotions[:3] == ("neutral", "happy", "surprise") and engine.outputs == {"logits": (8,)}
    crops = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)  # its batch is fixed at 1
    luma = crops @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(engine.logits(crops), (luma.reshape(3, -1) - 127.5) / 255 @ matrix, atol=1e-4)
    assert engine.logits(crops[:0]).shape == (0, 8)


def test_a_card_beside_must_be_that_of_the_file(model_zoo):
    path, _ = model_zoo
    write_model_zoo(path, seed=1)
    with pytest.raises(ValueError, match=r"card\.json is the card of another emotion-ferplus-8\.onnx: it says sha256"):
        load_engine(path)
    path.rename(path.with_name("other.onnx"))
    with pytest.raises(ValueError, match=r"no card\.json beside it names it"):
        load_engine(path.with_name("other.onnx"))
    path.with_name("card.json").write_text("{")
    with pytest.raises(ValueError, match=r"card\.json: a model card is JSON"):
        load_engine(path.with_name("other.onnx"))


def test_finds_models_by_name_folder_and_file(model, tmp_path, monkeypatch):
    folder = model.parent
    monkeypatch.setattr(paths, "MODELS", folder.parent)
    for given in (model, folder, str(model), folder.name):
        assert resolve_model(given) == model
    mine = tmp_path / "here" / folder.name
    mine.mkdir(parents=True)
    monkeypatch.chdir(mine.parent)
    shutil.copy(model, mine)
    assert resolve_model(folder.name).resolve() == mine / model.name and shipped_model(folder.name) == model
    assert shipped_model("nothing_of_this_name") is None


def test_a_folder_of_one_other_precision_alone_is_that_file(model, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "MODELS", tmp_path)
    (tmp_path / "little").mkdir()
    only = Path(shutil.copy(model, tmp_path / "little" / "model-int8.onnx"))
    for given in ("little", "little-int8", tmp_path / "little"):
        assert resolve_model(given) == only
    shutil.copy(model, tmp_path / "little" / "model-fp16.onnx")
    assert resolve_model("little-fp16") == tmp_path / "little" / "model-fp16.onnx"
    with pytest.raises(FileNotFoundError, match=r"little holds no model\.onnx"):
        resolve_model("little")


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ("nothing_of_this_name", FileNotFoundError, "shipped model"),
        ("a.keras", ValueError, "fer-tf export"),
        (".", FileNotFoundError, "holds no model.onnx"),
    ],
)
def test_says_which_models_there_are(given, error, words, tmp_path, monkeypatch):
    (tmp_path / "a.keras").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=words):
        resolve_model(given)


def test_threads_must_be_positive(model):
    with pytest.raises(ValueError, match="threads must be at least 1 and at most 1024, got 0"):
        load_engine(model, threads=0)


ALONE = """
import sys
for name in ("tensorflow", "keras", "matplotlib", "sklearn", "jax", "torch", "IPython"):
    sys.modules[name] = None  # an import of it fails
import numpy as np
import fer_tf.inference.annotate, fer_tf.inference.benchmark, fer_tf.inference.live
from fer_tf.inference.detect import load_detector
from fer_tf.inference.engine import load_engine
from fer_tf.inference.video import infer_image
engine = load_engine(sys.argv[1])
faces = infer_image(np.full((60, 60, 3), (255, 0, 0), np.uint8), engine=engine, detector=load_detector("full"))
print(engine.provider, engine.card.emotions[faces.probabilities[0].argmax()])
"""

COLD = """
import sys
import fer_tf.inference.video
heavy = {"tensorflow", "keras", "matplotlib", "pandas", "pyarrow", "openvino", "onnx", "av", "PIL", "IPython"}
print(sorted(heavy & set(sys.modules)))
"""


def test_the_wing_works_where_tensorflow_is_absent(model):
    printed = subprocess.run([sys.executable, "-c", ALONE, model], capture_output=True, text=True, check=True).stdout
    assert printed == "OpenVINOExecutionProvider happy\n"


def test_importing_the_wing_loads_nothing_heavy():
    printed = subprocess.run([sys.executable, "-c", COLD], capture_output=True, text=True, check=True).stdout
    assert printed == "[]\n"


@pytest.mark.parametrize("backend", BACKENDS)
def test_several_calls_at_once_are_those_one_by_one(backend):
    crops = np.random.default_rng(0).integers(0, 256, (24, 3, 48, 48, 3), np.uint8)
    alone, engine = load_engine("lenet", backend=backend), load_engine("lenet", backend=backend, requests=2)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(engine.logits, crops))
        with pytest.raises(ValueError, match="crops must be uint8"):
            pool.submit(engine.logits, crops[0].astype(np.float32)).result()
    for given, logits in zip(crops, found, strict=True):
        np.testing.assert_allclose(logits, alone.logits(given), atol=1e-5)
        np.testing.assert_allclose(logits, engine.logits(given), atol=1e-5)


def test_at_least_one_call():
    with pytest.raises(ValueError, match="requests must be at least 1 and at most 1024, got 0"):
        load_engine("lenet", requests=0)


SIGNALLED = """
import gc, signal, sys
import numpy as np
from fer_tf.inference.engine import load_engine

heard = []
signal.signal(signal.SIGINT, lambda *_: heard.append(1))
crops = np.zeros((1, 48, 48, 3), np.uint8)
first, second = load_engine("lenet", backend="openvino"), load_engine("lenet", backend="openvino", requests=2)
for engine in (first, second):
    engine.logits(crops)
del first, engine
gc.collect()
del second
gc.collect()
signal.raise_signal(signal.SIGINT)
sys.exit(heard != [1])
"""


def test_a_signal_after_engines_are_gone_is_heard():
    done = subprocess.run([sys.executable, "-c", SIGNALLED], capture_output=True, text=True)
    assert done.returncode == 0, (done.returncode, done.stderr[-500:])


def test_openvino_reports_to_nobody():
    """Its telemetry has a thread of its own, and a server."""
    code = (
        "import threading; from fer_tf.inference.engine import load_engine; load_engine('lenet', backend='openvino'); "
        "from openvino.tools.ovc import telemetry_utils; print(telemetry_utils.tm.__name__, threading.active_count())"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.split() == ["openvino.tools.ovc.telemetry_stub", "1"]
