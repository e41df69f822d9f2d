"""Emotions in pictures, clips and cameras: decode, detect, crop, classify in batches, draw, encode."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from threadpoolctl import threadpool_limits

from fer_tf.data.images import read_image
from fer_tf.faces import Faces
from fer_tf.files import check_writable
from fer_tf.inference.annotate import draw, with_age
from fer_tf.inference.batch import Batches
from fer_tf.inference.clips import ClipInfo, Frame, VideoWriter, check_size, probe, read_frames
from fer_tf.inference.clips import write_video as write_video
from fer_tf.inference.detect import Detector, crop_faces
from fer_tf.inference.live import OnFrame
from fer_tf.inference.pipeline import (
    KEPT,
    PATIENCE_S,
    Stage,
    StageError,
    StageTime,
    cores,
    interrupts_held,
    run,
)
from fer_tf.inference.smooth import HALF_LIFE_S, Smoother
from fer_tf.inference.sources import Live, is_live, open_live
from fer_tf.inference.table import FORMATS, FaceTable
from fer_tf.inference.track import COAST_S, Tracker, Windows
from fer_tf.inference.track import PATIENCE_S as TRACK_PATIENCE_S

BATCH = 8
"""Faces to classify in one call."""
CHUNK, AHEAD_BYTES = 16, 256e6
"""Frames of a file that a thread takes through all stages together, at most; and bytes of frames in all threads."""
IN_FLIGHT = 3
"""Frames of a live source between decoding and encoding: enough for every core, too few to grow old."""
LIVE_RATE = Fraction(30)
"""Frames per second that a live source is taken to have."""
MOST_FACES = 4096
"""In a model call, at most."""
STALE_S = 0.5
"""Seconds without a new frame after which the last one is shown again, with its age."""


def infer_image(path_or_array: Path | str | np.ndarray, *, engine, detector: Detector) -> Faces:
    """Return the classified faces of a picture: a file, or RGB uint8 (height, width, 3).

    Raises ValueError for a model that takes clips: a still face, repeated, would only look neutral to it.
    """
    if engine.card.window > 1:
        raise ValueError(
            f"{engine.card.name} takes clips of {engine.card.window} frames, not a picture: give it a video, "
            "or take a model for pictures"
        )
    image = path_or_array if isinstance(path_or_array, np.ndarray) else read_image(path_or_array)
    faces = _detected(Frame(0, 0.0, image), detector)
    crops = crop_faces(image, faces.xyxy, image_size=engine.card.image_size, scale=detector.scale, roll=faces.roll)
    return faces.with_(logits=engine.logits(crops))


def stream(
    source: Path | str | int | Live,
    *,
    engine,
    detector: Detector | Sequence[Detector],
    batch: int = BATCH,
    detect_every: int = 1,
    classify_every: int = 1,
    half_life_s: float = HALF_LIFE_S,
    workers: int | None = None,
    limit: int | None = None,
    times: dict[str, StageTime] | None = None,
) -> Iterator[Faces]:
    """Yield the classified faces of every frame of a file or a live source, in order; the rest as in `annotate_video`.

    Close the iterator, or leave its loop, to stop.
    """
    choices = {"detect_every": detect_every, "classify_every": classify_every, "half_life_s": half_life_s}
    frames, ways, info = _opened(source, workers=workers, limit=limit)
    stages, _ = _stages(source, engine, detector, batch, rate=info.rate if info else LIVE_RATE, **choices)
    finished = frames.finished if isinstance(frames, Live) else lambda: None

    def found() -> Iterator[Faces]:
        items = run(_marked(frames, detect_every), stages, times=times, **ways)
        with _pools.kept_small(ways["workers"]), closing(items):
            for item in items:
                finished()
                yield item

    return found()


@dataclass(frozen=True, kw_only=True)
class VideoSummary:
    """What `annotate_video` did.

    seconds        the time of the whole run; stages holds each stage's own
    dropped, damaged, reconnects   of a live source: frames left out, broken ones, and how often it came back
    cpu_s          seconds of a core that the process took, in all its threads
    latency_ms     from a frame's decoding to its end, percentiles; None without frames
    calls          of the model, which classified so many crops in them
    output, table  where these files are; None for one that was not asked for or could not be finished
    """

    source: str
    frames: int
    faces: int
    seconds: float
    provider: str
    detector: str
    batch: int
    workers: int
    detect_every: int
    classify_every: int
    half_life_s: float
    dropped: int
    damaged: int
    reconnects: int
    stages: dict[str, StageTime]
    cpu_s: float
    latency_ms: dict[str, float] | None
    calls: int
    crops: int
    output: str | None
    table: str | None

    @property
    def frames_per_s(self) -> float:
        return self.frames / self.seconds

    def to_dict(self) -> dict:
        """Return JSON values."""
        stages = {
            name: {"items": spent.items, "busy_s": spent.busy_s, "cpu_s": spent.cpu_s}
            for name, spent in self.stages.items()
        }
        about = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return about | {"stages": stages, "frames_per_s": self.frames_per_s}


class VideoError(RuntimeError):
    """The clip, or a stage, broke in the middle; `summary` says what was done until then."""

    def __init__(self, message: str, summary: VideoSummary):
        super().__init__(message)
        self.summary = summary


class VideoInterrupted(KeyboardInterrupt):
    """Ctrl-C, after the files were finished; `summary` says what was done until then."""

    def __init__(self, message: str, summary: VideoSummary):
        super().__init__(message)
        self.summary = summary


def annotate_video(
    source: Path | str | int | Live,
    *,
    engine,
    detector: Detector | Sequence[Detector],
    output: Path | str | None = None,
    table: Path | str | None = None,
    batch: int = BATCH,
    detect_every: int = 1,
    classify_every: int = 1,
    half_life_s: float = HALF_LIFE_S,
    workers: int | None = None,
    limit: int | None = None,
    on_frame: OnFrame | None = None,
    progress: Callable[[int], None] | None = None,
) -> VideoSummary:
    """Classify every face of a clip; write the annotated clip and the table of faces where they are asked for.

    source    a video file; or a live source: a camera's index, a device, a stream's address, or what
              `open_live` returned, with limits of its own
    engine    anything with `.card` and `.logits(crops)`; one of clips gets the last frames of each tracked face;
              of one with `.requests` so many calls are in flight
    detector  several of them look at as many frames at once
    output    .mp4, H.264, at the rate of the source, with its audio
    table     .csv, .parquet or .jsonl
    batch     faces that a model call takes at most; those of a file wait for others, those of a live source do not
    detect_every    look for faces on every n-th frame; between them the tracker says where they are
    classify_every  classify a tracked face on every n-th frame; between them it keeps what it was found to be
    half_life_s     of what a tracked face was found to be before, see `Smoother`; 0 smooths nothing
    workers   threads that take frames through the stages, up to drawing, while this one writes; 0 has this one do all,
              None is what keeps all cores busy
    limit     stop after so many frames
    on_frame  sees every finished frame and may return False to stop: `live_window`, `notebook_display`
    progress  is called with the number of frames done

    Raises FileNotFoundError or ValueError before work starts if a file cannot be opened or written. If the clip or a
    stage breaks later, files hold every frame that was finished, and VideoError says how many that are; so does
    VideoInterrupted after Ctrl-C, which ends the frame in hand first.
    """
    output, table = (None if path is None else Path(path) for path in (output, table))
    _check_paths(source, output, table)
    read, ways, info = _opened(source, workers=workers, limit=limit, encodes=bool(output))
    if info and output:
        check_size(info.width, info.height)
    choices = {"detect_every": detect_every, "classify_every": classify_every, "half_life_s": half_life_s}
    rate = info.rate if info else LIVE_RATE
    stages, batches = _stages(source, engine, detector, batch, rate=rate, **choices)
    drawn = bool(output or on_frame)
    if drawn:
        stages.append(_each("draw", lambda found: (found, draw(found, engine.card.emotions)), at_once=ways["workers"]))
    times: dict[str, StageTime] = {}
    frames = faces = 0
    kept, failure = set(), None

    def finish(file: FaceTable | VideoWriter) -> None:
        if file.close(keep=frames > 0):
            kept.add(file.path)

    latencies: deque[float] = deque(maxlen=KEPT)
    started, cpu = time.perf_counter(), time.process_time()
    try:
        with interrupts_held(tell=getattr(read, "stop", None)) as interrupts, ExitStack() as stack:
            stack.enter_context(_pools.kept_small(ways["workers"]))
            rows = FaceTable(table, engine.card.emotions) if table else None
            if rows:
                stack.callback(finish, rows)
            writer = None
            if output:
                writer = VideoWriter(output, rate=rate, audio_from=source if info else None)
                stack.callback(finish, writer)
            items = run(_marked(read, detect_every), stages, times=times, tick_s=STALE_S, **ways)
            stack.enter_context(closing(items))
            shown, shown_at, go_on = None, 0.0, None
            for item in items:
                if item is not None:
                    found, image = item if drawn else (item, None)
                    if writer:
                        with _stage("encode", times):
                            writer.write(image, found.time_s)
                    frames, faces = frames + 1, faces + len(found)
                    if rows:
                        with _stage("table", times):
                            rows.write(found)
                    if on_frame:
                        with _stage("show", times):
                            go_on, shown, shown_at = on_frame(found, image), item, time.perf_counter()
                    latencies.append(time.perf_counter() - found.read_at)
                    if isinstance(read, Live):
                        read.finished()
                    if progress:
                        progress(frames)
                elif shown and not info:  # nothing new from a live source
                    with _stage("show", times):
                        go_on = on_frame(shown[0], with_age(shown[1], time.perf_counter() - shown_at))
                if interrupts or go_on is False:
                    break
    except (StageError, OSError, KeyboardInterrupt) as error:  # OSError: the files could not be finished
        failure = error
    summary = VideoSummary(
        source=str(read) if isinstance(read, Live) else str(source),  # a stream's name has no password
        frames=frames,
        faces=faces,
        seconds=time.perf_counter() - started,
        provider=getattr(engine, "provider", type(engine).__name__),
        detector=_several(detector)[0].name,
        batch=batch,
        workers=ways["workers"],
        detect_every=detect_every,
        classify_every=classify_every,
        half_life_s=half_life_s,
        **{name: getattr(read, name, 0) for name in ("dropped", "damaged", "reconnects")},
        stages=times,
        cpu_s=time.process_time() - cpu,
        latency_ms=percentiles(latencies),
        calls=batches.calls,
        crops=batches.crops,
        output=str(output) if output in kept else None,
        table=str(table) if table in kept else None,
    )
    if failure is None:
        return summary
    why, where = f" ({failure})" if str(failure) else "", ""
    if kept:
        where = f"; they are in {' and '.join(str(path) for path in (output, table) if path in kept)}"
    for lost in (path for path in (output, table) if path and frames and path not in kept):
        where += f"; {lost} could not be finished"
    problem = VideoInterrupted if isinstance(failure, KeyboardInterrupt) else VideoError
    raise problem(f"{summary.source} stopped after {frames} frames{why}{where}", summary) from failure


def _stages(
    source,
    engine,
    detector: Detector | Sequence[Detector],
    batch: int,
    *,
    rate: Fraction,
    detect_every: int,
    classify_every: int,
    half_life_s: float,
) -> tuple[list[Stage], Batches]:
    """From `Frame` to classified `Faces`."""
    for name, given in (("batch", batch), ("detect_every", detect_every), ("classify_every", classify_every)):
        if not given >= 1:  # nor what is no number
            raise ValueError(f"{name} must be at least 1, got {given}")
    if batch > MOST_FACES:
        raise ValueError(f"batch must be at most {MOST_FACES} faces, got {batch}")
    between_s = 1.5 * detect_every / float(rate)  # whoever was found is shown until the next look, at least
    tracker = Tracker(coast_s=max(COAST_S, between_s), patience_s=max(TRACK_PATIENCE_S, 2 * between_s))
    detectors, smoother = _several(detector), Smoother(half_life_s=half_life_s)

    def follow(found: Faces | Frame) -> Faces:
        return tracker.follow(found) if isinstance(found, Faces) else tracker.predict(_empty(found))

    cut = _cutter(Windows(engine.card.window), scale=detectors[0].scale)
    batches = Batches(engine, size=batch, follow=follow, cut=cut, every=classify_every)
    return [
        Stage(
            "detect",
            [partial(map, partial(_looked_at, detector=one)) for one in detectors],
            in_order=len(detectors) == 1,
        ),
        Stage("crop", [batches.gather], in_order=True),
        Stage("infer", [batches.classify] * batches.requests, in_order=batches.requests == 1),
        Stage("smooth", [lambda frames: map(smoother.smooth, batches.finish(frames))], in_order=True),
    ], batches


def _cutter(windows: Windows, *, scale: float) -> Callable[[Faces, np.ndarray, np.ndarray], None]:
    """Return what fills crops (m, ...) of some faces of a frame, as `Batches` asks for them."""
    if windows.window == 1:
        return lambda faces, places, out: crop_faces(
            faces.image, faces.xyxy[places], image_size=out.shape[-2], scale=scale, roll=faces.roll[places], out=out
        )
    frame, clips = None, None

    def cut(faces: Faces, places: np.ndarray, out: np.ndarray) -> None:
        nonlocal frame, clips
        if faces is not frame:  # a frame that goes on in another batch has its clips already
            crops = crop_faces(faces.image, faces.xyxy, image_size=out.shape[-2], scale=scale, roll=faces.roll)
            frame, clips = faces, windows.add(faces, crops)[1]
        out[:] = clips[places]

    return cut


class _Pools:
    """The threads that OpenCV and BLAS open beside those of a run; `kept_small` while any run with workers goes on."""

    def __init__(self):
        self.lock, self.runs = threading.Lock(), 0

    @contextmanager
    def kept_small(self, workers: int) -> Iterator[None]:
        if not workers:
            yield
            return
        with self.lock:
            if not self.runs:
                self.opencv, self.others = cv2.getNumThreads(), threadpool_limits(1)
                cv2.setNumThreads(1)
            self.runs += 1
        try:
            yield
        finally:
            with self.lock:
                self.runs -= 1
                if not self.runs:
                    self.others.restore_original_limits()
                    cv2.setNumThreads(self.opencv)


_pools = _Pools()


def percentiles(seconds: Sequence[float]) -> dict[str, float] | None:
    """Return p50, p95 and p99 in milliseconds; None for no values."""
    if not len(seconds):
        return None
    return {f"p{q}": float(np.percentile(seconds, q) * 1000) for q in (50, 95, 99)}


def _several(detector: Detector | Sequence[Detector]) -> list[Detector]:
    detectors = [detector] if isinstance(detector, Detector) else list(detector)
    if not detectors:
        raise ValueError("expected a detector, or several, got an empty list: use load_detector")
    return detectors


def _detected(frame: Frame, detector: Detector) -> Faces:
    xyxy, score, roll = detector(frame.image)
    return _empty(frame).with_(xyxy=xyxy, score=score, roll=roll)


def _empty(frame: Frame) -> Faces:
    nothing = np.empty((0, 4), np.float32)
    about = {"frame_index": frame.index, "time_s": frame.time_s, "read_at": frame.read_at, "image": frame.image}
    return Faces(**about, xyxy=nothing, score=nothing[:, 0], roll=nothing[:, 0])


def _marked(frames: Iterable[Frame], detect_every: int) -> Iterator[tuple[Frame, bool]]:
    """Yield every frame and whether to look for faces on it."""
    looked = -detect_every
    with closing(frames):
        for frame in frames:
            look = frame.index - looked >= detect_every  # numbers may have gaps, where a live source drops frames
            looked = frame.index if look else looked
            yield frame, look


def _looked_at(marked: tuple[Frame, bool], detector: Detector) -> Faces | Frame:
    frame, look = marked
    return _detected(frame, detector) if look else frame


@contextmanager
def _stage(name: str, times: dict[str, StageTime]) -> Iterator[None]:
    """What this thread does to one frame, named and timed as a stage."""
    try:
        with times.setdefault(name, StageTime()).timed():
            yield
    except Exception as error:
        raise StageError(name, error) from error


def _each(name: str, function: Callable, *, at_once: int) -> Stage:
    """A stage that turns one item into one, and has no state."""
    return Stage(name, [partial(map, function)] * max(at_once, 1))


def _opened(
    source: Path | str | int | Live, *, workers: int | None, limit: int | None, encodes: bool = False
) -> tuple[Iterator[Frame] | Live, dict, ClipInfo | None]:
    """Return the frames, how `run` takes them, and what is known of a file: a live source's come one by one."""
    if workers is None:  # one thread more than cores, as they wait for each other now and then
        workers = cores() + (not encodes)
    if workers < 0:
        raise ValueError(f"workers must be at least 0, got {workers}: 0 does everything in one thread")
    ways = {"source_name": "decode", "workers": workers}
    if not is_live(source):
        frames, info = read_frames(source, limit=limit), probe(source)
        fitting = int(AHEAD_BYTES / (3 * info.width * info.height) / (workers + 2))  # one waits, one is written
        return frames, ways | {"chunk": min(max(fitting, 1), CHUNK)}, info
    live = source if isinstance(source, Live) else open_live(source)
    if live.tick_s is not None:
        raise ValueError("a Live with tick_s yields more than frames: open it without, stages cannot take them")
    if limit is not None:
        if limit < 1:
            raise ValueError(f"limit must be at least 1 frame, got {limit}")
        live.limit = limit
    live.in_flight = live.in_flight or min(max(workers, 1), IN_FLIGHT)
    ways |= {"stop": live.stop, "patience_s": min(max(PATIENCE_S, 2 * live.give_up_s), threading.TIMEOUT_MAX)}
    return live, ways, None


def _check_paths(source: Path | str | int | Live, output: Path | None, table: Path | None) -> None:
    """Refuse, before any work, what could not be written."""
    for path, suffixes, what in ((output, (".mp4",), "an annotated clip"), (table, tuple(FORMATS), "a table")):
        if path is None:
            continue
        if path.suffix.lower() not in suffixes:
            raise ValueError(f"{what} is written as {', '.join(suffixes)}, got {path.name}")
        check_writable(path)
        if not is_live(source) and path.resolve() == Path(source).resolve():
            raise ValueError(f"{path} is the source itself: name another file for {what}")
