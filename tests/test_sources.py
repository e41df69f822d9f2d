"""Live sources never fall behind, come back when they went away, and end when they are told to."""

import http.server
import queue
import threading
import time
from contextlib import closing, contextmanager, suppress
from fractions import Fraction
from functools import partial
from itertools import cycle
from operator import attrgetter

import av
import cv2
import numpy as np
import pytest

from fer_tf.inference import sources
from fer_tf.inference.clips import Frame, write_video
from fer_tf.inference.pipeline import Stage, run
from fer_tf.inference.sources import Live, Stale, is_live, open_live

pytestmark = pytest.mark.usefixtures("no_thread_is_left")


def picture(level: int = 0) -> np.ndarray:
    return np.full((24, 32, 3), level, np.uint8)


class Clock:
    """Stands still, but for what the test adds, and for `pace` at every look."""

    def __init__(self, pace: float = 0.0):
        self.now, self.pace = 0.0, pace

    def __call__(self) -> float:
        self.now += self.pace
        return self.now


class Simulated:
    """A source that the test drives: it gives pictures, raises errors, ends (`False`), and else says nothing."""

    def __init__(self, *steps):
        self.steps, self.openings = queue.Queue(), 0
        self.put(*steps)

    def __call__(self):
        self.openings += 1
        while True:
            step = self.steps.get()
            try:
                if step is False:
                    return
                if isinstance(step, Exception):
                    raise step
                yield step
            finally:
                self.steps.task_done()

    def put(self, *steps) -> None:
        for step in steps:
            self.steps.put(step)

    def send(self, *steps) -> None:
        """Return when the reader has dealt with all of it."""
        self.put(*steps)
        self.steps.join()


@contextmanager
def driven(*steps, **choices):
    """Yield the simulated source, the `Live` over it and its frames, and end all three."""
    source = Simulated(*steps)
    live = Live(source, name="door", **choices)
    items = iter(live)
    try:
        yield source, live, items
    finally:
        live._closed.set()  # a blocked source notices no close: what follows lets it go
        source.put(False)
        items.close()
        live.close()


def test_frames_come_with_their_number_and_time_of_arrival():
    clock = Clock()
    with driven(picture(7), clock=clock) as (source, live, items):
        first = next(items)
        clock.now = 2.5
        source.send(picture(9))
        second = next(items)
        assert (first.index, first.time_s, second.index, second.time_s) == (0, 0.0, 1, 2.5)
        assert (first.image == 7).all() and (second.image == 9).all()
        clock.now = 3.0
        assert live.now_s - second.time_s == 0.5
        assert (live.dropped, live.damaged, live.reconnects) == (0, 0, 0)


@pytest.mark.parametrize("keep", [1, 2, 5])
def test_a_slow_consumer_gets_the_newest_frames_and_sees_the_gap(keep):
    with driven(picture(), keep=keep) as (source, live, items):
        assert next(items).index == 0
        source.send(*map(picture, range(1, 11)))
        got = [next(items) for _ in range(keep)]
        assert [frame.index for frame in got] == list(range(11 - keep, 11))
        assert [frame.image[0, 0, 0] for frame in got] == list(range(11 - keep, 11))
        assert live.dropped == 10 - keep


def test_a_frame_that_waited_too_long_is_dropped():
    clock = Clock()
    with driven(picture(), keep=9, max_age_s=1.0, clock=clock) as (source, live, items):
        next(items)
        for clock.now in (1.0, 2.0, 3.0, 3.5):
            source.send(picture())
        clock.now = 4.0
        assert next(items).time_s == 3.0 and next(items).time_s == 3.5 and live.dropped == 2


def test_the_only_frame_ever_is_shown_however_old():
    with driven(picture(), max_age_s=1.0, tick_s=5.0, give_up_s=1e9, clock=Clock(pace=10.0)) as (source, live, items):
        items = (item for item in items if isinstance(item, Frame) or live.dropped)
        assert next(items).index == 0 and live.dropped == 0
        source.send(picture())
        assert isinstance(next(items), Stale) and live.dropped == 1


