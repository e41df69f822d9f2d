"""The ladder measures what it names, and says on what."""

import json
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from squares import FINDER

from fer_tf import tables
from fer_tf.files import check_writable
from fer_tf.inference import benchmark
from fer_tf.inference.benchmark import ladder, naive_loop, save, time_engine
from fer_tf.inference.clips import probe
from fer_tf.inference.video import annotate_video


def test_the_ladder_measures_the_same_frames_on_every_rung(clip, engine, tmp_path):
    heard, backends = [], ("cpu", "openvino")
    choices = {"backends": backends, "batch": 4, "limit": 12, "live_s": 0.4, "progress": heard.append}
    result = ladder(engine.path, clip, detectors=[FINDER] * 2, **choices)
    save(result, tmp_path / "bench.json")
    assert json.loads((tmp_path / "bench.json").read_text()) == result
    steps = ["naive loop", "batched", "threaded", "several requests", "tracked", "table alone", "table alone, tracked"]
    assert [(rung["backend"], rung["name"]) for rung in result["rungs"]] == [(b, s) for b in backends for s in steps]
    assert len(heard) == 15 and {rung["provider"] for rung in result["rungs"]} == {
        "CPUExecutionProvider",
        "OpenVINO CPU",
    }
    for rung in result["rungs"]:
        assert (rung["frames"], rung["faces"]) == (12, 12) and rung["frames_per_s"] > 0
        assert 0 < rung["latency_ms"]["p50"] <= rung["latency_ms"]["p95"] <= rung["latency_ms"]["p99"]
        bound = result["host"]["cores"] * 1000 / rung["cpu_ms_per_frame"]
        assert rung["bound_frames_per_s"] == pytest.approx(bound)
        assert rung["share_of_bound"] == pytest.approx(rung["frames_per_s"] / bound)
        if rung["name"] != "naive loop":
            last = ["table"] if rung["name"].startswith("table") else ["draw", "encode"]
            assert list(rung["stages"]) == ["decode", "detect", "crop", "infer", "smooth", *last]
            stages = sum(stage["cpu_ms_per_frame"] for stage in rung["stages"].values())
            assert stages + rung["runtimes_ms_per_frame"] == pytest.approx(max(rung["cpu_ms_per_frame"], stages))
            assert all(0 <= stage["queued"] <= 12 for stage in rung["stages"].values())
            assert 0 < rung["batch_fill"] <= 1 and rung["calls"] <= 12
        assert ("model_alone_per_s" in rung) == (rung["name"] in steps[3:])
    assert [line.split(": ")[0] for line in tables.model_alone(result)] == [
        "colours alone on CPUExecutionProvider",
        "colours alone on OpenVINO CPU",
    ]
    live = result["live"]
    assert (live["frames"], live["backend"]) == (12, "cpu") and live["faces"] > 0 and live["latency_ms"]["p50"] > 0
    assert result["clip"] == {"name": "clip.mp4", "width": 160, "height": 120, "frames_per_s": 25.0, "frames": 12}
    assert result["host"]["cores"] >= 1 and result["versions"]["openvino"] and result["requests"] == 2


@pytest.mark.parametrize("runs", [2, 3])
def test_of_several_runs_the_middle_one_is_kept(runs, clip, engine):
    result = ladder(engine.path, clip, detectors=[FINDER], backends=["cpu"], limit=4, runs=runs)
    assert (result["runs"], len(result["rungs"])) == (runs, 7)
    for rung in result["rungs"]:
        each = rung["frames_per_s_of_runs"]
        assert len(each) == runs and rung["frames_per_s"] == sorted(each)[1 if runs == 3 else 0]


def test_files_of_other_precisions_have_rungs_of_their_own(clip, engine, tmp_path):
    for name in ("model.onnx", "model-int8.onnx", "model-fp16.onnx"):
        (tmp_path / name).write_bytes(engine.path.read_bytes())
    result = ladder(tmp_path, clip, detectors=[FINDER], backends=["cpu"], limit=4)
    assert [rung["name"] for rung in result["rungs"]][-2:] == ["tracked, FP16", "tracked, INT8"]


def test_the_naive_loop_annotates_what_the_pipeline_does(clip, engine, tmp_path):
    found = naive_loop(clip, engine=engine, detector=FINDER, output=tmp_path / "naive.mp4")
    summary = annotate_video(clip, engine=engine, detector=FINDER, table=tmp_path / "faces.csv")
    assert (found["frames"], found["faces"]) == (summary.frames, summary.faces) == (30, 30)
    assert probe(tmp_path / "naive.mp4").frames == 30


@pytest.mark.parametrize(
    ("choice", "error", "words"),
    [
        ({"limit": 0}, ValueError, "limit must be at least 1, got 0"),
        ({"runs": 0}, ValueError, "runs must be at least 1, got 0"),
        ({"batch": 0}, ValueError, "batch must be at least 1, got 0"),
        ({"batch": 10**9}, ValueError, "batch must be at most 4096 faces, got 1000000000"),
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
        ladder(**{"model": engine.path, "clip": clip, "detectors": [FINDER], **choice})


@pytest.mark.parametrize(
    ("stops", "error", "words"),
    [
        (KeyboardInterrupt, KeyboardInterrupt, "^$"),
        (MemoryError("no room"), MemoryError, "^no room$"),  # in the naive loop, which is the first rung
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
        ladder(engine.path, clip, detectors=[replace(FINDER, find=find)], backends=["cpu"])


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
