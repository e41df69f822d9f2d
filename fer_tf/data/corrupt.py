"""Corruptions of faces at five severities, seeded: what a camera, a crop or a cable does to a picture.

After Hendrycks and Dietterich, "Benchmarking neural network robustness to common corruptions and perturbations" (2019),
with amounts for faces of 48 pixels, and with two corruptions that belong to faces: eyes or mouth covered. Amounts that
are lengths are shares of the picture's side, so that they mean the same at every size.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from zlib import crc32

import cv2
import numpy as np

from fer_tf.data.images import resize_method
from fer_tf.data.labelled import LabelledClips, LabelledFaces

SEVERITIES = (1, 2, 3, 4, 5)
EYES, MOUTH = (0.36, 0.8), (0.79, 0.6)  # middle from above and width, of the side: those of FER2013's mean face
COVERED = (0.08, 0.14, 0.2, 0.26, 0.32)


@dataclass(frozen=True, kw_only=True)
class Corruption:
    """One way to spoil a picture.

    amounts  of the severities 1 to 5, in `unit`
    apply    float32 (h, w, c) of 0..255, amount, the row's generator -> the same shape, rounded and clipped later
    """

    unit: str
    amounts: tuple[float, float, float, float, float]
    apply: Callable[[np.ndarray, float, np.random.Generator], np.ndarray]


def corrupt(faces: LabelledFaces, name: str, severity: int, *, seed: int = 0) -> LabelledFaces:
    """Return the faces with one of `CORRUPTIONS` at a severity of 1 to 5; labels and ids stay.

    What chance decides of a row (its noise, a direction) hangs on `seed`, the corruption and the row's id alone: it is
    the same in every batch, order and selection of rows, and at every severity, where only the amount grows.

    Raises ValueError for an unknown name or severity, and for clips.
    """
    if name not in CORRUPTIONS:
        raise ValueError(f"unknown corruption {name!r}; known are {', '.join(CORRUPTIONS)}")
    if severity not in SEVERITIES:
        raise ValueError(f"severity must be 1 to {SEVERITIES[-1]}, got {severity!r}")
    if isinstance(faces, LabelledClips):
        raise ValueError("single pictures are corrupted, but these are clips: take their .frames()")
    known, images = CORRUPTIONS[name], np.empty_like(faces.images)
    amount = known.amounts[severity - 1]
    for i, (image, row) in enumerate(zip(faces.images, faces.ids, strict=True)):
        rng = np.random.default_rng([seed, crc32(name.encode()), crc32(str(row).encode())])
        spoiled = known.apply(image.astype(np.float32), amount, rng)
        images[i] = np.clip(np.rint(spoiled), 0, 255).reshape(image.shape)
    return replace(faces, images=images)


def examples(
    face: LabelledFaces, names: Iterable[str], *, severities: Sequence[int] = SEVERITIES, seed: int = 0
) -> dict:
    """Return corruption -> uint8 (1 + severities, h, w, c): one face as it is, then at each severity."""
    return {
        name: np.stack([face.images[0], *(corrupt(face, name, each, seed=seed).images[0] for each in severities)])
        for name in names
    }


def _noise(image, amount, rng):
    return image + 255 * amount * rng.standard_normal((*image.shape[:2], 1), np.float32)  # of light, not of colour


def _blur(image, amount, rng):
    return cv2.GaussianBlur(image, (0, 0), amount * len(image))


def _brightness(image, amount, rng):
    return image + 255 * amount * rng.choice((-1, 1))


def _contrast(image, amount, rng):
    return image.mean() + amount * (image - image.mean())


def _jpeg(image, amount, rng):
    blue_first = np.ascontiguousarray(image[..., ::-1], dtype=np.uint8)
    _, file = cv2.imencode(".jpg", blue_first, (cv2.IMWRITE_JPEG_QUALITY, int(amount)))
    return cv2.imdecode(file, cv2.IMREAD_UNCHANGED).reshape(image.shape)[..., ::-1]


def _low_resolution(image, amount, rng):
    height, width = image.shape[:2]
    small = max(1, round(amount * width)), max(1, round(amount * height))
    seen = cv2.resize(image, small, interpolation=resize_method(amount))
    return cv2.resize(seen, (width, height), interpolation=resize_method(1 / amount))


def _covered(middle, width):
    def apply(image, amount, rng):
        """A bar in the picture's mean: what lay there is lost, and nothing else changes."""
        rows, columns = image.shape[:2]
        top, bottom = (round((middle + half * amount) * rows) for half in (-0.5, 0.5))
        left, right = (round((0.5 + half * width) * columns) for half in (-0.5, 0.5))
        image[top:bottom, left:right] = image.mean(axis=(0, 1))
        return image

    return apply


def _rotation(image, amount, rng):
    middle = (image.shape[1] - 1) / 2, (image.shape[0] - 1) / 2
    return _moved(image, cv2.getRotationMatrix2D(middle, amount * rng.choice((-1, 1)), 1))


def _shift(image, amount, rng):
    angle = rng.uniform(0, 2 * np.pi)
    along = np.rint(amount * len(image) * np.array([np.cos(angle), np.sin(angle)]))  # whole pixels: nothing blurs
    return _moved(image, np.column_stack([np.eye(2), along]))


def _moved(image, matrix):
    size = image.shape[1], image.shape[0]
    return cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


CORRUPTIONS = {
    "noise": Corruption(unit="sigma, share of 255", amounts=(0.04, 0.08, 0.12, 0.18, 0.26), apply=_noise),
    "blur": Corruption(unit="sigma, share of the side", amounts=(0.01, 0.015, 0.02, 0.03, 0.04), apply=_blur),
    "brightness": Corruption(unit="added or taken, share of 255", amounts=(0.1, 0.2, 0.3, 0.4, 0.5), apply=_brightness),
    "contrast": Corruption(unit="factor about the mean", amounts=(0.6, 0.4, 0.3, 0.2, 0.1), apply=_contrast),
    "JPEG": Corruption(unit="quality, of 100", amounts=(60, 30, 20, 12, 6), apply=_jpeg),
    "low resolution": Corruption(
        unit="side left, share of it", amounts=(0.75, 0.5, 0.375, 0.25, 0.1875), apply=_low_resolution
    ),
    "eyes covered": Corruption(unit="height of the bar, share of the side", amounts=COVERED, apply=_covered(*EYES)),
    "mouth covered": Corruption(unit="height of the bar, share of the side", amounts=COVERED, apply=_covered(*MOUTH)),
    "rotation": Corruption(unit="degrees, either way", amounts=(5, 10, 15, 20, 30), apply=_rotation),
    "shift": Corruption(unit="distance, share of the side", amounts=(0.04, 0.08, 0.12, 0.16, 0.2), apply=_shift),
}
"""Name -> what it does, in the order of tables and figures."""
