"""`fit_affect`: an ensemble learns valence and arousal, and is exported with all that it tells."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from conftest import patterns

from fer_tf import zoo
from fer_tf.card import ModelCard
from fer_tf.data.labelled import Splits
from fer_tf.inference.engine import BACKENDS, load_engine
from fer_tf.labels import CIRCUMPLEX, FER2013
from fer_tf.training.affect import fit_affect
from fer_tf.training.compare import read_run
from fer_tf.training.evaluate import affect_report
from fer_tf.training.export import TOLERANCE, export
from fer_tf.training.fit import build_model
from fer_tf.training.keras_engine import load_keras
from fer_tf.training.recipe import Augmentation, Recipe

PLANE = np.array([CIRCUMPLEX[emotion] for emotion in FER2013], np.float32)


def bars(n, *, seed):
    faces = patterns(n, seed=seed)
    return replace(faces, affect=PLANE[faces.labels])


@pytest.fixture(scope="module")
def data():
    parts = {"train": bars(70, seed=1), "valid": bars(35, seed=2), "test": bars(35, seed=3)}
    return Splits(**parts, name="patterns", terms="made by the tests")


def write_source(folder, *, architecture="esr", **options):
    """Write what a run of an untrained network left."""
    recipe = Recipe(
        architecture=architecture,
        options=options,
        image_size=54,
        batch_size=35,
        targets="blend",
        teachers=["lenet"],  # who taught it emotions, and has nothing to say here
        augmentation=Augmentation(flip=False, shift=0.0, rotate=0.0),
    )
    folder.mkdir()
    build_model(recipe, emotions=7).save(folder / "model.keras")
    recipe.save(folder / "recipe.json")
    ModelCard(name="source", architecture=architecture, emotions=FER2013, image_size=54).save(folder / "card.json")
    return folder


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("affect")
    source = write_source(folder / "source", branches=2, width=4)
    card = fit_affect(source, data, folder / "affect", epochs=6, learning_rate=1e-2, report=lambda line: None)
    return source, folder / "affect", card


def test_a_run_of_affect_is_complete_and_judged(finished, data):
    _, folder, card = finished
    expected = {"recipe.json", "data.json", "model.keras", "history.csv", "log.txt", "predictions.npz", "card.json"}
    assert {path.name for path in folder.iterdir()} == expected | {"metrics.json"}
    run, history = read_run(folder), pd.read_csv(folder / "history.csv")
    affect = run.metrics["affect"]
    means = (history["valid_ccc_valence"] + history["valid_ccc_arousal"]) / 2
    assert affect["valid"]["mean_ccc"] == pytest.approx(means.max(), abs=1e-3)  # the best epoch is the one kept
    assert history["loss"].iloc[-1] < 0.9 * history["loss"][0] and run.metrics["test"]["n"] == 35
    told = load_keras(folder).run(data.test.crops(54))
    expected = affect_report(told["affect"], data.test.affect)
    for name in ("valence", "arousal"):
        assert affect["test"][name] == pytest.approx(expected[name], abs=1e-4)
    np.testing.assert_allclose(run.predictions["test_affect"], told["affect"], atol=1e-5)
    assert card.notices == ("Fine-tuned on valence and arousal from the run source.",)
    recipe = Recipe.load(folder / "recipe.json")
    assert (recipe.learning_rate, recipe.targets, recipe.teachers) == (1e-2, "labels", [])
    assert json.loads((folder / "data.json").read_text())["fingerprint"] == data.fingerprint


def test_the_base_is_frozen_and_the_branches_are_not(finished):
    source, folder, _ = finished
    before, after = (load_keras(path).model for path in (source, folder))
    for layer in zoo.backbone_layers(before):
        pairs = zip(layer.get_weights(), after.get_layer(layer.name).get_weights(), strict=True)
        same = all(np.array_equal(a, b) for a, b in pairs)
        assert same == (not layer.name.startswith("branch_") or not layer.weights), layer.name
    for name in ("head_branch_2", "head_affect_1"):
        assert not np.array_equal(before.get_layer(name).get_weights()[0], after.get_layer(name).get_weights()[0])


def test_every_runtime_tells_emotions_affect_and_branches(finished, data):
    _, folder, _ = finished
    exported, crops = export(folder, folder.with_name("affect.onnx")), data.test.crops(54)[:7]
    expected = load_keras(folder).run(crops)
    assert np.abs(expected["affect"]).max() > 0.05
    for backend in BACKENDS:
        engine = load_engine(exported.path, backend=backend)
        assert engine.outputs == {"logits": (7,), "affect": (2,), "branches": (2, 7)}
        for name, values in engine.run(crops).items():
            np.testing.assert_allclose(values, expected[name], atol=TOLERANCE)


def test_a_finished_run_is_not_trained_again(finished, data):
    source, folder, card = finished
    before = (folder / "model.keras").stat().st_mtime_ns
    lines = []
    again = fit_affect(source, data, folder, epochs=6, learning_rate=1e-2, report=lines.append)
    assert again.to_json() == card.to_json()
    assert "not trained again" in lines[0] and (folder / "model.keras").stat().st_mtime_ns == before


def test_unfit_sources_and_data_are_refused(finished, data, tmp_path):
    source, folder, _ = finished
    with pytest.raises(ValueError, match="is a lenet, which has no outputs for affect: train an esr first"):
        fit_affect(write_source(tmp_path / "lenet", architecture="lenet"), data, tmp_path / "run")
    with pytest.raises(ValueError, match="tells no valence and arousal"):
        fit_affect(source, replace(data, test=replace(data.test, affect=None)), tmp_path / "run")
    with pytest.raises(ValueError, match="but the faces are labelled"):
        turned = {split: replace(faces, emotions=FER2013[::-1]) for split, faces in data.items()}
        fit_affect(source, replace(data, **turned), tmp_path / "run")
    with pytest.raises(ValueError, match="holds a finished run"):
        fit_affect(source, data, folder, seed=5)
