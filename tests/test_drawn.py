"""Drawn faces: action units, pictures, splits and clips."""

import itertools
from dataclasses import replace

import cv2
import numpy as np
import pytest

from fer_tf.data import drawn
from fer_tf.data.drawn_face import outlines
from fer_tf.data.drawn_tables import APEX, EXPRESSIONS, UNITS, sample_traits
from fer_tf.labels import CIRCUMPLEX, FER2013


@pytest.fixture(scope="module")
def splits():
    return drawn.splits(n_train=140, n_valid=70, n_test=35, seed=3)


@pytest.fixture(scope="module")
def shapes():
    """The outlines of one person who shows every emotion at its apex, by emotion."""
    person = np.repeat(sample_traits(1, np.random.default_rng(0)), len(FER2013))
    parts = outlines(person, APEX)
    return {emotion: {name: part[i] for name, part in parts.items()} for i, emotion in enumerate(FER2013)}


def height(contours):
    return np.ptp(contours[0, :, 1])


def corners_below_middle(contours):
    """How far the corners of a mouth hang below its middle; negative in a smile."""
    x, y = contours[0].T
    return (y[x.argmin()] + y[x.argmax()]) / 2 - y[np.abs(x - x.mean()).argsort()[:2]].mean()


def inner_end(brows):
    x, y = brows[0].T
    return y[x.argmin()]


def outer_end(brows):
    x, y = brows[0].T
    return y[x.argmax()]


@pytest.mark.parametrize(
    ("part", "measure", "less", "more"),
    [
        ("mouth", corners_below_middle, "happy", "neutral"),
        ("mouth", corners_below_middle, "neutral", "sad"),
        ("mouth", height, "happy", "surprise"),
        ("lips", height, "angry", "neutral"),
        ("eyes", height, "happy", "neutral"),
        ("eyes", height, "neutral", "fear"),
        ("brows", inner_end, "sad", "neutral"),  # y points down: less is higher
        ("brows", inner_end, "neutral", "angry"),
        ("brows", outer_end, "surprise", "neutral"),
    ],
)
def test_action_units_move_the_face(shapes, part, measure, less, more):
    assert measure(shapes[less][part]) < measure(shapes[more][part]) - 0.005


def test_table_of_expressions():
    assert set(EXPRESSIONS) == set(FER2013)
    assert not EXPRESSIONS["neutral"]
    for expression in EXPRESSIONS.values():
        assert set(expression) <= set(UNITS)
        assert all(0 < intensity <= 1 for intensity in expression.values())
    for one, other in itertools.combinations(APEX, 2):
        assert np.abs(one - other).sum() >= 1


def test_every_action_unit_moves_an_outline():
    person = sample_traits(1, np.random.default_rng(0))
    rest = outlines(person, np.zeros((1, len(UNITS)), np.float32))
    for unit, row in zip(UNITS, np.eye(len(UNITS), dtype=np.float32), strict=True):
        moved = outlines(person, row[None])
        assert any(np.abs(moved[name] - rest[name]).max() > 0.01 for name in rest), UNITS[unit]


@pytest.mark.parametrize("size", [48, 49, 96, 224])
def test_pictures_are_bright_varied_and_square(size):
    faces = drawn.draw_faces(7, size=size, seed=1)
    assert faces.images.shape == (7, size, size, 3)
    assert faces.images.dtype == np.uint8
    assert faces.images.reshape(7, -1).std(axis=1).min() > 10
    assert 40 < faces.images.mean() < 215


def test_labels_follow_the_distributions():
    faces = drawn.draw_faces(211, seed=2)
    assert faces.emotions == FER2013
    np.testing.assert_allclose(faces.distributions.sum(axis=1), 1, atol=1e-6)
    assert faces.distributions.min() >= 0
    np.testing.assert_array_equal(faces.distributions.argmax(axis=1), faces.labels)
    counts = np.bincount(faces.labels, minlength=7)
    assert counts.max() - counts.min() <= 1
    assert (faces.distributions.max(axis=1) < 0.9).mean() > 0.2  # mixed expressions


def test_affect_follows_the_distributions():
    faces = drawn.draw_faces(70, seed=3)
    angry, happy = (faces.distributions[:, FER2013.index(emotion)] for emotion in ("angry", "happy"))
    assert faces.affect.dtype == np.float32 and np.abs(faces.affect).max() <= 1
    assert (faces.affect[happy > 0.6, 0] > 0.25).all() and (faces.affect[angry > 0.6, 0] < -0.05).all()
    pure = drawn.draw_faces(7, mix=0.0)
    np.testing.assert_allclose(pure.affect, [CIRCUMPLEX[FER2013[k]] for k in pure.labels], atol=1e-6)


def test_affect_is_kept_checked_and_told():
    splits = drawn.splits(n_train=14, n_valid=7, n_test=7)
    rows = np.array([3, 1])
    np.testing.assert_array_equal(splits.train.take(rows).affect, splits.train.affect[rows])
    without = replace(splits, train=replace(splits.train, affect=None))
    assert without.train.take(rows).affect is None and without.fingerprint != splits.fingerprint
    with pytest.raises(ValueError, match=r"affect must be \(7, 2\).*with 14 values outside"):
        replace(splits.test, affect=np.full((7, 2), 400.0))


def test_without_mixing_the_distributions_are_pure():
    faces = drawn.draw_faces(14, mix=0.0)
    np.testing.assert_array_equal(faces.distributions, np.eye(7)[faces.labels])


