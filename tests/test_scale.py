"""Many clips: every worker takes some, failures are listed, nothing is done twice, dead workers are replaced."""

import json
import os
import signal
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from squares import squares
from typer.testing import CliRunner

from fer_tf.cli import app
from fer_tf.inference.clips import probe, write_video
from fer_tf.inference.scale import ATTEMPTS, _Annotator, _is_done, annotate_many, read_manifest


@pytest.fixture
def clips(tmp_path) -> Path:
    """A list of three clips, one of which is none."""
    (tmp_path / "in" / "deep").mkdir(parents=True)
    write_video(tmp_path / "in" / "a.mp4", squares(6), fps=5)
    write_video(tmp_path / "in" / "deep" / "a.mp4", squares(9), fps=5)
    (tmp_path / "in" / "text.mp4").write_text("no clip")
    (tmp_path / "list.txt").write_text("# clips\nin/a.mp4\n\nin/text.mp4\nin/deep/a.mp4\n")
    return tmp_path / "list.txt"


ray = pytest.mark.skipif(not find_spec("ray"), reason="Ray is not here: pip install -e '.[scale]'")


@ray
def test_a_list_is_annotated_and_gone_on_with(clips, tmp_path):
    choices = [
        "annotate-many",
        str(clips),
        "--out",
        str(tmp_path / "out"),
        "--workers",
        "2",
        "--model",
        "lenet",
        "--json",
    ]
    done = CliRunner().invoke(app, choices)
    assert done.exit_code == 1, done.output  # one has failed
    told = json.loads(done.stdout)["clips"]
    assert [Path(clip["source"]).name for clip in told] == ["a.mp4", "text.mp4", "a.mp4"]
    assert [clip["status"] for clip in told] == ["done", "failed", "done"]
    assert "no video" in told[1]["error"] and told[2]["frames"] == 9
    assert probe(tmp_path / "out/deep/a.mp4.mp4").frames == 9
    assert "frame" in pd.read_csv(tmp_path / "out/a.mp4.csv")
    assert not list((tmp_path / "out").rglob("*.tries"))
    write_video(tmp_path / "in" / "text.mp4", squares(3), fps=5)
    again = annotate_many(read_manifest(clips), tmp_path / "out", model="lenet", backend="openvino-provider", workers=1)
    assert [clip.status for clip in again] == ["there already", "done", "there already"]


@ray
def test_a_killed_worker_is_replaced_and_nothing_is_lost(tmp_path):
    for name in "abc":
        write_video(tmp_path / f"{name}.mp4", (np.full((480, 640, 3), k % 256, np.uint8) for k in range(300)), fps=30)
    (tmp_path / "list.txt").write_text("a.mp4\nb.mp4\nc.mp4")
    killed = []

    def kill() -> None:
        while not killed:
            time.sleep(0.005)
            for mark in (tmp_path / "out").glob("*.tries"):  # somebody is at work
                if pid := mark.read_text().split():
                    os.kill(int(pid[-1]), signal.SIGKILL)
                    killed.append(mark.name)
                    return

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    found = annotate_many(read_manifest(tmp_path / "list.txt"), tmp_path / "out", model="lenet", workers=1)
    thread.join(5)
    assert killed and [clip.status for clip in found] == ["done"] * 3 and [clip.frames for clip in found] == [300] * 3


def test_a_clip_that_takes_workers_along_is_given_up(clips, tmp_path):
    about = {"model": "lenet", "detector": "haar", "backend": "cpu", "video": False}
    worker = _Annotator(about | {"detect_every": 1, "classify_every": 1})
    job = {"source": str(tmp_path / "in/a.mp4"), "target": str(tmp_path / "out/a.mp4")}
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a.mp4.tries").write_text("1\n" * ATTEMPTS)
    row = worker(job)
    assert row["status"] == "failed" and "3 workers died over it" in row["error"]
    assert worker(job)["status"] == "done" and not (tmp_path / "out/a.mp4.mp4").exists()


def test_done_is_what_is_whole_and_fits(tmp_path):
    write_video(tmp_path / "a.mp4", squares(3), fps=5)
    about = {"model": "lenet", "weights": "1", "detector": "haar", "backend": "cpu", "video": True}
    about |= {"detect_every": 1, "classify_every": 1}
    job = {"source": str(tmp_path / "a.mp4"), "target": str(tmp_path / "out" / "a.mp4")}
    assert not _is_done(job, about)
    assert _Annotator(about)(job)["status"] == "done" and _is_done(job, about)
    assert not _is_done(job, about | {"weights": "2"})  # trained anew
    (tmp_path / "out" / "a.mp4.csv").unlink()
    assert not _is_done(job, about)


@pytest.mark.parametrize(
    ("text", "words"),
    [("", "names no clip"), ("# a\n", "names no clip"), ("a.mp4\n./a.mp4", "twice"), ("rtsp://x/y", "never ends")],
)
def test_a_list_that_cannot_be_is_one_sentence(text, words, tmp_path):
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(ValueError, match=words):
        read_manifest(tmp_path / "list.txt")
    with pytest.raises(FileNotFoundError, match="no list of clips"):
        read_manifest(tmp_path / "none.txt")