def test_tells_how_old_the_last_frame_is_while_nothing_comes():
    clock = Clock()
    with driven(picture(), tick_s=0.5, clock=clock) as (source, _, items):
        next(items)
        ages = []
        for clock.now in (0.5, 1.25, 7.0):
            ages.append(next(items))
        assert ages == [Stale(0.5), Stale(1.25), Stale(7.0)]
        source.send(picture())
        assert next(items).time_s == 7.0
    with driven(tick_s=0.001) as (source, _, items):
        assert isinstance(next(items), Stale)  # before the first frame, too


def test_comes_back_after_pauses_that_grow():
    pauses = []
    steps = [picture(), *[OSError("unplugged")] * 8, picture(), False, picture()]
    with driven(*steps, keep=9, wait=pauses.append) as (source, live, items):
        assert [next(items).index for _ in range(3)] == [0, 1, 2]
        assert source.openings == 10 and live.reconnects == 2
    assert pauses[:9] == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0, 0.2]


def test_gives_up_with_the_reason_when_the_source_stays_away():
    clock = Clock()

    def wait(seconds):
        clock.now = min(clock.now + seconds, 31.0)

    def opener():
        if not clock.now:
            yield picture()
        raise OSError("unplugged")

    items = iter(Live(opener, name="camera 3", give_up_s=30.0, clock=clock, wait=wait))
    assert next(items).index == 0
    with pytest.raises(OSError, match=r"camera 3 gave nothing for 3\d\.\d seconds after 1 frames \(unplugged\): check"):
        next(items)


def test_gives_up_on_a_source_that_hangs_and_leaves_its_thread_behind(monkeypatch, caplog):
    monkeypatch.setattr(sources, "CLOSE_S", 0.01)
    source = Simulated(picture())
    live = Live(source, name="door", give_up_s=0.05)
    items = iter(live)
    next(items)
    with pytest.raises(OSError, match=r"door gave nothing for .* after 1 frames"):
        next(items)
    assert "door hangs and is left behind" in caplog.text and live._thread.daemon
    source.put(False)
    live._thread.join(60)


@pytest.mark.parametrize("error", [ValueError("no scheme"), FileNotFoundError("no camera")])
def test_what_cannot_be_opened_is_said_at_once(error):
    def opener():
        raise error
        yield

    with pytest.raises(type(error), match=str(error)):
        next(iter(Live(opener)))


def test_damaged_frames_are_skipped_and_counted():
    damaged = [None, picture().astype(np.float32), picture()[..., 0], picture()[..., :2], picture()[:0], "text"]
    with driven(*damaged, picture(1), keep=9) as (source, live, items):
        assert next(items).index == 0 and live.damaged == 6
        source.send(None, picture(2), None, np.zeros((48, 64, 3), np.uint8))
        assert [next(items).image.shape for _ in range(2)] == [(24, 32, 3), (48, 64, 3)]
        assert live.damaged == 8 and live.dropped == 0


def paced(seed: int, breaks: int = 10**9):
    """A source in real time: jitters, stalls, gives damaged frames, and goes away after `breaks` frames."""

    def opener():
        chance = np.random.default_rng(seed)
        for k in range(breaks):
            time.sleep(chance.choice([0, 0.0005, 0.002, 0.01]))
            yield None if k % 7 == 3 else picture(k % 250)
        raise OSError("gone")

    return opener


@pytest.mark.parametrize("frames", [0, 1, 2, 17])
def test_leaving_the_loop_at_any_moment_ends_the_thread(frames):
    live = Live(paced(frames))
    for count, _ in enumerate(live):
        if count >= frames:
            break
    assert not live._thread.is_alive()
    assert list(live) == []  # it is over


def test_a_consumer_that_is_slow_now_and_then_accounts_for_every_frame():
    chance, live = np.random.default_rng(0), Live(paced(1, breaks=20), limit=60, wait=lambda seconds: None)
    indices = []
    for frame in live:
        indices.append(frame.index)
        time.sleep(chance.choice([0, 0, 0.02]))
    gaps = np.diff([-1, *indices]) - 1
    assert len(indices) == 60 and (gaps >= 0).all()
    assert gaps.sum() <= live.dropped <= live._arrived - 60 and live.reconnects >= 2 and live.damaged > 0


