"""The ensemble of `zoo.esr`: its size, its branches and the term that pulls them apart."""

import keras
import numpy as np
import pytest

from fer_tf import zoo
from fer_tf.zoo.esr import Apart, Attention

CROPS = np.random.default_rng(0).integers(0, 256, (4, 54, 54, 3)).astype(np.float32)


def narrow(**options):
    keras.utils.set_random_seed(0)
    return zoo.build("esr", emotions=7, image_size=54, **({"branches": 3, "width": 4} | options))


@pytest.mark.parametrize("diversified", [False, True])
def test_there_are_as_many_parameters_as_published_and_documented(diversified):
    """Every branch after the first adds the same; the biases that batch norm replaces come on top."""
    one, two = (zoo.build("esr", emotions=8, branches=b, diversified=diversified) for b in (1, 2))
    trainable, all_of_them = (
        [count(model) for model in (one, two)]
        for count in (
            lambda model: sum(int(np.prod(weight.shape)) for weight in model.trainable_weights),
            lambda model: model.count_params(),
        )
    )
    found = {}
    for b in (9, 15):
        of_b = [a + (b - 1) * (second - a) for a, second in (trainable, all_of_them)]
        found[b] = [round(n / 1e6, 2) for n in (of_b[0] + 448 + 1152 * b, *of_b)]
    expected = {9: [20.83, 20.82, 20.84], 15: [34.47, 34.45, 34.48]}
    assert found == (expected if diversified else {9: [20.35, 20.34, 20.36], 15: [33.67, 33.65, 33.68]})


@pytest.mark.parametrize("diversified", [False, True])
def test_the_ensemble_is_the_mean_of_branches_that_differ(diversified):
    model = narrow(diversified=diversified)
    for k in (1, 2, 3):
        dense = model.get_layer(f"head_affect_{k}")
        dense.set_weights([np.full((7, 2), float(k)), np.array([0.1, 0.2])])
    told = keras.Model(model.input, zoo.named_outputs(model)).predict(CROPS, verbose=0)
    assert told["branches"].shape == (4, 3, 7) and told["affect"].shape == (4, 2)
    np.testing.assert_allclose(told["logits"], told["branches"].mean(axis=1), atol=1e-5)
    affect = (np.maximum(told["branches"], 0).sum(axis=-1) * [1, 2, 3]).mean(axis=1)
    np.testing.assert_allclose(told["affect"], affect[:, None] + [0.1, 0.2], rtol=1e-4)
    first, *others = (model.get_layer(f"branch_{k}_conv_1").get_weights()[0] for k in (1, 2, 3))
    assert all(np.abs(first - other).max() > 0.01 for other in others)


def test_affect_says_nothing_before_it_is_trained_and_is_saved(tmp_path):
    model = narrow()
    model.get_layer("head_affect_2").set_weights([np.zeros((7, 2)), np.array([0.3, -0.6])])
    model.save(tmp_path / "model.keras")
    saved = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    affect = keras.Model(saved.input, zoo.named_outputs(saved)["affect"]).predict(CROPS, verbose=0)
    np.testing.assert_allclose(affect, np.tile([0.1, -0.2], (4, 1)), atol=1e-6)  # a third of one branch's bias


def test_branches_that_are_alike_cost_in_training():
    a, b = np.array([[3.0, 0.0], [0.0, 1.0]], np.float32), np.array([[1.0, 0.0], [0.0, 2.0]], np.float32)
    for other, similarity in ((b, 1.0), (b[:, ::-1].copy(), np.exp(-2))):
        layer = Apart(0.5)
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(layer([other, a], training=True)), a)
        assert float(layer.losses[0]) == pytest.approx(0.5 * similarity, rel=1e-4)
    layer([other, a], training=False)
    assert not layer.losses


def test_training_pulls_the_branches_apart():
    """With labels that say nothing, only the term is left to learn from."""
    model = narrow(diversified=True, diversity=0.9, branches=2, width=2)
    model.compile(optimizer=keras.optimizers.Adam(1e-2), loss=lambda y_true, y_pred: 0 * y_pred[:, 0], run_eagerly=True)
    costs = [model.train_on_batch(CROPS, np.zeros((4, 7), np.float32)) for _ in range(5)]
    assert 0 < costs[-1] < 0.9 * costs[0]


def test_attention_is_cbam():
    """One channel and one place count: the factors are sigmoids of what the layers make of means and maxima."""
    layer, x = Attention(), np.zeros((1, 3, 3, 2), np.float32)
    x[0, 1, 1] = 9.0, 1.8
    layer.build(x.shape)
    layer.hidden.set_weights([np.array([[1.0], [0.0]]), np.zeros(1)])
    layer.channels.set_weights([np.array([[0.0, -0.1]]), np.zeros(2)])
    layer.places.set_weights([np.zeros((7, 7, 2, 1))])
    found = keras.ops.convert_to_numpy(layer(x))
    second = 1 / (1 + np.exp(0.1 * (1.0 + 9.0)))  # mean and maximum of the first channel
    np.testing.assert_allclose(found[0, 1, 1], [9.0 * 0.5 * 0.5, 1.8 * second * 0.5], rtol=1e-4)
