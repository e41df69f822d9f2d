"""Scores of saliency maps, on engines and maps whose scores are known."""

from types import SimpleNamespace

import numpy as np
import pytest
from conftest import small_options, small_size
from scipy.stats import spearmanr

from fer_tf import labels, paths, zoo
from fer_tf.card import ModelCard
from fer_tf.data.drawn import draw_faces, draw_faces_and_regions
from fer_tf.training.explain import saliency
from fer_tf.training.explain_scores import (
    area,
    blurred,
    deletion,
    forgetting,
    insertion,
    pointing,
    random_maps,
    randomised,
    rank_correlation,
)
from fer_tf.training.keras_engine import KerasEngine, load_keras
from fer_tf.training.regions import landmark_regions

CARD = ModelCard(name="corner", architecture="lenet", emotions=("dark", "bright"), image_size=32)
CORNER = np.zeros((1, 32, 32), np.float32)
CORNER[:, :16, :16] = 1


def look_at_the_corner(crops):
    """The logit of "bright" is the mean brightness of the upper left quarter, in tenths of grey; that of "dark" 10."""
    bright = crops[:, :16, :16].mean(axis=(1, 2, 3)) / 10
    return np.stack([np.full_like(bright, 10), bright], axis=1).astype(np.float32)


ENGINE = SimpleNamespace(card=CARD, logits=look_at_the_corner)


def crop():
    """A bright corner, 200, in a dark picture, 0: its mean colour is 50."""
    return (200 * CORNER[..., None] * np.ones(3)).astype(np.uint8)


def bright(grey):
    return 1 / (1 + np.exp(10 - grey / 10))


def test_deletion_takes_the_brightest_places_first():
    found = deletion(ENGINE, crop(), CORNER, steps=8)
    greys = 200 - np.array([0, 0.5, 1, 1, 1, 1, 1, 1, 1]) * 150  # two steps take the corner, the rest changes nothing
    np.testing.assert_allclose(found[0], bright(greys), atol=1e-6)
    late = deletion(ENGINE, crop(), 1 - CORNER, steps=8)
    np.testing.assert_allclose(late[0, :7], bright(200), atol=1e-6)
    assert area(found) < 0.2 and area(late) > 0.8


def test_insertion_brings_the_brightest_places_first():
    found, late = (insertion(ENGINE, crop(), maps, steps=8) for maps in (CORNER, 1 - CORNER))
    start = softmax_bright(blurred(crop()))
    for curve in (found, late):
        assert curve[0, 0] == pytest.approx(start) and curve[0, -1] == pytest.approx(bright(200))
    assert found[0, 2] == pytest.approx(bright(200)) and area(found) > area(late)
    np.testing.assert_allclose(late[0, :7], start, atol=1e-6)


def softmax_bright(crops):
    dark, light = look_at_the_corner(crops)[0]
    return 1 / (1 + np.exp(dark - light))


def test_the_emotion_is_that_of_the_whole_crop_unless_named():
    pair, maps = np.concatenate([crop(), 0 * crop()]), np.repeat(CORNER, 2, axis=0)
    free = deletion(ENGINE, pair, maps, steps=4, batch_size=1)
    named = deletion(ENGINE, pair, maps, steps=4, emotion=np.array([1, 0]))
    np.testing.assert_array_equal(free, named)
    other = deletion(ENGINE, pair, maps, steps=4, emotion=0)
    np.testing.assert_allclose(free[0] + other[0], 1, atol=1e-6)


def test_places_of_equal_strength_go_in_random_order():
    """An empty map is a random one: not the upper left corner first, which would look like knowledge."""
    empty = deletion(ENGINE, crop(), 0 * CORNER, steps=8, seed=1)
    np.testing.assert_allclose(empty[0], bright(200 - 150 * np.arange(9) / 8), atol=0.15)
    assert not np.array_equal(empty, deletion(ENGINE, crop(), 0 * CORNER, steps=8, seed=2))


def test_a_map_that_knows_beats_one_that_does_not():
    """The shipped LeNet: its maps against random ones of the same grain."""
    engine, crops = load_keras(paths.MODELS / "lenet"), draw_faces(40, seed=11).crops(48)
    named = engine.logits(crops).argmax(axis=1)
    maps, lots = saliency(engine, crops, emotion=named), random_maps(crops.shape[:-1], cells=12, seed=0)
    ours, chance = (area(deletion(engine, crops, m, emotion=named, steps=8)).mean() for m in (maps, lots))
    assert ours < chance - 0.02
    ours, chance = (area(insertion(engine, crops, m, emotion=named, steps=8)).mean() for m in (maps, lots))
    assert ours > chance + 0.02


def test_clips_are_covered_over_all_their_frames():
    card = ModelCard(name="clip", architecture="cnn_lstm", emotions=("dark", "bright"), image_size=32, window=3)
    last = SimpleNamespace(card=card, logits=lambda clips: look_at_the_corner(clips[:, -1]))
    clip, maps = np.repeat(crop()[:, None], 3, axis=1), np.zeros((1, 3, 32, 32), np.float32)
    maps[:, -1] = CORNER
    found = deletion(last, clip, maps, steps=12)
    np.testing.assert_allclose(found[0, 1:], bright(50), atol=1e-6)
    assert insertion(last, clip, maps, steps=3).shape == (1, 4)


def test_a_constant_curve_has_its_value_as_area():
    np.testing.assert_allclose(area(np.full((2, 11), 0.3)), 0.3)