def test_another_thread_may_end_the_wait():
    source, started = Simulated(picture()), threading.Event()
    live, got = Live(source), []

    def consume():
        for frame in live:
            got.append(frame.index)
            started.set()

    consumer = threading.Thread(target=consume)
    consumer.start()
    assert started.wait(60)
    closer = threading.Thread(target=live.close)
    closer.start()
    source.put(False)
    closer.join(60)
    consumer.join(60)
    assert got == [0] and not consumer.is_alive() and not live._thread.is_alive()


@pytest.mark.parametrize("got", [0, 3])
def test_a_run_over_a_source_that_is_away_ends_when_told(got):
    source = Simulated(*[picture()] * got, False)  # then it is away, and stays away
    with Live(source, keep=9) as live:
        items = run(live, [Stage("index", [partial(map, attrgetter("index"))])])
        with closing(items):
            assert [next(items) for _ in range(got)] == list(range(got))
            timer = threading.Timer(0.05, live.stop)  # what a signal's handler would do
            timer.start()
            assert list(items) == []
        timer.join()


def test_closing_what_never_began_is_no_error():
    live = Live(paced(0))
    live.close()
    assert list(live) == []


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ({"keep": 0}, "keep must be at least 1 frame, got 0"),
        ({"limit": 0}, "limit must be at least 1 frame, got 0"),
        ({"tick_s": 0}, "tick_s must be above 0 seconds, got 0"),
        ({"max_age_s": -1.0}, "max_age_s must be above 0 seconds"),
        ({"give_up_s": float("nan")}, "give_up_s must be above 0 seconds"),
    ],
)
def test_impossible_choices_are_refused(choice, words):
    with pytest.raises(ValueError, match=words):
        Live(paced(0), **choice)


@pytest.mark.parametrize(
    ("source", "live"),
    [
        (0, True),
        ("1", True),
        ("rtsp://host/main", True),
        ("RTSP://user:word@host", True),
        ("gopher://host", True),
        ("/dev/video0", True),
        ("clip.mp4", False),
        ("C:\\clip.mp4", False),
        ("folder/rtsp.mkv", False),
    ],
)
def test_tells_live_sources_from_files(source, live):
    assert is_live(source) is live


@pytest.mark.parametrize("source", ["gopher://host/x", "file:///clip.mp4", "clip.mp4"])
def test_an_unknown_kind_of_source_is_refused_at_once(source):
    with pytest.raises(ValueError, match=r"rtsp://, .*http://.* got " + source):
        open_live(source)
    with pytest.raises(ValueError, match="expected a camera's number"):
        open_live("9" * 20)


class Camera:
    """Gives two red frames, BGR as OpenCV does, each time that it is opened, and is away the second time."""

    opened = 0

    def __init__(self, index):
        type(self).opened += 1
        self.left, self.there = 2, type(self).opened != 2

    def isOpened(self):
        return self.there

    def read(self):
        self.left -= 1
        return self.left >= 0, picture() + np.array([0, 0, 200], np.uint8)

    def release(self):
        self.there = False


def test_a_camera_that_was_unplugged_comes_back(monkeypatch):
    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    live = open_live("0", keep=1000, limit=5)
    frames = list(live)
    assert [frame.index for frame in frames] == list(range(5)) and live.reconnects == 2
    assert (frames[4].image[0, 0] == [200, 0, 0]).all()
    with pytest.raises(OSError, match="camera 63 cannot be opened"):
        Camera.opened = 1
        next(iter(open_live(63)))


