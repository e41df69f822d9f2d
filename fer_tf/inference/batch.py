"""Crops of consecutive frames gathered into batches, and the frames back in order once their faces are classified."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue

import numpy as np

from fer_tf.faces import Faces
from fer_tf.inference.pipeline import Items


@dataclass(eq=False)
class Waiting:
    """A frame whose faces are on their way.

    due     int (m,): places of the faces to classify; the others keep what their track was found to be before
    logits  float32 (n, emotions), filled as batches come back
    """

    faces: Faces
    due: np.ndarray
    logits: np.ndarray


@dataclass(eq=False)
class Batch:
    """Crops to classify in one call.

    crops   uint8 (size, ...), of which the first `filled` are in use
    parts   (frame, its first and last + 1 of `due`) in the order of the crops; a frame may go on in the next batch
    """

    crops: np.ndarray
    filled: int = 0
    parts: list[tuple[Waiting, int, int]] = field(default_factory=list)


class Batches:
    """Two stages that belong together: `gather` cuts crops into batches, `classify` gives the frames back in order.

    size        crops of a batch
    follow      makes tracked `Faces` of what comes
    max_wait_s  how long a crop may wait for others when no further frame is there; None waits for a full batch
    every       classify a tracked face again after so many frames, not on each
    cut         faces, places (m,) of some of them, crops uint8 (m, ...) to be filled
    """

    def __init__(
        self,
        engine,
        *,
        size: int,
        follow: Callable[[object], Faces],
        cut: Callable[[Faces, np.ndarray, np.ndarray], None],
        max_wait_s: float | None = None,
        every: int = 1,
    ):
        self.engine, self.size, self.follow, self.cut = engine, size, follow, cut
        self.max_wait_s, self.every = max_wait_s, every
        self.requests = getattr(engine, "requests", 1)
        self.calls = self.crops = 0  # that were classified, for how full batches are
        self._used: SimpleQueue = SimpleQueue()  # buffers that are free again
        self._begun: dict[int, int] = {}  # track -> frame at which it was last cut
        self._last: dict[int, tuple[int, np.ndarray]] = {}  # track -> frame and logits that it was last found to have

    def gather(self, items: Items) -> Iterator[Batch]:
        """Take frames with boxes; yield batches, full ones as long as frames come in time."""
        batch, oldest = self._new(), None
        try:
            for item in items:
                faces = self.follow(item)
                due = self._due(faces)
                frame = Waiting(faces, due, np.empty((len(faces), len(self.engine.card.emotions)), np.float32))
                start = 0
                while True:
                    stop = min(len(due), start + self.size - batch.filled)
                    self.cut(faces, due[start:stop], batch.crops[batch.filled : batch.filled + stop - start])
                    batch.parts.append((frame, start, stop))
                    batch.filled += stop - start
                    if stop == len(due):
                        break
                    yield batch
                    batch, start = self._new(), stop
                oldest = time.perf_counter() if oldest is None else oldest
                full = batch.filled == self.size or len(batch.parts) >= self.size
                if full or not self._wait(items, oldest):
                    yield batch
                    batch, oldest = self._new(), None
        except Exception:
            if batch.parts:
                yield batch  # what was gathered before is not lost
            raise
        if batch.parts:
            yield batch

    def classify(self, items: Items) -> Iterator[Faces]:
        """Take batches; yield their frames with logits, several calls in flight where the engine has requests."""
        flying: deque[tuple[Batch, Callable[[], np.ndarray]]] = deque()
        with self._calls() as start:
            for batch in items:
                flying.append((batch, start(batch.crops[: batch.filled])))
                # Another batch may well begin while this one is on its way, but one that is not there is not awaited.
                while flying and (len(flying) > self.requests or not items.ready()):
                    yield from self._back(*flying.popleft())
            for batch, wait in flying:
                yield from self._back(batch, wait)

    def _new(self) -> Batch:
        try:
            return Batch(self._used.get_nowait())
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

    def _wait(self, items: Items, oldest: float) -> bool:
        if self.max_wait_s is None:
            return True
        return items.ready(max(0.0, oldest + self.max_wait_s - time.perf_counter()))

    @contextmanager
    def _calls(self) -> Iterator[Callable[[np.ndarray], Callable[[], np.ndarray]]]:
        if self.requests == 1:
            yield lambda crops: lambda: self.engine.logits(crops)
            return
        nothing = np.empty((0, len(self.engine.card.emotions)), np.float32)
        with self.engine.in_flight() as start:
            yield lambda crops: start(crops) if len(crops) else lambda: nothing

    def _back(self, batch: Batch, wait: Callable[[], np.ndarray]) -> Iterator[Faces]:
        logits, at = wait(), 0
        self.calls += batch.filled > 0
        self.crops += batch.filled
        for frame, start, stop in batch.parts:
            frame.logits[frame.due[start:stop]] = logits[at : at + stop - start]
            at += stop - start
            if stop == len(frame.due):
                yield self._whole(frame)
        self._used.put(batch.crops)

    def _whole(self, frame: Waiting) -> Faces:
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
        return faces.with_(logits=logits)
