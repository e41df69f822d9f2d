"""Clips in, annotated clips and tables out: every frame, in order, whole files, and one clear error when it breaks."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from squares import BLIND, BLUE, FINDER, RED, Noted, squares
from tiny_onnx import write_onnx

from fer_tf.data.drawn import draw_clip
from fer_tf.inference import table
from fer_tf.inference.clips import VideoWriter, probe, write_video
from fer_tf.inference.detect import Detector, load_detector
from fer_tf.inference.engine import load_engine
from fer_tf.inference.sources import Live, open_live
from fer_tf.inference.table import read_table
from fer_tf.inference.video import VideoError, VideoInterrupted, annotate_video, infer_image, stream
from fer_tf.labels import FER2013

pytestmark = pytest.mark.usefixtures("no_thread_is_left")
SMOOTHED = [table.SMOOTHED + emotion for emotion in FER2013]


def damage(clip, content: bytes):
    path = clip.with_name("damaged.mp4")
    path.write_bytes(content)
    return path


def pipe(clip):
    os.mkfifo(clip.with_name("pipe"))
    return clip.with_name("pipe")


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda clip: clip.with_name("none.mp4"), FileNotFoundError, "no clip at"),
        (lambda clip: clip.parent, ValueError, "is a folder"),
        (lambda clip: "/dev/null", ValueError, "/dev/null is a device, .*camera by its number"),
        (pipe, ValueError, "is a device, a pipe or a socket"),
        (lambda clip: damage(clip, b""), ValueError, "no video, or not a whole one"),
        (lambda clip: damage(clip, b"text" * 99), ValueError, "no video, or not a whole one"),
        (lambda clip: damage(clip, clip.read_bytes()[:300]), ValueError, "no video, or not a whole one"),
    ],
    ids=["missing", "folder", "device", "pipe", "empty", "text", "head only"],
)
def test_says_why_a_clip_cannot_be_opened(make, error, words, clip, engine):
    with pytest.raises(error, match=words):
        annotate_video(make(clip), engine=engine, detector=FINDER, output=clip.with_name("o.mp4"))
    assert not list(clip.parent.glob("*o.mp4*"))


class Camera:
    """Gives five red frames, BGR as OpenCV does, then breaks; it can be opened so many `times`."""

    times = 0

    def __init__(self, index):
        self.left, self.open = 5, index == 0 and Camera.times > 0
        Camera.times -= 1

    def isOpened(self):
        return self.open

    def read(self):
        self.left -= 1
        return self.left >= 0, np.full((120, 160, 3), RED[::-1], np.uint8)

    def release(self):
        self.open = False


def test_reads_a_camera(engine, monkeypatch, tmp_path):
    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    monkeypatch.setattr(Camera, "times", 3)
    full = load_detector("full")
    got = [FER2013[faces.logits[0].argmax()] for faces in stream("0", engine=engine, detector=full, limit=3)]
    assert got == ["happy"] * 3
    live = open_live(0, keep=5, give_up_s=0.4)
    with pytest.raises(VideoError, match=r"camera 0 stopped after \d+ frames .*gave nothing for") as caught:
        annotate_video(live, engine=engine, detector=full, output=tmp_path / "o.mp4")
    assert probe(tmp_path / "o.mp4").frames == caught.value.summary.frames >= 5
    with pytest.raises(VideoError, match="camera 7 cannot be opened"):
        annotate_video(7, engine=engine, detector=full, output=tmp_path / "none.mp4")
    assert not (tmp_path / "none.mp4").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="cameras are files on Linux alone")
@pytest.mark.parametrize(
    ("there", "words"), [(False, "there is no /dev/video63"), (True, "another program may hold it")]
)
def test_says_why_a_camera_cannot_be_opened_and_silences_opencv(there, words, monkeypatch, capfd):
    if there:
        exists = Path.exists
        monkeypatch.setattr(Path, "exists", lambda path: str(path) == "/dev/video63" or exists(path))
    level = cv2.utils.logging.getLogLevel()
    with pytest.raises(OSError, match=f"camera 63 cannot be opened by OpenCV: {words}"):
        next(iter(open_live("63")))
    assert capfd.readouterr() == ("", "") and cv2.utils.logging.getLogLevel() == level


def test_a_number_that_no_camera_has_is_refused_before_work(engine, tmp_path):
    for number in ("9" * 20, -1):
        with pytest.raises(ValueError, match=f"expected a camera's number, 0 for the first, got {number}"):
            annotate_video(number, engine=engine, detector=BLIND, output=tmp_path / "out.mp4")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("batch", [1, 4, 100])
def test_every_face_gets_its_own_emotion_in_order(workers, batch, clip, engine):
    index = 0
    for index, faces in enumerate(stream(clip, engine=engine, detector=FINDER, workers=workers, batch=batch)):
        assert faces.frame_index == index and faces.time_s == pytest.approx(index / 25)
        assert [FER2013[k] for k in faces.probabilities.argmax(axis=1)] == ["happy", "sad"][: index % 3]
    assert index == 29


def test_fills_batches_across_the_frames_that_are_taken_together(workers, clip, engine):
    for detector, sizes in ((FINDER, [4, 4, 4, 3, 4, 4, 4, 3]), (BLIND, [])):  # of 16 frames, then of 14
        noted = Noted(engine)
        list(stream(clip, engine=noted, detector=detector, batch=4, workers=workers))
        assert noted.sizes == sizes


@pytest.mark.parametrize("suffix", table.FORMATS)
def test_writes_the_clip_and_the_table(suffix, workers, clip, engine, monkeypatch):
    monkeypatch.setattr(table, "CHUNK", 7)
    output, rows = clip.with_name("out.mp4"), clip.with_name(f"faces{suffix}")
    done = []
    summary = annotate_video(
        clip, engine=engine, detector=FINDER, output=output, table=rows, workers=workers, progress=done.append
    )
    assert (summary.frames, summary.faces, done) == (30, 30, list(range(1, 31)))
    assert summary.provider == "OpenVINOExecutionProvider" and summary.frames_per_s > 0
    assert list(summary.stages) == ["decode", "detect", "crop", "infer", "smooth", "draw", "encode", "table"]
    assert json.loads(json.dumps(summary.to_dict()))["stages"]["encode"]["items"] == 30
    info = probe(output)
    assert (info.width, info.height, info.frames, info.rate) == (160, 120, 30, 25)
    read = read_table(rows)
    place = ["frame", "time_s", "face", "track", "left", "top", "right", "bottom", "score", "label"]
    assert list(read.columns) == [*place, *FER2013, *SMOOTHED]
    assert list(read["frame"]) == [k for k in range(30) for _ in range(k % 3)]
    assert list(read["track"]) == list(read["face"])  # the red square is always 0, the blue one 1
    assert list(read["label"]) == [label for k in range(30) for label in ["happy", "sad"][: k % 3]]
    np.testing.assert_allclose(read["time_s"], read["frame"] / 25, atol=1e-5)
    np.testing.assert_allclose(read[list(FER2013)].sum(axis=1), 1, atol=1e-4)
    assert read.loc[0, ["left", "top", "right", "bottom"]].tolist() == [20, 40, 60, 80]
    assert sorted(path.name for path in clip.parent.iterdir()) == sorted(["clip.mp4", output.name, rows.name])


@pytest.mark.parametrize("suffix", table.FORMATS)
def test_a_clip_without_a_face_succeeds_with_an_empty_table(suffix, clip, engine):
    rows, output = clip.with_name(f"faces{suffix}"), clip.with_name("out.mp4")
    summary = annotate_video(clip, engine=engine, detector=BLIND, output=output, table=rows)
    assert (summary.frames, summary.faces, probe(output).frames) == (30, 0, 30)
    if suffix == ".jsonl":
        assert rows.read_text() == ""
    else:
        assert len(read_table(rows)) == 0 and list(read_table(rows).columns)[-14:] == [*FER2013, *SMOOTHED]


def test_a_clip_that_breaks_keeps_what_was_done(workers, engine, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (60, 120, 160, 3), np.uint8)
    whole = write_video(tmp_path / "whole.mp4", noise, fps=30).read_bytes()
    cut = damage(tmp_path / "whole.mp4", whole[: len(whole) // 2])
    output, rows = tmp_path / "out.mp4", tmp_path / "faces.csv"
    full = load_detector("full")
    with pytest.raises(VideoError, match=r"stopped after \d+ frames .*decode.*out.mp4 and .*faces.csv") as caught:
        annotate_video(cut, engine=engine, detector=full, output=output, table=rows, workers=workers)
    frames = caught.value.summary.frames
    assert 10 < frames < 50 and probe(output).frames == frames == len(read_table(rows))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["damaged.mp4", "faces.csv", "out.mp4", "whole.mp4"]


def test_an_engine_that_fails_keeps_the_batches_before(workers, clip, engine):
    output = clip.with_name("out.mp4")
    with pytest.raises(VideoError, match="infer: no room") as caught:
        annotate_video(clip, engine=Noted(engine, fails=5), detector=FINDER, output=output, batch=4, workers=workers)
    assert caught.value.summary.frames == probe(output).frames == 16  # whose face is in the fifth


def test_a_watcher_may_stop_and_files_hold_what_it_saw(workers, clip, engine):
    seen, output = [], clip.with_name("out.mp4")

    def watch(faces, image):
        seen.append((faces.frame_index, image.shape, (image != faces.image).any()))
        return len(seen) < 5

    summary = annotate_video(clip, engine=engine, detector=FINDER, output=output, on_frame=watch, workers=workers)
    assert seen == [(k, (120, 160, 3), k % 3 > 0) for k in range(5)]
    assert summary.frames == probe(output).frames == 5


def test_an_interrupt_leaves_whole_files(clip, engine):
    def interrupt(done):
        if done == 6:
            raise KeyboardInterrupt

    output, rows = clip.with_name("out.mp4"), clip.with_name("faces.csv")
    with pytest.raises(VideoInterrupted, match=r"stopped after 6 frames; they are in .*out\.mp4 and .*csv$") as caught:
        annotate_video(clip, engine=engine, detector=FINDER, output=output, table=rows, progress=interrupt)
    assert caught.value.summary.frames == probe(output).frames == 6 and read_table(rows)["frame"].max() == 5


def test_interrupts_in_the_midst_of_a_frame_and_of_closing_wait(clip, engine, monkeypatch):
    def interrupted(method):
        def call(*arguments, **choices):
            result = method(*arguments, **choices)
            signal.raise_signal(signal.SIGINT)
            return result

        return call

    for name in ("write", "close"):
        monkeypatch.setattr(VideoWriter, name, interrupted(getattr(VideoWriter, name)))
    output, rows = clip.with_name("out.mp4"), clip.with_name("faces.csv")
    with pytest.raises(VideoInterrupted, match=r"stopped after 1 frames; they are in .*out\.mp4 and .*faces\.csv$"):
        annotate_video(clip, engine=engine, detector=load_detector("full"), output=output, table=rows)
    assert probe(output).frames == len(read_table(rows)) == 1


STOPPED = """
import signal, sys, time
from fer_tf.inference.detect import load_detector
from fer_tf.inference.engine import load_engine
from fer_tf.inference.video import annotate_video

