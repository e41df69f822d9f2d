"""Live sources: a camera or a stream, whose frames are taken as they come, or not at all.

    with open_live("rtsp://door/main", max_age_s=0.2, tick_s=0.5) as live:
        for item in live:
            if isinstance(item, Stale):
                ...  # nothing new for item.age_s seconds: show the last result with its age

A thread of its own reads, so that the source never waits. It keeps only the newest frames. When the source goes away,
it is opened again, after pauses that grow.
"""

import logging
import re
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from fer_tf.data.images import to_rgb
from fer_tf.inference.clips import Frame

SCHEMES = ("rtsp", "rtsps", "rtmp", "http", "https", "udp", "tcp")
TIMEOUT_S = 5.0
"""Seconds after which a stream that does not answer, or sends nothing, counts as gone."""
CLOSE_S = TIMEOUT_S + 1
"""Seconds that `Live.close` waits for its thread before it leaves a hung one behind."""
LAST_CAMERA = 2**31 - 1
PAUSE_S, LONGEST_PAUSE_S = 0.2, 5.0
OPTIONS = {"fflags": "nobuffer", "analyzeduration": "2000000"}  # microseconds
SCHEME_OPTIONS = {"rtsp": {"rtsp_transport": "tcp"}, "udp": {"overrun_nonfatal": "1"}}  # UDP loses packets of RTSP
_log = logging.getLogger(__name__)

Opener = Callable[[], Iterator[np.ndarray | None]]
"""A generator that opens a source and yields its pictures, uint8 RGB (height, width, 3); None is a damaged one."""


class Stale(NamedTuple):
    """Nothing new: `age_s` seconds have gone by since the last frame arrived, or since the source was asked."""

    age_s: float


def is_camera(source: Path | str | int) -> bool:
    """A number is a camera's index, as int or as text."""
    return isinstance(source, int) or str(source).isdecimal()


def is_live(source: "Path | str | int | Live") -> bool:
    """A camera's number, a stream's address, a device or a `Live` is live; a file is not."""
    return (
        isinstance(source, Live)
        or is_camera(source)
        or _scheme(source) is not None
        or str(source).startswith("/dev/video")
    )


def open_live(source: Path | str | int, **choices) -> "Live":
    """Return the frames of a camera's number, of a device such as /dev/video0, or of a stream's address.

    The choices are those of `Live`. Raises ValueError at once for what is none of these.
    """
    scheme, device = _scheme(source), str(source).startswith("/dev/video")
    if is_camera(source):
        if not 0 <= int(source) <= LAST_CAMERA:
            raise ValueError(f"expected a camera's number, 0 for the first, got {source}")
        return Live(partial(_camera, int(source)), name=f"camera {source}", **choices)
    if scheme not in SCHEMES and not device:
        known = ", ".join(f"{name}://" for name in SCHEMES)
        raise ValueError(
            f"expected a camera's number, a device such as /dev/video0 or a stream at {known}, got {source}: "
            "read a file with read_frames, by its path"
        )
    address = re.sub("^[^:]*:", f"{scheme}:", str(source)) if scheme else str(source)  # libav knows small letters alone
    name = re.sub("//[^/@]*@", "//", address)  # no password in what errors say
    return Live(partial(_stream, address, name), name=name, **choices)


