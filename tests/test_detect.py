"""Detectors find faces in any size of image, and crops frame them as FER2013 does."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from fer_tf.inference.clips import read_frames
from fer_tf.inference.detect import DETECTORS, Detector, crop_faces, load_detector

ASTRONAUT = np.array([175, 65, 275, 170])  # a face in a public-domain portrait


@pytest.fixture(scope="session")
def portrait() -> np.ndarray:
    return pytest.importorskip("skimage.data", reason="the portrait comes with scikit-image").astronaut()


@pytest.fixture(params=DETECTORS)
def detector(request):
    if request.param != "yunet":
        return load_detector(request.param)
    shared = request.getfixturevalue("shared_data")
    return load_detector(str(shared / "yunet" / "face_detection_yunet_2023mar.onnx"))


def share(box: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union."""
    sides = np.clip(np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2]), 0, None)
    areas = [np.prod(b[2:] - b[:2]) for b in (box, other)]
    return sides.prod() / (sum(areas) - sides.prod())


@pytest.mark.parametrize("zoom", [0.5, 1, 6], ids=["small", "as it is", "9 megapixels"])
def test_finds_the_face_at_any_size(detector, zoom, portrait):
    image = cv2.resize(portrait, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA)
    xyxy, score, _ = detector(image)
    assert xyxy.dtype == score.dtype == np.float32 and len(xyxy) == len(score) == 1
    assert 0.5 < score[0] <= 1
    expected = np.array([0, 0, 512, 512]) if detector.name == "full" else ASTRONAUT
    assert share(xyxy[0] / zoom, expected) > 0.75


@pytest.mark.parametrize("shape", [(1, 1), (1, 2000), (2000, 3), (17, 33), (40, 20_000)], ids=str)
def test_takes_images_of_any_shape(detector, shape):
    xyxy, score, _ = detector(np.full((*shape, 3), 90, np.uint8))
    assert xyxy.shape == (len(score), 4) and len(score) == (detector.name == "full")
    crops = crop_faces(np.full((*shape, 3), 90, np.uint8), xyxy, image_size=48, scale=detector.scale)
    assert (crops == 90).all()


def test_clips_orders_and_scales_back_the_boxes():
    found = [[-5, 2, 20, 30], [10, 10, 30, 40], [10, 5, 30, 40], [50, 50, 50, 60]], [0.7, 0.9, 0.9, 1.0]
    seen = []
    detector = Detector(name="fake", find=lambda image: seen.append(image.shape) or found, pixels=5000, scale=1)
    xyxy, score, _ = detector(np.zeros((100, 200, 3), np.uint8))  # twice too large each way
    assert seen == [(50, 100, 3)]
    np.testing.assert_allclose(score, [0.9, 0.9, 0.7])
    assert xyxy.tolist() == [[20, 10, 60, 80], [20, 20, 60, 80], [0, 4, 40, 60]]


@pytest.mark.parametrize(
    ("shape", "seen"),
    [((480, 640), [(256, 352)]), ((270, 480), [(224, 416)]), ((100, 100), [(192, 192)]), ((40, 20_000), [])],
    ids=["4:3", "16:9", "small", "a strip"],
)
def test_sides_are_multiples_of_the_step(shape, seen):
    shapes, found = [], ([[32, 32, 64, 64]], [1.0])
    find = lambda image: shapes.append(image.shape[:2]) or found  # noqa: E731
    xyxy, *_ = Detector(name="fake", find=find, pixels=360 * 270, scale=1, step=32)(np.zeros((*shape, 3), np.uint8))
    assert shapes == seen and len(xyxy) == len(seen)
    if seen:
        zoom = np.array(shape) / seen[0]
        np.testing.assert_allclose(xyxy, [[*(32 * zoom[::-1]), *(64 * zoom[::-1])]], rtol=1e-5)


