import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pytest
from conftest import patterns

from fer_tf import zoo
from fer_tf.card import ModelCard
from fer_tf.data.labelled import LabelledClips, Splits
from fer_tf.faces import softmax
from fer_tf.labels import FER2013, FERPLUS
from fer_tf.training import fit, run, teachers
from fer_tf.training.augment import Mix, RandomShift, RandomTurn, Rows, augmentation_layers
from fer_tf.training.batches import Batches, balanced_weights, resident
from fer_tf.training.evaluate import report
from fer_tf.training.folder import claim
from fer_tf.training.keras_engine import load_keras
from fer_tf.training.recipe import Augmentation, Recipe
from fer_tf.training.run import Progress

STILL = Augmentation(flip=False, shift=0.0, rotate=0.0)
RECIPE = Recipe(
    options={"filters": [4, 8, 8], "dropout": 0.2},
    image_size=32,
    batch_size=16,
    head_epochs=1,
    epochs=3,
    learning_rate=3e-3,
    augmentation=Augmentation(flip=False, shift=0.02, rotate=2.0),
)


def train(recipe, data, folder, **hooks):
    return fit.fit(fit.build_model(recipe, emotions=7), data, recipe, folder, report=lambda line: None, **hooks)


@pytest.fixture(scope="module")
def finished(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "undisturbed"
    recipe = RECIPE.with_(epochs=5)
    return folder, train(recipe, tiny, folder), recipe


def test_a_run_folder_is_complete(finished, tiny):
    folder, card, recipe = finished
    expected = {"recipe.json", "data.json", "model.keras", "history.csv", "log.txt", "tensorboard", "predictions.npz"}
    expected |= {"history.png", "card.json", "metrics.json"}
    assert {p.name for p in folder.iterdir()} == expected  # no lock, no checkpoint
    history = pd.read_csv(folder / "history.csv")
    assert list(history["phase"]) == ["head"] + ["fine"] * 5
    figures = ["nll", "accuracy", "macro_f1"]
    assert list(history.columns[2:9]) == ["loss", *figures, *(f"valid_{name}" for name in figures)]
    assert {"learning_rate", "seconds", "images_per_s", "improved"} < set(history.columns)
    assert Recipe.load(folder / "recipe.json") == recipe.with_(targets="distribution")  # tiny carries votes
    assert card.recipe["targets"] == "distribution"
    assert card.data["fingerprint"] == tiny.fingerprint and card.emotions == tiny.emotions
    saved = keras.saving.load_model(folder / "model.keras", compile=False)
    assert card.files["model.keras"]["parameters"] == saved.count_params()
    assert "improved" in (folder / "log.txt").read_text()


def test_the_selected_weights_are_the_ones_judged(finished, tiny):
    """Reloading model.keras gives the best epoch's valid accuracy and the saved test predictions."""
    folder, card, _ = finished
    history = pd.read_csv(folder / "history.csv")
    engine, saved = load_keras(folder), np.load(folder / "predictions.npz")
    logits = engine.logits(tiny.test.crops(32))
    np.testing.assert_allclose(logits, saved["test_logits"], atol=1e-4)
    assert card.metrics["valid"]["accuracy"] == pytest.approx(history["valid_accuracy"].max())
    assert json.loads((folder / "metrics.json").read_text())["test"]["n"] == len(tiny.test)


def test_only_named_layers_are_unfrozen(tiny, tmp_path):
    recipe = RECIPE.with_(head_epochs=0, epochs=1, unfreeze=["conv_3", "norm_3"])
    model = fit.build_model(recipe, emotions=7)
    start = {layer.name: layer.get_weights() for layer in model.layers}
    fit.fit(model, tiny, recipe, tmp_path / "run", report=lambda line: None)
    end = {name: model.get_layer(name).get_weights() for name in start}
    changed = {name for name in start if not all(map(np.array_equal, start[name], end[name]))}
    assert {"conv_3", "norm_3", "head_logits"} <= changed and not changed & {"conv_1", "norm_1", "conv_2", "norm_2"}
    with pytest.raises(ValueError, match="begins with 'conv9'; they begin conv, norm"):
        fit.fit(model, tiny, recipe.with_(unfreeze=["conv9"]), tmp_path / "other")
    assert fit._begins("block_1_norm", "block_1") and not fit._begins("block_10_norm", "block_1")


def test_test_decides_nothing(finished, tiny, tmp_path):
    folder, _, recipe = finished
    wrong = replace(tiny.test, labels=(tiny.test.labels + 1) % 7)
    train(recipe, replace(tiny, test=wrong), tmp_path / "other")
    a, b = (pd.read_csv(run_dir / "history.csv") for run_dir in (folder, tmp_path / "other"))
    np.testing.assert_allclose(b["valid_nll"], a["valid_nll"], rtol=2e-3)
    assert list(a["improved"]) == list(b["improved"])


def test_the_head_phase_leaves_the_backbone_alone(tiny, tmp_path):
    recipe = RECIPE.with_(head_epochs=1, epochs=0)
    before = fit.build_model(recipe, emotions=7)
    start = {layer.name: layer.get_weights() for layer in before.layers}
    fit.fit(before, tiny, recipe, tmp_path / "head", report=lambda line: None)
    for layer in zoo.backbone_layers(before):
        for a, b in zip(start[layer.name], layer.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
    assert not np.array_equal(start["head_logits"][0], before.get_layer("head_logits").get_weights()[0])


KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from conftest import patterns
from fer_tf.data.labelled import Splits
from test_fit import RECIPE, train
data = Splits(train=patterns(70, seed=1), valid=patterns(35, seed=2), test=patterns(35, seed=3), name="patterns",
              terms="made by the tests")
def on_step(done, total):
    if done == 2 * total // 5 + 2:  # in the middle of epoch 3 of 5
        os.kill(os.getpid(), signal.SIGKILL)
train(RECIPE.with_(epochs=5), data, Path({folder!r}), on_step=on_step)
"""


def test_a_killed_run_resumes_to_the_same_end(finished, tiny, tmp_path):
    folder, _, recipe = finished
    script = KILLED.format(tests=str(Path(__file__).parent), folder=str(tmp_path / "killed"))
    killed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert run.load_progress(tmp_path / "killed").epoch == 2
    lines = []
    model = fit.build_model(recipe, emotions=7)
    fit.fit(model, tiny, recipe, tmp_path / "killed", report=lines.append)
    assert "resumed after epoch 2" in lines
    assert_same_end(folder, tmp_path / "killed")


def assert_same_end(there: Path, here: Path) -> None:
    """Two runs left the same files, history, selected weights, metrics, and one line of the log per epoch."""
    assert {p.name for p in here.iterdir()} == {p.name for p in there.iterdir()}
    columns = ["epoch", "improved", "loss", "nll", "accuracy", "valid_nll", "valid_accuracy", "learning_rate"]
    expected, found = (pd.read_csv(folder / "history.csv")[columns].astype(float) for folder in (there, here))
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-5)
    expected, found = (load_keras(folder).model.get_weights() for folder in (there, here))
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_allclose(b, a, atol=2e-3)
    expected, found = (json.loads((folder / "metrics.json").read_text())["test"]["nll"] for folder in (there, here))
    assert found == pytest.approx(expected, rel=2e-3)
    expected, found = ((folder / "log.txt").read_text().splitlines() for folder in (there, here))
    kept = [line for line in found if not line.startswith("resumed")]
    assert [line[:13] for line in kept] == [line[:13] for line in expected]  # epoch by epoch; their seconds differ
    assert kept[-1] == expected[-1]


LONG = Recipe(  # a head epoch, the best epoch in the middle, drops of the rate, patience, extra epochs
    options={"filters": [4, 4, 4], "dense": 8},
    image_size=32,
    batch_size=35,
    head_epochs=1,
    epochs=9,
    learning_rate=1e-2,
    schedule="plateau",
    plateau_patience=1,
    patience=2,
    extra_epochs=2,
    augmentation=Augmentation(flip=False, shift=0.02, rotate=0.0),
    seed=11,
)


@pytest.fixture(scope="module")
def undisturbed(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "long"
    train(LONG, tiny, folder)
    history = pd.read_csv(folder / "history.csv")
    assert list(history["phase"])[:2] == ["head", "fine"] and history["learning_rate"].iloc[-1] < 1e-2 / 4
    assert (folder / "log.txt").read_text().splitlines()[-1].startswith("stopped at epoch 6, 2 extra epochs used")
    return folder


class Killed(BaseException):
    """Stands for a kill: no handler of the package may catch it."""


@pytest.mark.parametrize(
    ("name", "call", "epochs"),
    [
        pytest.param("write_history", 1, 1, id="between head and fine, before the log has its line"),
        pytest.param("save_model", 4, 4, id="between the checkpoint of the best epoch and its weights"),
        pytest.param("save_checkpoint", 6, 5, id="under the plateau schedule, in the epoch in which patience runs out"),
        pytest.param("save_checkpoint", 8, 7, id="between the extra epochs"),
        pytest.param("finish", 1, 8, id="after the verdict"),
        pytest.param("write_atomically", 19, 8, id="in finish, after some of the papers"),
    ],
)
def test_a_run_killed_anywhere_ends_as_if_undisturbed(undisturbed, tiny, tmp_path, monkeypatch, name, call, epochs):
    calls, kept = [], getattr(run, name)

    def dies(*args, **kwargs):
        calls.append(args)
        if len(calls) == call:
            raise Killed
        return kept(*args, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(run, name, dies)
        train(LONG, tiny, tmp_path / "killed")
    assert run.load_progress(tmp_path / "killed").epoch == epochs
    assert not (tmp_path / "killed" / "metrics.json").exists()
    train(LONG, tiny, tmp_path / "killed")
    assert_same_end(undisturbed, tmp_path / "killed")


def test_mixed_and_averaged_a_killed_run_ends_alike(tiny, tmp_path, monkeypatch):
    recipe = LONG.with_(epochs=3, schedule="cosine", patience=None, extra_epochs=0, mixup=0.3, ema=0.9)
    train(recipe, tiny, tmp_path / "undisturbed")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(run, "save_model", lambda *_: (_ for _ in ()).throw(Killed))
        train(recipe, tiny, tmp_path / "killed")
    train(recipe, tiny, tmp_path / "killed")
    assert_same_end(tmp_path / "undisturbed", tmp_path / "killed")


def test_the_moving_average_is_judged_and_kept(tiny, tmp_path):
    recipe = RECIPE.with_(head_epochs=0, epochs=1, ema=0.999, learning_rate=0.03)  # its average hardly leaves the start
    start = fit.build_model(recipe, emotions=7).get_layer("head_logits").get_weights()[0]
    train(recipe, tiny, tmp_path / "averaged")
    train(recipe.with_(ema=0.0), tiny, tmp_path / "plain")
    moved = [
        np.abs(load_keras(tmp_path / name).model.get_layer("head_logits").get_weights()[0] - start).max()
        for name in ("averaged", "plain")
    ]
    assert moved[0] < moved[1] / 2


def test_training_goes_on_from_the_weights_and_not_from_their_average(tiny, tmp_path, monkeypatch):
    recipe = RECIPE.with_(head_epochs=0, epochs=2, ema=0.99, learning_rate=0.03)
    monkeypatch.setattr(run, "write_history", lambda *_: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        train(recipe, tiny, tmp_path / "killed")
    model = fit.build_model(recipe, emotions=7)
    kinds = {}
    for part in ("averaged", "model"):
        layers = fit.augmentation_layers(recipe.augmentation) if part == "model" else []
        run.restore(tmp_path / "killed", [v for layer in (*layers, model) for v in layer.variables], part)
        kinds[part] = model.get_layer("head_logits").get_weights()[0]
    assert np.abs(kinds["averaged"] - kinds["model"]).max() > 0.01


def test_at_the_end_the_model_has_the_weights_that_were_selected(tiny, tmp_path):
    recipe = RECIPE.with_(head_epochs=0, epochs=2, ema=0.9, learning_rate=0.03)
    model = fit.build_model(recipe, emotions=7)
    fit.fit(model, tiny, recipe, tmp_path, report=lambda line: None)
    for mine, kept in zip(model.get_weights(), load_keras(tmp_path).model.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, kept)


def test_averaged_weights_get_statistics_of_their_own_and_all_comes_back(tiny):
    recipe = RECIPE.with_(ema=0.9, batch_size=35)
    model = fit.build_model(recipe, emotions=7)
    trainer = fit.with_augmentation(model, [], rows=Rows(resident(tiny.train, 32)))
    fit.prepare(trainer, model, recipe, phase="fine", steps=2)
    trainer.fit(Batches(tiny.train, None, batch_size=35), epochs=1, verbose=0)
    before, norm = model.get_weights(), model.get_layer("norm_1")
    with pytest.raises(KeyError), fit.averaged(trainer, model, tiny.train, recipe):
        probe = keras.Model(model.input, norm.input)
        seen = probe.predict(tiny.train.crops(32), verbose=0)
        np.testing.assert_allclose(norm.get_weights()[2], seen.mean(axis=(0, 1, 2)), rtol=1e-3, atol=1e-4)
        raise KeyError
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert norm.momentum == 0.9


@pytest.mark.parametrize("architecture", ["lenet", "vit"])
def test_bfloat16_is_for_training_only(architecture, tiny, tmp_path):
    options = {"lenet": {"filters": [4, 8, 8]}, "vit": {"size": "nano", "patch_size": 8}}[architecture]
    recipe = RECIPE.with_(
        architecture=architecture, options=options, head_epochs=0, epochs=1, precision="mixed_bfloat16"
    )
    card = train(recipe, tiny, tmp_path / "half")
    model = load_keras(tmp_path / "half").model
    assert {layer.compute_dtype for layer in model.layers} == {"float32"} and card.metrics["test"]["n"] == 35
    train(recipe.with_(precision="float32"), tiny, tmp_path / "full")
    halves, full = (pd.read_csv(tmp_path / name / "history.csv")["loss"][0] for name in ("half", "full"))
    assert halves != full and halves == pytest.approx(full, rel=0.1)


ENSEMBLE = Recipe(
    architecture="esr",
    options={"branches": 2, "width": 2},
    image_size=54,
    batch_size=35,
    branch_epochs=2,
    epochs=2,
    optimizer="sgd",
    augmentation=Augmentation(flip=True, shift=0.0, rotate=0.0),
)


@pytest.fixture(scope="module")
def ensemble(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "ensemble"
    train(ENSEMBLE, tiny, folder)
    return folder


def test_an_ensemble_grows_branch_by_branch(ensemble):
    history = pd.read_csv(ensemble / "history.csv")
    assert list(history["phase"]) == ["branch_1", "branch_1", "fine", "fine"]
    assert history["improved"][::2].all()  # selection starts anew with every branch
    judged = json.loads((ensemble / "metrics.json").read_text())["valid"]
    best = history[2:]["valid_accuracy"].idxmax()
    assert judged["accuracy"] == pytest.approx(history["valid_accuracy"][best])
    assert judged["nll"] == pytest.approx(history["valid_nll"][best], rel=1e-3)
    assert history["loss"][1] < 1.5 * np.log(7) < history["loss"][2]  # of one branch, of two


def test_a_killed_ensemble_resumes_to_the_same_end(ensemble, tiny, tmp_path, monkeypatch):
    calls, kept, model = [], run.save_checkpoint, fit.build_model(ENSEMBLE, emotions=7)
    start = {layer.name: layer.get_weights() for layer in model.layers if layer.weights}

    def dies(*args):
        calls.append(args)
        if len(calls) == 2:
            raise Killed
        kept(*args)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(run, "save_checkpoint", dies)
        fit.fit(model, tiny, ENSEMBLE, tmp_path / "killed", report=lambda line: None)
    assert run.load_progress(tmp_path / "killed").epoch == 1  # in the middle of branch_1
    changed = {name for name in start if not np.array_equal(start[name][0], model.get_layer(name).get_weights()[0])}
    assert {"base_conv_1", "branch_1_conv_4", "head_branch_1"} <= changed
    assert not [name for name in changed if name.startswith(("branch_2", "head_branch_2", "head_affect"))]
    train(ENSEMBLE, tiny, tmp_path / "killed")
    assert_same_end(ensemble, tmp_path / "killed")


def test_phases_follow_one_another():
    planned = fit.phases(ENSEMBLE.with_(head_epochs=1), 3)
    assert planned == [("head", 0, 1, 3), ("branch_1", 1, 3, 1), ("branch_2", 3, 5, 2), ("fine", 5, 7, 3)]
    assert fit.phases(RECIPE, 0) == [("head", 0, 1, 0), ("fine", 1, 4, 0)]


def test_only_an_ensemble_has_branches_to_train(tiny, tmp_path):
    with pytest.raises(ValueError, match="one branch after another, but this lenet has none"):
        train(RECIPE.with_(branch_epochs=1), tiny, tmp_path / "run")


@pytest.mark.parametrize("targets", ["distribution", "multi_target"])
def test_the_loss_of_branches_is_the_sum_of_theirs(targets):
    rng = np.random.default_rng(0)
    logits, votes = rng.normal(size=(5, 3, 7)).astype(np.float32), rng.dirichlet(np.ones(7), 5).astype(np.float32)
    batch = np.stack([votes, np.eye(7, dtype=np.float32)[votes.argmax(axis=1)]], axis=1)
    loss = fit.target_loss(Recipe(targets=targets, label_smoothing=0.1 if targets == "distribution" else 0.0))
    expected = sum(keras.ops.convert_to_numpy(loss(batch, logits[:, k])) for k in range(3))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(loss(batch, logits)), expected, rtol=1e-5)


def test_a_kill_after_the_last_paper_leaves_a_finished_run(undisturbed, tiny, tmp_path):
    shutil.copytree(undisturbed, tmp_path / "killed")
    for name in ("checkpoint.npz", "lock"):
        (tmp_path / "killed" / name).touch()
    with pytest.raises(ValueError, match="holds a finished run"):
        train(LONG.with_(seed=LONG.seed + 1), tiny, tmp_path / "killed")
    assert_same_end(undisturbed, tmp_path / "killed")


def test_two_trainings_in_one_folder_are_refused_until_the_first_ends(tiny, tmp_path):
    def second(done, steps):
        with pytest.raises(RuntimeError, match="another training is running in"):
            train(LONG, tiny, tmp_path / "one")
        raise Killed

    with pytest.raises(Killed):
        train(LONG, tiny, tmp_path / "one", on_step=second)
    with claim(tmp_path / "one", LONG, tiny):
        pass


def test_a_file_in_the_way_is_named(tiny, tmp_path):
    (tmp_path / "taken").touch()
    for place in (tmp_path / "taken", tmp_path / "taken" / "run"):
        with pytest.raises(ValueError, match="must be a folder, but a file is in the way"):
            train(LONG, tiny, place)


def test_a_diverged_training_names_the_rate_and_frees_a_folder_without_epochs(tiny, tmp_path):
    wild = LONG.with_(head_epochs=0, epochs=1, optimizer="sgd", learning_rate=1e30)
    with pytest.raises(ValueError, match=r"epoch 1.*learning_rate 1e\+30 is too high.*can be used again"):
        train(wild, tiny, tmp_path / "run")
    card = train(wild.with_(learning_rate=1e-3), tiny, tmp_path / "run")
    assert card.recipe["learning_rate"] == 1e-3


def test_a_diverged_training_keeps_its_finished_epochs(tiny, tmp_path):
    wild = LONG.with_(epochs=1, optimizer="sgd", learning_rate=1e30)
    with pytest.raises(ValueError, match=r"epoch 2.*the folder keeps the epochs before"):
        train(wild, tiny, tmp_path / "run")
    with pytest.raises(ValueError, match="another recipe"):
        train(wild.with_(learning_rate=1e-3), tiny, tmp_path / "run")


@pytest.mark.parametrize(
    ("votes", "targets", "used"),
    [(True, "auto", "distribution"), (False, "auto", "labels"), (True, "labels", "labels")],
)
def test_votes_are_the_targets_where_the_data_carry_them(tiny, tmp_path, votes, targets, used):
    def kill(done, steps):
        raise Killed

    data = tiny if votes else replace(tiny, train=replace(tiny.train, distributions=None))
    with pytest.raises(Killed):
        train(LONG.with_(targets=targets), data, tmp_path, on_step=kill)
    assert Recipe.load(tmp_path / "recipe.json").targets == used


@pytest.fixture
def class_room(tmp_path, monkeypatch):
    """Engines by name: "sure" of the brightest bar, "silent"; "stranger" names other emotions."""
    (tmp_path / "model.onnx").write_bytes(b"a file with a checksum")

    def load(name):
        def logits(crops):
            bars = crops.mean(axis=(2, 3)).reshape(len(crops), 8, 4).mean(axis=2)[:, :7]
            return {"sure": 6, "silent": 0}[name] * np.eye(7, dtype=np.float32)[bars.argmax(axis=1)]

        emotions = FERPLUS if name == "stranger" else FER2013
        card = ModelCard(name=name, architecture="lenet", emotions=emotions, image_size=32, data={"name": "bars"})
        return SimpleNamespace(card=card, logits=logits, path=tmp_path / "model.onnx")

    monkeypatch.setattr(teachers, "load_engine", load)


def test_teachers_stand_in_for_the_votes(class_room, tiny, tmp_path, monkeypatch):
    true = np.eye(7, dtype=np.float32)[tiny.train.labels]
    heard = teachers.taught(tiny.train, teachers.find_teachers(["sure", "silent"], tiny.emotions)).distributions
    np.testing.assert_allclose(heard, softmax(3 * true), rtol=1e-6)
    seen, recipe = [], RECIPE.with_(teachers=["sure"], vote_share=0.25, epochs=1, head_epochs=0)
    batches = fit.Batches
    monkeypatch.setattr(fit, "Batches", lambda *a, **k: seen.append((a[0], k["targets"])) or batches(*a, **k))
    card = train(recipe, tiny, tmp_path / "run")
    (faces, targets), *_ = seen
    assert targets == "blend" == card.recipe["targets"] and card.recipe["teachers"] == ["sure"]
    np.testing.assert_allclose(faces.distributions, softmax(6 * true), rtol=1e-6)
    assert card.data["fingerprint"] == tiny.fingerprint and card.data["teachers"]["sure"]["data"] == {"name": "bars"}


def test_a_run_with_teachers_resumes_to_the_same_end_and_only_with_them(class_room, tiny, tmp_path, monkeypatch):
    recipe = RECIPE.with_(teachers=["sure", "silent"], epochs=2, head_epochs=0)
    train(recipe, tiny, tmp_path / "undisturbed")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(run, "write_history", lambda *_: (_ for _ in ()).throw(Killed))
        train(recipe, tiny, tmp_path / "killed")
    assert run.load_progress(tmp_path / "killed").epoch == 1
    before = (tmp_path / "model.onnx").read_bytes()
    (tmp_path / "model.onnx").write_bytes(b"trained again")
    for name, words in (("killed", "unfinished run of another recipe or other data"), ("undisturbed", "finished run")):
        with pytest.raises(ValueError, match=words):
            train(recipe, tiny, tmp_path / name)
    (tmp_path / "model.onnx").write_bytes(before)
    train(recipe, tiny, tmp_path / "killed")
    assert_same_end(tmp_path / "undisturbed", tmp_path / "killed")


def test_trained_networks_that_a_recipe_names_are_told_by_their_own_names(class_room, tiny, tmp_path):
    """Two teachers of one name in different folders are two; a start is told by its checksum and its data."""
    names = ["a/vgg", "b/vgg"]
    about = {"name": "vgg", "architecture": "vgg", "emotions": FER2013, "image_size": 32}
    (tmp_path / "card.json").write_text(ModelCard(**about, data={"name": "bars"}).to_json())
    (tmp_path / "model.keras").write_bytes(b"weights")
    recipe = RECIPE.with_(teachers=names, weights=str(tmp_path))
    engines = [SimpleNamespace(card=ModelCard(**about), path=tmp_path / "model.onnx") for _ in names]
    told = teachers.described(recipe, engines)
    assert list(told["teachers"]) == names
    assert told["start"] == {"sha256": hashlib.sha256(b"weights").hexdigest(), "data": {"name": "bars"}}
    assert teachers.described(RECIPE, []) == {}


def test_a_run_knows_its_start_again(tiny, tmp_path):
    """By the checksum; one of an earlier version, which did not note it, is believed."""
    with claim(tmp_path, RECIPE, tiny):
        pass
    (tmp_path / "metrics.json").write_text("{}")
    with claim(tmp_path, RECIPE, tiny, models={"start": {"sha256": "a"}}) as finished:
        assert finished
    (tmp_path / "metrics.json").unlink()
    with claim(tmp_path, RECIPE, tiny, models={"start": {"sha256": "a"}}) as finished:
        assert not finished
    (tmp_path / "metrics.json").write_text("{}")
    with (
        pytest.raises(ValueError, match="finished run"),
        claim(tmp_path, RECIPE, tiny, models={"start": {"sha256": "b"}}),
    ):
        pass


def test_a_run_carries_the_notices_of_its_start_on(tmp_path):
    (tmp_path / "model.keras").touch()
    about = {"architecture": "lenet", "emotions": FER2013, "image_size": 32}
    ModelCard(name="a", notices=("From b.", "From c."), **about).save(tmp_path / "card.json")
    assert run.notices(RECIPE.with_(weights=str(tmp_path), notice="From c.")) == ("From c.", "From b.")
    assert run.notices(RECIPE) == ()


def test_a_run_is_known_whose_options_json_writes_otherwise(tiny, tmp_path):
    recipe = RECIPE.with_(options={"filters": (8, 16, 32)})
    with claim(tmp_path, recipe, tiny):
        pass
    (tmp_path / "metrics.json").write_text("{}")
    with claim(tmp_path, recipe, tiny) as finished:
        assert finished


def test_a_teacher_of_other_emotions_is_refused_before_anything_is_written(class_room, tiny, tmp_path):
    with pytest.raises(ValueError, match=r"the teacher stranger names .*contempt"):
        train(RECIPE.with_(teachers=["sure", "stranger"]), tiny, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("left", ["checkpoint.npz", "metrics.json"])
def test_a_run_from_before_a_choice_existed_is_known(left, tiny, tmp_path):
    """Such as `teachers`: a recipe.json without it means the default."""
    with claim(tmp_path, RECIPE, tiny):
        pass
    choices = json.loads((tmp_path / "recipe.json").read_text())
    del choices["teachers"]
    (tmp_path / "recipe.json").write_text(json.dumps(choices))
    (tmp_path / left).write_text("{}")
    with claim(tmp_path, RECIPE, tiny) as finished:
        assert finished == (left == "metrics.json")
    with pytest.raises(ValueError, match="finished run"), claim(tmp_path, RECIPE.with_(epochs=99), tiny):
        pass


def test_one_seed_gives_one_result(finished, tiny, tmp_path):
    folder, _, recipe = finished
    train(recipe, tiny, tmp_path / "again")
    again, there = (pd.read_csv(f / "history.csv")["loss"] for f in (tmp_path / "again", folder))
    np.testing.assert_allclose(again, there, rtol=2e-3)
    train(recipe.with_(seed=1), tiny, tmp_path / "other")
    assert abs(pd.read_csv(tmp_path / "other" / "history.csv")["loss"] - there).max() > 1e-2


def test_a_finished_run_is_not_trained_again(finished, tiny):
    folder, card, recipe = finished
    model, lines = fit.build_model(recipe.with_(seed=9), emotions=7), []
    before = (folder / "model.keras").stat().st_mtime_ns
    assert fit.fit(model, tiny, recipe, folder, report=lines.append).to_json() == card.to_json()
    assert lines == [f"{folder} holds this very run, finished: it is not trained again"]
    assert (folder / "model.keras").stat().st_mtime_ns == before
    saved = keras.saving.load_model(folder / "model.keras", compile=False)
    for mine, kept in zip(model.get_weights(), saved.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, kept)


def test_a_folder_belongs_to_one_run(finished, tiny, tmp_path):
    folder, _, recipe = finished
    with pytest.raises(ValueError, match="holds a finished run"):
        train(recipe.with_(seed=4), tiny, folder)
    assert not (folder / "lock").exists()
    with claim(tmp_path / "begun", recipe, tiny):
        pass
    with claim(tmp_path / "begun", recipe.with_(seed=4), tiny):  # no epoch is finished, so nothing is lost
        (tmp_path / "begun" / "checkpoint.npz").touch()
    with pytest.raises(ValueError, match="another recipe"):
        train(recipe.with_(seed=5), tiny, tmp_path / "begun")


ROW = {"phase": "fine", "valid_nll": 1.0, "valid_macro_f1": 0.5}


@pytest.mark.parametrize(
    ("accuracies", "extra_epochs", "stopped_at", "epochs", "says"),
    [
        (
            [0.5, 0.6, 0.5, 0.5, 0.5, 0.5, 0.9],
            2,
            4,
            6,
            "stopped at epoch 4, 2 extra epochs used, they did not help; best at epoch 2",
        ),
        (
            [0.5, 0.6, 0.5, 0.5, 0.5, 0.7, 0.9],
            2,
            4,
            6,
            "stopped at epoch 4, 2 extra epochs used, they helped; best at epoch 6",
        ),
        ([0.5, 0.6, 0.5, 0.5, 0.9], 0, 4, 4, "stopped at epoch 4, 0 extra epochs used; best at epoch 2"),
        ([0.5, 0.6, 0.7], 2, None, 3, "all 3 epochs run; best at epoch 3"),
    ],
)
def test_early_stopping_with_extra_epochs(accuracies, extra_epochs, stopped_at, epochs, says):
    recipe, progress = Recipe(patience=2, extra_epochs=extra_epochs), Progress()
    for epoch, accuracy in enumerate(accuracies, start=1):
        if fit.finished_early(progress, recipe):
            break
        progress = fit.advance(progress, ROW | {"epoch": epoch, "valid_accuracy": accuracy}, recipe)
    assert (progress.stopped_at, progress.epoch) == (stopped_at, epochs)
    assert fit.verdict(progress, recipe).startswith(says)


def test_the_plateau_schedule_drops_after_its_patience():
    recipe, progress = Recipe(schedule="plateau", plateau_patience=2, monitor="nll"), Progress()
    drops = []
    for epoch, nll in enumerate([1.0, 0.9, 0.9, 0.95, 0.8, 0.8, 0.8], start=1):
        row = ROW | {"epoch": epoch, "valid_accuracy": 0.5, "valid_nll": nll}
        progress = fit.advance(progress, row, recipe)
        drops.append(progress.rate_drops)
    assert drops == [0, 0, 0, 1, 1, 1, 2] and progress.best_epoch == 5


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ({"schedule": "constant"}, [0.1, 0.1, 0.1, 0.1]),
        ({"schedule": "step", "step_size": 2, "gamma": 0.5}, [0.1, 0.1, 0.05, 0.05]),
        ({"schedule": "cosine", "epochs": 4}, [0.1, 0.0853553, 0.05, 0.0146447]),
        ({"schedule": "cosine", "epochs": 4, "warmup_epochs": 1}, [0.0, 0.1, 0.075, 0.025]),
    ],
)
def test_schedules(optimizer, schedule, rates):
    recipe = Recipe(learning_rate=0.1, optimizer=optimizer, weight_decay=0.0).with_(**schedule)
    made = fit._optimizer(recipe, phase="fine", steps=10)
    for epoch, expected in enumerate(rates):
        made.iterations.assign(10 * epoch)
        assert float(made.learning_rate) == pytest.approx(expected, abs=1e-6)
    made = fit._optimizer(recipe, phase="branch_2", steps=10)
    made.iterations.assign(35)
    assert float(made.learning_rate) == pytest.approx(0.1)


def test_plateau_lowers_the_rate_of_a_real_run(tiny, tmp_path):
    recipe = RECIPE.with_(
        schedule="plateau",
        plateau_patience=1,
        gamma=0.1,
        learning_rate=1e-9,
        head_epochs=0,
        epochs=4,
        monitor="accuracy",
    )
    train(recipe, tiny, tmp_path / "plateau")
    history = pd.read_csv(tmp_path / "plateau" / "history.csv")
    assert history["learning_rate"].iloc[0] == pytest.approx(1e-9)
    assert history["learning_rate"].iloc[-1] < 1e-9  # so small a rate learns nothing, so it drops


MODES = ["labels", "distribution", "probability", "multi_target"]


@pytest.mark.parametrize("targets", MODES)
def test_train_and_valid_are_measured_alike(tiny, targets):
    """The metrics of train, batch by batch, are those of a report on its labels, whatever the targets are."""
    rng = np.random.default_rng(0)
    votes = rng.dirichlet(np.ones(7), 70).astype(np.float32)
    faces = replace(tiny.train, distributions=votes, labels=votes.argmax(axis=1))
    logits, batches = rng.normal(size=(70, 7)).astype(np.float32), Batches(faces, 32, batch_size=50, targets=targets)
    expected = report(logits, faces.labels, tiny.emotions)
    for name, metric in {metric.name: metric for metric in fit.label_metrics()}.items():
        for number, rows in enumerate((slice(0, 50), slice(50, 70))):
            metric.update_state(batches[number][1], logits[rows])
        assert float(metric.result()) == pytest.approx(getattr(expected, name), abs=1e-5)


def test_the_loss_has_smoothing_and_nll_has_not(tiny, tmp_path):
    recipe = LONG.with_(head_epochs=0, epochs=1, targets="labels", class_weight="balanced", learning_rate=1e-9)
    for smoothing in (0.0, 0.9):
        train(recipe.with_(label_smoothing=smoothing), tiny, tmp_path / str(smoothing))
    plain, smoothed = (pd.read_csv(tmp_path / name / "history.csv").iloc[0] for name in ("0.0", "0.9"))
    assert plain["loss"] == pytest.approx(plain["nll"], rel=1e-4)  # tiny's emotions are equally frequent
    assert smoothed["nll"] == pytest.approx(plain["nll"], rel=1e-4) and abs(smoothed["loss"] - plain["loss"]) > 0.01
    line = fit.epoch_line(smoothed, 1)
    assert f"valid nll {smoothed['valid_nll']:.3f}" in line


def test_augmentation_is_for_training_only(tiny):
    layers = augmentation_layers(Augmentation(shift=0.2, rotate=20, zoom=0.2, brightness=0.2, contrast=0.2, erase=0.2))
    assert len(layers) == 6 and not augmentation_layers(STILL)
    crops = tiny.valid.crops(32)[:4].astype(np.float32)
    for layer in layers:
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(layer(crops, training=False)), crops)
        changed = np.stack([keras.ops.convert_to_numpy(layer(crops, training=True)) for _ in range(5)])
        assert changed.min() >= -1e-3 and changed.max() <= 255.001 and (changed != crops).any()


def test_a_random_shift_moves_whole_pixels():
    images = np.arange(20 * 8 * 8, dtype=np.float32).reshape(20, 8, 8, 1)
    moved = keras.ops.convert_to_numpy(RandomShift(0.25)(images, training=True))
    padded, seen = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="edge"), set()
    for image, border in zip(moved, padded, strict=True):
        places = [(y, x) for y in range(5) for x in range(5) if (border[y : y + 8, x : x + 8] == image).all()]
        assert places
        seen |= set(places)
    assert len(seen) > 8


def test_a_random_turn_goes_about_the_centre():
    y, x = np.mgrid[-3.5:4, -3.5:4].astype(np.float32)
    inside = np.hypot(y, x) < 2.6  # what a turn by 30 degrees and a zoom of 0.2 never take from beyond the border
    images = np.broadcast_to(np.stack([y, x], axis=-1), (20, 8, 8, 2))
    seen = set()
    for turned in keras.ops.convert_to_numpy(RandomTurn(30.0, 0.2)(images, training=True)):
        linear, *_ = np.linalg.lstsq(np.stack([y[inside], x[inside]], axis=1), turned[inside], rcond=None)
        np.testing.assert_allclose(np.stack([y[inside], x[inside]], axis=1) @ linear, turned[inside], atol=1e-4)
        size = np.sqrt(np.linalg.det(linear))  # a rotation, enlarged: what is looked up lies 1 / zoom as far out
        np.testing.assert_allclose(linear @ linear.T, size**2 * np.eye(2), atol=1e-4)
        angle = np.degrees(np.arctan2(linear[0, 1], linear[0, 0]))
        assert 1 / 1.2 <= size <= 1 / 0.8 and abs(angle) <= 30
        seen.add(round(angle))
    assert len(seen) > 8 and min(seen) < 0 < max(seen)


def test_rows_on_the_device_are_the_crops_of_the_host(tiny, monkeypatch):
    model = fit.build_model(RECIPE, emotions=7)
    rows = np.array([3, 69, 0], np.int32)
    images = resident(tiny.train, 32)
    given = keras.ops.convert_to_numpy(Rows(images)(rows))
    np.testing.assert_array_equal(given, tiny.train.crops(32, rows))
    trainer = fit.with_augmentation(model, [], rows=Rows(images))
    logits = keras.ops.convert_to_numpy(trainer({"images": rows}))
    np.testing.assert_allclose(logits, model.predict(tiny.train.crops(32, rows), verbose=0), atol=1e-5)
    monkeypatch.setattr("fer_tf.training.batches.RESIDENT", 70 * 32 * 32 - 1)
    assert resident(tiny.train, 32) is None


def test_a_run_whose_images_do_not_fit_on_the_device_ends_alike(finished, tiny, tmp_path, monkeypatch):
    folder, _, recipe = finished
    monkeypatch.setattr("fer_tf.training.batches.RESIDENT", 1)
    train(recipe, tiny, tmp_path / "host")
    assert_same_end(folder, tmp_path / "host")


def test_mixup_mixes_images_and_targets_alike(tiny):
    faces = tiny.train.take(np.arange(10))
    batches = Batches(faces, 32, batch_size=10, mixup=0.4, seed=(0, 1))
    inputs, targets, weights = batches[0]
    partners, shares = inputs["partners"], inputs["shares"][:, None]
    assert sorted(partners) == list(range(10)) and 0.5 <= shares.min() < shares.max() <= 1 and (weights == 1).all()
    one_hot = np.eye(7)[faces.labels]
    np.testing.assert_allclose(targets[:, 0], shares * one_hot + (1 - shares) * one_hot[partners], atol=1e-6)
    np.testing.assert_array_equal(targets[:, 1], one_hot)
    crops = inputs["images"].astype(np.float32)
    mixed = keras.ops.convert_to_numpy(Mix()(crops, partners, inputs["shares"]))
    expected = shares[..., None, None] * crops + (1 - shares[..., None, None]) * crops[partners]
    np.testing.assert_allclose(mixed, expected, rtol=1e-5)
    heavy = np.arange(1, 8, dtype=np.float32)  # class weights: the loss is the mix of both weighted losses
    _, targets, weights = Batches(faces, 32, batch_size=10, mixup=0.4, seed=(0, 1), weights=heavy)[0]
    own, other = shares[:, 0] * heavy[faces.labels], (1 - shares[:, 0]) * heavy[faces.labels][partners]
    np.testing.assert_allclose(weights, own + other, rtol=1e-5)
    expected = own[:, None] * one_hot + other[:, None] * one_hot[partners]
    np.testing.assert_allclose(weights[:, None] * targets[:, 0], expected, rtol=1e-5, atol=1e-6)
    again = Batches(faces, 32, batch_size=10, mixup=0.4, seed=(0, 1))[0][0]
    np.testing.assert_array_equal(again["shares"], inputs["shares"])


def test_all_frames_of_a_clip_are_changed_alike():
    clips = keras.Input((3, 32, 32, 3))
    model = keras.Model(clips, keras.layers.Identity()(clips))
    every = Augmentation(flip=True, shift=0.2, rotate=20, zoom=0.2, brightness=0.2, contrast=0.2)
    trainer = fit.with_augmentation(model, augmentation_layers(every))
    still = np.repeat(patterns(8, seed=0).crops(32)[:, None], 3, axis=1).astype(np.float32)
    changed = keras.ops.convert_to_numpy(trainer(still, training=True))
    np.testing.assert_allclose(changed[:, 1:], changed[:, [0, 0]], atol=1e-2)
    assert (np.abs(changed - still).max(axis=(1, 2, 3, 4)) > 1).all() and len(np.unique(changed[:, 0], axis=0)) == 8
    moving = np.arange(8 * 3 * 32 * 32 * 3, dtype=np.float32).reshape(still.shape) % 251
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(trainer(moving, training=False)), moving)


def brightening(n: int, *, seed: int) -> LabelledClips:
    """Clips of three frames that get brighter (happy) or, the same frames the other way round, darker (sad)."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    images = rng.integers(0, 40, (n, 3, 32, 32, 1), np.uint8) + np.uint8([20, 90, 160])[:, None, None, None]
    images[labels == 1] = images[labels == 1][:, ::-1]
    return LabelledClips(images=images, labels=labels, emotions=("happy", "sad"), ids=np.arange(n) + 1000 * seed)


def test_a_temporal_network_learns_what_no_single_frame_tells(tiny, tmp_path):
    parts = {name: brightening(n, seed=n) for name, n in (("train", 64), ("valid", 20), ("test", 22))}
    data = Splits(**parts, name="brightening", terms="made by the tests")
    keras.utils.set_random_seed(0)  # the frame network stays as random as it is made here
    zoo.build("lenet", emotions=2, image_size=32, filters=[4, 4, 8], dense=8).save(tmp_path / "lenet.keras")
    recipe = Recipe(
        architecture="cnn_lstm",
        options={"window": 3, "units": 8},
        weights=str(tmp_path / "lenet.keras"),
        image_size=32,
        batch_size=16,
        head_epochs=6,
        head_learning_rate=2e-2,
        epochs=0,
        augmentation=Augmentation(flip=True, shift=0.02, rotate=0.0),
    )
    assert recipe.window == 3 and Recipe(architecture="cnn_lstm").window == 16 and Recipe().window == 1
    model = fit.build_model(recipe, emotions=2)
    start = model.get_layer("backbone").get_weights()
    card = fit.fit(model, data, recipe, tmp_path / "run", report=lambda line: None)
    assert card.window == 3 and card.input_shape == (3, 32, 32, 3) and card.metrics["test"]["accuracy"] == 1
    engine, saved = load_keras(tmp_path / "run"), np.load(tmp_path / "run" / "predictions.npz")
    np.testing.assert_allclose(engine.logits(data.test.crops(32)), saved["test_logits"], atol=1e-4)
    for a, b in zip(start, engine.model.get_layer("backbone").get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)  # frozen
    with pytest.raises(ValueError, match=r"takes \(3, 32, 32, 3\), but a row of patterns is .*load .* with window=3"):
        fit.fit(model, tiny, recipe, tmp_path / "other")


def test_batches_keep_every_row_and_the_last_partial_batch(tiny):
    order = np.random.default_rng(0).permutation(70)
    batches = Batches(tiny.train, 48, batch_size=16, order=order)
    crops, targets, weights = zip(*(batches[i] for i in range(len(batches))), strict=True)
    crops = [given["images"] for given in crops]
    assert [len(c) for c in crops] == [16, 16, 16, 16, 6] and crops[0].shape[1:] == (48, 48, 3)
    np.testing.assert_array_equal(np.concatenate(targets)[:, 0], np.eye(7)[tiny.train.labels[order]])
    assert np.concatenate(weights).min() == 1


VOTES = np.array([[5, 3, 1, 1, 0, 0, 0], [2, 2, 2, 2, 2, 0, 0], [0, 0, 0, 0, 0, 0, 10]], np.float32) / 10


@pytest.fixture
def voted(tiny):
    """Three faces with the labels 0, 1 and 6, and `VOTES`."""
    return replace(tiny.train.take(np.array([0, 1, 6])), distributions=VOTES)


def aims(faces, targets: str, **options) -> np.ndarray:
    """Return what the loss is to find, (n, emotions), as one batch has it."""
    return Batches(faces, None, batch_size=len(faces), targets=targets, **options)[0][1][:, 0]


def test_what_the_loss_is_to_find(voted):
    one_hot = np.eye(7)[voted.labels]
    np.testing.assert_array_equal(aims(voted, "labels"), one_hot)
    np.testing.assert_array_equal(aims(voted, "distribution"), VOTES)
    right = [[1, 1, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 1]]  # 3 of 10 are enough, 2 are not
    np.testing.assert_array_equal(aims(voted, "multi_target"), right)
    for targets in MODES:  # the metrics' half of a batch
        np.testing.assert_array_equal(Batches(voted, 32, batch_size=3, targets=targets)[0][1][:, 1], one_hot)


def test_labels_are_drawn_from_the_votes_by_seed_and_epoch(voted):
    drawn = np.stack([aims(voted, "probability", seed=(0, epoch, 1)) for epoch in range(2000)])
    assert set(np.unique(drawn)) == {0, 1} and (drawn.sum(axis=2) == 1).all()
    np.testing.assert_allclose(drawn.mean(axis=0), VOTES, atol=0.04)  # 3.5 standard errors of a share of one half
    assert not drawn[:, VOTES == 0].any()
    order = np.array([2, 0, 1])
    again = aims(voted, "probability", seed=(0, 7, 1), order=order)
    np.testing.assert_array_equal(again, drawn[7][order])
    assert (aims(voted, "probability", seed=(1, 7, 1)) != drawn[7]).any()


@pytest.mark.parametrize("targets", MODES)
def test_the_loss_of_every_mode(voted, targets):
    logits = np.random.default_rng(0).normal(size=(3, 7)).astype(np.float32)
    batch = Batches(voted, 32, batch_size=3, targets=targets)[0][1]
    found = fit.target_loss(Recipe(targets=targets))(batch, keras.ops.convert_to_tensor(logits))
    p = softmax(logits)
    expected = -(batch[:, 0] * np.log(p)).sum(axis=1)
    if targets == "multi_target":
        expected = -np.log((batch[:, 0] * p).max(axis=1))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(found), expected, rtol=1e-5)


def test_balanced_weights(tiny):
    rare = tiny.train.take(np.r_[0:70:7, 1:70:14])  # ten of emotion 0, five of emotion 1
    np.testing.assert_allclose(balanced_weights(rare), [0.75, 1.5, 0, 0, 0, 0, 0])


@pytest.mark.parametrize("targets", MODES[1:])
def test_votes_that_are_missing_are_named(tiny, targets):
    with pytest.raises(ValueError, match=f"targets='{targets}' needs annotators' votes.*ferplus-distribution"):
        Batches(replace(tiny.train, distributions=None), 32, batch_size=8, targets=targets)


def test_a_run_with_drawn_labels_resumes_to_the_same_end(tiny, tmp_path, monkeypatch):
    """And what is measured on train are the labels, not what was drawn: the loss is another figure."""
    spread = np.full((70, 7), 0.1, np.float32) + 0.3 * np.eye(7, dtype=np.float32)[tiny.train.labels]
    data = replace(tiny, train=replace(tiny.train, distributions=spread))
    recipe = LONG.with_(targets="probability", head_epochs=0, epochs=2, patience=None)
    train(recipe, data, tmp_path / "undisturbed")

    def dies(*_):
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(run, "write_history", dies)
        train(recipe, data, tmp_path / "killed")
    assert run.load_progress(tmp_path / "killed").epoch == 1
    train(recipe, data, tmp_path / "killed")
    assert_same_end(tmp_path / "undisturbed", tmp_path / "killed")
    history = pd.read_csv(tmp_path / "undisturbed" / "history.csv")
    assert (abs(history["loss"] - history["nll"]) > 0.01).all()


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_other_backends_train_and_tensorflow_loads(backend, tiny, tmp_path):
    if not find_spec(backend):
        pytest.skip(f"{backend} is not installed, so KERAS_BACKEND={backend} is not tried")
    script = KILLED.replace("done == 2 * total // 5 + 2", "False").replace(
        "RECIPE.with_(epochs=5)", "RECIPE.with_(**{changes})"
    )
    changes = {"options": {}, "head_epochs": 0, "epochs": 1, "batch_size": 35, "ema": 0.5}
    script = script.format(tests=str(Path(__file__).parent), folder=str(tmp_path / "other"), changes=changes)
    environment = os.environ | {"KERAS_BACKEND": backend}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    engine, saved = load_keras(tmp_path / "other"), np.load(tmp_path / "other" / "predictions.npz")
    assert engine.card.versions["keras_backend"] == backend
    np.testing.assert_allclose(engine.logits(tiny.test.crops(32)), saved["test_logits"], atol=1e-3)


STEPS = {
    "torch": """
import numpy as np
from fer_tf.training.torch_speed import quick_torch

def step(model, crops):
    model.compile(optimizer="sgd", loss="mse", run_eagerly=True)  # nothing to wait for but the step itself
    before = [weight.copy() for weight in model.get_weights()]
    with quick_torch(model):
        loss = model.train_on_batch(crops, np.ones((2, 7), np.float32))
    changed = any((a != b).any() for a, b in zip(before, model.get_weights()))
    assert np.isfinite(loss) and changed, model.name
""",
    # JAX compiles every shape: minutes for the large ones. So it only follows the step, without numbers.
    "jax": """
import jax

def step(model, crops):
    def loss(trainable, rest):
        logits, _ = model.stateless_call(trainable, rest, crops, training=True)
        return (logits**2).mean()

    trainable, rest = ([v.value for v in vs] for vs in (model.trainable_variables, model.non_trainable_variables))
    slopes = jax.eval_shape(jax.grad(loss), trainable, rest)
    assert [slope.shape for slope in slopes] == [tuple(v.shape) for v in model.trainable_variables]
""",
}
EVERY_ARCHITECTURE = """
import sys
import numpy as np
sys.path.insert(0, {tests!r})
from conftest import small_options, small_size
from fer_tf import zoo
for name in zoo.ARCHITECTURES:
    model = zoo.build(name, emotions=7, image_size=small_size(name), **small_options(name))
    step(model, np.zeros((2, *model.input_shape[1:]), np.float32))
"""


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_architectures_train_a_step_on_other_backends(backend):
    if not find_spec(backend):
        pytest.skip(f"{backend} is not installed, so KERAS_BACKEND={backend} is not tried")
    script = STEPS[backend] + EVERY_ARCHITECTURE.format(tests=str(Path(__file__).parent))
    # JAX compiles more than it runs here.
    quick = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    environment = os.environ | {"KERAS_BACKEND": backend, "XLA_FLAGS": quick}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]


