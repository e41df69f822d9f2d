"""Clips in and out: frames with their times from a file, and H.264 files that play in a browser."""

import logging
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from fer_tf.data.images import to_rgb
from fer_tf.files import partial_path, settled
from fer_tf.inference.sound import open_sound

TICKS = 100
"""Steps per frame of a written clip's clock: fine enough for a variable frame rate."""
ONE_THREAD = 1280 * 720
"""Pixels of a frame up to which the encoder's stage is its one thread."""
MAX_SIDE = 16384
"""Pixels that the encoder takes each way."""
BT601 = 6
CUT_SHORT_S = 0.5
"""A file that ends this much before the length that it states is broken."""
BACK_S = 0.5
"""A clock that goes back by more has begun anew, as where two clips were put together."""
_log = logging.getLogger(__name__)


class Frame(NamedTuple):
    """One picture of a clip: position from 0, seconds since the first one, uint8 RGB (height, width, 3).

    read_at  when it came, by `time.perf_counter`
    """

    index: int
    time_s: float
    image: np.ndarray
    read_at: float = 0.0


@dataclass(frozen=True, kw_only=True)
class ClipInfo:
    """What a file states about itself; frames and duration_s are None where it does not."""

    width: int
    height: int
    rate: Fraction
    frames: int | None
    duration_s: float | None


def probe(source: Path | str) -> ClipInfo:
    """Decode the first frame of a file and return its facts; raises FileNotFoundError or ValueError."""
    path = Path(source)
    with _open(path) as container:
        stream = container.streams.video[0]
        first = next(_decoded(path, container), None)
        if first is None:
            raise ValueError(f"{path} holds no frame: check how it was made")
        height, width = first[1].shape[:2]
        rate, duration = _rate(stream), _stated_s(container, stream)
        counted = None if duration is None else round(duration * rate)
        return ClipInfo(width=width, height=height, rate=rate, frames=stream.frames or counted, duration_s=duration)


