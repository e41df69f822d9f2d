"""What goes wrong around a run: disks, files and signals. Nothing that was finished is lost, and nothing hangs."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from squares import BLIND, BLUE, FINDER, RED
from tones import NTSC, make_clip

from fer_tf.inference import table as tables
from fer_tf.inference.clips import VideoWriter, probe, read_frames, write_video
from fer_tf.inference.detect import Detector, load_detector
from fer_tf.inference.engine import BACKENDS, load_engine, resolve_model
from fer_tf.inference.table import read_table
from fer_tf.inference.video import VideoError, annotate_video, stream

pytestmark = pytest.mark.usefixtures("no_thread_is_left")
FULL_DISK = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
FER_TF = Path(sys.executable).with_name("fer-tf")


class FullDisk:
    """A container whose disk is full after so many packets, for good."""

    def __init__(self, container, packets: int):
        self.container, self.left = container, packets

    def mux(self, packets):
        self.left -= 1
        if self.left < 0:
            raise FULL_DISK
        self.container.mux(packets)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.container.close()
        if self.left < 0:
            raise FULL_DISK

    def __getattr__(self, name):
        return getattr(self.container, name)


@pytest.mark.parametrize("packets", [0, 1, 13, 29], ids=lambda n: f"room for {n}")
def test_a_disk_that_is_full_leaves_the_table_of_what_was_finished(packets, workers, clip, engine, monkeypatch):
    start = VideoWriter._start

    def started(self, *arguments):
        start(self, *arguments)
        self.stream.options = {"tune": "zerolatency"}  # a packet per frame, at once
        self.container = FullDisk(self.container, packets)

    monkeypatch.setattr(VideoWriter, "_start", started)
    output, rows = clip.with_name("out.mp4"), clip.with_name("faces.csv")
    full = load_detector("full")
    with pytest.raises(VideoError, match="No space left on device") as caught:
        annotate_video(clip, engine=engine, detector=full, output=output, table=rows, workers=workers)
    told, summary = str(caught.value), caught.value.summary
    assert f"stopped after {packets} frames" in told and summary.frames == packets
    assert not output.exists() and summary.output is None
    if packets:
        assert f"; they are in {rows}; {output} could not be finished" in told
        assert list(read_table(rows)["frame"]) == list(range(packets))
    assert sorted(path.name for path in clip.parent.iterdir()) == ["clip.mp4"] + ["faces.csv"] * bool(packets)


def test_a_table_that_finds_no_room_leaves_the_clip(clip, engine, monkeypatch):
    def full(self, rows):
        raise FULL_DISK

    monkeypatch.setattr(tables, "CHUNK", 7)
    monkeypatch.setattr(tables._Csv, "write", full)
    output, rows = clip.with_name("out.mp4"), clip.with_name("faces.csv")
    with pytest.raises(VideoError, match="No space left on device") as caught:
        annotate_video(clip, engine=engine, detector=load_detector("full"), output=output, table=rows)
    assert f"; they are in {output}; {rows} could not be finished" in str(caught.value)
    assert probe(output).frames >= caught.value.summary.frames == 7 and not rows.exists()


def test_a_clip_that_changes_its_size_keeps_boxes_and_pictures(workers, engine, tmp_path):
    clip = tmp_path / "a.h264"
    with clip.open("wb") as file:
        for width, height in ((64, 48), (32, 96)):
            part = write_video(tmp_path / "part.mp4", [np.full((height, width, 3), 99, np.uint8)] * 5, fps=25)
            with av.open(str(part)) as source, av.open(str(tmp_path / "part.h264"), "w", format="h264") as target:
                track = source.streams.video[0]
                copy = target.add_stream_from_template(track)
                convert = av.BitStreamFilterContext("h264_mp4toannexb", track, copy)
                for packet in [*source.demux(track), None]:
                    for converted in convert.filter(packet):
                        converted.stream = copy
                        target.mux(converted)
            file.write((tmp_path / "part.h264").read_bytes())
    output, rows = tmp_path / "out.mp4", tmp_path / "faces.csv"
    full = load_detector("full")
    summary = annotate_video(clip, engine=engine, detector=full, output=output, table=rows, workers=workers)
    assert summary.frames == probe(output).frames == 10
    assert {frame.image.shape for frame in read_frames(output)} == {(48, 64, 3)}
    read = read_table(rows)  # in pixels of each frame as it came
    sides = (read[["right", "bottom"]].to_numpy() - read[["left", "top"]].to_numpy()).max(axis=1)
    assert sides.tolist() == [64] * 5 + [96] * 5


def test_uneven_times_are_kept_in_the_clip_and_in_the_table(workers, engine, tmp_path):
    uneven = [0, 0.04, 0.2, 0.24, 1.0, 1.04]
    clip = make_clip(tmp_path / "a.mkv", times=uneven)
    output, rows = tmp_path / "out.mp4", tmp_path / "faces.csv"
    annotate_video(
        clip, engine=engine, detector=load_detector("full"), output=output, table=rows, workers=workers, batch=4
    )
    np.testing.assert_allclose(read_table(rows)["time_s"], uneven, atol=0.002)
    np.testing.assert_allclose([frame.time_s for frame in read_frames(output)], uneven, atol=0.004)


def test_a_clip_without_a_frame_is_refused_before_work(engine, tmp_path):
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        container.add_stream("libx264", rate=25, width=64, height=48)
        container.start_encoding()
    with pytest.raises(ValueError, match=r"a\.mkv (holds no frame|is no video)"):
        annotate_video(tmp_path / "a.mkv", engine=engine, detector=BLIND, output=tmp_path / "out.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["a.mkv"]


def test_a_frame_of_8k_goes_through(engine, tmp_path):
    across = np.linspace(0, 255, 7680, dtype=np.uint8)
    image = np.ascontiguousarray(np.broadcast_to(across[None, :, None], (4320, 7680, 3)))
    clip = tmp_path / "a.jpg"
    cv2.imwrite(str(clip), image)
    output, rows = tmp_path / "out.mp4", tmp_path / "faces.csv"
    full = load_detector("full")
    assert annotate_video(clip, engine=engine, detector=full, output=output, table=rows).faces == 1
    info, read = probe(output), read_table(rows)
    assert (info.width, info.height, info.frames) == (7680, 4320, 1)
    assert read.loc[0, ["top", "bottom"]].tolist() == [0, 4320]


def test_two_hundred_faces_on_every_frame_keep_their_emotions_and_identities(workers, engine, tmp_path):
    """A grid of squares, every third of them blue, that drifts."""
    happy = np.arange(200) % 3 > 0
    left, top = np.arange(200) % 20 * 16 + 2, np.arange(200) // 20 * 18 + 2
    pictures = np.full((6, 200, 330, 3), 128, np.uint8)
    for k, picture in enumerate(pictures):
        for x, y, red in zip(left + k, top, happy, strict=True):
            picture[y : y + 12, x : x + 12] = RED if red else BLUE
    step = iter(range(len(pictures)))

    def find(image):
        xy = np.stack([left + next(step), top], axis=1)
        return np.hstack([xy, xy + 12]), np.linspace(1, 0.9, 200)

    clip, rows = write_video(tmp_path / "clip.mp4", pictures, fps=25), tmp_path / "faces.csv"
    crowd = Detector(name="crowd", find=find, pixels=None, scale=1.0)
    summary = annotate_video(
        clip, engine=engine, detector=crowd, table=rows, output=tmp_path / "o.mp4", workers=workers
    )
    assert (summary.frames, summary.faces, probe(tmp_path / "o.mp4").frames) == (6, 1200, 6)
    assert (summary.calls, summary.crops) == (150, 1200)
    read = read_table(rows)
    assert (read["label"] == np.tile(np.where(happy, "happy", "sad"), 6)).all()
    assert (read["track"] == np.tile(np.arange(200), 6)).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("how", ["written over", "replaced"])
def test_a_model_file_that_changes_while_it_runs_changes_nothing(backend, how, clip, tmp_path):
    """A model of many pages, as a runtime that maps its file into memory would read them late."""
    path = shutil.copy(resolve_model("mobilenet_v2"), tmp_path / "model.onnx")
    engine, found = load_engine(path, backend=backend), []
    expected = [faces.logits.tolist() for faces in stream(clip, engine=engine, detector=FINDER)]
    engine = load_engine(path, backend=backend)
    for faces in stream(clip, engine=engine, detector=FINDER):
        if faces.frame_index == 5:
            other = tmp_path / "other.onnx"
            other.write_bytes(b"nothing")
            other.replace(path) if how == "replaced" else path.write_bytes(b"nothing")
        found.append(faces.logits.tolist())
    assert found == expected and len(found) == 30
    with pytest.raises(ValueError, match=r"model\.onnx \(7 bytes\) is no ONNX model"):
        load_engine(path, backend=backend)


def test_a_slow_sink_holds_the_source_back_and_loses_nothing(clip, engine, monkeypatch):
    write, read, ahead = VideoWriter.write, 0, []

    def slow(self, image, time_s):
        time.sleep(0.005)
        write(self, image, time_s)
        ahead.append(read - len(ahead) - 1)

    def counted(*arguments, **choices):
        nonlocal read
        for frame in read_frames(*arguments, **choices):
            read += 1
            yield frame

    monkeypatch.setattr(VideoWriter, "write", slow)
    monkeypatch.setattr("fer_tf.inference.video.read_frames", counted)
    monkeypatch.setattr("fer_tf.inference.video.CHUNK", 3)
    output, rows = clip.with_name("out.mp4"), clip.with_name("faces.csv")
    detector = load_detector("full")
    summary = annotate_video(clip, engine=engine, detector=detector, output=output, table=rows, workers=2)
    assert summary.frames == probe(output).frames == 30
    assert list(read_table(rows)["frame"]) == list(range(30))
    assert max(ahead) < 3 * (2 + 2)  # a chunk in the hands of each worker, one that waits and one that is written


@pytest.mark.parametrize("frames", [0, 1, 2, 7, 29, 30])
def test_stops_at_any_moment(frames, workers, clip, engine):
    before = set(threading.enumerate())
    items = stream(clip, engine=engine, detector=FINDER, workers=workers)
    assert [next(items).frame_index for _ in range(frames)] == list(range(frames))
    items.close()
    assert set(threading.enumerate()) == before
    output, rows = clip.with_name("out.mp4"), clip.with_name("faces.csv")
    choices = {"detector": load_detector("full"), "output": output, "table": rows, "workers": workers}
    if frames:
        annotate_video(clip, engine=engine, **choices, on_frame=lambda faces, _: faces.frame_index < frames - 1)
        assert probe(output).frames == len(read_table(rows)) == frames


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_the_command_line_finishes_its_files_when_it_is_stopped(name, engine, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    clip = make_clip(tmp_path / "clip.mkv", seconds=100.0, tone_s=0.0)
    output, rows = folder / "out.mp4", folder / "faces.csv"
    command = [FER_TF, "video", clip, "--output", output, "--table", rows, "--model", engine.path, "--detector", "full"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        while not any(path.stat().st_size > 20_000 for path in folder.iterdir()):  # the clip grows
            assert program.poll() is None
            time.sleep(0.01)
        program.send_signal(signal.Signals[name])
        told, errors = program.communicate(timeout=60)
    frames = probe(output).frames
    assert (program.returncode, told) == (130, ""), errors
    assert f"stopped after {frames} frames; they are in {output} and {rows}" in errors
    assert 0 < frames < 2997 and list(read_table(rows)["frame"]) == list(range(frames))
    assert len(list(read_frames(output))) == frames
    with av.open(str(output)) as container:
        ends = [frame.time + frame.samples / frame.rate for frame in container.decode(audio=0)]
    assert ends[-1] == pytest.approx(frames / NTSC, abs=0.05)
    assert sorted(path.name for path in folder.iterdir()) == ["faces.csv", "out.mp4"]


def test_times_that_give_no_even_rate_can_be_written(engine, tmp_path):
    """A phone's clip: its clock ticks 90,000 times a second, and no two frames lie alike."""
    clip, chance = tmp_path / "12:30:05.mp4", np.random.default_rng(0)
    with av.open(f"file:{clip}", "w", format="mp4") as container:
        track = container.add_stream("libx264", rate=30, width=64, height=48, pix_fmt="yuv420p")
        track.codec_context.time_base = track.time_base = Fraction(1, 90_000)
        ticks = 0
        for _ in range(301):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 99, np.uint8), format="rgb24")
            frame.pts, frame.time_base = ticks, Fraction(1, 90_000)
            container.mux(track.encode(frame))
            ticks += int(chance.integers(2700, 3300))
        container.mux(track.encode())
    (tmp_path / "c:d").mkdir()
    output, rows = tmp_path / "c:d" / "out.mp4", tmp_path / "c:d" / "faces.parquet"
    summary = annotate_video(clip, engine=engine, detector=load_detector("full"), output=output, table=rows)
    assert summary.frames == probe(output).frames == len(read_table(rows)) == 301


def test_faces_are_shown_from_one_detection_to_the_next_however_far_they_lie(engine, tmp_path):
    clip = write_video(tmp_path / "slow.mp4", [np.full((48, 64, 3), 99, np.uint8)] * 40, fps=8)
    full = load_detector("full")
    assert [len(faces) for faces in stream(clip, engine=engine, detector=full, detect_every=10)] == [1] * 40


COLD = """
import sys
import numpy as np
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from fer_tf.inference.detect import load_detector

detectors, met = [load_detector(sys.argv[1]) for _ in range(4)], Barrier(4)

def first_call(detector):
    met.wait()
    return detector(np.zeros((96, 96, 3), np.uint8))

with ThreadPoolExecutor(4) as pool:
    list(pool.map(first_call, detectors))
"""


def test_the_first_calls_of_yunet_may_come_together(shared_data):
    """A process each, as only the first calls of all waited for each other."""
    file = shared_data / "yunet" / "face_detection_yunet_2023mar.onnx"
    for _ in range(3):
        subprocess.run([sys.executable, "-c", COLD, file], check=True, timeout=60)
