"""`read_image`: any picture file to RGB uint8; `write_image`: the way back; `to_rgb`: the frames of a video."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from fer_tf.files import write_atomically


def read_image(path: Path | str) -> np.ndarray:
    """Return the picture at `path` as uint8 (height, width, 3) RGB.

    Grey, palette, 16-bit and CMYK pictures become 8-bit RGB, EXIF rotation is applied, transparency is dropped; of an
    animation the first frame is taken. Raises FileNotFoundError, or ValueError for a file that is no readable picture.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no image at {path}: check the path")
    if not path.is_file():
        kind = "a folder: name the files in it" if path.is_dir() else "a device or a pipe: save it to a file first"
        raise ValueError(f"{path} is not an image file but {kind}")
    return decode_image(np.fromfile(path, np.uint8), name=str(path))  # OpenCV's own reader does not open every path


def decode_image(data: np.ndarray, *, name: str) -> np.ndarray:
    """Return the bytes of a picture file, uint8 (n,), as `read_image` does; `name` is what errors call it."""
    if not len(data):
        raise ValueError(f"{name} is empty (0 bytes): fetch it again")
    try:
        image = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB) if len(data := _checked(data)) else None
    except cv2.error as error:  # over OpenCV's limit of 2^30 pixels
        raise ValueError(f"{name} cannot be decoded ({error.err}): scale it down or save it as JPEG or PNG") from error
    if image is None:
        raise ValueError(f"{name} is no picture, or cut short: expected a whole JPEG, PNG, WebP, TIFF, GIF or BMP file")
    return image


def _checked(data: np.ndarray) -> np.ndarray:
    """Return a PNG up to its end, nothing of one with a part that claims more bytes than there are; others as they are.

    OpenCV takes the memory that a part claims, up to 4 GB, and finds out then; it also reads on behind the end of a PNG
    that shows no picture. https://www.w3.org/TR/png-3/#5Chunk-layout
    """
    if data[:8].tobytes() != b"\x89PNG\r\n\x1a\n":
        return data
    place, last = 8, b""
    while last != b"IEND" and place + 8 <= len(data):
        head = data[place : place + 8].tobytes()
        place, last = place + 12 + int.from_bytes(head[:4], "big"), head[4:]
        if place > len(data):
            return data[:0]
    return data[:place]


def resize_method(zoom: float) -> int:
    """Return OpenCV's interpolation for a change of size, one rule for training and inference alike."""
    return cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR


def write_image(path: Path, image: np.ndarray) -> None:
    """Write uint8 (height, width, 3) RGB in the format that the suffix names, whole or not at all.

    Raises ValueError for a suffix or a size that cannot be written, OSError for a place that cannot.
    """
    try:
        good, data = cv2.imencode(path.suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    except cv2.error as error:
        raise ValueError(f"{path}: expected a suffix such as .png or .jpg") from error
    if not good:
        raise ValueError(f"an image of {image.shape[1]}x{image.shape[0]} pixels cannot be written as {path.name}")
    write_atomically(path, data.tobytes())


def to_rgb(stream) -> Callable[..., np.ndarray]:
    """Return what turns a PyAV stream's frames into uint8 (height, width, 3) RGB: upright, and of square pixels."""
    from av.video.reformatter import VideoReformatter

    reformatter = VideoReformatter()  # keeps what it works out once; a frame's own would do so every time
    oblong = float(stream.sample_aspect_ratio or 1)  # a pixel's width by its height
    wider, taller = (max(1.0, side) if 1 / 8 <= oblong <= 8 else 1.0 for side in (oblong, 1 / oblong))

    def upright(frame) -> np.ndarray:
        size = {"width": round(frame.width * wider), "height": round(frame.height * taller)}
        image = reformatter.reformat(frame, format="rgb24", threads=1, **size).to_ndarray()
        turns = round(frame.rotation / 90) % 4
        return np.ascontiguousarray(np.rot90(image, turns)) if turns else image

    return upright
