"""Whose face it is from frame to frame, and the last frames of each: what a model of clips is given."""

import numpy as np

from fer_tf.faces import Faces

MIN_IOU = 0.3
"""The least overlap of a face with its place in the frame before."""
PATIENCE = 15
"""Frames for which a track may be missed; then it has ended, and whoever comes is somebody new."""


class Tracker:
    """Gives the faces of consecutive frames their identities: the same track_id for the same face, none ever again.

    A face belongs to the track with whose last box it overlaps most; the best overlaps are settled first. It knows no
    looks and no motion: faces that change places behind each other, or jump, may get another's or a new identity.
    """

    def __init__(self, *, min_iou: float = MIN_IOU, patience: int = PATIENCE):
        self.min_iou, self.patience = min_iou, patience
        self._ids, self._xyxy, self._missed = np.empty(0, int), np.empty((0, 4), np.float32), np.empty(0, int)
        self._next = 0

    def follow(self, faces: Faces) -> Faces:
        """Return the faces of the next frame with `track_id`."""
        track_id, shared = np.full(len(faces), -1), overlap(self._xyxy, faces.xyxy)
        while shared.size and shared.max() >= self.min_iou:
            track, face = np.unravel_index(shared.argmax(), shared.shape)
            track_id[face] = self._ids[track]
            shared[track], shared[:, face] = -1, -1
        new = track_id < 0
        track_id[new] = self._next + np.arange(new.sum())
        self._next += int(new.sum())
        kept = ~np.isin(self._ids, track_id) & (self._missed < self.patience)  # not here, but not yet given up
        self._ids = np.concatenate([track_id, self._ids[kept]])
        self._xyxy = np.concatenate([faces.xyxy, self._xyxy[kept]])
        self._missed = np.concatenate([np.zeros(len(faces), int), self._missed[kept] + 1])
        return faces.with_(track_id=track_id)


class Windows:
    """Keeps the last `window` crops of every track, until it has ended.

    The frames of a window are those in which the face was found. As long as there are fewer, the first one stands for
    what was before. A window of 1 is the crop itself.
    """

    def __init__(self, window: int, *, patience: int = PATIENCE):
        self.window, self.patience = window, patience
        self.kept: dict[int, tuple[int, np.ndarray]] = {}  # track -> frame where last seen, its clip

    def add(self, faces: Faces, crops: np.ndarray) -> tuple[Faces, np.ndarray]:
        """Take the tracked faces of the next frame and their crops (n, s, s, 3); return clips (n, window, s, s, 3)."""
        if self.window == 1:
            return faces, crops
        clips = np.empty((len(crops), self.window, *crops.shape[1:]), crops.dtype)
        for clip, crop, track in zip(clips, crops, faces.track_id.tolist(), strict=True):
            if track in self.kept:
                clip[:-1] = self.kept[track][1][1:]
            else:
                clip[:-1] = crop
            clip[-1] = crop
            self.kept[track] = faces.frame_index, clip
        oldest = faces.frame_index - self.patience
        self.kept = {track: kept for track, kept in self.kept.items() if kept[0] >= oldest}
        return faces, clips


def overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return intersection over union of boxes (m, 4) and (n, 4): float (m, n), 0..1."""
    upper, lower = np.minimum(a[:, None, 2:], b[None, :, 2:]), np.maximum(a[:, None, :2], b[None, :, :2])
    shared = np.clip(upper - lower, 0, None).prod(axis=2)
    areas = ((boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (a, b))
    return shared / np.maximum(np.add.outer(*areas) - shared, 1e-9)