def progress(done):
    if done == 3:
        print("now", flush=True)
    time.sleep(0.02)

model, clip, output, table = sys.argv[1:]
STOPS = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
for number in STOPS:
    signal.signal(number, signal.default_int_handler)
choices = {"engine": load_engine(model), "detector": load_detector("haar"), "output": output, "table": table}
try:
    annotate_video(clip, **choices, progress=progress)
except KeyboardInterrupt as stopped:
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)
    print(stopped)
    sys.exit(130)
"""


@pytest.mark.parametrize("signals", ["INT", "TERM", "HUP", "INT INT", "TERM TERM INT"])
def test_a_signal_or_several_end_the_program_with_whole_files(signals, engine, tmp_path):
    """A stage's thread that outlives the run is inside a library when Python ends, and aborts the program."""
    frames = list(draw_clip(faces=1, frames=10, width=320, height=240, seed=3).frames)
    clip = write_video(tmp_path / "clip.mp4", frames * 40, fps=25)
    output, rows = tmp_path / "out.mp4", tmp_path / "faces.csv"
    command = [sys.executable, "-c", STOPPED, engine.path, clip, output, rows]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        assert program.stdout.readline() == "now\n"
        for name in signals.split():
            program.send_signal(signal.Signals[f"SIG{name}"])
            time.sleep(0.01)
        told, errors = program.communicate(timeout=60)
    assert (program.returncode, errors) == (130, "")
    frames = probe(output).frames
    assert told == f"{clip} stopped after {frames} frames; they are in {output} and {rows}\n"
    assert 3 <= frames < 300 and list(read_table(rows)["frame"]) == list(range(frames))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4", "faces.csv", "out.mp4"]


