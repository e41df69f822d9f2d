"""Crops of consecutive frames gathered into batches, and classified: three stages that belong together."""

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from queue import Empty, SimpleQueue

import numpy as np

from fer_tf.faces import Faces


@dataclass(eq=False)
class Batch:
    """Crops uint8 (size, ...) to classify in one call, of which the first `filled` are in use."""

    crops: np.ndarray
    filled: int = 0


@dataclass(eq=False)
class Waiting:
    """A frame whose faces are on their way.

    due     int (m,): places of the faces to classify; the others keep what their track was found to be before
    parts   where the crops of `due` are, in their order: a batch, the first of its crops and the last + 1
    logits  float32 (n, emotions), filled where they are due
    """

    faces: Faces
    due: np.ndarray
    parts: list[tuple[Batch, int, int]]
    logits: np.ndarray


class Batches:
    """`gather` cuts the crops of some frames into batches, `classify` finds their logits, `finish` fills in the others.

    `gather` and `finish` have a state: they want the frames in order, from one thread at a time. `classify` may run in
    `engine.requests` threads at once.

    size    crops of a batch, which may come from several of the frames that are given together
    follow  makes tracked `Faces` of what comes
    cut     faces, places (m,) of some of them, crops uint8 (m, ...) to be filled
    every   classify a tracked face again after so many frames, not on each
    """

    def __init__(
        self,
        engine,
        *,
        size: int,
        follow: Callable[[object], Faces],
        cut: Callable[[Faces, np.ndarray, np.ndarray], None],
        every: int = 1,
    ):
        self.engine, self.size, self.follow, self.cut, self.every = engine, size, follow, cut, every
        self.requests = getattr(engine, "requests", 1)
        self.calls = self.crops = 0  # that were classified, for how full batches are
        self._counting = threading.Lock()
        self._free: SimpleQueue = SimpleQueue()  # buffers that may be used again
        self._begun: dict[int, int] = {}  # track -> frame at which it was last cut
        self._last: dict[int, tuple[int, np.ndarray]] = {}  # track -> frame and logits that it was last found to have

    def gather(self, items: Iterable) -> Iterator[Waiting]:
        """Follow the faces of frames that are given together, and cut them into batches."""
        batch = None
        for item in items:
            faces = self.follow(item)
            frame = Waiting(faces, self._due(faces), [], np.empty((len(faces), len(self.engine.card.emotions)), "f4"))
            done = 0
            while done < len(frame.due):
                if batch is None or batch.filled == self.size:
                    batch = self._new()
                first, more = batch.filled, min(len(frame.due) - done, self.size - batch.filled)
                batch.filled += more
                self.cut(faces, frame.due[done : done + more], batch.crops[first : batch.filled])
                frame.parts.append((batch, first, batch.filled))
                done += more
            yield frame

    def classify(self, frames: Iterable[Waiting]) -> Iterator[Waiting]:
        """Fill in the logits of the faces that are due."""
        found: dict[Batch, np.ndarray] = {}
        for frame in frames:
            done = 0
            for batch, first, last in frame.parts:
                if batch not in found:
                    found[batch] = self.engine.logits(batch.crops[: batch.filled])
                    with self._counting:
                        self.calls, self.crops = self.calls + 1, self.crops + batch.filled
                    self._free.put(batch.crops)
                frame.logits[frame.due[done : done + last - first]] = found[batch][first:last]
                done += last - first
            yield frame

    def finish(self, frames: Iterable[Waiting]) -> Iterator[Faces]:
        """Yield the frames with the logits of all their faces."""
        for frame in frames:
            faces, logits = frame.faces, frame.logits
            if self.every > 1 and faces.track_id is not None:
                due = set(frame.due.tolist())
                for i, track in enumerate(faces.track_id.tolist()):
                    if i not in due:
                        logits[i] = self._last[track][1]
                    self._last[track] = faces.frame_index, logits[i]
                if len(self._last) > 2 * len(faces) + 100:
                    oldest = faces.frame_index - 10 * self.every
                    self._last = {track: known for track, known in self._last.items() if known[0] >= oldest}
            yield faces.with_(logits=logits)

    def _new(self) -> Batch:
        try:
            return Batch(self._free.get_nowait())
        except Empty:
            return Batch(np.empty((self.size, *self.engine.card.input_shape), np.uint8))

    def _due(self, faces: Faces) -> np.ndarray:
        if self.every == 1 or faces.track_id is None:
            return np.arange(len(faces))
        now, tracks = faces.frame_index, faces.track_id.tolist()
        due = [i for i, track in enumerate(tracks) if now - self._begun.get(track, -self.every) >= self.every]
        self._begun |= {tracks[i]: now for i in due}
        if len(self._begun) > 2 * len(tracks) + 100:  # tracks that ended long ago
            self._begun = {track: frame for track, frame in self._begun.items() if now - frame <= 10 * self.every}
        return np.array(due, int)
