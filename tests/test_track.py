"""A face keeps its identity while it moves, and a model of clips sees its frames and nobody else's."""

import moving
import numpy as np
import pytest

from fer_tf.faces import Faces
from fer_tf.inference.track import COAST_S, PATIENCE_S, Tracker, Windows, overlap
from fer_tf.inference.track_metrics import clear_mot

IMAGE, FPS = np.zeros((100, 400, 3), np.uint8), 25
PATIENCE = round(PATIENCE_S * FPS)  # frames


def faces(*lefts: float, index: int = 0, side: float = 40.0) -> Faces:
    """Boxes side by side, each known by its left edge in pixels."""
    xyxy = np.array([[left, 10, left + side, 10 + side] for left in lefts], np.float32).reshape(-1, 4)
    score = np.arange(len(lefts), dtype=np.float32) / 10
    return Faces(frame_index=index, time_s=index / FPS, image=IMAGE, xyxy=xyxy, score=score)


def followed(tracker: Tracker, *frames: tuple) -> list[list[int]]:
    return [tracker.follow(faces(*lefts, index=i)).track_id.tolist() for i, lefts in enumerate(frames)]


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


@pytest.mark.parametrize(("missed", "back"), [(0, 0), (PATIENCE - 1, 0), (PATIENCE, 1)])
def test_a_face_may_be_missed_for_a_while(missed, back):
    assert followed(Tracker(), (50,), *[()] * missed, (52,))[-1] == [back]


def test_identities_are_never_given_twice():
    tracker = Tracker(patience_s=0.05)
    ids = followed(tracker, (0,), (), (0, 100), (100,), (0, 100), (300,))
    assert ids == [[0], [], [1, 2], [2], [3, 2], [4]]


def test_ended_tracks_are_forgotten():
    tracker, windows = Tracker(patience_s=0.1), Windows(4, patience_s=0.1)
    for index in range(50):  # somebody new at another place in every frame
        found = tracker.follow(faces(7 * index * 40 % 360, index=index))
        windows.add(found, np.zeros((1, 8, 8, 3), np.uint8))
    assert len(tracker._tracks["id"]) <= 3 and len(windows.kept) <= 3
    for index in range(50, 54):
        windows.add(tracker.follow(faces(index=index)), np.zeros((0, 8, 8, 3), np.uint8))
    assert not len(tracker._tracks["id"]) and not windows.kept


@pytest.mark.parametrize("speed", [-60, 0, 30, 160], ids="{} px/s".format)
def test_expects_a_moving_face_where_it_will_be(speed):
    """Found on every fifth frame at a rate that varies; between them, and soon after, its box is predicted."""
    tracker, rng = Tracker(), np.random.default_rng(0)
    time_s = np.cumsum(rng.uniform(0.01, 0.06, 41))
    for i, t in enumerate(time_s.tolist()):
        true = faces(100 + speed * t).with_(time_s=t, frame_index=i)
        if i % 5 == 0:
            assert tracker.follow(true).track_id.tolist() == [0]
        elif i > 5:
            predicted = tracker.predict(faces().with_(time_s=t, frame_index=i))
            np.testing.assert_allclose(predicted.xyxy, true.xyxy, atol=4 if i < 15 else 1.5)
            assert predicted.track_id.tolist() == [0] and predicted.xyxy.dtype == np.float32


def test_predicted_faces_have_the_score_they_were_found_with_and_predicting_changes_nothing():
    one, two = Tracker(), Tracker()
    for index in range(20):
        found = faces(index, 200 - index, index=index)
        np.testing.assert_array_equal(one.follow(found).track_id, two.follow(found).track_id)
        shown = [one.predict(faces(index=index + ahead)) for ahead in (1, 3, 1)]
        assert shown[0].score.tolist() == found.score.tolist() and shown[0].track_id.tolist() == [0, 1]
        np.testing.assert_array_equal(shown[0].xyxy, shown[2].xyxy)
    np.testing.assert_array_equal(one.predict(faces(index=21)).xyxy, two.predict(faces(index=21)).xyxy)


def test_predicts_nothing_before_anything_was_found():
    shown = Tracker().predict(faces())
    assert len(shown) == 0 and shown.track_id.dtype == np.int64


@pytest.mark.parametrize(
    ("lefts", "ahead_s", "shown"),
    [
        ([50, 50, 50], 0.2, 1),
        ([50, 50, None], 0.2, 1),  # missed once
        ([50, 50, 50], COAST_S + 0.02, 0),  # missed for too long
        ([50], 0.2, 1),
        ([50, None], 0.1, 0),  # found but once: it may have been no face
        ([290, 320, 350], 0.04, 1),
        ([290, 320, 350], 0.16, 0),  # its centre has left the frame
    ],
)
def test_shows_tracks_as_long_as_they_are_likely_to_be_there(lefts, ahead_s, shown):
    tracker = Tracker()
    for index, left in enumerate(lefts):
        tracker.follow(faces(*[] if left is None else [left], index=index))
    predicted = tracker.predict(faces().with_(time_s=index / FPS + ahead_s))
    assert len(predicted) == shown
    if shown:
        assert (predicted.xyxy >= 0).all() and predicted.xyxy[:, 2].max() <= IMAGE.shape[1]


