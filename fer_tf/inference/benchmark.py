"""How fast a model and the whole video pipeline run here: a ladder from the plain loop to threads and batches."""

import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np

from fer_tf.files import check_writable, write_atomically
from fer_tf.inference.clips import probe
from fer_tf.inference.detect import Detector
from fer_tf.inference.engine import BACKENDS, load_engine, resolve_model
from fer_tf.inference.video import BATCH, VideoError, VideoInterrupted, VideoSummary, annotate_video, percentiles

PACKAGES = ("numpy", "opencv-python-headless", "onnxruntime-openvino", "openvino", "av")


def ladder(
    model: Path | str,
    clip: Path | str,
    *,
    detector: Detector,
    backends: Sequence[str] = BACKENDS,
    batch: int = BATCH,
    limit: int | None = 300,
    threads: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> dict:
    """Annotate the clip on every rung and backend, and return JSON values.

    The rungs are: one by one, batched, threaded, threaded and batched. Every rung decodes, detects, crops, classifies,
    draws and encodes the same frames, after a warm-up on the first few.

    model     as in `load_engine`
    limit     frames of the clip to use; None for all
    threads   cores that the model may use; None leaves the choice to the runtime
    progress  is called with each rung's name before it runs

    Per rung: frames/s and faces/s over the whole run; latency_ms, submit to result of one model call, as percentiles;
    per stage its busy milliseconds per frame and its share of all stages' busy time.
    """
    for name, given in (("batch", batch), ("limit", limit)):
        if given is not None and given < 1:
            raise ValueError(f"{name} must be at least 1, got {given}")
    model, info = resolve_model(model), probe(clip)
    result = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": host(),
        "versions": {name: version(name) for name in PACKAGES},
        "clip": {
            "name": Path(clip).name,
            "width": info.width,
            "height": info.height,
            "frames_per_s": float(info.rate),
            "frames": info.frames if limit is None or info.frames is None else min(limit, info.frames),
        },
        "detector": detector.name,
        "model_threads": threads,
        "rungs": [],
    }
    steps = [
        ("one by one", False, 1),
        ("batched", False, batch),
        ("threaded", True, 1),
        ("threaded and batched", True, batch),
    ]
    with tempfile.TemporaryDirectory() as folder, _nothing_kept():
        output = Path(folder) / "annotated.mp4"
        for backend in backends:
            engine = load_engine(model, backend=backend, threads=threads)
            result["model"] = engine.card.name
            annotate_video(clip, engine=engine, detector=detector, output=output, batch=batch, limit=2 * batch)
            for name, threaded, faces in steps:
                if progress:
                    progress(f"rung {len(result['rungs']) + 1}/{len(backends) * len(steps)}: {backend}, {name}")
                timed = _Timed(engine)
                summary = annotate_video(
                    clip, engine=timed, detector=detector, output=output, batch=faces, threaded=threaded, limit=limit
                )
                result["rungs"].append({"name": name, "backend": backend, **_figures(summary, timed.seconds)})
    return result


def time_engine(engine, *, batch: int = 1, runs: int = 100, warmup: int = 10, seed: int = 0) -> dict:
    """Time the model alone on random crops, one call after the other: images/s and percentiles of a call in ms."""
    crops = np.random.default_rng(seed).integers(0, 256, (batch, *engine.card.input_shape), np.uint8)
    for _ in range(warmup):
        engine.logits(crops)
    timed = _Timed(engine)
    for _ in range(runs):
        timed.logits(crops)
    return {
        "backend": engine.backend,
        "provider": engine.provider,
        "batch": batch,
        "runs": runs,
        "images_per_s": batch * runs / sum(timed.seconds),
        "latency_ms": percentiles(timed.seconds),
    }


def host() -> dict:
    """Return what a figure must be read with: the CPU, the cores this process may use, and how busy they are."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "cpu": _cpu_model(),
        "cores": cores,
        "load_average": load,
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def save(result: dict, path: Path) -> None:
    """Write a result as JSON, whole or not at all; `check_writable` says beforehand whether it can be."""
    check_writable(path)
    write_atomically(path, (json.dumps(result, indent=2) + "\n").encode())


@contextmanager
def _nothing_kept() -> Iterator[None]:
    """Raise what stops a run without the names of its files, which go as well."""
    try:
        yield
    except VideoInterrupted:
        raise KeyboardInterrupt from None
    except VideoError as error:
        raise RuntimeError(f"{error.summary.source} stopped the ladder: {error.__cause__}") from error


class _Timed:
    """An engine that notes how long each call took."""

    def __init__(self, engine):
        self.engine, self.card, self.provider = engine, engine.card, engine.provider
        self.seconds: list[float] = []

    def logits(self, crops: np.ndarray) -> np.ndarray:
        started = time.perf_counter()
        logits = self.engine.logits(crops)
        if len(crops):
            self.seconds.append(time.perf_counter() - started)
        return logits


def _figures(summary: VideoSummary, call_seconds: list[float]) -> dict:
    busy_s = sum(spent.busy_s for spent in summary.stages.values())
    return {
        "provider": summary.provider,
        "threaded": summary.threaded,
        "batch": summary.batch,
        "frames": summary.frames,
        "faces": summary.faces,
        "seconds": summary.seconds,
        "frames_per_s": summary.frames_per_s,
        "faces_per_s": summary.faces / summary.seconds,
        "model_calls": len(call_seconds),
        "latency_ms": percentiles(call_seconds),
        "stages": {
            name: {"ms_per_frame": 1000 * spent.busy_s / summary.frames, "share": spent.busy_s / busy_s}
            for name, spent in summary.stages.items()
        },
    }


def _cpu_model() -> str:
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
