"""Whose face it is from frame to frame, and the last frames of each: what a model of clips is given."""

import numpy as np

from fer_tf.faces import Faces

MIN_IOU = 0.3
"""The least overlap of a face with the place where its track is expected."""
REACH = 1.0, 2.0
"""Face sizes within which a face that overlaps with no track may still be a fast one's: at least, at most. Between
them it is three standard deviations of the expected place."""
PATIENCE_S = 1.0
"""Seconds for which a track may be missed; then it has ended, and whoever comes is somebody new."""
COAST_S = 0.3
"""Seconds after it was last found for which a track is still shown on frames without detection."""

# How faces move, as standard deviations: the error of a place, in face sizes; the velocity of a face just found, in
# sizes/s; and how a velocity changes with time, in sizes/s**1.5: by one size/s within 0.2 s.
ERROR, FIRST_SPEED, WANDER = 0.05, 3.0, 2.2


class Tracker:
    """Gives the faces of consecutive frames their identities: the same track_id for the same face, none ever again.

    Each track is a Kalman filter of the box's centre, at constant velocity, and of its sides. It works in seconds, so
    frames may be missing or come at any rate. A face belongs to the track with whose expected box it overlaps most, the
    best overlaps being settled first; one that overlaps with none, to the nearest within `REACH`. It knows no looks:
    faces that turn back behind each other may get each other's identity.

    patience_s  seconds for which a track may be missed and still get its face back
    coast_s     seconds after it was last found for which `predict` shows a track
    """

    def __init__(self, *, min_iou: float = MIN_IOU, patience_s: float = PATIENCE_S, coast_s: float = COAST_S):
        for name, value in (("min_iou", min_iou), ("patience_s", patience_s), ("coast_s", coast_s)):
            if not value >= 0:
                raise ValueError(f"{name} must be 0 or more, got {value}")
        self.min_iou, self.patience_s, self.coast_s = min_iou, patience_s, coast_s
        self._next, self._time_s = 0, -np.inf
        self._tracks = {
            "id": np.empty(0, np.int64),
            "score": np.empty(0, np.float32),  # the last one
            "roll": np.empty(0, np.float32),  # the last one
            "seen_s": np.empty(0),
            "found": np.empty(0, np.int64),  # how often
            "place": np.empty((0, 4)),  # as in `_places`
            "velocity": np.empty((0, 2)),  # of the centre, pixels/s
            "spread": np.empty((0, 2, 2)),  # covariance of place and velocity in face sizes and sizes/s
        }

    def follow(self, faces: Faces) -> Faces:
        """Return the faces of the next frame with `track_id`; their boxes stay as they were found."""
        self._advance(faces)
        places, tracks = _places(faces.xyxy), self._tracks
        track, face = self._pairs(faces.xyxy, places)
        gain = tracks["spread"][track, :, 0] / (tracks["spread"][track, 0, 0] + ERROR**2)[:, None]  # (pairs, 2)
        off = places[face] - tracks["place"][track]
        tracks["place"][track] += gain[:, :1] * off
        tracks["velocity"][track] += gain[:, 1:] * off[:, :2]
        tracks["spread"][track] -= gain[:, :, None] * tracks["spread"][track, :1]
        roll = np.zeros(len(faces), np.float32) if faces.roll is None else faces.roll
        tracks["score"][track], tracks["roll"][track] = faces.score[face], roll[face]
        tracks["seen_s"][track] = self._time_s
        tracks["found"][track] += 1

        new = np.setdiff1d(np.arange(len(faces)), face)
        started = {
            "id": self._next + np.arange(len(new)),
            "score": faces.score[new],
            "roll": roll[new],
            "seen_s": np.full(len(new), self._time_s),
            "found": np.ones(len(new), np.int64),
            "place": places[new],
            "velocity": np.zeros((len(new), 2)),
            "spread": np.tile(np.diag([ERROR**2, FIRST_SPEED**2]), (len(new), 1, 1)),
        }
        self._next += len(new)
        track_id = np.empty(len(faces), np.int64)
        track_id[face], track_id[new] = tracks["id"][track], started["id"]
        self._tracks = {name: np.concatenate([values, started[name]]) for name, values in tracks.items()}
        return faces.with_(track_id=track_id)

    def predict(self, faces: Faces) -> Faces:
        """Return a frame on which no detector ran with the tracks' boxes, as expected at its time; tracks stay as are.

        Each has its `track_id`, its last score and its last roll. Boxes are cut at the frame's edge. Left out are
        tracks whose centre is not in the frame, that were not found for `coast_s`, or that were found but once and
        missed the next time.
        """
        if len(faces):
            raise ValueError(f"predict takes a frame without boxes, got {len(faces)}: give found faces to follow")
        tracks, size = self._tracks, faces.image.shape[1::-1]
        places = tracks["place"].copy()
        places[:, :2] += max(faces.time_s - self._time_s, 0) * tracks["velocity"]
        shown = ((places[:, :2] > 0) & (places[:, :2] < size)).all(axis=1)
        shown &= faces.time_s - tracks["seen_s"] <= self.coast_s
        shown &= (tracks["found"] > 1) | (tracks["seen_s"] == self._time_s)
        xyxy = np.clip(_boxes(places[shown]), 0, np.tile(size, 2)).astype(np.float32)
        last = {"score": tracks["score"][shown], "roll": tracks["roll"][shown]}
        return faces.with_(xyxy=xyxy, track_id=tracks["id"][shown], **last)

    def _advance(self, faces: Faces) -> None:
        """Move all tracks to the time of this frame, and end those missed for too long."""
        time_s = max(faces.time_s, self._time_s)  # a clock that runs back stands still
        alive = time_s - self._tracks["seen_s"] <= self.patience_s
        self._tracks = tracks = {name: values[alive] for name, values in self._tracks.items()}
        step = time_s - self._time_s if alive.any() else 0.0
        self._time_s = time_s
        centre, edge = tracks["place"][:, :2] + step * tracks["velocity"], faces.image.shape[1::-1]
        tracks["velocity"][(centre < 0) | (centre > edge)] = 0  # who walks out waits at the edge
        tracks["place"][:, :2] = np.clip(centre, 0, edge)
        move = np.array([[1, step], [0, 1]])
        wander = WANDER**2 * np.array([[step**3 / 3, step**2 / 2], [step**2 / 2, step]])
        tracks["spread"] = move @ tracks["spread"] @ move.T + wander

    def _pairs(self, xyxy: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return which tracks and faces belong together: two arrays of indices, of one length."""
        own, spread = self._tracks["place"], self._tracks["spread"][:, 0, 0]
        shared = overlap(_boxes(own), xyxy)  # (tracks, faces)
        sides = own[:, None, 2:].max(axis=2), places[None, :, 2:].max(axis=2)  # logs; the longer side, for cut boxes
        apart = np.linalg.norm(own[:, None, :2] - places[None, :, :2], axis=2) / np.exp((sides[0] + sides[1]) / 2)
        reach = np.clip(3 * np.sqrt(spread + ERROR**2), *REACH)[:, None]
        near = (apart <= reach) & (np.abs(sides[0] - sides[1]) <= np.log(2))
        likeness = np.where(shared >= self.min_iou, shared, np.where(near, -apart, -np.inf))
        best_first = np.argsort(-likeness, axis=None, kind="stable")[: np.isfinite(likeness).sum()]
        pairs: dict[int, int] = {}
        taken = set()
        for track, face in np.transpose(np.unravel_index(best_first, likeness.shape)).tolist():
            if track not in pairs and face not in taken:
                pairs[track] = face
                taken.add(face)
        return np.array(list(pairs), int), np.array(list(pairs.values()), int)


def _places(xyxy: np.ndarray) -> np.ndarray:
    """Return boxes (n, 4) as centre x, y in pixels and the logarithms of width and height: float64 (n, 4)."""
    start, end = xyxy[:, :2].astype(float), xyxy[:, 2:].astype(float)
    return np.hstack([(start + end) / 2, np.log(np.maximum(end - start, 1))])


def _boxes(places: np.ndarray) -> np.ndarray:
    """Return what `_places` took: left, top, right, bottom."""
    half = np.exp(places[:, 2:]) / 2
    return np.hstack([places[:, :2] - half, places[:, :2] + half])


class Windows:
    """Keeps the last `window` crops of every track, until it has ended.

    The frames of a window are those in which the face was found. As long as there are fewer, the first one stands for
    what was before. A window of 1 is the crop itself.
    """

    def __init__(self, window: int, *, patience_s: float = PATIENCE_S):
        self.window, self.patience_s = window, patience_s
        self.kept: dict[int, tuple[float, np.ndarray]] = {}  # track -> time when last seen, its clip

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
            self.kept[track] = faces.time_s, clip
        oldest = faces.time_s - self.patience_s
        self.kept = {track: kept for track, kept in self.kept.items() if kept[0] >= oldest}
        return faces, clips


def overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return intersection over union of boxes (m, 4) and (n, 4): float (m, n), 0..1."""
    upper, lower = np.minimum(a[:, None, 2:], b[None, :, 2:]), np.maximum(a[:, None, :2], b[None, :, :2])
    shared = np.clip(upper - lower, 0, None).prod(axis=2)
    areas = ((boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (a, b))
    return shared / np.maximum(np.add.outer(*areas) - shared, 1e-9)