def test_predicting_needs_a_frame_without_boxes():
    with pytest.raises(ValueError, match="without boxes, got 2: give found faces to follow"):
        Tracker().predict(faces(0, 100))


@pytest.mark.parametrize("name", ["min_iou", "patience_s", "coast_s"])
@pytest.mark.parametrize("value", [-1, float("nan")])
def test_senseless_settings_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} must be 0 or more, got {value}"):
        Tracker(**{name: value})


@pytest.mark.parametrize("times", [[0, 0, 0, 0], [3, 2, 1, 0], [0, 0.04, 0.01, 0.08]], ids=str)
def test_a_clock_that_stands_still_or_runs_back_does_no_harm(times):
    tracker = Tracker()
    for i, time_s in enumerate(times):
        assert tracker.follow(faces(5 * i, 200).with_(time_s=time_s)).track_id.tolist() == [0, 1]
    assert np.isfinite(tracker.predict(faces().with_(time_s=times[-1])).xyxy).all()


# Known paths, found without an error on every n-th frame: which n, identities, switches of them, and MOTA at least.
SCENES = {
    "four drawn people": (moving.drawn(4, 0), 1, 4, 0, 1.0),
    "four, every 5th": (moving.drawn(4, 1), 5, 4, 0, 1.0),
    "two cross": (moving.crossing(160), 1, 2, 0, 1.0),
    "two cross slowly": (moving.crossing(80, side=60), 1, 2, 0, 1.0),
    "two cross, every 3rd": (moving.crossing(160), 3, 2, 0, 0.95),
    "two cross, every 5th": (moving.crossing(160), 5, 2, 0, 0.9),
    "returns within patience": (moving.leaving(0.7), 1, 2, 0, 1.0),
    "returns, every 3rd": (moving.leaving(0.7), 3, 2, 0, 0.95),
    "returns too late": (moving.leaving(1.5), 1, 3, 1, 0.99),
    "jumps by a size": (moving.jumping(0.9), 1, 1, 0, 1.0),
    "jumps far": (moving.jumping(3), 1, 2, 1, 0.98),
    "8 sizes/s": (moving.rushing(8), 1, 1, 0, 1.0),
    "4 sizes/s, every 5th": (moving.rushing(4), 5, 1, 0, 0.9),
}


@pytest.mark.parametrize("name", SCENES)
def test_identities_hold(name):
    truth, every, identities, switches, mota = SCENES[name]
    found = moving.detected(truth, 0, jitter=0, misses=0, false=0)
    tracks = moving.tracked(found, Tracker(), every=every)
    score = clear_mot(truth, tracks)
    assert len({track for ids, _ in tracks for track in ids.tolist()}) == identities
    assert score.switches == switches and score.mota >= mota


def test_in_a_crowd_identities_are_one_to_one_never_given_twice_and_the_same_every_time():
    """Sixty faces that wander and overlap, one in five missed: no two share a track, and none that ended comes back."""
    rng, runs = np.random.default_rng(0), []
    centres = rng.uniform(0, (moving.WIDTH, moving.HEIGHT), (60, 2))
    found = []
    for _ in range(90):
        centres = np.clip(centres + rng.normal(0, 2, centres.shape), 0, (moving.WIDTH, moving.HEIGHT))
        found.append(moving.boxes(*centres[rng.random(60) < 0.8].T, 40))
    for _ in range(2):
        tracks = [ids.tolist() for ids, _ in moving.tracked(found, Tracker(patience_s=0.15))]
        runs.append(tracks)
    assert runs[0] == runs[1]
    seen: dict[int, int] = {}
    for index, (ids, xyxy) in enumerate(zip(runs[0], found, strict=True)):
        assert len(set(ids)) == len(ids) == len(xyxy)
        new = sorted(set(ids) - seen.keys())
        assert new == list(range(len(seen), len(seen) + len(new)))
        assert all(index - seen[track] <= 4 for track in ids if track in seen)
        seen |= dict.fromkeys(ids, index)
    assert len(seen) <= 75  # a few are missed for longer than that


@pytest.mark.parametrize(("every", "mota"), [(1, 0.86), (3, 0.92), (5, 0.92)])
def test_a_detector_that_errs_confuses_it_little(every, mota):
    """A tenth of the faces missed, boxes off by 5 %, a box too many in every twentieth frame; ten seconds each."""
    scores = []
    for seed in range(4):
        truth = moving.drawn(faces=seed + 1, seed=seed)
        scores.append(clear_mot(truth, moving.tracked(moving.detected(truth, seed), Tracker(), every=every)))
    total = sum(scores[1:], scores[0])
    assert total.faces == 3000 and total.switches <= 1 and total.mota >= mota


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
