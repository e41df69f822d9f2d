"""Drawn clips: one to four moving faces with known boxes, identities and emotions."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from fer_tf.data.drawn_paint import paint
from fer_tf.data.drawn_tables import APEX, sample_traits
from fer_tf.labels import FER2013

MAX_FACES = 4
MIN_BOX = 40  # pixels, smallest side of a face box
EXPRESSION_S = 2.0  # seconds from neutral to the apex and back
POSE = {"yaw": 0.20, "pitch": 0.06, "roll": 0.08}  # trait -> largest angle in radians: upright faces
SPARE = 64  # pixels by which the sheet of grain is larger than a frame


@dataclass(frozen=True, kw_only=True, eq=False)
class DrawnClip:
    """A clip whose frame i is drawn when asked for, and depends on nothing but the clip and i.

    xyxy     float32 (frames, faces, 4): square face boxes, brows to chin, in pixels; column j is always person j
    visible  bool (frames, faces): the whole box lies in the picture
    labels   int64 (frames, faces): index into `labels.FER2013`
    people   structured (faces,), from `sample_traits`
    pose     float32 (frames, faces, 3): yaw, pitch, roll in radians
    units    float32 (frames, faces, units): intensities of the action units
    """

    width: int
    height: int
    fps: float
    seed: int
    xyxy: np.ndarray
    visible: np.ndarray
    labels: np.ndarray
    people: np.ndarray
    pose: np.ndarray
    units: np.ndarray

    def __len__(self) -> int:
        return len(self.xyxy)

    @property
    def frames(self) -> Sequence[np.ndarray]:
        """The frames, uint8 (height, width, 3) RGB, each drawn anew whenever it is taken."""
        return _Frames(self)

    def frame(self, i: int) -> np.ndarray:
        """Draw frame i, 0 to len - 1."""
        traits = self.people.copy()
        for angle, values in zip(POSE, self.pose[i].T, strict=True):
            traits[angle] = values
        image = self._room.copy()
        corners = self.xyxy[i].astype(float).reshape(-1, 2, 2)
        radius = (corners[:, 1, 0] - corners[:, 0, 0]) / 2
        paint([image] * len(radius), traits, self.units[i], centre=corners.mean(axis=1), radius=radius)
        x, y = self._rng(2, i).integers(0, SPARE, 2)
        return cv2.add(image, self._grain[y : y + self.height, x : x + self.width], dtype=cv2.CV_8U)

    def _rng(self, *key):
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=key))

    @cached_property
    def _room(self):
        return _room(self.width, self.height, self._rng(0))

    @cached_property
    def _grain(self):
        grain = self._rng(1).normal(0, 3, (self.height + SPARE, self.width + SPARE, 1))
        return np.repeat(np.rint(grain).astype(np.int16), 3, axis=2)


class _Frames(Sequence):
    def __init__(self, clip):
        self._clip = clip

    def __len__(self):
        return len(self._clip)

    def __getitem__(self, i):
        return self._clip.frame(range(len(self))[i])


def draw_clip(
    *, faces: int = 1, frames: int = 90, width: int = 640, height: int = 480, fps: float = 30.0, seed: int = 0
) -> DrawnClip:
    """Return a clip of 1 to 4 people who move, each in a column of the picture, from one expression to the next.

    Raises ValueError for other numbers of faces and for a picture too small to hold them.
    """
    if not 1 <= faces <= MAX_FACES:
        raise ValueError(f"faces must be 1..{MAX_FACES}, got {faces}")
    if frames < 1 or fps <= 0:
        raise ValueError(f"a clip needs at least 1 frame and a positive rate, got {frames} frames at {fps} frames/s")
    column = width / faces
    radius = min(0.31 * column, 0.20 * height)
    if 2 * 0.85 * radius < MIN_BOX:
        raise ValueError(f"{width}x{height} is too small for {faces} faces of {MIN_BOX} pixels: enlarge the picture")
    rng = np.random.default_rng(seed)
    time = np.arange(frames)[:, None] / fps
    radius = radius * (1 + 0.15 * _wander(time, faces, rng))
    x = column * (np.arange(faces) + 0.5) + 0.14 * column * _wander(time, faces, rng)
    y = 0.54 * height + 0.10 * height * _wander(time, faces, rng)
    pose = np.stack([reach * _wander(time, faces, rng) for reach in POSE.values()], axis=-1)
    xyxy = np.stack([x - radius, y - radius, x + radius, y + radius], axis=-1)
    shares = _expressions(time, faces, rng)
    return DrawnClip(
        width=width,
        height=height,
        fps=fps,
        seed=seed,
        xyxy=xyxy.astype(np.float32),
        visible=((xyxy >= 0) & (xyxy <= (width, height, width, height))).all(axis=-1),
        labels=shares.argmax(axis=-1),
        people=sample_traits(faces, rng),
        pose=pose.astype(np.float32),
        units=(shares @ APEX).astype(np.float32),
    )


def _wander(time, faces, rng):
    """Smooth paths (frames, faces) within -1..1: two sines of different, unhurried periods."""
    periods, phases = rng.uniform(3, 9, (2, faces)), rng.uniform(0, 2 * np.pi, (2, faces))
    waves = np.sin(2 * np.pi * time / periods[:, None] + phases[:, None])  # (2, frames, faces)
    return 0.6 * waves[0] + 0.4 * waves[1]


def _expressions(time, faces, rng):
    """Shares (frames, faces, 7): in turn each emotion rises from neutral to its apex and falls back."""
    neutral = FER2013.index("neutral")
    order = np.array([rng.permutation([i for i in range(len(FER2013)) if i != neutral]) for _ in range(faces)])
    turn, phase = np.divmod(time / EXPRESSION_S + rng.uniform(0, 1, faces), 1)  # (frames, faces)
    emotion = order[np.arange(faces), turn.astype(int) % order.shape[1]]
    share = np.minimum(1.3 * np.sin(np.pi * phase) ** 2, 1)
    shares = np.zeros((*share.shape, len(FER2013)))
    np.put_along_axis(shares, emotion[..., None], share[..., None], axis=-1)
    shares[..., neutral] = 1 - share
    return shares


def _room(width, height, rng):
    """A blurred wall with pictures, boxes and lamps: something for a detector to be right about."""
    patches = rng.uniform(90, 170) + rng.normal(0, 8, 3) + rng.normal(0, 22, (4, 6, 1))
    room = cv2.resize(np.clip(patches, 0, 255).astype(np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
    for _ in range(9):
        side = rng.uniform(0.08, 0.3, 2) * height
        corner = rng.uniform(-0.1, 0.9, 2) * (width, height)
        edge, inside = rng.uniform(30, 210, (2, 1)) + rng.normal(0, 15, (2, 3))
        for inset, colour in ((0, edge), (0.08 * side.min(), inside)):
            start, end = np.rint([corner + inset, corner + side - inset]).astype(int).tolist()
            cv2.rectangle(room, start, end, np.clip(colour, 0, 255).tolist(), cv2.FILLED)
    for _ in range(3):
        at = np.rint(rng.uniform(0, 1, 2) * (width, height)).astype(int).tolist()
        lamp = rng.uniform(60, 200) + rng.normal(0, 20, 3)
        cv2.circle(room, at, int(rng.uniform(0.03, 0.09) * height), lamp.tolist(), cv2.FILLED, cv2.LINE_AA)
    return cv2.GaussianBlur(room, (0, 0), 0.006 * height)