@pytest.fixture
def disk():
    """Takes the largest size in bytes that any file may have from now on; none lifts the limit."""
    resource = pytest.importorskip("resource", reason="no file size limits here")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size=soft: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("suffix", table.FORMATS)
@pytest.mark.parametrize("size", [60_000, 100], ids=["room for the table", "no room"])
def test_a_full_disk_names_only_files_that_are_there(size, suffix, engine, disk, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (60, 120, 160, 3), np.uint8)
    clip = write_video(tmp_path / "clip.mp4", noise, fps=30)
    output, rows = tmp_path / "out.mp4", tmp_path / f"faces{suffix}"
    output.write_text("an older file")
    disk(size)
    with pytest.raises(VideoError, match="too large") as caught:
        annotate_video(clip, engine=engine, detector=load_detector("full"), output=output, table=rows)
    disk()
    told, summary = str(caught.value), caught.value.summary
    assert f"stopped after {summary.frames} frames" in told and f"; {output} could not be finished" in told
    assert output.read_text() == "an older file" and summary.output is None
    if size > 100:
        assert f"; they are in {rows};" in told and summary.table == str(rows)
        assert list(read_table(rows)["frame"]) == list(range(summary.frames))
    else:
        assert f"; {rows} could not be finished" in told and "they are in" not in told and summary.table is None
    assert len(list(tmp_path.iterdir())) == 2 + rows.exists()


