"""The ladder measures what it names, and says on what."""

import json
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from squares import FINDER

from fer_tf.files import check_writable
from fer_tf.inference import benchmark
from fer_tf.inference.benchmark import ladder, save, time_engine


def test_the_ladder_measures_the_same_frames_on_every_rung(clip, engine, tmp_path):
    heard, providers = [], ["CPUExecutionProvider", "OpenVINOExecutionProvider"]
    choices = {"backends": ("cpu", "openvino-provider"), "batch": 4, "limit": 12, "progress": heard.append}
    result = ladder(engine.path, clip, detector=FINDER, **choices)
    save(result, tmp_path / "bench.json")
    assert json.loads((tmp_path / "bench.json").read_text()) == result
    steps = ["one by one", "batched", "threaded", "threaded and batched"]
    rungs = [(rung["provider"], rung["name"]) for rung in result["rungs"]]
    assert rungs == [(provider, step) for provider in providers for step in steps] and len(heard) == 8
    for rung in result["rungs"]:
        assert (rung["frames"], rung["faces"]) == (12, 12) and rung["frames_per_s"] > 0
        assert 0 < rung["latency_ms"]["p50"] <= rung["latency_ms"]["p95"] <= rung["latency_ms"]["p99"]
        assert sum(stage["share"] for stage in rung["stages"].values()) == pytest.approx(1)
    assert result["clip"] == {"name": "clip.mp4", "width": 160, "height": 120, "frames_per_s": 25.0, "frames": 12}
    assert result["host"]["cores"] >= 1 and result["versions"]["openvino"]


@pytest.mark.parametrize(
    ("choice", "error", "words"),
    [
        ({"limit": 0}, ValueError, "limit must be at least 1, got 0"),
        ({"batch": 0}, ValueError, "batch must be at least 1, got 0"),
        ({"model": "model.keras"}, ValueError, "expected an .onnx file, got model.keras: .*`fer-tf export`"),
        ({"clip": "none.mp4"}, FileNotFoundError, "no clip at none.mp4"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_refuses_before_work_starts(choice, error, words, clip, engine, tmp_path, monkeypatch):
    (tmp_path / "model.keras").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(benchmark, "load_engine", None)
    with pytest.raises(error, match=words):
        ladder(**{"model": engine.path, "clip": clip, "detector": FINDER, **choice})


@pytest.mark.parametrize(
    ("stops", "error", "words"),
    [
        (KeyboardInterrupt, KeyboardInterrupt, "^$"),
        (MemoryError("no room"), RuntimeError, "clip.mp4 .*detect: no room$"),
    ],
    ids=["interrupt", "failure"],
)
def test_what_stops_a_rung_names_no_file_that_is_gone(stops, error, words, clip, engine):
    def find(image):
        if isinstance(stops, Exception):
            raise stops
        signal.raise_signal(signal.SIGINT)
        return FINDER.find(image)

    with pytest.raises(error, match=words):
        ladder(engine.path, clip, detector=replace(FINDER, find=find), backends=["cpu"])


def test_a_result_is_saved_whole_or_not_at_all(tmp_path):
    path = tmp_path / "bench.json"
    save({"rungs": 1}, path)
    with pytest.raises(TypeError):
        save({"rungs": object()}, path)
    assert json.loads(path.read_text()) == {"rungs": 1} and list(tmp_path.iterdir()) == [path]
    for place, error in [(tmp_path, PermissionError), (tmp_path / "none" / "a.json", FileNotFoundError)]:
        with pytest.raises(error):
            check_writable(place)
        with pytest.raises(error):
            save({}, place)
    with pytest.raises(PermissionError, match="/dev/null cannot be written"):
        save({}, Path("/dev/null"))
    assert Path("/dev/null").is_char_device()


def test_times_the_model_alone(engine):
    figures = time_engine(engine, batch=3, runs=5, warmup=1)
    assert (figures["batch"], figures["runs"], figures["provider"]) == (3, 5, "OpenVINOExecutionProvider")
    assert figures["images_per_s"] > 0 and figures["latency_ms"]["p50"] > 0
