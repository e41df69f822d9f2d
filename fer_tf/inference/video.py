"""Emotions in pictures, clips and cameras: decode, detect, crop, classify in batches, draw, encode."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np

from fer_tf.data.images import read_image
from fer_tf.faces import Faces
from fer_tf.files import check_writable
from fer_tf.inference.annotate import draw
from fer_tf.inference.clips import Frame, VideoWriter, check_size, is_camera, probe, read_frames
from fer_tf.inference.clips import write_video as write_video
from fer_tf.inference.detect import Detector, crop_faces
from fer_tf.inference.live import OnFrame
from fer_tf.inference.pipeline import Stage, StageError, StageTime, interrupts_held, run
from fer_tf.inference.table import FORMATS, FaceTable
from fer_tf.inference.track import Tracker, Windows

BATCH = 8
"""Faces of a file to classify at once, and frames that may wait between two stages; for a camera both are 1."""


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
    faces, crops = _cropped(_detected(Frame(0, 0.0, image), detector), detector, engine.card.image_size)
    return faces.with_(logits=engine.logits(crops))


def stream(
    source: Path | str | int,
    *,
    engine,
    detector: Detector,
    batch: int | None = None,
    threaded: bool = True,
    depth: int | None = None,
    limit: int | None = None,
    times: dict[str, StageTime] | None = None,
) -> Iterator[Faces]:
    """Yield the classified faces of every frame of a file or a camera, in order; the rest as in `annotate_video`.

    Close the iterator, or leave its loop, to stop.
    """
    batch, depth = _waiting(source, batch, depth)
    frames, stages = read_frames(source, limit=limit), _stages(engine, detector, batch)
    yield from run(frames, stages, threaded=threaded, depth=depth, times=times, source_name="decode")


@dataclass(frozen=True, kw_only=True)
class VideoSummary:
    """What `annotate_video` did.

    seconds        the time of the whole run; stages holds each stage's own
    output, table  where these files are; None for one that was not asked for or could not be finished
    """

    source: str
    frames: int
    faces: int
    seconds: float
    provider: str
    detector: str
    batch: int
    threaded: bool
    stages: dict[str, StageTime]
    output: str | None
    table: str | None

    @property
    def frames_per_s(self) -> float:
        return self.frames / self.seconds

    def to_dict(self) -> dict:
        """Return JSON values."""
        return {**asdict(self), "frames_per_s": self.frames_per_s}


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
    source: Path | str | int,
    *,
    engine,
    detector: Detector,
    output: Path | str | None = None,
    table: Path | str | None = None,
    batch: int | None = None,
    threaded: bool = True,
    depth: int | None = None,
    limit: int | None = None,
    on_frame: OnFrame | None = None,
    progress: Callable[[int], None] | None = None,
) -> VideoSummary:
    """Classify every face of a clip; write the annotated clip and the table of faces where they are asked for.

    source    a video file, or a camera's index
    engine    anything with `.card` and `.logits(crops)`; one that takes clips gets the last frames of each tracked face
    output    .mp4, H.264, at the rate of the source, with its audio
    table     .csv, .parquet or .jsonl
    batch     faces to gather before the model runs; by default 8 for a file, 1 for a camera
    threaded  a thread per stage; False does everything in one
    depth     frames that may wait between two stages; by default 8 for a file, 1 for a camera
    limit     stop after so many frames
    on_frame  sees every finished frame and may return False to stop: `live_window`, `notebook_display`
    progress  is called with the number of frames done

    Raises FileNotFoundError or ValueError before work starts if a file cannot be opened or written. If the clip or a
    stage breaks later, files hold every frame that was finished, and VideoError says how many that are; so does
    VideoInterrupted after Ctrl-C, which ends the frame in hand first.
    """
    batch, depth = _waiting(source, batch, depth)
    output, table = (None if path is None else Path(path) for path in (output, table))
    _check_paths(source, output, table)
    read = read_frames(source, limit=limit)
    rate = Fraction(30)
    if not is_camera(source):
        info = probe(source)
        rate = info.rate
        if output:
            check_size(info.width, info.height)
    stages = _stages(engine, detector, batch)
    drawn = bool(output or on_frame)
    if drawn:
        stages.append(_each("draw", lambda found: (found, draw(found, engine.card.emotions))))
    times: dict[str, StageTime] = {}
    frames = faces = 0
    kept, failure = set(), None

    def finish(file: FaceTable | VideoWriter) -> None:
        if file.close(keep=frames > 0):
            kept.add(file.path)

    started = time.perf_counter()
    try:
        with interrupts_held() as interrupts, ExitStack() as stack:
            rows = FaceTable(table, engine.card.emotions) if table else None
            if rows:
                stack.callback(finish, rows)
            if output:
                writer = VideoWriter(output, rate=rate, audio_from=None if is_camera(source) else source)
                stack.callback(finish, writer)
                stages.append(Stage("encode", partial(_written, writer)))
            items = run(read, stages, threaded=threaded, depth=depth, times=times, source_name="decode")
            stack.enter_context(closing(items))
            for item in items:
                found, image = item if drawn else (item, None)
                frames, faces = frames + 1, faces + len(found)
                if rows:
                    rows.write(found)
                if progress:
                    progress(frames)
                if (on_frame and on_frame(found, image) is False) or interrupts:
                    break
    except (StageError, OSError, KeyboardInterrupt) as error:  # OSError: the files could not be finished
        failure = error
    summary = VideoSummary(
        source=str(source),
        frames=frames,
        faces=faces,
        seconds=time.perf_counter() - started,
        provider=getattr(engine, "provider", type(engine).__name__),
        detector=detector.name,
        batch=batch,
        threaded=threaded,
        stages=times,
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
    raise problem(f"{source} stopped after {frames} frames{why}{where}", summary) from failure


def _stages(engine, detector: Detector, batch: int) -> list[Stage]:
    """From `Frame` to classified `Faces`; each stage has its own state, for each may run in a thread of its own."""
    tracker, windows, size = Tracker(), Windows(engine.card.window), engine.card.image_size

    def infer(items: Iterator[tuple[Faces, np.ndarray]]) -> Iterator[Faces]:
        for group in _gathered(items, batch):
            logits = engine.logits(np.concatenate([crops for _, crops in group]))
            ends = np.cumsum([len(faces) for faces, _ in group])
            for (faces, _), own in zip(group, np.split(logits, ends[:-1]), strict=True):
                yield faces.with_(logits=own)

    return [
        _each("detect", lambda frame: tracker.follow(_detected(frame, detector))),
        _each("crop", lambda faces: windows.add(*_cropped(faces, detector, size))),
        Stage("infer", infer),
    ]


def _detected(frame: Frame, detector: Detector) -> Faces:
    xyxy, score = detector(frame.image)
    return Faces(frame_index=frame.index, time_s=frame.time_s, image=frame.image, xyxy=xyxy, score=score)


def _cropped(faces: Faces, detector: Detector, image_size: int) -> tuple[Faces, np.ndarray]:
    return faces, crop_faces(faces.image, faces.xyxy, image_size=image_size, scale=detector.scale)


def _written(writer: VideoWriter, items: Iterator[tuple[Faces, np.ndarray]]) -> Iterator[tuple[Faces, np.ndarray]]:
    for faces, image in items:
        writer.write(image, faces.time_s)
        yield faces, image


def _gathered(items: Iterable[tuple[Faces, np.ndarray]], batch: int) -> Iterator[list]:
    """Yield consecutive frames in groups of at least `batch` faces, or of `batch` frames: none waits for long."""
    group, waiting = [], 0
    for item in items:
        group.append(item)
        waiting += len(item[0])
        if waiting >= batch or len(group) >= batch:
            yield group
            group, waiting = [], 0
    if group:
        yield group


def _each(name: str, function: Callable) -> Stage:
    """A stage that turns one item into one."""
    return Stage(name, partial(map, function))


def _waiting(source: Path | str | int, batch: int | None, depth: int | None) -> tuple[int, int]:
    """Return batch and depth: a camera's frames never wait for others, a file's do."""
    usual = 1 if is_camera(source) else BATCH
    batch = usual if batch is None else batch
    if batch < 1:
        raise ValueError(f"batch must be at least 1 face, got {batch}")
    return batch, usual if depth is None else depth


def _check_paths(source: Path | str | int, output: Path | None, table: Path | None) -> None:
    """Refuse, before any work, what could not be written."""
    for path, suffixes, what in ((output, (".mp4",), "an annotated clip"), (table, tuple(FORMATS), "a table")):
        if path is None:
            continue
        if path.suffix.lower() not in suffixes:
            raise ValueError(f"{what} is written as {', '.join(suffixes)}, got {path.name}")
        check_writable(path)
        if not is_camera(source) and path.resolve() == Path(source).resolve():
            raise ValueError(f"{path} is the source itself: name another file for {what}")