@pytest.mark.parametrize("odd", [0, 1, 3], ids=["even", "odd", "odd again when halved"])
def test_a_large_image_is_averaged_not_sampled(odd):
    image = np.random.default_rng(0).integers(0, 256, (256 + odd, 256 + odd, 3), np.uint8)
    shown = []
    find = lambda image: shown.append(image) or (np.empty((0, 4)), [])  # noqa: E731
    Detector(name="fake", find=find, pixels=32 * 32, scale=1)(image)
    means = image[:256, :256].reshape(32, 8, 32, 8, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(shown[0], means, atol=2)  # rounded at each halving; a sample would be 74 off


@pytest.mark.parametrize("degrees", [-60, -25, 12, 40, 90])
@pytest.mark.parametrize("size", [24, 48, 97])
def test_a_tilted_face_is_turned_upright(degrees, size):
    """A cross with a red arm on top, turned about its centre."""
    upright = np.full((240, 320, 3), 90, np.uint8)
    upright[95:145, 155:165] = upright[115:125, 135:185] = 220
    upright[95:110, 155:165] = (220, 20, 20)
    matrix = cv2.getRotationMatrix2D((159.5, 119.5), -degrees, 1)
    tilted = cv2.warpAffine(upright, matrix, (320, 240), borderMode=cv2.BORDER_REPLICATE)
    box, rolls = np.float32([[120, 80, 200, 160]] * 2), np.float32([degrees, 0])
    expected = crop_faces(upright, box[:1], image_size=size)[0].astype(int)
    turned, left = crop_faces(tilted, box, image_size=size, roll=rolls).astype(int)
    assert np.abs(turned - expected).mean() < 6 < np.abs(left - expected).mean()
    np.testing.assert_array_equal(left, crop_faces(tilted, box[:1], image_size=size)[0])


def test_yunet_tells_how_a_large_head_is_tilted(shared_data, portrait):
    """Roughly, and of a head that fills the picture; small ones it takes for upright."""
    file = shared_data / "yunet" / "face_detection_yunet_2023mar.onnx"
    yunet = load_detector("yunet", model=file, pixels=600 * 600)
    large = cv2.resize(portrait[:300, 80:380], (600, 600))
    for degrees in (-30, -15, 0, 15, 30):
        matrix = cv2.getRotationMatrix2D((288, 240), -degrees, 1)
        tilted = cv2.warpAffine(large, matrix, (600, 600), borderMode=cv2.BORDER_REPLICATE)
        assert yunet(tilted).roll == pytest.approx([degrees], abs=12)
    assert load_detector("haar")(portrait).roll.tolist() == [0]


def test_haar_and_yunet_crop_the_same_picture(shared_data):
    """The factor that turns YuNet's tall boxes into squares, held against Haar on a real clip."""
    haar = load_detector("haar")
    yunet = load_detector("yunet", model=shared_data / "yunet" / "face_detection_yunet_2023mar.onnx")
    ratios, offsets = [], []
    for frame in list(read_frames(shared_data / "video" / "book.mkv"))[::10]:
        (a, *_), (b, *_) = haar(frame.image)[0], yunet(frame.image)[0]
        sides = haar.scale * max(a[2:] - a[:2]), yunet.scale * max(b[2:] - b[:2])
        ratios.append(sides[1] / sides[0])
        offsets.append(np.abs(a.reshape(2, 2).mean(axis=0) - b.reshape(2, 2).mean(axis=0)) / sides[0])
    assert np.median(ratios) == pytest.approx(1, abs=0.1)
    assert np.median(offsets, axis=0).max() < 0.1


def test_finds_the_four_of_the_classroom(shared_data):
    yunet = load_detector("yunet", model=shared_data / "yunet" / "face_detection_yunet_2023mar.onnx")
    frames = list(read_frames(shared_data / "video" / "classroom.gif"))
    assert all(len(yunet(frame.image)[0]) == 4 for frame in frames[::9])


@pytest.mark.parametrize(
    ("box", "scale", "expected"),
    [
        ([2, 2, 6, 6], 1, (2, 6, 2, 6)),
        ([2, 1, 6, 7], 1, (1, 7, 1, 7)),  # the longer side rules
        ([3, 3, 5, 5], 2, (2, 6, 2, 6)),
    ],
    ids=["square", "tall", "scaled"],
)
def test_crops_a_square_around_the_box(box, scale, expected):
    image = np.random.default_rng(0).integers(0, 256, (10, 10, 3), np.uint8)
    top, bottom, left, right = expected
    crops = crop_faces(image, np.float32([box]), image_size=bottom - top, scale=scale)
    np.testing.assert_array_equal(crops[0], image[top:bottom, left:right])


@pytest.mark.parametrize("box", [[-4, -4, 4, 4], [6, 6, 14, 14]], ids=["top left", "bottom right"])
def test_repeats_the_border_outside_the_image(box):
    image = np.random.default_rng(0).integers(0, 256, (10, 10, 3), np.uint8)
    padded = np.pad(image, ((4, 4), (4, 4), (0, 0)), mode="edge")
    left, top = box[0] + 4, box[1] + 4
    crops = crop_faces(image, np.float32([box]), image_size=8)
    np.testing.assert_array_equal(crops[0], padded[top : top + 8, left : left + 8])


def test_crops_nothing_where_there_is_nothing():
    image = np.zeros((9, 9, 3), np.uint8)
    assert crop_faces(image, np.empty((0, 4), np.float32), image_size=32).shape == (0, 32, 32, 3)
    assert crop_faces(image, np.float32([[90, 90, 99, 99], [4, 4, 4.2, 4.2]]), image_size=32).shape == (2, 32, 32, 3)


def test_says_what_is_missing(tmp_path):
    with pytest.raises(ValueError, match=r"unknown detector 'mtcnn'; known are haar, yunet, full and .* \.onnx file"):
        load_detector("mtcnn")
    (tmp_path / "text.onnx").write_text("no model")
    for name, error, words in [
        ("none", FileNotFoundError, "not at .*none.onnx: run `fer-tf download yunet`"),
        ("text", ValueError, "text.onnx is not YuNet's model"),
    ]:
        with pytest.raises(error, match=words):
            load_detector("yunet", model=tmp_path / f"{name}.onnx")
        with pytest.raises(error, match=words):
            load_detector(str(tmp_path / f"{name}.onnx"))
    with pytest.raises(ValueError, match="pixels must be at least 1024, got 10"):
        load_detector("haar", pixels=10)


def test_images_of_any_size_come_to_few_canvases():
    """Their boxes stay where they were; a strip is made smaller."""
    shapes = []

    def find(image):
        shapes.append(image.shape[1::-1])
        return [[0, 0, 32, 32]], [0.9]

    canvases = ((320, 320), (352, 288), (288, 352), (544, 192))
    detector = Detector(name="corner", find=find, pixels=360 * 270, scale=1.0, step=32)
    on_canvas = replace(detector, canvases=canvases)
    for height, width in ((480, 480), (480, 600), (600, 480), (512, 640)):
        image = np.zeros((height, width, 3), np.uint8)
        np.testing.assert_array_equal(detector(image).xyxy, on_canvas(image).xyxy)
    strip = on_canvas(np.zeros((200, 2000, 3), np.uint8))  # to 544 x 64
    np.testing.assert_allclose(strip.xyxy, [[0, 0, 2000 * 32 / 544, 100]], rtol=1e-5)
    assert set(shapes[1::2] + shapes[-1:]) <= set(canvases)


def test_yunet_for_any_size_has_a_canvas_for_every_shape(shared_data, portrait):
    """And finds the same face."""
    file = shared_data / "yunet" / "face_detection_yunet_2023mar.onnx"
    plain, any_size = (load_detector("yunet", model=file, any_size=given) for given in (False, True))
    for height, width in ((512, 512), (300, 420), (420, 300), (250, 512)):
        (a,), (b,) = (find(portrait[:height, :width]).xyxy for find in (plain, any_size))
        np.testing.assert_allclose(a, b, atol=0.05 * (a[2] - a[0]))
    shapes = set()
    noting = replace(any_size, find=lambda image: (shapes.add(image.shape[1::-1]), ([], []))[1])
    for ratio in np.geomspace(1 / 20, 20, 100):
        for area in (100, 400, 900):
            noting(np.zeros((round(area / ratio**0.5), round(area * ratio**0.5), 3), np.uint8))
    assert shapes == set(any_size.canvases) and len(shapes) == 11
