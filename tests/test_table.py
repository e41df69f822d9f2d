"""The table holds what was found, raw and smoothed, in every format alike."""

import numpy as np
import pytest

from fer_tf.faces import Faces, softmax
from fer_tf.inference import table
from fer_tf.inference.table import read_table
from fer_tf.labels import FER2013

PLACE = ["frame", "time_s", "face", "track", "left", "top", "right", "bottom", "score", "label"]
SMOOTHED = [f"smoothed_{emotion}" for emotion in FER2013]
IMAGE = np.zeros((8, 8, 3), np.uint8)
RNG = np.random.default_rng(0)


def faces(index: int, n: int, **more) -> Faces:
    """Happy is the most probable of all."""
    logits = RNG.normal(size=(n, 7)).astype(np.float32)
    logits[:, 3] = 5
    xyxy = np.arange(4 * n, dtype=np.float32).reshape(n, 4)
    score = np.full(n, 0.5, np.float32)
    return Faces(frame_index=index, time_s=index / 30, image=IMAGE, xyxy=xyxy, score=score, logits=logits, **more)


def written(path, frames: list[Faces]):
    rows = table.FaceTable(path, FER2013)
    for frame in frames:
        rows.write(frame)
    assert rows.close(keep=True)
    return read_table(path)


@pytest.mark.parametrize("suffix", table.FORMATS)
@pytest.mark.parametrize("chunk", [1, 4096])
def test_smoothed_probabilities_stand_behind_the_raw_ones_and_decide_the_label(suffix, chunk, tmp_path, monkeypatch):
    monkeypatch.setattr(table, "CHUNK", chunk)
    smoothed = softmax(RNG.normal(size=(5, 7)))
    label = np.array([6, 0, 3, 2, 4])
    frames = [
        faces(0, 2, smoothed=smoothed[:2], label=label[:2], track_id=np.array([4, 7])),
        faces(1, 0, smoothed=smoothed[:0], label=label[:0], track_id=np.array([], int)),
        faces(2, 3, smoothed=smoothed[2:], label=label[2:], track_id=np.array([7, 9, 4])),
    ]
    read = written(tmp_path / f"faces{suffix}", frames)
    assert list(read.columns) == [*PLACE, *FER2013, *SMOOTHED]
    np.testing.assert_allclose(read[SMOOTHED], smoothed, atol=1e-5)
    np.testing.assert_allclose(read[list(FER2013)], np.vstack([f.probabilities for f in frames]), atol=1e-5)
    assert read["label"].tolist() == [FER2013[k] for k in label]
    assert read["track"].tolist() == [4, 7, 7, 9, 4] and read["face"].tolist() == [0, 1, 0, 1, 2]


@pytest.mark.parametrize("suffix", table.FORMATS)
def test_without_smoothing_its_columns_are_empty_and_the_label_is_the_most_probable(suffix, tmp_path):
    read = written(tmp_path / f"faces{suffix}", [faces(0, 2), faces(1, 1)])
    assert list(read.columns) == [*PLACE, *FER2013, *SMOOTHED]
    assert read[SMOOTHED].isna().all(axis=None) and read["track"].isna().all()
    assert read["label"].tolist() == ["happy"] * 3


@pytest.mark.parametrize("suffix", table.FORMATS)
def test_a_clip_may_be_smoothed_in_part(suffix, tmp_path):
    part = faces(1, 1, smoothed=np.full((1, 7), 1 / 7, np.float32), label=np.array([1]))
    read = written(tmp_path / f"faces{suffix}", [faces(0, 1), part])
    assert read[SMOOTHED].notna().all(axis=1).tolist() == [False, True] and read["label"].tolist() == [
        "happy",
        "disgust",
    ]
