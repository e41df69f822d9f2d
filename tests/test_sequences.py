"""Clips as data: drawn ones, folders of them, and what they share with single faces."""

import cv2
import numpy as np
import pytest

from fer_tf.data import drawn_sequences
from fer_tf.data.clip_folders import read_clips
from fer_tf.data.labelled import LabelledClips, LabelledFaces, Splits
from fer_tf.data.readers import load
from fer_tf.inference.clips import write_video
from fer_tf.inference.detect import Detector, face_cropper
from fer_tf.labels import FER2013

HAPPY, NEUTRAL = FER2013.index("happy"), FER2013.index("neutral")


@pytest.fixture(scope="module")
def drawn() -> Splits:
    return load("drawn", window=6, n_train=21, n_valid=7, n_test=14)


def test_drawn_clips_are_seeded_balanced_and_of_one_size(drawn):
    assert drawn.train.images.shape == (21, 6, 48, 48, 1) and drawn.train.window == 6
    assert np.bincount(drawn.train.labels).tolist() == [3] * 7 and drawn.name == "drawn clips"
    again, other = (load("drawn", window=6, n_train=21, n_valid=7, n_test=14, seed=seed) for seed in (0, 1))
    assert again.fingerprint == drawn.fingerprint != other.fingerprint
    assert drawn.audit.leaked == {"train": 0, "valid": 0, "test": 0} and drawn.audit.findings["blank rows"] == 0
    assert len({*drawn.train.ids, *drawn.valid.ids, *drawn.test.ids}) == 42


def test_crops_take_and_frames(drawn):
    clips = drawn.train
    for size in (48, 32):
        crops = clips.crops(size, [3, 1])
        assert crops.shape == (2, 6, size, size, 3) and crops.dtype == np.uint8
        np.testing.assert_array_equal(crops[0, 4], clips.frames().crops(size, [3 * 6 + 4])[0])
    assert type(clips.take(clips.labels == HAPPY)) is LabelledClips and len(clips.take(slice(4))) == 4
    frames = clips.frames()
    assert type(frames) is LabelledFaces and frames.images.shape == (126, 48, 48, 1)
    np.testing.assert_array_equal(frames.labels, np.repeat(clips.labels, 6))
    assert frames.ids[7] == f"{clips.ids[1]}/1" and len(set(frames.ids)) == 126


def test_two_clips_with_the_same_frames_in_another_order_are_no_copies(drawn):
    images = np.concatenate([drawn.train.images[:2], drawn.train.images[:2, ::-1], drawn.train.images[:1]])
    shared = {"labels": np.zeros(5, int), "emotions": FER2013, "ids": np.arange(5)}
    assert [int((clips == clips[0]).sum()) for clips in [LabelledClips(images=images, **shared).hashes]] == [2]
    for wrong in (images[0], images[..., :0], images[..., :20, :]):
        with pytest.raises(ValueError, match="images must be"):
            LabelledClips(images=wrong, **shared)


def test_a_clip_goes_from_rest_to_an_apex_and_back_and_a_neutral_one_stays():
    rng = np.random.default_rng(0)
    course = drawn_sequences.time_course(500, 16, rng)
    peak, low, high = course.max(axis=1), *drawn_sequences.APEX_SHARE
    assert not course[:, 0].any() and course[:, -1].max() < 0.05 and 0.8 * low < peak.min() <= peak.max() <= high
    step = np.diff(course, axis=1)
    last_rise, first_fall = 14 - (step > 0)[:, ::-1].argmax(axis=1), (step < 0).argmax(axis=1)
    assert (last_rise < first_fall).all()
    labels = np.repeat([HAPPY, NEUTRAL], 200)
    units = drawn_sequences._muscles(labels, 16, rng)
    moved = np.abs(np.diff(units, axis=1)).sum(axis=(1, 2))
    assert moved[:200].min() > 0 and moved[:200].mean() > 1.5 * moved[200:].mean()


def test_the_head_moves_a_little_and_the_person_stays(drawn):
    images = drawn.test.images[..., 0].astype(float)
    along = np.abs(np.diff(images, axis=1)).mean()
    across = np.abs(images - np.roll(images, 1, axis=0)).mean()
    assert 0 < along < across / 2


def numbered(n: int) -> np.ndarray:
    """Frames that say their number: grey 20, 24, 28 ..."""
    return np.broadcast_to((20 + 4 * np.arange(n, dtype=np.uint8))[:, None, None, None], (n, 32, 32, 3))


def write_folder(folder, n: int, first: int = 1):
    folder.mkdir(parents=True)
    for k, frame in enumerate(numbered(n), start=first):
        cv2.imwrite(str(folder / f"frame_{k}.png"), frame)