def test_the_seed_decides_every_pixel():
    first, again, other = (drawn.draw_faces(70, seed=seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first.images, again.images)
    np.testing.assert_array_equal(first.labels, again.labels)
    assert not np.isin(first.hashes, other.hashes).any()


def test_splits_share_nothing_and_say_what_they_are(splits):
    assert [len(faces) for _, faces in splits.items()] == [140, 70, 35]
    every_hash = np.concatenate([faces.hashes for _, faces in splits.items()])
    every_id = np.concatenate([faces.ids for _, faces in splits.items()])
    assert len(np.unique(every_hash)) == len(np.unique(every_id)) == 245
    assert splits.name == "drawn"
    for words in ("Drawings", "no photographs", "CC0"):
        assert words in splits.terms
    assert drawn.splits(n_train=140, n_valid=70, n_test=35, seed=3).fingerprint == splits.fingerprint


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"n": 0}, "at least 1"),
        ({"n": 7, "size": 47}, r"48\.\.224"),
        ({"n": 7, "size": 225}, r"48\.\.224"),
        ({"n": 7, "mix": 1.5}, r"0\.\.1"),
    ],
)
def test_bad_faces_are_refused(arguments, says):
    with pytest.raises(ValueError, match=says):
        drawn.draw_faces(**arguments)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"faces": 0}, r"1\.\.4"),
        ({"faces": 5}, r"1\.\.4"),
        ({"frames": 0}, "at least 1 frame"),
        ({"fps": 0.0}, "positive rate"),
        ({"faces": 4, "width": 160}, "too small"),
    ],
)
def test_bad_clips_are_refused(arguments, says):
    with pytest.raises(ValueError, match=says):
        drawn.draw_clip(**arguments)


@pytest.mark.parametrize("faces", [1, 2, 3, 4])
def test_boxes_lie_in_the_picture_and_apart(faces):
    clip = drawn.draw_clip(faces=faces, frames=600, seed=faces)
    assert clip.xyxy.shape == (600, faces, 4)
    assert clip.xyxy.dtype == np.float32
    assert clip.visible.shape == clip.labels.shape == (600, faces)
    assert clip.visible.all()
    assert clip.xyxy.min() >= 0
    assert (clip.xyxy <= (640, 480, 640, 480)).all()
    np.testing.assert_allclose(clip.xyxy[..., 2] - clip.xyxy[..., 0], clip.xyxy[..., 3] - clip.xyxy[..., 1], atol=1e-3)
    left, right = clip.xyxy[:, 1:, 0], clip.xyxy[:, :-1, 2]
    assert (left > right - 10).all()  # people keep their columns
    assert np.ptp(clip.xyxy, axis=0).min() > 10  # and move
    assert np.abs(np.diff(clip.xyxy, axis=0)).max() < 10  # without jumping


def test_emotions_change_over_time():
    clip = drawn.draw_clip(faces=2, frames=400, seed=1)
    for labels in clip.labels.T:
        assert set(labels) == set(range(7))
        changes = labels[np.flatnonzero(np.diff(labels, prepend=-1))]
        neutral = changes == FER2013.index("neutral")
        assert (neutral[1:] != neutral[:-1]).all()  # always by way of neutral


def test_frames_are_drawn_anew_and_equal():
    clip = drawn.draw_clip(faces=2, frames=3, width=320, height=240, seed=4)
    first, second = list(clip.frames), list(clip.frames)
    assert len(first) == len(clip) == len(clip.frames) == 3
    assert first[0].shape == (240, 320, 3)
    assert first[0].dtype == np.uint8
    np.testing.assert_array_equal(first, second)
    again = drawn.draw_clip(faces=2, frames=3, width=320, height=240, seed=4)
    np.testing.assert_array_equal(again.frames[-1], first[2])
    assert np.abs(first[0].astype(int) - first[2]).mean() > 0.5
    with pytest.raises(IndexError):
        clip.frames[3]


def test_a_long_clip_costs_nothing_until_it_is_drawn():
    clip = drawn.draw_clip(frames=100_000)
    assert sum(array.nbytes for array in (clip.xyxy, clip.visible, clip.labels, clip.pose, clip.units)) < 20e6
    assert clip.frames[99_999].shape == (480, 640, 3)


def test_the_frontal_detector_finds_drawn_faces():
    detector = cv2.CascadeClassifier(cv2.data.haarcascades + "haarcascade_frontalface_default.xml")
    expected = found = wrong = 0
    for faces in (1, 2, 3):
        clip = drawn.draw_clip(faces=faces, frames=181, seed=faces)
        for i in range(0, 181, 15):
            grey = cv2.cvtColor(clip.frames[i], cv2.COLOR_RGB2GRAY)
            boxes = [(x, y, x + w, y + h) for x, y, w, h in detector.detectMultiScale(grey, 1.1, 5)]
            hits = sum(max((overlap(known, box) for box in boxes), default=0) >= 0.5 for known in clip.xyxy[i])
            expected, found, wrong = expected + faces, found + hits, wrong + len(boxes) - hits
    assert found >= 0.95 * expected
    assert wrong <= 0.05 * expected


def overlap(one, other):
    """Intersection over union of two boxes."""
    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    shared = np.prod(np.maximum(sides, 0))
    return shared / (np.prod(np.subtract(one[2:], one[:2])) + np.prod(np.subtract(other[2:], other[:2])) - shared)
