"""Trainings on several devices: one CPU that JAX divides stands for them, so the numbers are tested, and no speed."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest

from fer_tf.training import parallel

TRAINED = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import jax, keras
from conftest import patterns
from test_fit import RECIPE, train
from fer_tf.data.labelled import Splits
from fer_tf.training import fit, parallel, run

data = Splits(train=patterns(70, seed=1), valid=patterns(35, seed=2), test=patterns(35, seed=3), name="patterns",
              terms="made by the tests")
recipe = RECIPE.with_(head_epochs=0, batch_size=35, mixup=0.4, ema=0.5)  # 35 rows do not divide by 2 devices
folder, two = Path({folder!r}), ["cpu:0", "cpu:1"]

def stop(done, total):
    if done % 2 and done > 1 and done > 2 * begun:  # in the middle of the second epoch from here
        raise KeyboardInterrupt

assert parallel.choose(None) == two[:1] and parallel.choose(2) == two  # CPUs only where they are asked for
train(recipe, data, folder / "one", devices=1)
for begun in (1, 2):
    try:
        train(recipe, data, folder / "several", devices=2, on_step=stop)
    except KeyboardInterrupt:
        assert run.load_progress(folder / "several").epoch == begun
train(recipe, data, folder / "several", devices=1)

model = fit.build_model(recipe, emotions=7)
before = model.get_weights()
with parallel.spread(model, two):
    trainer = fit.with_augmentation(model, [])
    called = jax.jit(lambda crops: trainer.stateless_call(
        [v.value for v in trainer.trainable_variables], [v.value for v in trainer.non_trainable_variables], crops)[0])
    logits = called({{"images": data.train.crops(32, slice(16))}})
    assert sorted(part.data.shape for part in logits.addressable_shards) == [(8, 7)] * 2  # each computed its half
    assert all(len(v.value.devices()) == 2 for v in model.variables)
assert all(len(v.value.devices()) == 1 for v in model.variables) and keras.distribution.distribution() is None
assert all((a == b).all() for a, b in zip(before, model.get_weights(), strict=True))
try:
    parallel.choose(3)
except ValueError as error:
    assert str(error) == "devices must be at most 2, for there are cpu:0, cpu:1; got 3", error
else:
    raise AssertionError("there are no 3 devices")
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folder of two runs of three epochs: on `one` device, and twice interrupted: two epochs on two, then one."""
    if not find_spec("jax"):
        pytest.skip("jax is not installed, and only there do devices share a batch")
    folder = tmp_path_factory.mktemp("runs")
    script = TRAINED.format(tests=str(Path(__file__).parent), folder=str(folder))
    simulated = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    environment = os.environ | {"KERAS_BACKEND": "jax"} | simulated
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def test_several_devices_train_as_one_does(runs):
    """Losses, figures of valid and predictions agree: batches do not divide, mixup and averages are on."""
    columns = ["epoch", "loss", "nll", "accuracy", "valid_nll", "valid_accuracy", "learning_rate"]
    expected, found = (pd.read_csv(runs / name / "history.csv") for name in ("one", "several"))
    np.testing.assert_allclose(found[columns], expected[columns], rtol=1e-3)
    expected, found = (np.load(runs / name / "predictions.npz") for name in ("one", "several"))
    np.testing.assert_allclose(found["test_logits"], expected["test_logits"], atol=1e-2)


def test_the_papers_say_which_devices(runs):
    used = {name: pd.read_csv(runs / name / "history.csv")["devices"].tolist() for name in ("one", "several")}
    assert used == {"one": [1, 1, 1], "several": [2, 2, 1]}
    logs = {name: (runs / name / "log.txt").read_text().splitlines() for name in used}
    line = "2 devices share every batch: cpu:0, cpu:1"
    assert {name: log.count(line) for name, log in logs.items()} == {"one": 0, "several": 2}
    assert [text for text in logs["several"] if "resumed" in text] == [f"resumed after epoch {k}" for k in (1, 2)]


def test_other_backends_take_one_device():
    if keras.backend.backend() == "jax":
        pytest.skip("this is JAX, which takes several")
    assert parallel.choose(None) == parallel.choose(1) == [] and parallel.count() == 1
    with pytest.raises(ValueError, match="2 devices needs KERAS_BACKEND=jax, and this is"):
        parallel.choose(2)
    with pytest.raises(ValueError, match="devices must be at least 1, got 0"):
        parallel.choose(0)