@pytest.fixture
def folder(tmp_path):
    """happy/ with a video of 30 frames and one of 12 pictures, sad/ with a gif-like video of 7."""
    write_folder(tmp_path / "happy" / "b", 12)
    (tmp_path / "sad").mkdir()
    write_video(tmp_path / "happy" / "a.mp4", numbered(30), fps=25)
    write_video(tmp_path / "sad" / "c.mp4", numbered(7), fps=25)
    (tmp_path / "sad" / "Thumbs.db").touch()
    return tmp_path


def test_reads_videos_and_folders_of_pictures_evenly_and_in_order(folder):
    clips = read_clips(folder, window=4, image_size=16)
    assert clips.ids.tolist() == ["happy/a.mp4", "happy/b", "sad/c.mp4"] and clips.emotions == ("happy", "sad")
    assert clips.images.shape == (3, 4, 16, 16, 1) and clips.labels.tolist() == [0, 0, 1]
    places = (clips.images.mean(axis=(2, 3, 4)) - 20) / 4
    np.testing.assert_allclose(places, [[0, 10, 19, 29], [0, 4, 7, 11], [0, 2, 4, 6]], atol=0.8)


def test_a_folder_without_splits_is_cut_and_one_with_them_is_kept(tmp_path):
    for k in range(8):
        write_folder(tmp_path / "all" / "happy" / str(k), 3, first=1 + k)
        write_folder(tmp_path / "all" / "sad" / str(k), 4, first=20 + k)
        for image in (tmp_path / "all").rglob("*.png"):
            cv2.imwrite(str(image), cv2.imread(str(image)) + np.uint8(k))
    data = load(tmp_path / "all", window=3)
    assert {split: len(clips) for split, clips in data.items()} == {"train": 12, "valid": 2, "test": 2}
    for split in ("train", "valid", "test"):
        write_folder(tmp_path / "cut" / split / "happy" / "x", 3)
        write_folder(tmp_path / "cut" / split / "anger" / "y", 3)
    data = load(tmp_path / "cut", window=2)
    assert data.emotions == ("angry", "happy") and [len(clips) for _, clips in data.items()] == [2, 2, 2]
    assert data.train.ids.tolist() == ["train/anger/y", "train/happy/x"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda f: write_folder(f / "fear" / "short", 3), r"fear/short has 3 frames, a window takes 4"),
        (lambda f: (f / "sad" / "bad.mp4").write_text("text"), r"bad\.mp4 is no clip that can be decoded"),
        (lambda f: (f / "fear").mkdir(), "fear holds no clips"),
        (lambda f: (f / "sad" / "empty").mkdir(), "empty holds no images"),
        (lambda f: (f / "smug").mkdir(), "should be named after an emotion"),
    ],
    ids=["short", "no video", "no clips", "no images", "no emotion"],
)
def test_names_what_is_wrong(make, message, folder):
    make(folder)
    with pytest.raises(ValueError, match=message):
        read_clips(folder, window=4)


def test_a_cropper_cuts_the_face_out_and_bridges_frames_without_one(tmp_path):
    frames = np.zeros((5, 60, 80, 3), np.uint8)
    for k in (1, 2, 4):
        frames[k, 20:40, 30 + k : 50 + k] = 50 * k
    (tmp_path / "fear").mkdir()
    write_video(tmp_path / "fear" / "a.mp4", frames, fps=25)

    def find(image):
        left = int((image[30].max(axis=-1) > 25).argmax())
        return ([[left, 20, left + 20, 40]], [0.9]) if left else ([], [])

    crop = face_cropper(Detector(name="bright", find=find, pixels=None, scale=1.0), image_size=24)
    clips = read_clips(tmp_path, window=5, image_size=24, crop=crop)
    assert [round(face[4:-4, 4:-4].mean() / 50) for face in clips.images[0]] == [1, 1, 2, 2, 4]
    write_video(tmp_path / "fear" / "b.mp4", frames[[0, 3, 0]], fps=25)
    with pytest.raises(ValueError, match=r"no face was found in .*b\.mp4"):
        read_clips(tmp_path, window=3, crop=crop)


@pytest.mark.parametrize(
    ("dataset", "window", "message"),
    [
        ("drawn", 0, "window must be a whole number of frames, 1 or more, got 0"),
        ("drawn", 2.0, "window must be a whole number"),
        ("fer.csv", 16, r"fer\.csv holds single pictures, no clips of 16 frames"),
    ],
)
def test_load_refuses_what_has_no_clips(dataset, window, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fer.csv").touch()
    with pytest.raises(ValueError, match=message):
        load(dataset, window=window)