NORMS = """
from contextlib import nullcontext
import keras, numpy as np
from keras import layers
from keras.src.backend.torch import nn
from fer_tf.training.fit import computing_in
from fer_tf.training.torch_speed import COPYING, channels_first, quick_torch, without_gradients

copying = getattr(nn, COPYING)  # gone from Keras? Then torch_speed needs another way

def trained(together, precision):
    keras.utils.set_random_seed(0)
    given = keras.Input((9, 9, 3))
    x = layers.BatchNormalization(momentum=0.9)(layers.Conv2D(4, 3)(given))
    x = layers.MaxPooling2D(padding="same")(layers.Conv2D(4, 3, padding="same")(x))
    x = layers.DepthwiseConv2D(2, strides=2, padding="same")(x)
    x = layers.BatchNormalization(momentum=0.8, scale=False, center=False, epsilon=0.1)(layers.Flatten()(x))
    model = keras.Model(given, layers.Dense(2)(x))
    model.compile(optimizer=keras.optimizers.SGD(0.1), loss="mse")
    x = np.random.default_rng(0).normal(3, 2, (8, 9, 9, 3)).astype(np.float32)
    with computing_in(model, precision):
        with quick_torch(model) if together else nullcontext():
            assert together == all("call" in vars(layer) for layer in model.layers if "batch" in layer.name)
            assert getattr(nn, COPYING) is (channels_first if together else copying)
            for _ in range(2):
                model.train_on_batch(x, x[:, 0, 0, :2])
    assert not any("call" in vars(layer) for layer in model.layers) and getattr(nn, COPYING) is copying
    assert model(x, training=True).requires_grad
    with without_gradients():
        assert not model(x, training=True).requires_grad
    return [*model.get_weights(), model.predict(x, verbose=0)]

for precision, most in (("float32", 1e-4), ("mixed_bfloat16", 0.05)):
    for one, other in zip(trained(True, precision), trained(False, precision), strict=True):
        np.testing.assert_allclose(one, other, atol=most, rtol=most)
"""


def test_what_is_quick_on_torch_gives_the_numbers_of_keras():
    if not find_spec("torch"):
        pytest.skip("torch is not installed, and only there Keras takes detours")
    environment = os.environ | {"KERAS_BACKEND": "torch"}
    done = subprocess.run([sys.executable, "-c", NORMS], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]


def test_a_curve_drawn_first_leaves_a_notebook_showing_figures(tmp_path, monkeypatch):
    import matplotlib
    import matplotlib.pyplot as plt

    from fer_tf import plots

    history, before = plots.history, plt.isinteractive()
    names = ("nll", "accuracy", "macro_f1", "valid_nll", "valid_accuracy", "valid_macro_f1")
    rows = [{"epoch": 1, "phase": "fine", "improved": True} | dict.fromkeys(names, 0.5)]
    plt.ioff()
    try:
        monkeypatch.setattr(plots, "history", lambda frame: (plt.ion(), history(frame))[1])
        run.draw_history(tmp_path, rows)
        assert plt.isinteractive() and (tmp_path / "history.png").stat().st_size > 1000
    finally:
        matplotlib.interactive(before)
