"""`fer-tf models`: what there is, with its figures; what is broken is named."""

import io
import json
import shutil
import subprocess
import sys

import pytest

from fer_tf import labels, paths, tables, zoo
from fer_tf.card import ModelCard
from fer_tf.terminal import Console
from fer_tf.training.catalogue import catalogue


@pytest.fixture
def runs(tmp_path):
    """One run of the suite as it should be, one of `fer-tf train` that is not exported, five that are not well."""
    for name in ("2026/lenet", "train", "unfinished", "cut", "empty", "text", "odd"):
        shutil.copytree(paths.MODELS / "lenet", tmp_path / name, ignore=shutil.ignore_patterns("*-int8*"))
        for paper in ("recipe.json", "metrics.json"):
            (tmp_path / name / paper).write_text("{}")
    (tmp_path / "train" / "model.onnx").unlink()
    (tmp_path / "unfinished" / "metrics.json").unlink()
    (tmp_path / "unfinished" / "card.json").unlink()
    (tmp_path / "cut" / "model.onnx").write_bytes(b"cut")
    for name in ("model.onnx", "model.keras"):
        (tmp_path / "empty" / name).unlink()
    (tmp_path / "text" / "card.json").write_text("no card")
    ModelCard.load(tmp_path / "odd" / "card.json").with_(metrics={"test": {}}).save(tmp_path / "odd" / "card.json")
    return tmp_path


def test_lists_what_cards_say_and_names_what_is_broken(runs):
    found = catalogue(runs)
    assert set(found["runs"]) == {"2026/lenet", "train"}
    exported, trained = found["runs"]["2026/lenet"], found["runs"]["train"]
    assert exported["file"] == {"name": "model.onnx", "bytes": (paths.MODELS / "lenet" / "model.onnx").stat().st_size}
    assert trained["file"]["name"] == "model.keras"
    for about in (exported, trained):  # one has counted them, the other is the network that was measured
        assert (about["parameters"], about["multiply_adds"], about["label_set"]) == (608_675, 59_352_780, "FER2013-7")
        assert about["metrics"]["test"]["n"] == 3589 and about["input_shape"] == [48, 48, 3]
    reasons = {
        "unfinished": "not finished",
        "cut": "has 3 bytes",
        "empty": "none of them is there",
        "text": "card is JSON",
        "odd": "its card is damaged (KeyError",
    }
    assert set(found["unusable"]) == set(reasons)
    for name, words in reasons.items():
        assert words in found["unusable"][name]


def test_a_damaged_shipped_model_hides_no_other(runs, monkeypatch):
    monkeypatch.setattr(paths, "MODELS", runs / "2026")
    shutil.copytree(runs / "cut", runs / "2026" / "half")
    found = catalogue(runs)
    assert set(found["models"]) == {"lenet"} and "has 3 bytes" in found["unusable"]["half"]


def test_another_network_is_not_the_measured_one(runs):
    card = ModelCard.load(runs / "train" / "card.json")
    keras_file = card.files["model.keras"]
    card.with_(image_size=96).save(runs / "train" / "card.json")
    assert catalogue(runs)["runs"]["train"]["multiply_adds"] is None
    card.with_(files={"model.keras": keras_file | {"parameters": 1}}).save(runs / "train" / "card.json")
    assert catalogue(runs)["runs"]["train"]["multiply_adds"] is None


def test_every_architecture_is_measured():
    """Where this fails: `fer-tf measure --output fer_tf/zoo/measured.json`."""
    measured = zoo.measured()
    assert set(measured["architectures"]) == set(zoo.ARCHITECTURES)
    for name, about in catalogue()["architectures"].items():
        assert about["image_size"] == about["input_shape"][-2], name
        assert about["multiply_adds"] > 1e6 and about["parameters"] >= about["trainable_parameters"] > 1e5
        assert max(about["parity"].values()) <= 1e-4


@pytest.mark.parametrize("name", ["lenet", "vgg", "efficientnet_b0"])
def test_measured_parameters_are_those_of_the_zoo(name):
    model, about = zoo.build(name, emotions=7), zoo.measured()["architectures"][name]
    assert about["parameters"] == model.count_params()
    assert about["input_shape"] == list(model.input_shape[1:])
    frozen = sum(layer.count_params() for layer in model.layers if not layer.trainable_weights and layer.weights)
    assert frozen == 0 and about["trainable_parameters"] < about["parameters"]  # batch norm's statistics


def test_listing_needs_no_keras(runs):
    code = (
        "import sys; from pathlib import Path; from fer_tf.training.catalogue import catalogue; "
        "catalogue(Path(sys.argv[1])); sys.exit(bool({'keras', 'tensorflow', 'onnxruntime'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code, runs]).returncode == 0


@pytest.mark.parametrize("width", [80, 100])
def test_no_figure_is_cut_in_a_narrow_terminal(width, runs):
    found = catalogue(runs)
    clip = {**found["runs"]["train"], "input_shape": [16, 48, 48, 3]}
    shown = Console(width=width, record=True, file=io.StringIO())
    shown.print(tables.models({"lenet": found["runs"]["train"], "clips": clip}, title="runs"))
    shown.print(tables.architectures(found["architectures"]))
    text = shown.export_text()
    assert "…" not in text
    test = found["runs"]["train"]["metrics"]["test"]
    told = [f"{100 * test[name]:.2f}" for name in ("accuracy", "macro_f1")]
    for figure in ("0.61", "59", *told, "3,589", "FER2013-7", "16 x 48", "efficientnet_b4"):
        assert figure in text


def test_label_sets_are_named_in_any_order():
    assert labels.set_name(labels.RAFDB) == "FER2013-7" and labels.set_name(labels.AFFECTNET) == "FER+-8"
    assert labels.set_name(("happy", "sad")) == "other-2"


def test_every_shipped_card_tells_its_cost():
    for path in paths.MODELS.glob("*/card.json"):
        files = json.loads(path.read_text())["files"]
        assert len({about["parameters"] for about in files.values()}) == 1
        assert all(about["multiply_adds"] > 1e6 for name, about in files.items() if name.endswith(".onnx"))
