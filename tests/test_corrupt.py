"""Corruptions: the same face gets the same one in any company, each severity is worse, and nothing else changes."""

from dataclasses import replace

import numpy as np
import pytest

from fer_tf.data.corrupt import CORRUPTIONS, SEVERITIES, corrupt, examples
from fer_tf.data.drawn import draw_faces
from fer_tf.data.labelled import LabelledClips

FACES = draw_faces(8, size=48, seed=1)
GREY = replace(FACES, images=FACES.images[..., 1:2])


def change(faces, name, severity) -> np.ndarray:
    """Mean absolute difference of every face, of 255."""
    return np.abs(corrupt(faces, name, severity).images.astype(int) - faces.images).mean(axis=(1, 2, 3))


@pytest.mark.parametrize("faces", [FACES, GREY], ids=["colour", "grey"])
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_shape_dtype_labels_and_the_originals_stay(name, faces):
    before = faces.images.copy()
    spoiled = corrupt(faces, name, 3)
    assert spoiled.images.shape == faces.images.shape and spoiled.images.dtype == np.uint8
    assert np.array_equal(spoiled.labels, faces.labels) and np.array_equal(spoiled.ids, faces.ids)
    assert np.array_equal(faces.images, before) and not np.array_equal(spoiled.images, before)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_face_is_corrupted_alike_in_any_order_and_company(name):
    rows = np.array([5, 2])
    alone, together = corrupt(FACES.take(rows), name, 4).images, corrupt(FACES, name, 4).images
    assert np.array_equal(alone, together[rows])
    assert np.array_equal(corrupt(FACES, name, 4).images, together)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_each_severity_is_worse(name):
    changes = np.array([change(FACES, name, severity).mean() for severity in SEVERITIES])
    assert changes[0] > 0.5 and (np.diff(changes) > 0.05).all()


@pytest.mark.parametrize(("name", "by_chance"), [("noise", True), ("rotation", True), ("JPEG", False)])
def test_the_seed_decides_what_chance_does_and_nothing_else(name, by_chance):
    first, second = (corrupt(FACES, name, 2, seed=seed).images for seed in (0, 1))
    assert np.array_equal(first, second) != by_chance


def test_rows_differ_in_noise_and_directions():
    flat = replace(FACES, images=np.full_like(FACES.images, 128))
    noise = corrupt(flat, "noise", 1).images.astype(int) - 128
    assert noise.std() == pytest.approx(0.04 * 255, rel=0.03) and np.ptp(noise, axis=-1).max() == 0  # of light alone
    assert len({picture.tobytes() for picture in noise}) == len(noise)
    assert {int(picture.max()) for picture in corrupt(flat, "brightness", 5).images} == {0, 255}


@pytest.mark.parametrize(("name", "row"), [("eyes covered", 0.36), ("mouth covered", 0.79)])
def test_a_bar_covers_its_place_in_the_pictures_mean_and_leaves_the_rest(name, row):
    spoiled = corrupt(FACES, name, 2).images
    changed = (spoiled != FACES.images).any(axis=(0, 3))
    covered = np.flatnonzero(changed.any(axis=1))
    assert abs(covered.mean() + 0.5 - row * 48) <= 1 and abs(len(covered) - 0.14 * 48) < 1
    means = FACES.images.mean(axis=(1, 2))
    assert np.abs(spoiled[:, int(row * 48), 24] - means).max() <= 0.5


def test_a_shift_moves_by_whole_pixels():
    spoiled = corrupt(FACES, "shift", 5).images  # 0.2 of 48 px is 10
    for before, after in zip(FACES.images, spoiled, strict=True):
        middle = after[20:28, 20:28]
        moves = ((y, x) for y in range(-10, 11) for x in range(-10, 11))
        found = [(y, x) for y, x in moves if np.array_equal(before[20 + y : 28 + y, 20 + x : 28 + x], middle)]
        assert any(9 <= np.hypot(y, x) <= 11 for y, x in found)


def test_low_resolution_keeps_a_flat_picture():
    flat = replace(FACES, images=np.full_like(FACES.images, 77))
    for name in ("low resolution", "blur", "contrast", "rotation", "shift", "JPEG"):
        assert np.abs(corrupt(flat, name, 5).images.astype(int) - 77).max() <= 1, name


@pytest.mark.parametrize(
    ("name", "severity", "message"),
    [("fog", 1, "unknown corruption 'fog'; known are noise, blur"), ("blur", 0, "1 to 5, got 0"), ("blur", 6, "got 6")],
)
def test_what_is_unknown_is_named(name, severity, message):
    with pytest.raises(ValueError, match=message):
        corrupt(FACES, name, severity)


def test_clips_are_refused():
    clips = LabelledClips(
        images=np.zeros((1, 2, 48, 48, 1), np.uint8), labels=np.zeros(1, int), emotions=FACES.emotions, ids=np.arange(1)
    )
    with pytest.raises(ValueError, match=r"clips: take their \.frames"):
        corrupt(clips, "blur", 1)


def test_examples_show_one_face_before_and_at_each_severity():
    shown = examples(FACES, ["blur", "noise"], severities=(1, 5))
    assert list(shown) == ["blur", "noise"] and shown["blur"].shape == (3, 48, 48, 3)
    assert np.array_equal(shown["noise"][0], FACES.images[0])
    assert np.array_equal(shown["noise"][2], corrupt(FACES, "noise", 5).images[0])
