"""YuNet on OpenVINO: decoded, thinned out and shared as it should be, and the same faces as OpenCV's own."""

import threading

import cv2
import numpy as np
import pytest
from conftest import SHARED

from fer_tf import paths
from fer_tf.inference import yunet as module
from fer_tf.inference.clips import read_frames
from fer_tf.inference.detect import PIXELS, load_detector
from fer_tf.inference.yunet import cells, decode, suppress, yunet

LOG2 = np.log(2)


@pytest.fixture(scope="session")
def model():
    """YuNet's file, or a skip that says so."""
    for path in (paths.YUNET, SHARED / "yunet" / paths.YUNET.name):
        if path.is_file():
            return path
    pytest.skip("YuNet's model is not here (`fer-tf download yunet` puts it under data/yunet)")


@pytest.fixture(scope="session")
def portrait() -> np.ndarray:
    return pytest.importorskip("skimage.data", reason="the portrait comes with scikit-image").astronaut()


def test_cells_go_row_by_row_from_the_fine_grid_to_the_coarse():
    grid = cells(32, 64)
    assert grid.shape == (4 * 8 + 2 * 4 + 1 * 2, 3)
    assert grid[[0, 1, 8, 31, 32, 39, 40, 41]].tolist() == [
        *([0, 0, 8], [1, 0, 8], [0, 1, 8], [7, 3, 8]),
        *([0, 0, 16], [3, 1, 16]),
        *([0, 0, 32], [1, 0, 32]),
    ]


@pytest.mark.parametrize(
    ("cell", "bbox", "box"),
    [
        (9, [0, 0, 0, 0], [4, 4, 12, 12]),  # column 1, row 1 of stride 8: a box of one stride around the cell's corner
        (9, [0.5, -0.25, LOG2, 2 * LOG2], [4, -10, 20, 22]),
        (39, [0, 0, LOG2, LOG2], [32, 0, 64, 32]),  # column 3, row 1 of stride 16
        (41, [0.5, 0.5, -LOG2, 0], [40, 0, 56, 32]),  # column 1 of stride 32
    ],
    ids=["at its corner", "moved and tall", "stride 16", "stride 32"],
)
def test_decodes_a_box_from_its_cell(cell, bbox, box):
    cls, obj, boxes = np.zeros(42, np.float32), np.zeros(42, np.float32), np.full((42, 4), 9, np.float32)
    cls[cell], obj[cell], boxes[cell] = 0.9, 0.4, bbox
    landmarks = np.zeros((42, 10), np.float32)
    landmarks[cell, :4] = [-1, 0, 1, 2]  # the eye on the right two strides to the right and two lower
    xyxy, score, roll = decode(cls, obj, boxes, landmarks, cells(32, 64), min_score=0.5)
    np.testing.assert_allclose(score, [0.6], rtol=1e-6)
    np.testing.assert_allclose(roll, [45])
    np.testing.assert_allclose(xyxy, [box], rtol=1e-5)


def test_clips_before_it_multiplies_and_keeps_a_score_at_the_limit():
    cls, obj = np.float32([2, -1, 1, 1]), np.float32([0.25, -1, 0.25, 0.2])
    nothing = np.zeros((4, 10), np.float32)
    _, score, _ = decode(cls, obj, nothing[:, :4], nothing, cells(32, 64)[:4], min_score=0.5)
    assert score.tolist() == [0.5, 0.5]  # two negatives are no face


BOXES = np.float32([[0, 0, 10, 10], [0, 5, 10, 15], [0, 6, 10, 16], [100, 0, 110, 10], [0, 0, 10, 10]])


@pytest.mark.parametrize(
    ("score", "choices", "kept"),
    [
        ([0.9, 0.8, 0.7, 0.6, 0.5], {}, [0, 2, 3]),  # 1 shares 1/3 with 0; 2 shares 1/4, and nothing kept hides it
        ([0.5, 0.9, 0.7, 0.6, 0.8], {}, [1, 3]),  # 4 and 0 share 1/3 with 1
        ([0.9, 0.8, 0.7, 0.6, 0.5], {"max_iou": 0.5}, [0, 1, 3]),
        ([0.9, 0.8, 0.7, 0.6, 0.5], {"top_k": 2}, [0]),
        ([0.6, 0.6, 0.6, 0.6, 0.6], {"max_iou": 0.2}, [0, 3]),  # the first one of equals
    ],
    ids=["a chain", "the best is in the middle", "may share half", "two are looked at", "equals"],
)
def test_keeps_the_best_of_boxes_that_overlap(score, choices, kept):
    assert suppress(BOXES, np.float32(score), **choices).tolist() == kept