class Live:
    """The frames of a live source, to go through once; `stop` and `close` may be called from any thread.

    opener     opens the source, again whenever it has gone away
    name       what errors call it
    keep       frames that wait to be taken; when more come, the oldest are dropped
    max_age_s  a frame that has waited longer is dropped, unless it is the only one ever
    tick_s     yield a `Stale` after every so many seconds without a frame; None waits in silence
    give_up_s  seconds without a frame after which the source is lost
    limit      end after so many frames
    in_flight  frames to give before `finished` was called for the first of them; None does not wait for it. What works
               on several frames at a time sets it, so that frames age here, where they can be dropped, and not inside
    clock      monotonic seconds
    wait       pauses for so many seconds; by default less if the source is closed meanwhile

    Frames are numbered as they arrive, so that dropped ones are missing from the numbers. Their times are those of
    arrival, in seconds since the first. `dropped`, `damaged` and `reconnects` count.

    What the opener raises before the first frame of all is raised at once; OSError comes after `give_up_s`. Leave the
    loop or the `with` block, or call `close`, to stop: the reading thread has ended when that returns.
    """

    def __init__(
        self,
        opener: Opener,
        *,
        name: str = "the source",
        keep: int = 2,
        max_age_s: float | None = None,
        tick_s: float | None = None,
        give_up_s: float = 30.0,
        limit: int | None = None,
        in_flight: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], object] | None = None,
    ):
        for what, value in (("keep", keep), ("limit", limit), ("in_flight", in_flight)):
            if value is not None and value < 1:
                raise ValueError(f"{what} must be at least 1 frame, got {value}")
        for what, value in (("max_age_s", max_age_s), ("tick_s", tick_s), ("give_up_s", give_up_s)):
            if value is not None and not value > 0:
                raise ValueError(f"{what} must be above 0 seconds, got {value}")
        self.opener, self.name, self.keep, self.clock = opener, name, keep, clock
        self.max_age_s, self.tick_s, self.give_up_s, self.limit = max_age_s, tick_s, give_up_s, limit
        self.dropped = self.damaged = self.reconnects = 0
        self.in_flight = in_flight
        self._arrived = self._given = self._finished = 0
        self._waiting: deque[Frame] = deque()
        self._began_s = self._heard_s = self._told_s = None  # by the clock: first and last frame, what was last yielded
        self._failure: Exception | None = None
        self._changed, self._closed = threading.Condition(), threading.Event()
        self._left = False  # the reading thread hangs
        self._wait = wait or self._closed.wait
        self._thread = threading.Thread(target=self._read, name=f"reader of {name}", daemon=True)

    def __str__(self) -> str:
        return self.name

    @property
    def now_s(self) -> float:
        """Seconds since the first frame arrived: the age of a frame is this less its `time_s`."""
        return 0.0 if self._began_s is None else self.clock() - self._began_s

    def __enter__(self) -> "Live":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def __iter__(self) -> Iterator[Frame | Stale]:
        try:
            with self._changed:
                if not self._closed.is_set() and self._heard_s is None:
                    self._heard_s = self._told_s = self.clock()
                    self._thread.start()
            while (item := self._next()) is not None:
                yield item
        finally:
            self.close()

    def finished(self) -> None:
        """Say that the work on a frame has ended, for `in_flight`."""
        with self._changed:
            self._finished += 1
            self._changed.notify_all()

    def stop(self) -> None:
        """Tell the reading thread and the loop over the frames to end; fit for the handler of a signal."""
        with self._changed:  # whose lock a thread may take twice
            self._closed.set()
            self._waiting.clear()
            self._changed.notify_all()

    def close(self) -> None:
        """Stop, and wait for the reading thread."""
        self.stop()
        if self._left:
            return
        if self._thread.is_alive():
            self._thread.join(CLOSE_S)
        self._left = self._thread.is_alive()
        if self._left:
            _log.warning("%s hangs and is left behind", self.name)

    def _next(self) -> Frame | Stale | None:
        with self._changed:
            while not self._closed.is_set() and self._given != self.limit:
                now = self.clock()
                room = self.in_flight is None or self._given - self._finished < self.in_flight
                if room and (frame := self._taken(now)):
                    self._told_s, self._given = now, self._given + 1
                    return frame
                silent_s = now - self._heard_s
                if self._failure and not self._arrived:
                    raise self._failure
                if silent_s >= self.give_up_s and not self._waiting:
                    why = f" ({self._failure})" if self._failure else ""
                    raise OSError(
                        f"{self.name} gave nothing for {silent_s:.1f} seconds after {self._arrived} frames{why}: "
                        "check that it is on and can be reached"
                    ) from self._failure
                left_s = min(max(self.give_up_s - silent_s, 0.01), threading.TIMEOUT_MAX)
                if self.tick_s is not None:
                    left_s = min(left_s, self._told_s + self.tick_s - now)
                    if left_s <= 0:
                        self._told_s = now
                        return Stale(silent_s)
                self._changed.wait(left_s)
        return None

    def _taken(self, now: float) -> Frame | None:
        while self._waiting:
            frame = self._waiting.popleft()
            old = self.max_age_s is not None and now - self._began_s - frame.time_s > self.max_age_s
            if not old or not (self._given or self._waiting):
                return frame
            self.dropped += 1
        return None

    def _read(self) -> None:
        """Open and read, again and again; what the reading thread does."""
        pause_s = PAUSE_S / 2
        while not self._closed.is_set():
            before, failure = self._arrived, None
            try:
                with closing(self.opener()) as pictures:
                    for picture in pictures:
                        self._arrive(picture, before)
                        if self._closed.is_set():
                            return
            except Exception as error:  # whatever it is, the source may come back
                failure = error
            came = self._arrived > before
            if came:
                _log.warning("%s went away after %d frames (%s)", self.name, self._arrived, failure or "it ended")
            with self._changed:
                self._failure = failure
                self._changed.notify_all()
            pause_s = PAUSE_S if came else min(2 * pause_s, LONGEST_PAUSE_S)
            self._wait(pause_s)

    def _arrive(self, picture: np.ndarray | None, before: int) -> None:
        whole = isinstance(picture, np.ndarray) and picture.dtype == np.uint8 and picture.ndim == 3
        with self._changed:
            if not whole or picture.shape[2] != 3 or not picture.size:
                self.damaged += 1
                return
            now = self._heard_s = self.clock()
            if self._began_s is None:
                self._began_s = now
            self.reconnects += 0 < before == self._arrived
            if len(self._waiting) == self.keep:
                self._waiting.popleft()
                self.dropped += 1
            self._waiting.append(Frame(self._arrived, now - self._began_s, picture, time.perf_counter()))
            self._arrived += 1
            self._changed.notify_all()


