"""Face detectors, and the crop that turns a detected box into what FER2013 shows."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from fer_tf.data.images import resize_method
from fer_tf.inference.yunet import STEP, yunet

PIXELS = {"haar": 480 * 360, "yunet": 360 * 270}
"""What a detector looks at unless told otherwise, chosen by benchmarks/detector_sizes.py on the sample clips.

YuNet's is the smallest that finds every face that 640 x 480 finds, small ones (15 of 270 pixels high) and turned ones,
in 0.4 of its CPU time; 320 x 240 saves up to a fifth more and misses turned faces, 256 x 192 saves a third and misses
small ones as well. Haar's finds as many faces as 640 x 480 did, with no more false ones, in 0.75 of its time.
"""
TILTED = 10.0
"""Degrees of roll from which on a crop is turned upright, by benchmarks/rolled_faces.py: below, it gains nothing.

YuNet's landmarks follow the tilt of faces that fill half of what it sees; smaller ones it takes for less tilted.
"""
RATIOS = 1.0, 1.25, 1.6, 2.1, 2.8, 4.5
"""Of the longer to the shorter side of a canvas; a picture is laid on the smallest that holds it.

A compile of YuNet takes 0.15 s on two cores, a call 4 ms, and without canvases pictures between 1:3 and 3:1 have 23
sizes. On 120 cuts of filmed frames and a portrait a box moved by 0.05 % of its side (median), by 4 % at most, for the
canvas goes on where the picture ended; in one a face that the border cuts was found on the canvas alone.
"""
MAX_UPSCALE = 2.0
"""A small image is enlarged for the detector by this much at most."""


class Found(NamedTuple):
    """The n faces of an image, best first.

    xyxy   float32 (n, 4): left, top, right, bottom in pixels, clipped to the image
    score  float32 (n,), 0..1
    roll   float32 (n,): degrees by which the line through the eyes is tilted, clockwise; 0 where nobody knows
    """

    xyxy: np.ndarray
    score: np.ndarray
    roll: np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False)
class Detector:
    """Finds the faces of one image. Call it from one thread at a time.

    find    uint8 RGB (height, width, 3) -> boxes (n, 4) left, top, right, bottom in its pixels, scores (n,) and, where
            it sees the eyes, rolls (n,)
    pixels  every image is resized to about so many for `find`; None leaves it as it is
    scale   side of a square crop over the longer side of its box: what it takes to frame a face as FER2013 does
    step    the sides of what `find` gets are multiples of it; a strip that is thinner holds no face
    canvases  (width, height) of black grounds; a resized image is laid on the smallest that holds it; a strip that is
              longer than all of them is made smaller, and one beyond 21:1 then holds no face
    """

    name: str
    find: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
    pixels: int | None
    scale: float
    step: int = 1
    canvases: tuple[tuple[int, int], ...] = ()

    def __call__(self, image: np.ndarray) -> Found:
        """Return the faces of an image, uint8 RGB (height, width, 3)."""
        height, width = image.shape[:2]
        zoom = min(math.sqrt(self.pixels / (height * width)), MAX_UPSCALE) if self.pixels else 1.0
        if self.canvases and not self._holding(self._size(width, height, zoom)):
            zoom = max(min(wide / width, high / height) for wide, high in self.canvases)
        size = self._size(width, height, zoom)
        if not all(size):
            return Found(np.empty((0, 4), np.float32), *np.empty((2, 0), np.float32))
        xyxy, score, *known = self.find(self._laid(_resized(image, size)))
        xyxy = np.asarray(xyxy, np.float32).reshape(-1, 4) * np.float32([width / size[0], height / size[1]] * 2)
        xyxy = np.clip(xyxy, 0, np.float32([width, height] * 2))
        score = np.asarray(score, np.float32).reshape(-1)
        roll = np.asarray(known[0] if known else np.zeros_like(score), np.float32)
        order = np.lexsort((xyxy[:, 1], xyxy[:, 0], -score))
        order = order[((xyxy[:, 2:] - xyxy[:, :2]) >= 1).all(axis=1)[order]]
        return Found(xyxy[order], score[order], roll[order])

    def _size(self, width: int, height: int, zoom: float) -> tuple[int, int]:
        """Return the sides of what `find` gets; one is 0 where no face has room."""
        sides = (max(1, round(side * zoom)) for side in (width, height))
        return tuple(round(side / self.step) * self.step if side >= self.step else 0 for side in sides)

    def _holding(self, size: tuple[int, int]) -> list[tuple[int, int]]:
        return [canvas for canvas in self.canvases if canvas[0] >= size[0] and canvas[1] >= size[1]]

    def _laid(self, image: np.ndarray) -> np.ndarray:
        """Return the image in the upper left of the smallest canvas that holds it, or as it is without canvases."""
        if not self.canvases:
            return image
        height, width = image.shape[:2]
        wide, high = min(self._holding((width, height)), key=math.prod)
        return cv2.copyMakeBorder(image, 0, high - height, 0, wide - width, cv2.BORDER_CONSTANT)


def load_detector(
    name: str = "haar",
    *,
    pixels: int | None = None,
    min_score: float = 0.6,
    model: Path | None = None,
    threads: int = 1,
    any_size: bool = False,
) -> Detector:
    """Return a detector.

    name       "haar" (OpenCV's frontal cascade, inside the wheel), "yunet" (finds turned and small faces, too; needs a
               download), "full" (the image is one face already), or the path of YuNet's .onnx file
    pixels     how many it looks at; more of them find smaller faces, in proportionally more time; by default `PIXELS`
    min_score  the least confidence of a face
    model      YuNet's file, if not under data/yunet
    threads    cores that one call of YuNet may use; OpenCV's, which Haar uses, are set by cv2.setNumThreads for all
    any_size   images of many sizes will come: YuNet lays them on a few canvases, and is not compiled for every size

    Raises ValueError for an unknown name and FileNotFoundError for a missing file.
    """
    if Path(name).suffix.lower() == ".onnx":
        name, model = "yunet", Path(name)
    if name not in DETECTORS:
        raise ValueError(
            f"unknown detector {name!r}; known are {', '.join(DETECTORS)} and a path to YuNet's .onnx file"
        )
    pixels = PIXELS.get(name) if pixels is None else pixels
    if pixels is not None and pixels < 1024:
        raise ValueError(f"pixels must be at least 1024, got {pixels}: a detector cannot see a face in fewer")
    detector = DETECTORS[name](pixels, min_score, model, threads)
    return replace(detector, canvases=_canvases(pixels, STEP)) if any_size and name == "yunet" else detector


def crop_faces(
    image: np.ndarray,
    xyxy: np.ndarray,
    *,
    image_size: int,
    scale: float = 1.0,
    roll: np.ndarray | None = None,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Return square crops uint8 (n, image_size, image_size, 3) around the boxes float32 (n, 4) of an RGB image.

    A crop's side is `scale` times the longer side of its box; where it leaves the image, the border is repeated. Those
    of faces whose `roll` (n,) is `TILTED` degrees or more are turned upright. They are written to `out` where that is
    given.
    """
    crops = np.empty((len(xyxy), image_size, image_size, 3), np.uint8) if out is None else out
    rolls = [0.0] * len(xyxy) if roll is None else roll.tolist()
    for crop, box, degrees in zip(crops, xyxy, rolls, strict=True):
        if abs(degrees) < TILTED:
            _crop(image, box, scale, crop)
            continue
        turn = math.radians(degrees)
        reach = abs(math.cos(turn)) + abs(math.sin(turn))  # of the turned square's box, in its sides
        wide = np.empty((math.ceil(image_size * reach),) * 2 + (3,), np.uint8)
        _crop(image, box, scale * len(wide) / image_size, wide)
        matrix = cv2.getRotationMatrix2D(((len(wide) - 1) / 2,) * 2, degrees, 1)
        matrix[:, 2] += (image_size - len(wide)) / 2
        cv2.warpAffine(wide, matrix, (image_size, image_size), crop, borderMode=cv2.BORDER_REPLICATE)
    return crops


