import json
import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest

from fer_tf.training import fit, run
from fer_tf.training.batches import Batches, balanced_weights
from fer_tf.training.keras_engine import load_keras
from fer_tf.training.recipe import Augmentation, Recipe
from fer_tf.training.run import Progress
from fer_tf.zoo import ARCHITECTURES

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
    assert {p.name for p in folder.iterdir()} == expected | {"card.json", "metrics.json"}
    history = pd.read_csv(folder / "history.csv")
    assert list(history["phase"]) == ["head"] + ["fine"] * 5
    columns = {
        "loss",
        "accuracy",
        "macro_f1",
        "valid_loss",
        "valid_accuracy",
        "valid_macro_f1",
        "learning_rate",
        "improved",
    }
    assert columns < set(history.columns)
    assert Recipe.load(folder / "recipe.json") == recipe
    assert card.data["fingerprint"] == tiny.fingerprint and card.emotions == tiny.emotions
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


def test_the_head_phase_leaves_the_backbone_alone(tiny, tmp_path):
    recipe = RECIPE.with_(head_epochs=1, epochs=0)
    before = fit.build_model(recipe, emotions=7)
    start = {layer.name: layer.get_weights() for layer in before.layers}
    fit.fit(before, tiny, recipe, tmp_path / "head", report=lambda line: None)
    assert all(
        np.array_equal(a, b) for a, b in zip(start["conv_1"], before.get_layer("conv_1").get_weights(), strict=True)
    )
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
steps = []
def on_step(done, total):
    steps.append(done)
    if len(steps) == 2 * total + 2:  # in the middle of epoch 3
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
    assert lines[0] == "resumed after epoch 2"
    columns = ["loss", "accuracy", "valid_loss", "valid_accuracy", "learning_rate"]
    there, here = (pd.read_csv(f / "history.csv")[columns] for f in (folder, tmp_path / "killed"))
    np.testing.assert_allclose(here, there, rtol=2e-3, atol=1e-5)
    expected_weights, weights = (load_keras(f).model.get_weights() for f in (folder, tmp_path / "killed"))
    for expected, found in zip(expected_weights, weights, strict=True):
        np.testing.assert_allclose(found, expected, atol=2e-3)


def test_one_seed_gives_one_result(finished, tiny, tmp_path):
    folder, _, recipe = finished
    train(recipe, tiny, tmp_path / "again")
    again, there = (pd.read_csv(f / "history.csv")["loss"] for f in (tmp_path / "again", folder))
    np.testing.assert_allclose(again, there, rtol=2e-3)
    train(recipe.with_(seed=1), tiny, tmp_path / "other")
    assert abs(pd.read_csv(tmp_path / "other" / "history.csv")["loss"] - there).max() > 1e-2


def test_a_folder_belongs_to_one_run(finished, tiny, tmp_path):
    folder, _, recipe = finished
    with pytest.raises(ValueError, match="holds a finished run"):
        train(recipe, tiny, folder)
    run.claim(tmp_path / "begun", recipe, tiny)
    with pytest.raises(ValueError, match="another recipe"):
        train(recipe.with_(seed=5), tiny, tmp_path / "begun")


ROW = {"phase": "fine", "valid_loss": 1.0, "valid_macro_f1": 0.5}


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
    recipe, progress = Recipe(schedule="plateau", plateau_patience=2, monitor="loss"), Progress()
    drops = []
    for epoch, loss in enumerate([1.0, 0.9, 0.9, 0.95, 0.8, 0.8, 0.8], start=1):
        row = ROW | {"epoch": epoch, "valid_accuracy": 0.5, "valid_loss": loss}
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


def test_macro_f1_is_the_reports(tiny):
    from fer_tf.training.evaluate import report

    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(90, 7)).astype(np.float32), rng.integers(0, 7, 90)
    metric = fit.MacroF1(7)
    for rows in (slice(0, 64), slice(64, 90)):
        metric.update_state(np.eye(7, dtype=np.float32)[labels[rows]], logits[rows])
    assert float(metric.result()) == pytest.approx(report(logits, labels, tiny.emotions).macro_f1, abs=1e-6)


def test_augmentation_is_for_training_only(tiny):
    layers = fit.augmentation_layers(
        Augmentation(shift=0.2, rotate=20, zoom=0.2, brightness=0.2, contrast=0.2, erase=0.2)
    )
    assert len(layers) == 7 and not fit.augmentation_layers(STILL)
    crops = tiny.valid.crops(32)[:4].astype(np.float32)
    for layer in layers:
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(layer(crops, training=False)), crops)
        changed = keras.ops.convert_to_numpy(layer(crops, training=True))
        assert changed.min() >= -1e-3 and changed.max() <= 255.001


def test_batches_keep_every_row_and_the_last_partial_batch(tiny):
    order = np.random.default_rng(0).permutation(70)
    batches = Batches(tiny.train, 48, batch_size=16, order=order)
    crops, targets, weights = zip(*(batches[i] for i in range(len(batches))), strict=True)
    assert [len(c) for c in crops] == [16, 16, 16, 16, 6] and crops[0].shape[1:] == (48, 48, 3)
    np.testing.assert_array_equal(np.concatenate(targets).argmax(axis=1), tiny.train.labels[order])
    assert np.concatenate(weights).min() == 1


def test_distributions_as_targets_and_balanced_weights(tiny):
    _, targets, _ = Batches(tiny.train, 32, batch_size=8, targets="distribution")[0]
    np.testing.assert_array_equal(targets, tiny.train.distributions[:8])
    rare = tiny.train.take(np.r_[0:70:7, 1:70:14])  # ten of emotion 0, five of emotion 1
    np.testing.assert_allclose(balanced_weights(rare), [0.75, 1.5, 0, 0, 0, 0, 0])
    no_votes = type(rare)(images=rare.images, labels=rare.labels, emotions=rare.emotions, ids=rare.ids)
    with pytest.raises(ValueError, match="carry none"):
        Batches(no_votes, 32, batch_size=8, targets="distribution")


@pytest.mark.parametrize("backend", ["jax", "torch"])
@pytest.mark.parametrize("architecture", list(ARCHITECTURES))
def test_other_backends_train_and_tensorflow_loads(backend, architecture, tiny, tmp_path):
    if not find_spec(backend):
        pytest.skip(f"{backend} is not installed, so KERAS_BACKEND={backend} is not tried")
    script = KILLED.replace("len(steps) == 2 * total + 2", "False").replace(
        "RECIPE.with_(epochs=5)", "RECIPE.with_(**{changes})"
    )
    changes = {"architecture": architecture, "options": {}, "head_epochs": 0, "epochs": 1, "batch_size": 35}
    script = script.format(tests=str(Path(__file__).parent), folder=str(tmp_path / "other"), changes=changes)
    environment = os.environ | {"KERAS_BACKEND": backend}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    engine, saved = load_keras(tmp_path / "other"), np.load(tmp_path / "other" / "predictions.npz")
    assert engine.card.versions["keras_backend"] == backend
    np.testing.assert_allclose(engine.logits(tiny.test.crops(32)), saved["test_logits"], atol=1e-3)