def _scheme(source: Path | str | int) -> str | None:
    found = re.match(r"([a-z][a-z0-9+.-]*)://", str(source), re.IGNORECASE)
    return found and found[1].lower()


def _camera(index: int) -> Iterator[np.ndarray]:
    log, level = cv2.utils.logging, cv2.utils.logging.getLogLevel()
    log.setLogLevel(log.LOG_LEVEL_SILENT)  # what goes wrong is raised
    try:
        capture = cv2.VideoCapture(index)
    finally:
        log.setLogLevel(level)
    try:
        if not capture.isOpened():
            device = Path(f"/dev/video{index}")
            absent = sys.platform == "linux" and not device.exists()
            why = f"there is no {device}, plug it in" if absent else "another program may hold it, close that"
            raise OSError(f"camera {index} cannot be opened by OpenCV: {why} or give another number")
        while True:
            arrived, image = capture.read()
            if not arrived:
                raise OSError(f"camera {index} stopped")
            yield cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    finally:
        capture.release()


def _stream(address: str, name: str) -> Iterator[np.ndarray | None]:
    import av

    scheme = _scheme(address)
    choices = {"options": {**OPTIONS, **SCHEME_OPTIONS.get(scheme, {})}} if scheme else {"format": "v4l2"}
    try:
        with av.open(address, timeout=TIMEOUT_S, **choices) as container:
            if not container.streams.video:
                raise OSError(f"{name} has no pictures: name a stream of video")
            if container.duration and scheme in ("http", "https"):
                seconds = container.duration / av.time_base
                raise ValueError(
                    f"{name} is a clip of {seconds:.1f} seconds, not live: download it, then read the file"
                )
            in_rgb = to_rgb(container.streams.video[0])
            for packet in container.demux(video=0):
                try:
                    yield from map(in_rgb, packet.decode())
                except (av.FFmpegError, ValueError):
                    yield None
    except av.error.ExitError as error:
        raise TimeoutError(f"{name} sent nothing for {TIMEOUT_S:g} seconds") from error
    except av.FFmpegError as error:
        raise OSError(f"{name} cannot be read ({error.strerror}): check that it is on and can be reached") from error