def test_a_table_whose_first_bytes_find_no_room_leaves_nothing(disk, tmp_path):
    disk(1)
    with pytest.raises(OSError, match="too large"):
        table.FaceTable(tmp_path / "faces.parquet", FER2013)
    disk()
    assert not list(tmp_path.iterdir())


def test_two_runs_to_one_place_do_not_mix(clip, engine):
    output, choices = clip.with_name("out.mp4"), {"engine": engine, "detector": FINDER}

    def another_run(done):
        if done == 5:
            annotate_video(clip, **choices, output=output, limit=10)
            assert probe(output).frames == 10

    annotate_video(clip, **choices, output=output, progress=another_run)
    assert probe(output).frames == 30 and len(list(clip.parent.iterdir())) == 2


def test_suffixes_may_be_in_capitals(clip, engine):
    for suffix in table.FORMATS:
        output, rows = clip.with_name("OUT.MP4"), clip.with_name(f"FACES{suffix.upper()}")
        annotate_video(clip, engine=engine, detector=FINDER, output=output, table=rows)
        assert probe(output).frames == 30 and rows.stat().st_size > 1000


def test_a_frame_too_large_for_the_encoder_is_refused_before_work(engine, tmp_path, monkeypatch):
    wide = tmp_path / "wide.gif"
    with av.open(str(wide), "w") as container:
        stream = container.add_stream("gif", rate=5, width=20_000, height=10)
        stream.pix_fmt = "rgb8"
        container.mux(stream.encode(av.VideoFrame(20_000, 10, "rgb8")))
        container.mux(stream.encode())
    detector = Detector(name="never", find=None, pixels=None, scale=1.0)
    with pytest.raises(ValueError, match="at most 16384 pixels a side, got 20000 x 10: scale"):
        annotate_video(wide, engine=engine, detector=detector, output=tmp_path / "out.mp4")
    assert annotate_video(wide, engine=engine, detector=BLIND, table=tmp_path / "faces.csv").frames == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["faces.csv", "wide.gif"]


