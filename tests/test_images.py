"""`read_image` turns every kind of picture file into RGB uint8, or says in one sentence why not."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from fer_tf.data.images import decode_image, read_image, write_image


@pytest.fixture
def picture() -> np.ndarray:
    """A red corner on a gradient, 60 x 90: no two rotations of it look the same."""
    image = np.zeros((60, 90, 3), np.uint8)
    image[..., 1] = np.linspace(0, 200, 60)[:, None]
    image[..., 2] = np.linspace(0, 200, 90)
    image[:20, :20] = 255, 0, 0
    return image


def grey(picture):
    return np.dstack([picture[..., 1]] * 3)


def red(picture):
    return np.dstack([picture[..., 0]] * 3)


KINDS = {  # name -> (file name, how to write it, the RGB that it shows, mean difference allowed)
    "rgb": ("a.png", Image.fromarray, np.array, 0),
    "jpeg": ("a.jpg", Image.fromarray, np.array, 4),
    "grey": ("a.png", lambda p: Image.fromarray(p[..., 1]), grey, 0),
    "one bit": ("a.png", lambda p: Image.fromarray(p[..., 0] > 0), red, 0),
    "palette": ("a.gif", lambda p: Image.fromarray(p).convert("P"), np.array, 20),
    "rgba": ("a.png", lambda p: Image.fromarray(np.dstack([p, p[..., 1]])), np.array, 0),
    "cmyk tiff": ("a.tiff", lambda p: Image.fromarray(p).convert("CMYK"), np.array, 0),
    "cmyk jpeg": ("a.jpg", lambda p: Image.fromarray(p).convert("CMYK"), np.array, 4),
    "webp": ("ä ö.webp", Image.fromarray, np.array, 4),
}


@pytest.mark.parametrize("kind", KINDS)
def test_reads_every_colour_model(kind, picture, tmp_path):
    name, write, shows, allowed = KINDS[kind]
    write(picture).save(tmp_path / name)
    image = read_image(tmp_path / name)
    assert image.shape == (60, 90, 3) and image.dtype == np.uint8
    assert np.abs(image - shows(picture).astype(int)).mean() <= allowed


def test_scales_16_bits_to_8(picture, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), picture[..., 1].astype(np.uint16) * 257)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), grey(picture))


@pytest.mark.parametrize(("orientation", "quarters"), [(3, 2), (6, 1), (8, 3)])
def test_applies_exif_rotation(orientation, quarters, picture, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.rot90(picture, quarters).copy()).save(tmp_path / "a.jpg", exif=exif, quality=95)
    image = read_image(tmp_path / "a.jpg")
    assert image.shape == picture.shape
    assert np.abs(image[4:12, 4:12].astype(int) - [255, 0, 0]).max() < 20


@pytest.mark.parametrize("width", [1, 20_000])
def test_reads_any_width(width, tmp_path):
    Image.new("RGB", (width, 1), (1, 2, 3)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").shape == (1, width, 3)


def test_says_what_is_wrong(picture, tmp_path):
    Image.fromarray(picture).save(tmp_path / "whole.jpg")
    (tmp_path / "half.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:400])
    (tmp_path / "text.jpg").write_text("not a picture")
    (tmp_path / "empty.jpg").touch()
    for name, error, words in [
        ("half.jpg", ValueError, "cut short"),
        ("text.jpg", ValueError, "no picture"),
        ("empty.jpg", ValueError, "0 bytes"),
        ("missing.jpg", FileNotFoundError, "no image at"),
        ("", ValueError, "a folder"),
    ]:
        with pytest.raises(error, match=words):
            read_image(tmp_path / name)


@pytest.mark.skipif(os.name != "posix", reason="no device files")
def test_a_device_is_no_folder():
    with pytest.raises(ValueError, match="a device or a pipe"):
        read_image("/dev/null")


def test_a_picture_that_cannot_be_written_leaves_the_old_one(picture, tmp_path, monkeypatch):
    write_image(tmp_path / "A.PNG", picture)
    np.testing.assert_array_equal(read_image(tmp_path / "A.PNG"), picture)

    def full(path, data):
        with path.open("wb") as file:
            file.write(bytes(10))
        raise OSError("no space left")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="no space"):
        write_image(tmp_path / "A.PNG", picture * 0)
    np.testing.assert_array_equal(read_image(tmp_path / "A.PNG"), picture)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_chunk_that_claims_more_than_the_file_has_is_not_read(picture, monkeypatch):
    """OpenCV would fill 4 GB before it sees that they are not there."""
    whole = cv2.imencode(".png", picture)[1]
    assert decode_image(whole, name="it").shape == picture.shape
    claims = whole.copy()
    claims[33:37] = 255  # the length of what follows the header
    monkeypatch.setattr(cv2, "imdecode", pytest.fail)
    for data in (claims, whole[:-1]):
        with pytest.raises(ValueError, match="it is no picture, or cut short"):
            decode_image(data, name="it")


def test_nothing_behind_the_end_of_a_png_is_read(picture, monkeypatch):
    whole, decode, seen = cv2.imencode(".png", picture)[1], cv2.imdecode, []
    monkeypatch.setattr(cv2, "imdecode", lambda data, flags: seen.append(len(data)) or decode(data, flags))
    head, end = whole[:33].tobytes(), whole[-12:].tobytes()
    early = head + end + b"\x7f\xff\xff\xffIDAT"  # an end without a picture, then 2 GB that are not there
    with pytest.raises(ValueError, match="is no picture"):
        decode_image(np.frombuffer(early, np.uint8), name="it")
    more = np.concatenate([whole, np.zeros(99, np.uint8)])
    assert decode_image(more, name="it").shape == picture.shape and seen == [len(head + end), len(whole)]