def _crop(image: np.ndarray, box: np.ndarray, scale: float, crop: np.ndarray) -> None:
    """Fill a square crop (s, s, 3) with what is around a box."""
    (left, top, right, bottom), (height, width), size = box, image.shape[:2], len(crop)
    side = max(1, round(scale * max(right - left, bottom - top)))
    x = min(max(round((left + right - side) / 2), 1 - side), width - 1)
    y = min(max(round((top + bottom - side) / 2), 1 - side), height - 1)
    x0, x1, y0, y1 = max(x, 0), min(x + side, width), max(y, 0), min(y + side, height)
    zoom = size / side
    u0, u1 = _within(size, (x0 - x) * zoom, (x1 - x) * zoom)
    v0, v1 = _within(size, (y0 - y) * zoom, (y1 - y) * zoom)
    margins = v0, size - v1, u0, size - u1
    inside = None if any(margins) else crop  # a whole crop is written where it belongs
    inside = cv2.resize(image[y0:y1, x0:x1], (u1 - u0, v1 - v0), inside, interpolation=resize_method(zoom))
    if any(margins):
        crop[:] = cv2.copyMakeBorder(inside, *margins, cv2.BORDER_REPLICATE)


def face_cropper(detector: Detector, *, image_size: int) -> Callable[[np.ndarray], np.ndarray | None]:
    """Return what cuts the best face out of an RGB frame, (image_size, image_size, 3), and gives None without one.

    `data.clip_folders.read_clips` takes it for clips that show more than a face.
    """

    def crop(frame: np.ndarray) -> np.ndarray | None:
        xyxy, _, roll = detector(frame)
        if not len(xyxy):
            return None
        return crop_faces(frame, xyxy[:1], image_size=image_size, scale=detector.scale, roll=roll[:1])[0]

    return crop