@pytest.mark.parametrize(
    ("choice", "error", "words"),
    [
        ({"output": "clip.mp4"}, ValueError, "is the source itself"),
        ({"output": "out.avi"}, ValueError, r"written as \.mp4, got out\.avi"),
        ({"table": "faces.xlsx"}, ValueError, r"written as \.csv, \.parquet, \.jsonl, got faces\.xlsx"),
        ({"output": "none/out.mp4"}, FileNotFoundError, "folder of .* does not exist"),
        ({"output": "folder.mp4"}, PermissionError, "cannot be written"),
        ({"batch": 0}, ValueError, "batch must be at least 1, got 0"),
        ({"detect_every": float("nan")}, ValueError, "detect_every must be at least 1, got nan"),
        ({"detector": []}, ValueError, "expected a detector, or several, got an empty list"),
    ],
    ids=["the source", "suffix", "table suffix", "folder missing", "a folder", "batch", "every", "no detector"],
)
def test_refuses_before_work_starts(choice, error, words, clip, engine):
    def never(image):
        raise AssertionError("work has started")

    (clip.parent / "folder.mp4").mkdir()
    choice = {key: clip.parent / value if isinstance(value, str) else value for key, value in choice.items()}
    with pytest.raises(error, match=words):
        detector = Detector(name="never", find=never, pixels=None, scale=1.0)
        annotate_video(clip, **{"engine": engine, "detector": detector} | choice)


def test_classifies_a_picture_from_file_and_from_memory(engine, tmp_path):
    image = list(squares(3))[2]
    cv2.imwrite(str(tmp_path / "a.png"), image[..., ::-1])
    for given in (image, tmp_path / "a.png", str(tmp_path / "a.png")):
        faces = infer_image(given, engine=engine, detector=FINDER)
        assert [FER2013[k] for k in faces.probabilities.argmax(axis=1)] == ["happy", "sad"]
    assert infer_image(image, engine=engine, detector=BLIND).logits.shape == (0, 7)