def transport_stream(path, frames: int = 200) -> bytes:
    """Return an MPEG transport stream of 25 frames/s, brighter by 4 levels each, 50 times over; the last is white."""
    with av.open(str(path), "w", format="mpegts") as container:
        stream = container.add_stream("libx264", rate=Fraction(25), width=64, height=48)
        stream.options = {"tune": "zerolatency", "g": "10"}
        for k in range(frames):
            image = np.full((48, 64, 3), 4 * (k % 50) if k < frames - 1 else 255, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return path.read_bytes()


@contextmanager
def served(*answers: bytes | None):
    """Serve the answers in turn, without a length, as a live stream does; None says nothing until the end."""
    over, left = threading.Event(), cycle(answers)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            answer = next(left)
            if answer is None:
                over.wait(60)
                return
            with suppress(OSError):  # nobody listens any more
                self.send_response(200)
                self.end_headers()
                self.wfile.write(answer)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = False  # they are waited for
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/live"
        finally:
            over.set()
            server.shutdown()
            thread.join()


def level(frame: Frame) -> int:
    return round(frame.image.mean() / 4)


def test_a_stream_is_read_and_read_again_when_it_ends(tmp_path):
    data = transport_stream(tmp_path / "a.ts")
    with served(data, data[: len(data) * 2 // 3]) as address:
        address = address.replace("http", "HTTP")  # either way
        live = open_live(address, keep=10_000, limit=300)
        frames = list(live)
    assert [frame.index for frame in frames] == list(range(300))
    assert live.reconnects >= 1 and live.dropped == 0
    steps = np.diff([level(frame) for frame in frames]) % 50
    assert frames[0].image.shape == (48, 64, 3) and (steps == 1).mean() > 0.97  # but where it was read again


def test_damaged_packets_of_a_stream_are_no_end(tmp_path):
    data = bytearray(transport_stream(tmp_path / "a.ts"))
    noise = np.random.default_rng(0)
    for start in range(len(data) // 2 // 188 * 188, len(data) * 3 // 4, 188):
        data[start + 8 : start + 188] = noise.integers(0, 256, 180, np.uint8).tobytes()
    with served(bytes(data)) as address:
        got = []
        for frame in open_live(address, keep=10_000, limit=1000):
            got.append(level(frame))
            if got[-1] > 60:
                break
    assert got[-1] > 60 and 100 < len(got) < 200  # once, through the damage, to the end


def test_a_packet_that_cannot_be_decoded_is_counted(tmp_path):
    with av.open(str(tmp_path / "a.mkv"), "w", options={"live": "1"}) as container:
        stream = container.add_stream("mjpeg", rate=25, width=64, height=48)
        stream.pix_fmt, packets = "yuvj420p", []
        for k in range(50):
            image = np.full((48, 64, 3), 4 * k, np.uint8)
            packets += stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24"))
            container.mux(packets[-1])
    data = (tmp_path / "a.mkv").read_bytes()
    for k in (30, 31):
        data = data.replace(bytes(packets[k]), b"no picture at all".ljust(packets[k].size))
    with served(data) as address:
        live = open_live(address, keep=10_000, limit=60)
        levels = [level(frame) for frame in live]
    assert live.damaged >= 2 and 30 not in levels and 31 not in levels
    assert levels[: levels.index(49) + 1][-20:] == [28, 29, *range(32, 50)]  # in one go


def test_a_stream_that_says_nothing_is_an_error_in_time(monkeypatch):
    monkeypatch.setattr(sources, "TIMEOUT_S", 0.2)
    with served(None) as address, pytest.raises(OSError, match=r"live sent nothing for 0\.2 seconds"):
        next(iter(open_live(address)))
    with pytest.raises(OSError, match=r"http://127\.0\.0\.1:9/x cannot be read .*check that it is on") as caught:
        next(iter(open_live("http://user:secret@127.0.0.1:9/x")))
    assert "secret" not in str(caught.value)


def test_a_clip_on_a_server_is_not_live(tmp_path):
    clip = write_video(tmp_path / "a.mp4", [picture()] * 10, fps=5)
    with served(clip.read_bytes()) as address, pytest.raises(ValueError, match=r"is a clip of 2\.0 seconds, not live"):
        next(iter(open_live(address)))


def test_a_device_that_is_not_there_is_said_at_once():
    with pytest.raises(OSError, match="/dev/video63 cannot be read"):
        next(iter(open_live("/dev/video63")))


def test_frames_in_flight_hold_back_others_until_they_are_finished():
    def opened():
        yield from [np.zeros((2, 2, 3), np.uint8)] * 5
        while True:
            time.sleep(0.01)
            yield None

    live = Live(opened, keep=5, in_flight=2, limit=5)
    taken, told = [], threading.Event()

    def take():
        for frame in live:
            taken.append(frame.index)
            told.set()

    reader = threading.Thread(target=take)
    reader.start()
    for count in (2, 3, 4, 5):
        while len(taken) < count:
            assert told.wait(30)
            told.clear()
        assert len(taken) == count
        live.finished()
    reader.join(30)
    assert taken == [0, 1, 2, 3, 4] and not reader.is_alive()