@pytest.mark.parametrize(
    ("maps", "choice", "message"),
    [
        (np.zeros((1, 16, 16)), {}, r"maps must be \(1, 32, 32\)"),
        (CORNER, {"steps": 0}, "steps must be 1 or more"),
        (CORNER, {"emotion": 2}, r"index 0\.\.1"),
    ],
)
def test_covering_refuses_what_does_not_fit(maps, choice, message):
    for score in (deletion, insertion):
        with pytest.raises(ValueError, match=message):
            score(ENGINE, crop(), maps, **choice)


def test_random_maps_have_the_grain_asked_for():
    fine, coarse = random_maps((3, 48, 48), seed=1), random_maps((3, 48, 48), cells=6, seed=1)
    for maps in (fine, coarse):
        assert maps.shape == (3, 48, 48) and maps.dtype == np.float32 and 0 <= maps.min() <= maps.max() <= 1
    steps = [np.abs(np.diff(maps, axis=2)).mean() for maps in (fine, coarse)]
    assert steps[1] < steps[0] / 4 and random_maps((2, 5, 48, 48), cells=6).shape == (2, 5, 48, 48)


def test_pointing_asks_where_the_peak_lies():
    maps = np.zeros((4, 32, 32), np.float32)
    maps[0, 3, 3] = maps[1, 30, 30] = 1
    maps[2, 3, [3, 30]] = 0.5  # two peaks, one inside; the fourth map has none
    hits = pointing(maps, {"corner": CORNER.astype(bool), "all": np.ones((4, 32, 32), bool)})
    np.testing.assert_array_equal(hits["corner"], [1, 0, 0.5, 0])
    np.testing.assert_array_equal(hits["all"], [1, 1, 1, 0])


def test_rank_correlation_is_spearmans():
    rng = np.random.default_rng(0)
    one, other = rng.integers(0, 5, (2, 3, 8, 8)).astype(float)  # many ties
    other[2] = one[2] ** 3
    found = rank_correlation(one, other)
    expected = [spearmanr(a.ravel(), b.ravel()).statistic for a, b in zip(one, other, strict=True)]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert found[2] == pytest.approx(1) and rank_correlation(one, 0 * one).tolist() == [0, 0, 0]


@pytest.mark.parametrize("name", ["lenet", "vit", "esr", "cnn_lstm"])
def test_forgetting_goes_from_the_head_down(name):
    size = small_size(name)
    model = zoo.build(name, emotions=7, image_size=size, **small_options(name))
    for variable in model.variables:  # a "trained" network: no weight as a new one has it
        if variable.dtype == "float32":
            variable.assign(np.full(variable.shape, 0.123, np.float32))
    window = zoo.architecture(name).window
    card = ModelCard(name=name, architecture=name, emotions=labels.FER2013, image_size=size, window=window)
    engine = KerasEngine(model, card)
    left, before = [], model.get_weights()
    for _, copy in randomised(engine, stages=3, seed=1):
        kept = [np.all(w == np.float32(0.123)) for w in copy.model.get_weights() if w.dtype == np.float32]
        left.append(np.mean(kept))
        head = next(layer for layer in copy.model.layers if layer.name.startswith("head_") and layer.weights)
        assert not np.any(head.get_weights()[0] == np.float32(0.123))
    assert 1 > left[0] > left[1] > left[2] == 0
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


def test_a_method_that_redraws_the_picture_fails_the_sanity_check():
    engine, crops = load_keras(paths.MODELS / "lenet"), draw_faces(12, seed=4).crops(48)
    named = engine.logits(crops).argmax(axis=1)
    explain = {
        "edges": lambda engine: np.abs(np.gradient(crops.mean(axis=-1), axis=1)),
        "hires_cam": lambda engine: saliency(engine, crops, method="hires_cam", emotion=named),
    }
    table = forgetting(engine, explain, stages=2, seed=0)
    assert list(table.columns) == ["head", "all"] and list(table.index) == ["edges", "hires_cam"]
    assert (table.loc["edges"] > 0.999).all() and table.loc["hires_cam", "all"] < 0.5
    assert table.equals(forgetting(engine, explain, stages=2, seed=0))
    with pytest.raises(ValueError, match="stages must be 2 or more"):
        forgetting(engine, explain, stages=1)


def test_drawn_faces_know_where_their_eyes_and_mouth_are():
    faces, regions = draw_faces_and_regions(70, size=64, seed=3)
    np.testing.assert_array_equal(faces.images, draw_faces(70, size=64, seed=3).images)
    rows = np.arange(64)[:, None]
    middle = {name: (mask * rows).sum(axis=(1, 2)) / mask.sum(axis=(1, 2)) for name, mask in regions.items()}
    assert (middle["brows"] < middle["eyes"]).all() and (middle["eyes"] + 10 < middle["mouth"]).all()
    share = {name: mask.mean() for name, mask in regions.items()}
    assert all(0.02 < each < 0.15 for each in share.values())


def test_yunet_finds_the_regions_where_they_were_drawn():
    if not paths.YUNET.is_file():
        pytest.skip("YuNet is not here (fer-tf download yunet)")
    faces, drawn = draw_faces_and_regions(20, size=96, seed=3)
    crops = np.concatenate([faces.images, np.full((1, 96, 96, 3), 90, np.uint8)])
    seen, found = landmark_regions(crops)
    assert seen[:-1].mean() > 0.9 and not seen[-1] and not any(mask[-1].any() for mask in found.values())
    for name, mask in drawn.items():
        one, other = mask[seen[:-1]], found[name][seen]
        assert ((one & other).sum() / (one | other).sum()) > 0.3, name


def test_without_yunet_the_regions_say_where_to_get_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="fer-tf download yunet"):
        landmark_regions(np.zeros((1, 48, 48, 3), np.uint8), file=tmp_path / "none.onnx")