def turning(n: int):
    """Two squares move to the right; the upper one is red, blue, red, three frames each, the lower one reversed."""
    for k in range(n):
        image = np.full((120, 160, 3), 128, np.uint8)
        for face, colour in enumerate((RED, BLUE) if k // 3 % 2 == 0 else (BLUE, RED)):
            image[10 + 60 * face :, 10 + 2 * k :][:40, :40] = colour
        yield image


def find_turning(image: np.ndarray):
    """Return both squares, the lower one first in every other frame or so: the order of detections says nothing."""
    left = int((np.ptp(image, axis=2).max(axis=0) > 90).argmax())
    boxes = np.array([[left, 10 + 60 * face, left + 40, 50 + 60 * face] for face in range(2)])
    return boxes, [0.9, 0.8 if left % 4 else 1.0]


@pytest.mark.parametrize("batch", [1, 5])
def test_a_model_of_clips_gets_the_last_frames_of_each_face_and_no_others(workers, batch, tmp_path):
    window, frames = 4, 24
    clip = write_video(tmp_path / "clip.mp4", turning(frames), fps=25)
    engine = load_engine(write_onnx(tmp_path / "model.onnx", window=window))
    finder = Detector(name="turning", find=find_turning, pixels=None, scale=1.0)
    output, rows = tmp_path / "out.mp4", tmp_path / "faces.csv"
    choices = {"engine": engine, "detector": finder, "batch": batch, "workers": workers}
    assert annotate_video(clip, **choices, output=output, table=rows).frames == probe(output).frames == frames
    read = read_table(rows)
    assert list(read["frame"]) == [k for k in range(frames) for _ in range(2)]
    assert read["track"].nunique() == 2 and list(read["track"][:12]) != sorted(read["track"][:12])
    for _, own in read.groupby("track"):
        upper = own["top"] < 40
        assert upper.nunique() == 1  # it never becomes the other square
        red = (np.arange(frames) // 3 % 2 == 0) == upper.iloc[0]
        seen = [red[np.clip(np.arange(k - window + 1, k + 1), 0, None)].mean() for k in range(frames)]
        expected = 8 * 200 / 255 * (2 * np.array(seen) - 1)  # the share of red in the window, as a logit difference
        np.testing.assert_allclose(np.log(own["happy"] / own["sad"]), expected, atol=0.7)


def test_a_model_of_clips_takes_no_picture(tmp_path):
    engine = load_engine(write_onnx(tmp_path / "model.onnx", window=4))
    with pytest.raises(ValueError, match="takes clips of 4 frames, not a picture: give it a video"):
        infer_image(next(squares(1)), engine=engine, detector=FINDER)


def test_a_real_clip_goes_through(engine, shared_data, tmp_path):
    source, output = shared_data / "video" / "hungry.mkv", tmp_path / "out.mp4"
    summary = annotate_video(source, engine=engine, detector=load_detector("haar"), output=output, limit=10)
    assert (summary.frames, summary.faces) == (10, 10)
    assert (probe(output).rate, probe(output).frames) == (30, 10)


def silent():
    """What a live source gives while nothing comes: damaged pictures, so that its thread can be stopped."""
    while True:
        time.sleep(0.01)
        yield None


def pictures(count):
    """What opens a live source of so many red frames, which then falls silent."""

    def opened():
        for _ in range(count):
            yield np.full((120, 160, 3), RED, np.uint8)
        yield from silent()

    return opened


def test_a_silent_live_source_shows_its_last_frame_with_its_age(engine, monkeypatch, tmp_path):
    monkeypatch.setattr("fer_tf.inference.video.STALE_S", 0.05)
    seen = []

    def on_frame(faces, image):
        seen.append((faces.frame_index, image))
        return [index for index, _ in seen].count(1) < 3

    live, choices = Live(pictures(2), keep=2), {"engine": engine, "detector": load_detector("full")}
    summary = annotate_video(live, **choices, on_frame=on_frame, output=tmp_path / "o.mp4")
    indices = [index for index, _ in seen]
    assert indices[-3:] == [1, 1, 1] and summary.frames == probe(tmp_path / "o.mp4").frames == 2
    first = indices.index(1)
    assert (seen[first][1] != seen[first + 1][1]).any() and (seen[0][1] == seen[first][1]).all()


def test_leaving_the_loop_over_a_silent_source_ends_at_once(engine):
    faces = stream(Live(pictures(2), keep=2), engine=engine, detector=load_detector("full"))
    assert next(faces).frame_index == 0
    faces.close()  # not after the half minute that a source may be silent


def test_a_live_source_drops_what_comes_too_fast_and_counts_it(engine):
    going, taken = threading.Event(), []

    def opened():
        for number in range(40):
            while number == 3 and not going.wait(0.01):  # until the first one is shown
                yield None
            yield np.full((120, 160, 3), RED, np.uint8)
        yield from silent()

    def on_frame(faces, image):
        going.set()
        taken.append(faces.frame_index)
        return faces.frame_index < 39

    live = Live(opened, keep=2)
    summary = annotate_video(live, engine=engine, detector=load_detector("full"), on_frame=on_frame)
    assert sorted(set(taken))[-1] == 39 and summary.frames == len(set(taken))
    assert summary.dropped == 40 - summary.frames


def test_detection_on_every_second_frame_does_not_depend_on_the_numbers_that_arrive(engine, clip):
    """A live source that drops every other frame leaves odd numbers alone, of which none divides by two."""

    class Odd(Live):
        def _next(self):
            frame = super()._next()
            return frame and frame._replace(index=2 * frame.index + 1)

    asked = threading.Semaphore(0)

    def opened():
        for _ in range(6):
            while not asked.acquire(timeout=0.01):
                yield None
            yield np.full((120, 160, 3), RED, np.uint8)
        yield from silent()

    seen, finder = [], load_detector("full")
    faces = stream(Odd(opened, keep=2, limit=6), engine=engine, detector=[finder, finder], detect_every=2)
    for _ in range(6):
        asked.release()
        seen.append(len(next(faces)))
    faces.close()
    assert seen == [1] * 6


def test_an_interrupt_ends_the_wait_for_a_silent_source(engine):
    timers = []

    def on_frame(faces, image):
        if faces.frame_index == 1 and not timers:
            timers.append(threading.Timer(0.2, os.kill, [os.getpid(), signal.SIGINT]))
            timers[0].start()

    with pytest.raises(VideoInterrupted) as caught:
        annotate_video(Live(pictures(2), keep=2), engine=engine, detector=load_detector("full"), on_frame=on_frame)
    timers[0].join()
    assert caught.value.summary.frames == 2


def test_what_cannot_go_through_the_stages_is_refused(engine):
    choices = {"engine": engine, "detector": load_detector("full")}
    for live, limit, words in (
        (Live(pictures(1), tick_s=1.0), None, "tick_s"),
        (Live(pictures(1)), 0, "limit must be"),
    ):
        with pytest.raises(ValueError, match=words):
            stream(live, **choices, limit=limit)
    with pytest.raises(ValueError, match="workers must be at least 0, got -1"):
        stream(Live(pictures(1)), **choices, workers=-1)


@pytest.mark.parametrize("workers", [3, 17])
def test_frames_of_a_live_source_do_not_queue_inside_however_many_workers_there_are(workers, engine):
    inside, most, lock = [0], [0], threading.Lock()

    def find(image):
        with lock:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        return [[0, 0, 40, 40]], [1.0]

    def on_frame(faces, image):
        time.sleep(0.01)
        with lock:
            inside[0] -= 1

    def opened():
        while True:
            time.sleep(0.001)
            yield np.full((120, 160, 3), RED, np.uint8)

    detectors = [Detector(name="counting", find=find, pixels=None, scale=1.0)] * workers
    live = Live(opened, keep=2, limit=25)
    annotate_video(live, engine=engine, detector=detectors, on_frame=on_frame, workers=workers)
    assert most[0] <= 3 and live.dropped


def test_a_watcher_that_fails_is_named_and_the_frame_it_saw_is_kept(clip, engine):
    def on_frame(faces, image):
        if faces.frame_index == 2:
            raise OSError("the window is gone")

    output = clip.with_name("out.mp4")
    with pytest.raises(VideoError, match="show: the window is gone") as caught:
        annotate_video(clip, engine=engine, detector=FINDER, output=output, on_frame=on_frame)
    assert caught.value.summary.frames == probe(output).frames == 3


def test_an_interrupt_ends_the_frame_in_hand_and_not_the_chunk(clip, engine):
    seen = []

    def find(image):
        seen.append(1)
        if len(seen) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1 if len(seen) > 2 else 0)
        return [], []

    slow = Detector(name="slow", find=find, pixels=None, scale=1.0)
    with pytest.raises(VideoInterrupted):
        annotate_video(clip, engine=engine, detector=slow, table=clip.with_name("faces.csv"), workers=1)
    assert len(seen) < 16


def test_runs_at_the_same_time_leave_opencv_its_threads(engine, clip):
    before = cv2.getNumThreads()
    first, second = (stream(clip, engine=engine, detector=FINDER) for _ in range(2))
    next(first), next(second)
    assert cv2.getNumThreads() == 1
    first.close()
    assert cv2.getNumThreads() == 1
    second.close()
    assert cv2.getNumThreads() == before
