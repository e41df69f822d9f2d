import numpy as np
import pytest

from fer_tf.faces import Faces, softmax


def faces(n=2, **changes):
    values = {"image": np.zeros((20, 30, 3), np.uint8), "xyxy": np.zeros((n, 4), np.float32), "score": np.ones(n)}
    return Faces(frame_index=0, time_s=0.0, **(values | changes))


def test_a_stage_returns_a_richer_copy():
    plain = faces()
    rich = plain.with_(logits=np.array([[0.0, 2.0], [1.0, 1.0]], np.float32))
    assert plain.logits is None and len(rich) == 2
    np.testing.assert_allclose(rich.probabilities.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(rich.probabilities[1], 0.5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": np.zeros((20, 30), np.uint8)}, "RGB"),
        ({"image": np.zeros((20, 30, 3), np.float32)}, "uint8"),
        ({"xyxy": np.zeros((2, 3))}, r"\(n, 4\)"),
        ({"score": np.ones(3)}, "one row per box"),
        ({"logits": np.ones((1, 7))}, "one row per box"),
        ({"smoothed": np.ones((3, 7))}, r"smoothed \(3, 7\) must have one row per box"),
        ({"label": np.ones(1, int)}, r"label \(1,\) must have one row per box"),
    ],
)
def test_wrong_arrays_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        faces(**changes)


def test_no_logits_yet():
    with pytest.raises(ValueError, match="no logits yet"):
        _ = faces().probabilities


def test_softmax_survives_large_logits_and_no_rows():
    np.testing.assert_allclose(softmax(np.array([[1e4, 0.0]])), [[1.0, 0.0]])
    assert softmax(np.empty((0, 7), np.float32)).shape == (0, 7)