def _canvases(pixels: int, step: int) -> tuple[tuple[int, int], ...]:
    """Return sizes of at least so many pixels, lying and upright, sides multiples of `step`."""
    long, short = ([math.ceil(math.sqrt(pixels * ratio**power) / step) * step for ratio in RATIOS] for power in (1, -1))
    return tuple({*zip(long, short, strict=True), *zip(short, long, strict=True)})


def _resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the image at (width, height) for a detector: halved while it can be, then interpolated.

    Halving takes the mean of four pixels, so nothing is skipped, and a whole frame of 1920 x 1080 is small in a seventh
    of the time of INTER_AREA in one step. Of an odd side the last pixel is lost, less than a pixel of the result.
    """
    while image.shape[1] >= 2 * size[0] and image.shape[0] >= 2 * size[1]:
        height, width = image.shape[0] // 2, image.shape[1] // 2
        image = cv2.resize(image[: 2 * height, : 2 * width], (width, height), interpolation=cv2.INTER_AREA)
    return image if image.shape[1::-1] == size else cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)


def _within(size: int, start: float, stop: float) -> tuple[int, int]:
    """Round to pixels, one at least."""
    first = min(round(start), size - 1)
    return first, max(round(stop), first + 1)


def _haar(pixels: int, min_score: float, model: Path | None, threads: int) -> Detector:
    file = model or Path(cv2.data.haarcascades) / "haarcascade_frontalface_default.xml"
    cascade = cv2.CascadeClassifier(str(file))
    if cascade.empty():
        raise FileNotFoundError(f"no Haar cascade at {file}: install opencv-python-headless 4, OpenCV 5 has none")
    enough = 5  # overlapping hits that make a face

    def find(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        xywh, hits = cascade.detectMultiScale2(grey, scaleFactor=1.1, minNeighbors=enough, minSize=(30, 30))
        xywh = np.reshape(xywh, (-1, 4)).astype(np.float32)
        # A cascade has no confidence; hits / (hits + enough), from 0.5 up, ranks its finds like one.
        score = np.reshape(hits, -1) / (np.reshape(hits, -1) + enough)
        kept = score >= min_score
        return np.hstack([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]])[kept], score[kept]

    # On 400 faces of FER2013's train split, its box is 47.5 of the 48 pixels and centred (medians over 320 hits).
    return Detector(name="haar", find=find, pixels=pixels, scale=1.0)


def _yunet(pixels: int, min_score: float, model: Path | None, threads: int) -> Detector:
    find = yunet(model, min_score=min_score, threads=threads)
    # A tight, tall box. On FER2013 it is 48.5 pixels high (median of 388 faces), so a whole picture is 0.99 of it;
    # Haar's box is 0.96 of it on the sample clips (146 faces). The centres differ by 1 and by -3 % of it: nothing.
    return Detector(name="yunet", find=find, pixels=pixels, scale=0.98, step=STEP)


def _full(pixels: int, min_score: float, model: Path | None, threads: int) -> Detector:
    def find(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.float32([[0, 0, image.shape[1], image.shape[0]]]), np.ones(1)

    return Detector(name="full", find=find, pixels=None, scale=1.0)


DETECTORS = {"haar": _haar, "yunet": _yunet, "full": _full}
