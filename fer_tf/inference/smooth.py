"""Calms what is said of each face over time: smoothed probabilities, and a label that does not flicker."""

import numpy as np

from fer_tf.faces import Faces
from fer_tf.inference.track import PATIENCE_S

HALF_LIFE_S = 0.3
"""Seconds after which what was said before counts half."""
HYSTERESIS = 0.1
"""By how much another emotion must exceed the label's to become the label."""


class Smoother:
    """Smooths the probabilities of every track exponentially, each by itself.

    After dt seconds the past weighs 0.5 ** (dt / half_life_s), so frames may come at any rate; a track's first frame is
    taken as it is. The label stays until another emotion's smoothed probability exceeds its own by more than
    `hysteresis`. A `half_life_s` of 0 switches all of it off: smoothed is raw, the label the most probable emotion.

    patience_s  seconds after which a track not seen is forgotten; the tracker's own
    """

    def __init__(
        self, *, half_life_s: float = HALF_LIFE_S, hysteresis: float = HYSTERESIS, patience_s: float = PATIENCE_S
    ):
        for name, value in (("half_life_s", half_life_s), ("hysteresis", hysteresis), ("patience_s", patience_s)):
            if not 0 <= value < np.inf:
                raise ValueError(f"{name} must be {'finite' if value == np.inf else '0 or more'}, got {value}")
        self.half_life_s, self.hysteresis, self.patience_s = half_life_s, hysteresis, patience_s
        self._kept: dict[int, tuple[float, np.ndarray, int]] = {}  # track -> time, smoothed, label when last seen

    def smooth(self, faces: Faces) -> Faces:
        """Return the tracked, classified faces of the next frame with `smoothed` and `label`."""
        if faces.track_id is None:
            raise ValueError("these faces have no track_id yet: run them through a tracker first")
        smoothed = faces.probabilities
        label = smoothed.argmax(axis=1)
        if self.half_life_s == 0:
            return faces.with_(smoothed=smoothed, label=label)
        oldest = faces.time_s - self.patience_s
        self._kept = {track: kept for track, kept in self._kept.items() if kept[0] >= oldest}
        for i, track in enumerate(faces.track_id.tolist()):
            time_s, before, said = self._kept.get(track, (faces.time_s, smoothed[i], label[i]))
            weight = 0.5 ** (max(faces.time_s - time_s, 0) / self.half_life_s)
            smoothed[i] += weight * (before - smoothed[i])
            label[i] = smoothed[i].argmax()
            if smoothed[i, label[i]] <= smoothed[i, said] + self.hysteresis:
                label[i] = said
            self._kept[track] = max(faces.time_s, time_s), smoothed[i].copy(), int(label[i])
        return faces.with_(smoothed=smoothed, label=label)
