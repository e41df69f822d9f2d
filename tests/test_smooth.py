"""What is said of a face is calm, quick enough, its own, and the same at any frame rate."""

import numpy as np
import pytest

from fer_tf.faces import Faces
from fer_tf.inference.smooth import Smoother
from fer_tf.inference.track import PATIENCE_S

IMAGE = np.zeros((4, 4, 3), np.uint8)


def said(time_s: float, **tracks: list[float]) -> Faces:
    """Probabilities by track, named t0, t1 and so on."""
    n = len(tracks)
    p = np.array(list(tracks.values()), np.float32) if n else np.empty((0, 2), np.float32)
    xyxy, score = np.zeros((n, 4), np.float32), np.ones(n, np.float32)
    ids = np.array([int(name[1:]) for name in tracks], np.int64)
    with np.errstate(divide="ignore"):
        logits = np.log(p)
    return Faces(frame_index=0, time_s=time_s, image=IMAGE, xyxy=xyxy, score=score, track_id=ids, logits=logits)


def test_the_first_frame_is_taken_as_it_is_and_the_past_halves_every_half_life():
    smoother = Smoother(half_life_s=0.5)
    first = smoother.smooth(said(3.0, t0=[1, 0]))
    np.testing.assert_allclose(first.smoothed, [[1, 0]])
    assert first.smoothed.dtype == np.float32 and first.label.dtype == np.int64
    later = smoother.smooth(said(3.5, t0=[0, 1]))
    np.testing.assert_allclose(later.smoothed, [[0.5, 0.5]])
    np.testing.assert_allclose(smoother.smooth(said(4.25, t0=[0, 1])).smoothed, [[0.5**2.5, 1 - 0.5**2.5]], rtol=1e-5)
    np.testing.assert_allclose(later.probabilities, [[0, 1]])  # the raw ones stay


@pytest.mark.parametrize("steps", [[1.0], [0.25] * 4, [0.01, 0.6, 0.0, 0.09, 0.3]], ids=str)
def test_a_step_is_followed_in_the_same_time_at_any_rate(steps):
    """How often a frame says the same does not matter: only when the last one came."""
    smoother, time_s = Smoother(half_life_s=0.4, patience_s=9), 0.0
    smoother.smooth(said(0.0, t0=[0.8, 0.2]))
    for step in steps:
        time_s += step
        smoothed = smoother.smooth(said(time_s, t0=[0.1, 0.9])).smoothed
    np.testing.assert_allclose(smoothed, [[0.1 + 0.7 * 0.5**2.5, 0.9 - 0.7 * 0.5**2.5]], rtol=1e-5)


def test_the_mean_is_of_probabilities_not_of_logits():
    smoother = Smoother(half_life_s=1.0)
    smoother.smooth(said(0, t0=[0.99, 0.01]))
    np.testing.assert_allclose(smoother.smooth(said(1.0, t0=[0.5, 0.5])).smoothed, [[0.745, 0.255]], rtol=1e-5)


def test_a_draw_changes_nothing():
    smoother = Smoother(half_life_s=1.0, hysteresis=0)
    for time_s, p in ((0.0, [0, 1]), (1.0, [1, 0])):
        assert smoother.smooth(said(time_s, t0=p)).label.tolist() == [1]


@pytest.mark.parametrize(("hysteresis", "labels"), [(0.0, [0, 0, 1, 1]), (0.1, [0, 0, 0, 1]), (0.5, [0, 0, 0, 0])])
def test_hysteresis_delays_the_change(hysteresis, labels):
    """The second emotion's smoothed probability: 0, 0.45, 0.525, 0.65; the first has the rest."""
    smoother = Smoother(half_life_s=1.0, hysteresis=hysteresis, patience_s=2)
    frames = [[1, 0], [0.1, 0.9], [0.4, 0.6], [0.225, 0.775]]
    found = [smoother.smooth(said(float(i), t0=p)) for i, p in enumerate(frames)]
    np.testing.assert_allclose([faces.smoothed[0, 1] for faces in found], [0, 0.45, 0.525, 0.65], rtol=1e-5)
    assert [int(faces.label[0]) for faces in found] == labels


