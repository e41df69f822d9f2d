"""A face keeps its identity while it moves, and a model of clips sees its frames and nobody else's."""

import numpy as np
import pytest

from fer_tf.faces import Faces
from fer_tf.inference.track import PATIENCE, Tracker, Windows, overlap

IMAGE = np.zeros((100, 400, 3), np.uint8)


def faces(*lefts: float, index: int = 0, side: float = 40.0) -> Faces:
    """Boxes side by side, each known by its left edge in pixels."""
    xyxy = np.array([[left, 10, left + side, 10 + side] for left in lefts], np.float32).reshape(-1, 4)
    return Faces(frame_index=index, time_s=index / 25, image=IMAGE, xyxy=xyxy, score=np.ones(len(lefts), np.float32))


def followed(tracker: Tracker, *frames: tuple) -> list[list[int]]:
    return [tracker.follow(faces(*lefts)).track_id.tolist() for lefts in frames]


def test_overlap_is_intersection_over_union():
    a, b = faces(0, 100).xyxy, faces(20, 100, 300).xyxy
    np.testing.assert_allclose(overlap(a, b), [[1 / 3, 0, 0], [0, 1, 0]], atol=1e-6)
    assert overlap(a, b[:0]).shape == (2, 0) and overlap(a * 0, a * 0).max() == 0  # no area, no division by zero


def test_moving_faces_keep_their_identities_in_whatever_order_they_are_found():
    tracker = Tracker()
    assert followed(tracker, (0, 200), (210, 10), (20, 220), (230, 30)) == [[0, 1], [1, 0], [0, 1], [1, 0]]


def test_the_best_overlap_is_settled_first():
    """The face at 12 overlaps with both tracks; the one at 0 is nearer to the first."""
    assert followed(Tracker(), (0, 30), (12, 0), (12, 0)) == [[0, 1], [1, 0], [1, 0]]


@pytest.mark.parametrize(("missed", "back"), [(0, 0), (PATIENCE, 0), (PATIENCE + 1, 1)])
def test_a_face_may_be_missed_for_a_while(missed, back):
    assert followed(Tracker(), (50,), *[()] * missed, (52,))[-1] == [back]


def test_identities_are_never_given_twice():
    tracker = Tracker(patience=0)
    ids = followed(tracker, (0,), (), (0, 100), (100,), (0, 100), (300,))
    assert ids == [[0], [], [1, 2], [2], [3, 2], [4]]


def test_ended_tracks_are_forgotten():
    tracker, windows = Tracker(patience=2), Windows(4, patience=2)
    for index in range(50):  # somebody new at another place in every frame
        found = tracker.follow(faces(7 * index * 40 % 360, index=index))
        windows.add(found, np.zeros((1, 8, 8, 3), np.uint8))
    assert len(tracker._ids) <= 3 and len(windows.kept) <= 3
    for index in range(50, 54):
        windows.add(tracker.follow(faces(index=index)), np.zeros((0, 8, 8, 3), np.uint8))
    assert not len(tracker._ids) and not windows.kept


def test_each_face_has_its_own_window_the_first_frame_repeated_until_it_is_full():
    tracker, windows, seen = Tracker(), Windows(3), {}
    for index, (lefts, people) in enumerate(
        [((0, 200), "ab"), ((204, 4), "ba"), ((8,), "a"), ((12, 208), "ab"), ((212, 16, 350), "bac")]
    ):
        found = tracker.follow(faces(*lefts, index=index))
        crops = np.array([10 * ord(p) % 200 + index for p in people], np.uint8)[:, None, None, None]
        _, clips = windows.add(found, np.broadcast_to(crops, (len(people), 8, 8, 3)))
        assert clips.shape == (len(people), 3, 8, 8, 3) and clips.dtype == np.uint8
        for person, clip in zip(people, clips, strict=True):
            seen.setdefault(person, []).append((clip[:, 0, 0, 0] - 10 * ord(person) % 200).tolist())
    assert seen["a"] == [[0, 0, 0], [0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4]]
    assert seen["b"] == [[0, 0, 0], [0, 0, 1], [0, 1, 3], [1, 3, 4]]  # missed once
    assert seen["c"] == [[4, 4, 4]]


def test_a_window_of_one_is_the_crop_itself_and_keeps_nothing():
    windows, crops = Windows(1), np.ones((1, 8, 8, 3), np.uint8)
    assert windows.add(faces(0), crops)[1] is crops and not windows.kept