def test_nothing_seen_is_nothing_kept():
    nothing = np.zeros((42, 10))
    xyxy, score, roll = decode(nothing[:, 0], nothing[:, 0], nothing[:, :4], nothing, cells(32, 64), min_score=0.1)
    assert xyxy.shape == (0, 4) and score.shape == roll.shape == (0,)
    assert suppress(xyxy, score).tolist() == []


def opencv(model, image: np.ndarray, min_score: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What FaceDetectorYN finds, as boxes, scores and rolls."""
    height, width = image.shape[:2]
    detector = cv2.FaceDetectorYN.create(str(model), "", (width, height), min_score)
    _, faces = detector.detect(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    faces = np.empty((0, 15), np.float32) if faces is None else faces
    right, down = (faces[:, 6:8] - faces[:, 4:6]).T  # between the eyes
    return np.hstack([faces[:, :2], faces[:, :2] + faces[:, 2:4]]), faces[:, 14], np.degrees(np.arctan2(down, right))


def check_same(model, image: np.ndarray, min_score: float) -> int:
    """Compare with OpenCV at one size, and return the number of faces."""
    xyxy, score, roll = yunet(model, min_score=min_score)(image)
    expected_xyxy, expected_score, expected_roll = opencv(model, image, min_score)
    assert len(score) == len(expected_score)
    order, expected_order = np.lexsort(xyxy.T), np.lexsort(expected_xyxy.T)
    np.testing.assert_allclose(xyxy[order], expected_xyxy[expected_order], atol=0.1)
    np.testing.assert_allclose(score[order], expected_score[expected_order], atol=1e-3)
    np.testing.assert_allclose(roll[order], expected_roll[expected_order], atol=1)
    return len(score)


def test_finds_what_opencv_finds_in_a_portrait(model, portrait):
    assert check_same(model, portrait, 0.6) == 1
    pairs = np.hstack([portrait, portrait[:, ::-1]])
    assert check_same(model, cv2.resize(np.vstack([pairs, pairs]), (384, 320)), 0.3) >= 4


@pytest.mark.parametrize(
    ("clip", "size", "faces"),
    [("book.mkv", (640, 480), 1), ("book.mkv", (352, 256), 1), ("classroom.gif", (416, 224), 4)],
    ids=["640x480", "352x256", "416x224"],
)
def test_finds_what_opencv_finds_in_clips(model, shared_data, clip, size, faces):
    frames = [frame.image for frame in read_frames(shared_data / "video" / clip)][::15]
    assert {check_same(model, cv2.resize(frame, size), 0.6) for frame in frames} == {faces}


def test_the_default_size_keeps_every_face_of_the_largest(model, shared_data):
    """All clips but the one without a face; a few frames of each. At 640x480, hands are taken for faces twice."""
    largest, usual = (load_detector("yunet", pixels=pixels, model=model) for pixels in (640 * 480, None))
    assert usual.pixels == PIXELS["yunet"]
    for name, faces in [("hungry.mkv", 1), ("yes.mkv", 1), ("head-pose-face-detection-female-and-male.gif", 2)]:
        for frame in list(read_frames(shared_data / "video" / name))[::10]:
            assert len(usual(frame.image)[0]) == len(largest(frame.image)[0]) == faces


def test_detectors_of_one_size_share_what_is_compiled(model, portrait):
    module._compiled.cache_clear()
    module._network.cache_clear()
    first, second = load_detector("yunet", model=model), load_detector("yunet", min_score=0.9, model=model)
    found = [], []
    threads = [
        threading.Thread(target=lambda find, to: to.extend(find(portrait) for _ in range(20)), args=pair)
        for pair in zip((first, second), found, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert module._compiled.cache_info().misses == module._network.cache_info().misses == 1
    alone = first(portrait)[0]
    assert len(alone) == 1 and [len(results) for results in found] == [20, 20]
    for xyxy, *_ in [*found[0], *found[1]]:
        np.testing.assert_allclose(xyxy, alone, atol=1e-3)


def test_one_thread_s_results_do_not_change_under_it(model, portrait):
    find = load_detector("yunet", model=model)
    xyxy, score, _ = find(portrait)
    kept = xyxy.copy(), score.copy()
    find(np.ascontiguousarray(portrait[:, ::-1]))
    np.testing.assert_array_equal(xyxy, kept[0])
    np.testing.assert_array_equal(score, kept[1])


def test_a_file_that_was_replaced_is_read_anew(model, tmp_path):
    copy = tmp_path / "yunet.onnx"
    copy.write_bytes(model.read_bytes())
    yunet(copy)
    copy.write_bytes(b"something else")
    with pytest.raises(ValueError, match=r"yunet.onnx is not YuNet's model: run `fer-tf download yunet` again"):
        yunet(copy)


def test_asks_for_a_thread(model):
    with pytest.raises(ValueError, match="threads must be at least 1, got 0"):
        load_detector("yunet", threads=0, model=model)
