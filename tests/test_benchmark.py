"""The ladder measures what it names, and says on what."""

import json

import pytest
from squares import FINDER

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


def test_times_the_model_alone(engine):
    figures = time_engine(engine, batch=3, runs=5, warmup=1)
    assert (figures["batch"], figures["runs"], figures["provider"]) == (3, 5, "OpenVINOExecutionProvider")
    assert figures["images_per_s"] > 0 and figures["latency_ms"]["p50"] > 0
