"""`LabelledFaces`, `LabelledClips` and `Splits`: what every reader returns and every trainer takes."""

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import cv2
import numpy as np

from fer_tf.data.images import resize_method


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledFaces:
    """n cropped faces with one emotion each, as parallel arrays.

    images         uint8 (n, size, size, channels); channels is 1 (grey) or 3 (RGB)
    labels         int64 (n,): index into `emotions`
    emotions       names in label order
    ids            (n,) str or int: file name or row number, unique within the data set
    distributions  float32 (n, emotions), rows sum to 1: annotators' votes, or None
    affect         float32 (n, 2): valence and arousal in -1..1, or None
    """

    images: np.ndarray
    labels: np.ndarray
    emotions: tuple[str, ...]
    ids: np.ndarray
    distributions: np.ndarray | None = None
    affect: np.ndarray | None = None

    AXES: ClassVar = ("n", "side", "side", "1 or 3")

    def __post_init__(self):
        if self.images.dtype != np.uint8 or self.images.ndim != len(self.AXES) or self.images.shape[-1] not in (1, 3):
            found = f"{self.images.dtype} {self.images.shape}"
            raise ValueError(f"images must be uint8 ({', '.join(self.AXES)}), got {found}")
        if self.images.shape[-3] != self.images.shape[-2]:
            raise ValueError(f"images must be square, got {self.images.shape}")
        n = len(self.images)
        for name in ("labels", "ids", "distributions", "affect"):
            value = getattr(self, name)
            if value is not None and len(value) != n:
                raise ValueError(f"{name} {np.shape(value)} must have one row per image, images is {self.images.shape}")
        if n and not 0 <= self.labels.min() <= self.labels.max() < len(self.emotions):
            found = f"{self.labels.min()}..{self.labels.max()}"
            raise ValueError(f"labels must lie in 0..{len(self.emotions) - 1}, got {found}")
        if self.distributions is not None and self.distributions.shape != (n, len(self.emotions)):
            raise ValueError(f"distributions must be {(n, len(self.emotions))}, got {self.distributions.shape}")
        if self.affect is not None and (self.affect.shape != (n, 2) or not (np.abs(self.affect) <= 1).all()):
            raise ValueError(
                f"affect must be {(n, 2)}, valence and arousal in -1..1, got {self.affect.shape} "
                f"with {(~(np.abs(self.affect) <= 1)).sum()} values outside"
            )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def size(self) -> int:
        """Side of an image in pixels."""
        return self.images.shape[-2]

    def take(self, index: np.ndarray) -> "LabelledFaces":
        """Return the rows that `index` (integers, a slice or a mask) selects."""
        arrays = {name: getattr(self, name) for name in ("images", "labels", "ids", "distributions", "affect")}
        return replace(self, **{name: rows[index] for name, rows in arrays.items() if rows is not None})

    def crops(self, image_size: int, index=slice(None)) -> np.ndarray:
        """Return uint8 (n, image_size, image_size, 3) RGB: what every model and engine takes."""
        return to_crops(self.images[index], image_size)

    @cached_property
    def hashes(self) -> np.ndarray:
        """(n,) bytes: equal exactly where two images are equal pixel by pixel."""
        digests = [hashlib.blake2b(image, digest_size=16).digest() for image in np.ascontiguousarray(self.images)]
        return np.array(digests, dtype="V16")


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledClips(LabelledFaces):
    """n clips of one face each, with one emotion each: as `LabelledFaces`, but a row of `images` is a whole clip.

    images  uint8 (n, window, size, size, channels): the frames in order; `crops` (n, window, s, s, 3) alike
    """

    AXES: ClassVar = ("n", "window", "side", "side", "1 or 3")

    @property
    def window(self) -> int:
        """Frames of every clip."""
        return self.images.shape[1]

    def frames(self) -> LabelledFaces:
        """Return the n * window frames as single faces, each with its clip's label: "<clip>/<frame>" are the ids."""
        return LabelledFaces(
            images=self.images.reshape(-1, *self.images.shape[2:]),
            labels=np.repeat(self.labels, self.window),
            emotions=self.emotions,
            ids=np.array([f"{clip}/{frame}" for clip in self.ids for frame in range(self.window)]),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Splits:
    """A data set cut into train, valid and test. Select on valid, report test once.

    name   "drawn", "fer2013", a folder's name ...
    terms  licence or terms of use, for the model card
    clean  split -> bool (n,): what `audit` found in the whole data set of which these splits are a part, or None
    """

    train: LabelledFaces
    valid: LabelledFaces
    test: LabelledFaces
    name: str
    terms: str
    clean: dict | None = None

    def __post_init__(self):
        for split, faces in self.items():
            if not len(faces):
                raise ValueError(f"{self.name}: the {split} split holds no images")
            if faces.emotions != self.train.emotions:
                raise ValueError(f"{self.name}: {split} has emotions {faces.emotions}, train has {self.train.emotions}")

    def items(self) -> tuple[tuple[str, LabelledFaces], ...]:
        return ("train", self.train), ("valid", self.valid), ("test", self.test)

    @property
    def emotions(self) -> tuple[str, ...]:
        return self.train.emotions

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits over every pixel, label, affect and split: equal only for equal faces, judged by equal labels.

        Votes are left out: they teach, and runs with and without them are judged alike.
        """
        digest = hashlib.blake2b(digest_size=8)
        for split, faces in self.items():
            digest.update(f"{split} {faces.emotions} {faces.images.shape}".encode())
            digest.update(faces.hashes.tobytes())
            digest.update(np.ascontiguousarray(faces.labels, dtype="<i8"))
            if faces.affect is not None:
                digest.update(np.ascontiguousarray(faces.affect, dtype="<f4"))
        return digest.hexdigest()

    @cached_property
    def audit(self):
        """The `audit.Audit` of this data set: class balance, copies within and across splits, clean rows."""
        from fer_tf.data.audit import audit

        return audit(self)


def to_crops(images: np.ndarray, image_size: int) -> np.ndarray:
    """Resize uint8 (..., h, w, 1 or 3) to uint8 (..., image_size, image_size, 3) RGB; grey is repeated."""
    if images.shape[-3:-1] != (image_size, image_size):
        method = resize_method(image_size / images.shape[-3])
        resized = np.empty((*images.shape[:-3], image_size, image_size, images.shape[-1]), np.uint8)
        for place in np.ndindex(images.shape[:-3]):
            target = cv2.resize(images[place], (image_size, image_size), interpolation=method)
            resized[place] = target.reshape(resized.shape[-3:])
        images = resized
    return np.broadcast_to(images, (*images.shape[:-1], 3)) if images.shape[-1] == 1 else images
