"""CLEAR MOT counts, on clips short enough to count by hand."""

import moving
import numpy as np
import pytest

from fer_tf.inference.track import Tracker
from fer_tf.inference.track_metrics import ClearMot, clear_mot

SIDE = 40


def clip(*frames: dict[int, float]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Frames of identity -> left edge, the boxes 40 pixels wide: moved by 10, two overlap by 0.6; by 14, by 0.48."""
    lefts = ({i: [left, 0, left + SIDE, SIDE] for i, left in frame.items()} for frame in frames)
    return [(np.array(list(frame), int), np.array(list(frame.values()), float).reshape(-1, 4)) for frame in lefts]


CASES = {  # truth, found, faces, misses, false positives, switches, fragmentations
    "perfect, whatever the names": ([{0: 0, 1: 99}] * 3, [{8: 99, 7: 0}] * 3, (6, 0, 0, 0, 0)),
    "nothing found": ([{0: 0}] * 3, [{}] * 3, (3, 3, 0, 0, 0)),
    "nobody there": ([{0: 0}, {}], [{5: 0}, {5: 0}], (1, 0, 1, 0, 0)),
    "near enough": ([{0: 0}], [{5: 10}], (1, 0, 0, 0, 0)),
    "too far: a miss and a false positive": ([{0: 0}], [{5: 14}], (1, 1, 1, 0, 0)),
    "another track": ([{0: 0}] * 3, [{5: 0}, {6: 0}, {6: 0}], (3, 0, 0, 1, 0)),
    "there and back": ([{0: 0}] * 3, [{5: 0}, {6: 0}, {5: 0}], (3, 0, 0, 2, 0)),
    "changed places": ([{0: 0, 1: 99}] * 2, [{5: 0, 6: 99}, {6: 0, 5: 99}], (4, 0, 0, 2, 0)),
    "missed, then the same": ([{0: 0}] * 3, [{5: 0}, {}, {5: 0}], (3, 1, 0, 0, 1)),
    "missed, then another": ([{0: 0}] * 4, [{5: 0}, {}, {}, {6: 0}], (4, 2, 0, 1, 1)),
    "found late is not broken": ([{0: 0}] * 3, [{}, {5: 0}, {5: 0}], (3, 1, 0, 0, 0)),
    "lost for good is not broken": ([{0: 0}] * 3, [{5: 0}, {}, {}], (3, 2, 0, 0, 0)),
    "away is not broken": ([{0: 0}, {}, {0: 0}], [{5: 0}, {}, {5: 0}], (2, 0, 0, 0, 0)),
    "away, then another": ([{0: 0}, {}, {0: 0}], [{5: 0}, {}, {6: 0}], (2, 0, 0, 1, 0)),
    "a match is kept though another is nearer": ([{0: 0}] * 2, [{5: 10}, {5: 10, 6: 0}], (2, 0, 1, 0, 0)),
    "but not where it has gone too far": ([{0: 0}] * 2, [{5: 10}, {5: 14, 6: 0}], (2, 0, 1, 1, 0)),
    # 0 overlaps with 5 (1.0) and 6 (0.6), 1 with 5 alone (0.6): the nearest first would leave 1 and 6 over
    "as many matches as there can be": ([{0: 0, 1: -10}], [{5: 0, 6: 10}], (2, 0, 0, 0, 0)),
}


@pytest.mark.parametrize("name", CASES)
def test_counts(name):
    truth, found, counts = CASES[name]
    names = ("faces", "misses", "false_positives", "switches", "fragmentations")
    assert clear_mot(clip(*truth), clip(*found)) == ClearMot(**dict(zip(names, counts, strict=True)))


def test_accuracy_counts_misses_false_positives_and_switches_and_clips_add_up():
    score = ClearMot(faces=20, misses=3, false_positives=2, switches=1, fragmentations=4)
    assert score.mota == pytest.approx(0.7)
    assert (score + ClearMot(faces=10, misses=12, false_positives=0, switches=0, fragmentations=1)).mota == 0.4


@pytest.mark.parametrize(
    ("truth", "found", "message"),
    [
        ([{0: 0}], [{5: 0}] * 2, "longer"),
        ([{}, {}], [{}, {5: 0}], "no face in any frame"),
    ],
)
def test_what_cannot_be_counted_is_refused(truth, found, message):
    with pytest.raises(ValueError, match=message):
        clear_mot(clip(*truth), clip(*found))


def test_an_identity_is_named_once_per_frame():
    twice = [(np.array([5, 5]), np.zeros((2, 4)))]
    with pytest.raises(ValueError, match=r"found must name each identity once per frame, got \[5, 5\]"):
        clear_mot(clip({0: 0}), twice)


def test_the_boxes_of_a_clip_are_their_own_perfect_track():
    truth = moving.drawn(faces=3, seed=0, frames=20)
    tracks = moving.tracked([xyxy for _, xyxy in truth], Tracker())
    assert clear_mot(truth, tracks) == ClearMot(faces=60, misses=0, false_positives=0, switches=0, fragmentations=0)