def test_a_label_that_flickers_from_frame_to_frame_is_calm():
    rng, smoother = np.random.default_rng(0), Smoother()
    raw = rng.dirichlet([3, 3, 1], 300)
    labels = [int(smoother.smooth(said(i / 30, t0=p)).label[0]) for i, p in enumerate(raw.tolist())]
    changes = [np.count_nonzero(np.diff(values)) for values in (raw.argmax(axis=1), labels)]
    assert changes[0] > 100 and changes[1] <= 5


def test_no_face_feels_another():
    """Two tracks together give what each gives alone, in whatever order they come, missed or not."""
    rng, together = np.random.default_rng(1), Smoother()
    alone = {0: Smoother(), 1: Smoother()}
    for index in range(60):
        here = rng.permutation([track for track in (0, 1) if rng.random() < 0.8]).tolist()
        p = {f"t{track}": rng.dirichlet(np.ones(3)).tolist() for track in here}
        both = together.smooth(said(index / 30, **p))
        for row, track in enumerate(here):
            own = alone[track].smooth(said(index / 30, **{f"t{track}": p[f"t{track}"]}))
            np.testing.assert_array_equal(both.smoothed[row], own.smoothed[0])
            assert both.label[row] == own.label[0]


@pytest.mark.parametrize(("away_s", "label"), [(PATIENCE_S - 0.01, 0), (PATIENCE_S + 0.01, 1)])
def test_a_track_away_for_longer_than_the_trackers_patience_starts_anew(away_s, label):
    smoother = Smoother(half_life_s=9.0)
    smoother.smooth(said(0.0, t0=[1, 0]))
    smoother.smooth(said(away_s / 2, t1=[0, 1]))
    assert smoother.smooth(said(away_s, t0=[0, 1])).label.tolist() == [label]
    assert set(smoother._kept) == {0, 1}
    smoother.smooth(said(9.0, t2=[0, 1]))
    assert set(smoother._kept) == {2}


def test_a_half_life_of_zero_switches_it_off():
    smoother = Smoother(half_life_s=0, hysteresis=0.5)
    for time_s, p in ((0.0, [1, 0]), (0.0, [0.45, 0.55]), (1.0, [0.6, 0.4])):
        faces = smoother.smooth(said(time_s, t0=p))
        np.testing.assert_array_equal(faces.smoothed, faces.probabilities)
        assert faces.label.tolist() == [int(np.argmax(p))]


def test_a_frame_without_faces_passes_and_a_clock_that_runs_back_does_no_harm():
    smoother = Smoother()
    empty = smoother.smooth(said(0.0))
    assert empty.smoothed.shape == (0, 2) and empty.label.shape == (0,)
    smoother.smooth(said(5.0, t0=[1, 0]))
    np.testing.assert_allclose(smoother.smooth(said(4.9, t0=[0, 1])).smoothed, [[1, 0]])


@pytest.mark.parametrize(("missing", "message"), [("track_id", "tracker first"), ("logits", "classifier first")])
def test_needs_tracked_and_classified_faces(missing, message):
    with pytest.raises(ValueError, match=message):
        Smoother().smooth(said(0.0, t0=[1, 0]).with_(**{missing: None}))


@pytest.mark.parametrize("name", ["half_life_s", "hysteresis", "patience_s"])
@pytest.mark.parametrize("value", [-0.1, float("nan")])
def test_senseless_settings_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} must be 0 or more, got {value}"):
        Smoother(**{name: value})


def test_a_half_life_without_end_is_refused():
    with pytest.raises(ValueError, match="half_life_s must be finite, got inf"):
        Smoother(half_life_s=np.inf)