def read_frames(source: Path | str, *, limit: int | None = None) -> Iterator[Frame]:
    """Yield the frames of a file (mp4, mkv, gif ...), at most `limit`.

    Raises ValueError at once for a limit that cannot be, FileNotFoundError or ValueError at the first frame for what
    cannot be opened, and OSError after the last good frame of a file that is damaged or cut short.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1 frame, got {limit}")
    return _limited(_file(Path(source)), limit)


def _limited(frames: Iterator[Frame], limit: int | None) -> Iterator[Frame]:
    try:
        for frame in frames:
            if frame.index == limit:
                return
            yield frame
    finally:
        frames.close()


def write_video(path: Path | str, frames: Iterable[np.ndarray], *, fps: float) -> Path:
    """Write images, uint8 RGB (height, width, 3), to an H.264 mp4 and return its path; nothing stays if that fails."""
    writer = VideoWriter(Path(path), rate=Fraction(fps).limit_denominator(1001))
    try:
        for index, image in enumerate(frames):
            writer.write(image, index / fps)
        if writer.stream is None:
            raise ValueError(f"there were no frames to write to {path}")
    except BaseException:
        writer.close(keep=False)
        raise
    writer.close(keep=True)
    return Path(path)


class VideoWriter:
    """Writes an H.264 mp4 beside its final place and moves it there when closed.

    Frames may come at any times that grow. All get the size of the first, made even by repeating the border.

    audio_from  the clip that the frames come from: its audio is kept, in step with them, from the first to the last
    """

    def __init__(self, path: Path, *, rate: Fraction, audio_from: Path | str | None = None):
        import av

        self.path, self.rate, self.audio_from = path, rate, audio_from
        self.partial = partial_path(path)
        self.container = av.open(f"file:{self.partial}", "w", format="mp4", options={"movflags": "faststart"})
        self.stream = self.sound = None

    def write(self, image: np.ndarray, time_s: float) -> None:
        import av

        if self.stream is None:
            self._start(image, time_s)
        size = self.stream.width, self.stream.height
        if image.shape[1::-1] != self.shown:
            image = cv2.resize(image, self.shown, interpolation=cv2.INTER_AREA)
        if self.shown != size:
            margins = 0, size[1] - self.shown[1], 0, size[0] - self.shown[0]
            image = cv2.copyMakeBorder(image, *margins, cv2.BORDER_REPLICATE)
        # OpenCV's conversion takes a tenth of the time of libswscale's.
        frame = av.VideoFrame.from_ndarray(cv2.cvtColor(image, cv2.COLOR_RGB2YUV_I420), format="yuv420p")
        ticks = round((time_s - self.start_s) * self.rate * TICKS)
        even = round(ticks / TICKS) * TICKS
        # A file's clock rounds times (Matroska to 1 ms); the frame rate's own grid undoes that.
        self.ticks = max(even if abs(ticks - even) <= TICKS // 10 else ticks, self.ticks + 1)
        frame.pts, frame.time_base = self.ticks, self.stream.codec_context.time_base
        with _encoding(self.path):
            self._mux(self.stream.encode(frame))
            if self.sound:  # together: neither waits in memory for the other
                self.sound.write_until(time_s - self.start_s)

    def _mux(self, packets: Iterable) -> None:
        for packet in packets:
            try:
                self.container.mux(packet)
            except ValueError as error:  # a damaged packet of the audio, written before the one that is queued here
                if not self.sound:
                    raise
                self.sound.lose(error)

    def _start(self, image: np.ndarray, time_s: float) -> None:
        self.shown = image.shape[1::-1]
        check_size(*self.shown)
        self.start_s, self.ticks = time_s, -1
        self.stream = self.container.add_stream("libx264", rate=self.rate)
        # On 640 x 480 a third of the work of "veryfast" at 20 and twice the bytes: the cores have better things to do.
        self.stream.options = {"preset": "ultrafast", "crf": "23"}
        if self.shown[0] * self.shown[1] <= ONE_THREAD:
            self.stream.options |= {"threads": "1"}
        self.stream.width, self.stream.height = (side + side % 2 for side in self.shown)
        self.stream.pix_fmt = "yuv420p"
        self.stream.codec_context.time_base = 1 / (self.rate * TICKS)
        self.stream.codec_context.colorspace = BT601  # what the conversion from RGB uses; players guess from the height
        if self.audio_from is not None:
            self.sound = open_sound(self.audio_from, self.container, start_s=time_s)

    def close(self, *, keep: bool) -> bool:
        """Finish the file and move it into place, or remove it; return whether it is there."""
        keep = keep and self.stream is not None
        with settled(self.partial, self.path, keep=keep), _encoding(self.path), self.container, ExitStack() as stack:
            if self.sound:
                stack.callback(self.sound.close)
            if keep:
                self._mux(self.stream.encode())
                if self.sound:
                    self.sound.write_until(float((self.ticks + TICKS) / (self.rate * TICKS)))
        return keep


def check_size(width: int, height: int) -> None:
    """Refuse frames too large for H.264 with ValueError."""
    if max(width, height) > MAX_SIDE:
        raise ValueError(
            f"an mp4 takes frames of at most {MAX_SIDE} pixels a side, got {width} x {height}: scale them down first"
        )


@contextmanager
def _encoding(path: Path) -> Iterator[None]:
    import av

    try:
        yield
    except av.FFmpegError as error:
        raise OSError(f"{path} cannot be written ({error.strerror})") from error


def _open(path: Path):
    import av

    if not path.exists():
        raise FileNotFoundError(f"there is no clip at {path}: give a video file or a camera's number")
    if path.is_dir():
        raise ValueError(f"{path} is a folder: name one video file")
    if not path.is_file():
        raise ValueError(f"{path} is a device, a pipe or a socket: name a video file, or a camera by its number")
    try:
        container = av.open(f"file:{path}")  # or what stands before a colon would be a protocol
    except av.FFmpegError as error:
        raise ValueError(f"{path} is no video, or not a whole one ({error.strerror}): name a clip") from error
    if not container.streams.video:
        container.close()
        raise ValueError(f"{path} is no video, or not a whole one: name a clip")
    return container


def _file(path: Path) -> Iterator[Frame]:
    with _open(path) as container:
        stream = container.streams.video[0]
        index, ended_s, began_s, added_s = -1, 0.0, None, 0.0
        for index, (frame, image) in enumerate(_decoded(path, container)):
            time_s = added_s + (frame.time if frame.time is not None else index / float(_rate(stream)))
            if time_s < ended_s - BACK_S:
                _log.warning("%s: its clock goes back to %.2f seconds at frame %d and is set on", path, time_s, index)
                added_s, time_s = added_s + ended_s - time_s, ended_s
            ended_s = time_s + float((frame.duration or 0) * (frame.time_base or 0))
            began_s = time_s if began_s is None else began_s
            yield Frame(index, time_s - began_s, image, time.perf_counter())
        stated_s = _stated_s(container, stream)
        if index < 0:
            raise ValueError(f"{path} holds no frame: check how it was made")
        if stated_s is not None and ended_s < stated_s - CUT_SHORT_S:
            raise OSError(f"{path} breaks off after {index + 1} frames, at {ended_s:.2f} of {stated_s:.2f} seconds")
        if container.format.name == "gif" and not _last_byte(path) == b";":  # libav does not mind
            raise OSError(f"{path} breaks off after {index + 1} frames: its end mark is missing")


def _decoded(path: Path, container) -> Iterator[tuple]:
    """Yield PyAV's frames with their upright RGB images."""
    import av

    count, in_rgb = 0, to_rgb(container.streams.video[0])
    try:
        for frame in container.decode(video=0):
            yield frame, in_rgb(frame)
            count += 1
    except av.FFmpegError as error:
        raise OSError(f"{path} cannot be decoded beyond frame {count} ({error.strerror})") from error


def _last_byte(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read()


def _rate(stream) -> Fraction:
    rate = stream.guessed_rate or stream.average_rate
    # Where libav works a rate out from uneven times it is a fraction of large numbers, of which an mp4 has no room for.
    return Fraction(rate).limit_denominator(1001) if rate and rate <= 1000 else Fraction(30)


def _stated_s(container, stream) -> float | None:
    """Return the length in seconds that the file states for its pictures; sound may well be longer."""
    if tag := stream.metadata.get("DURATION"):  # Matroska: hours:minutes:seconds
        hours, minutes, seconds = tag.split(":")
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    if stream.duration is not None and not container.format.name.startswith("matroska"):  # there it is that of all
        return float(stream.duration * stream.time_base)
    if len(container.streams) == 1 and container.duration:
        return container.duration / 1e6
    return None
