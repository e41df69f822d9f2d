"""How fast a model and the whole video pipeline run here: a ladder from the plain loop to what the cores can give."""

import itertools
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from fer_tf.files import check_writable, write_atomically
from fer_tf.inference.clips import probe, read_frames
from fer_tf.inference.detect import Detector, crop_faces
from fer_tf.inference.engine import BACKENDS, load_engine, resolve_model
from fer_tf.inference.pipeline import cores
from fer_tf.inference.sources import Live
from fer_tf.inference.video import (
    BATCH,
    MOST_FACES,
    VideoError,
    VideoInterrupted,
    VideoSummary,
    annotate_video,
    percentiles,
)

TRACKED = 5
"""Frames from one detection, and from one classification of a face, to the next on the rung that tracks."""
LIVE_RATE, LIVE_AGE_S = 30.0, 0.2
"""Frames per second of the live run, and seconds that one may wait before it is dropped."""
PACKAGES = ("numpy", "opencv-python-headless", "onnxruntime-openvino", "openvino", "av")


class Rung(NamedTuple):
    """How the pipeline runs on one rung of the ladder.

    several  as many detectors and calls of the model at once as there are cores; else one of each
    every    detect on every n-th frame and classify each tracked face on every n-th; between them the tracker follows
    drawn    write the annotated clip; else the table of faces alone
    """

    name: str
    threaded: bool = True
    several: bool = False
    every: int = 1
    drawn: bool = True


NAIVE = "naive loop"
WITH_TRACKER = Rung("tracked", several=True, every=TRACKED)
RUNGS = (
    Rung("batched", threaded=False),
    Rung("threaded"),
    Rung("several requests", several=True),
    WITH_TRACKER,
    Rung("table alone", several=True, drawn=False),
    Rung("table alone, tracked", several=True, every=TRACKED, drawn=False),
)


def ladder(
    model: Path | str,
    clip: Path | str,
    *,
    detectors: Sequence[Detector],
    backends: Sequence[str] = BACKENDS,
    batch: int = BATCH,
    limit: int | None = 300,
    runs: int = 1,
    live_s: float = 0.0,
    progress: Callable[[str], None] | None = None,
    output: Path | None = None,
) -> dict:
    """Annotate the clip on every rung and backend, and return JSON values.

    The naive loop is what most scripts do; then the pipeline in one thread with batches, with threads, with several
    detectors and calls at once, and with the tracker between detections; the last two for the table alone, too.
    Where the model has FP16 or INT8 files, the tracked rung runs with them, too. Every rung decodes, detects, crops,
    classifies, draws and encodes the same frames, or writes their table, after a warm-up on the first few.

    model      as in `load_engine`
    detectors  alike, as many as may look at the same time
    limit      frames of the clip to use; None for all
    runs       times to go up the whole ladder; of each rung the run in the middle, by frames/s, is kept
    live_s     seconds for which the clip is then played as a camera would, as in `play_live`, on the first backend
    progress   is called with each rung's name before it runs
    output     where the result is saved after every rung, as JSON

    Per rung: frames/s and faces/s over the whole run; cpu_ms_per_frame of the whole process, and from it the bound,
    cores / that: frames/s if no core ever waited; share_of_bound is what was reached of it. latency_ms from a frame's
    decoding to its end; calls of the model with how full they were; per stage the milliseconds of a core and of time
    per frame, percentiles of a frame's time, and how many frames waited in front of it. runtimes_ms_per_frame is what
    threads took that belong to no stage: those of OpenVINO, which runs model and YuNet, and of OpenCV. accuracy is that
    of FER2013's test rows, where the card has it. model_alone_per_s is the throughput of the model by itself, all cores
    busy with full batches.
    """
    for name, given in (("batch", batch), ("limit", limit), ("runs", runs)):
        if given is not None and given < 1:
            raise ValueError(f"{name} must be at least 1, got {given}")
    if batch > MOST_FACES:
        raise ValueError(f"batch must be at most {MOST_FACES} faces, got {batch}")
    model, info, about = resolve_model(model), probe(clip), host()
    result = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": about,
        "versions": {name: version(name) for name in PACKAGES},
        "clip": {
            "name": Path(clip).name,
            "width": info.width,
            "height": info.height,
            "frames_per_s": float(info.rate),
            "frames": info.frames if limit is None or info.frames is None else min(limit, info.frames),
        },
        "detector": detectors[0].name,
        "requests": len(detectors),
        "every": TRACKED,
        "runs": runs,
        "rungs": [],
    }
    steps = [(NAIVE, model), *((rung, model) for rung in RUNGS)]
    for precision in ("fp16", "int8"):
        other = model.with_name(f"model-{precision}.onnx")
        if model.name == "model.onnx" and other.is_file():
            steps.append((WITH_TRACKER._replace(name=f"{WITH_TRACKER.name}, {precision.upper()}"), other))
    for backend, path in {(backend, path) for backend in backends for _, path in steps}:
        if load_engine(path, backend=backend).card.window > 1:
            raise ValueError(f"{model} takes clips: the ladder times models for pictures")
    climbs = [(backend, rung, path) for backend in backends for rung, path in steps]
    done: dict[tuple[str, str], list[dict]] = {}
    with tempfile.TemporaryDirectory() as folder, _nothing_kept():
        for k, (backend, rung, path) in enumerate(climbs * runs, start=1):
            name = rung if rung == NAIVE else rung.name
            if progress:
                progress(f"rung {k}/{len(climbs) * runs}: {backend}, {name}")
            several = rung != NAIVE and rung.several
            engine = load_engine(path, backend=backend, requests=len(detectors) if several else 1)
            result.setdefault("model", engine.card.name)
            found = _climb(rung, clip, engine, detectors if several else detectors[:1], Path(folder), batch, limit)
            found["share_of_bound"] = found["cpu_ms_per_frame"] * found["frames_per_s"] / 1000 / about["cores"]
            found["bound_frames_per_s"] = 1000 * about["cores"] / found["cpu_ms_per_frame"]
            found["accuracy"] = engine.card.metrics.get("test", {}).get("accuracy")
            if several:
                found["model_alone_per_s"] = throughput(engine, batch=batch)
            found = {"name": name, "backend": backend, "provider": engine.provider, **found}
            done.setdefault((backend, name), []).append(found)
            result["rungs"] = [_middle(found) for found in done.values()]
            if output:
                save(result, output)
        if live_s:
            if progress:
                progress(f"{LIVE_RATE:g} frames/s, live")
            engine = load_engine(model, backend=backends[0], requests=len(detectors))
            result["live"] = play_live(clip, engine=engine, detectors=detectors, seconds=live_s)
            if output:
                save(result, output)
    return result


def _middle(runs: list[dict]) -> dict:
    """Return the run whose frames/s are the median, the lower one of two, with those of all."""
    ranked = sorted(runs, key=lambda run: run["frames_per_s"])
    return ranked[(len(ranked) - 1) // 2] | {"frames_per_s_of_runs": [run["frames_per_s"] for run in runs]}


def play_live(
    clip: Path | str, *, engine, detectors: Sequence[Detector], seconds: float, frames_per_s: float = LIVE_RATE
) -> dict:
    """Play the first second of a clip again and again, as a camera would, and watch it; return JSON values.

    latency_ms is from a frame's arrival until it is drawn and shown (to nobody); dropped counts frames left out. A
    second of the same is run before, and not counted.
    """
    images = [frame.image for frame in read_frames(clip, limit=round(frames_per_s))]

    def camera() -> Iterator[np.ndarray]:
        begun = time.perf_counter()
        for k in itertools.count():
            time.sleep(max(0.0, begun + k / frames_per_s - time.perf_counter()))
            yield images[k % len(images)]

    choices = {"engine": engine, "detector": detectors, "on_frame": lambda faces, image: None}
    for span in (1.0, seconds):
        source = Live(camera, name="a clip played live", max_age_s=LIVE_AGE_S)
        summary = annotate_video(source, **choices, limit=max(1, round(span * frames_per_s)))
    return {
        "backend": engine.backend,
        "provider": engine.provider,
        "arriving_per_s": frames_per_s,
        "frames": summary.frames,
        "faces": summary.faces,
        "dropped": summary.dropped,
        "latency_ms": summary.latency_ms,
        "cpu_ms_per_frame": 1000 * summary.cpu_s / max(summary.frames, 1),
    }


def _climb(rung, clip, engine, detectors: Sequence[Detector], folder: Path, batch: int, limit: int | None) -> dict:
    """Run one rung, after a warm-up, and return its figures."""
    output = folder / "annotated.mp4"
    if rung == NAIVE:
        naive_loop(clip, engine=engine, detector=detectors[0], output=output, limit=2 * batch)
        _forget_peak()
        return naive_loop(clip, engine=engine, detector=detectors[0], output=output, limit=limit)
    choices = {"detector": detectors, "batch": batch, "workers": None if rung.threaded else 0}
    choices |= {"output": output} if rung.drawn else {"table": folder / "faces.csv"}
    choices |= {"detect_every": rung.every, "classify_every": rung.every}
    annotate_video(clip, engine=engine, **choices, limit=2 * batch)
    _forget_peak()
    return _figures(annotate_video(clip, engine=engine, **choices, limit=limit))


def naive_loop(clip: Path | str, *, engine, detector: Detector, output: Path, limit: int | None = None) -> dict:
    """Annotate a clip as most scripts do: OpenCV reads, draws and writes, face by face, all in one loop."""
    capture, writer, frames, faces = cv2.VideoCapture(str(clip)), None, 0, 0
    times, started, cpu = [], time.perf_counter(), time.process_time()
    while frames != limit:
        arrived, image = capture.read()
        if not arrived:
            break
        rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        begun = time.perf_counter()
        xyxy, _, roll = detector(rgb)
        for k, box in enumerate(xyxy):
            sizes = {"image_size": engine.card.image_size, "scale": detector.scale}
            crop = crop_faces(rgb, box[None], roll=roll[k : k + 1], **sizes)
            emotion = engine.card.emotions[engine.logits(crop)[0].argmax()]
            left, top, right, bottom = (int(side) for side in box)
            cv2.rectangle(image, (left, top), (right, bottom), (0, 255, 0), 2)
            cv2.putText(image, emotion, (left, top - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.8, (0, 255, 0), 2)
            faces += 1
        if writer is None:
            code = cv2.VideoWriter.fourcc(*"mp4v")
            writer = cv2.VideoWriter(str(output), code, capture.get(cv2.CAP_PROP_FPS), image.shape[1::-1])
        writer.write(image)
        frames += 1
        times.append(time.perf_counter() - begun)
    capture.release()
    if writer is not None:
        writer.release()
    seconds, cpu_s = time.perf_counter() - started, time.process_time() - cpu
    return {
        "batch": 1,
        "frames": frames,
        "faces": faces,
        "seconds": seconds,
        "frames_per_s": frames / seconds,
        "faces_per_s": faces / seconds,
        "cpu_ms_per_frame": 1000 * cpu_s / max(frames, 1),
        "latency_ms": percentiles(times),
        "memory_mb": peak_mb(),
    }


def throughput(engine, *, batch: int, calls: int = 200, seed: int = 0) -> float:
    """Return images/s of the model alone, called with full batches from `engine.requests` threads all the time."""
    crops = np.random.default_rng(seed).integers(0, 256, (batch, *engine.card.input_shape), np.uint8)
    with ThreadPoolExecutor(engine.requests) as pool:
        list(pool.map(engine.logits, [crops] * 2 * engine.requests))
        begun = time.perf_counter()
        list(pool.map(engine.logits, [crops] * calls))
        return calls * batch / (time.perf_counter() - begun)


def time_engine(engine, *, batch: int = 1, runs: int = 100, warmup: int = 10, seed: int = 0) -> dict:
    """Time the model alone on random crops, one call after the other: images/s and percentiles of a call in ms."""
    crops = np.random.default_rng(seed).integers(0, 256, (batch, *engine.card.input_shape), np.uint8)
    for _ in range(warmup):
        engine.logits(crops)
    seconds = []
    for _ in range(runs):
        started = time.perf_counter()
        engine.logits(crops)
        seconds.append(time.perf_counter() - started)
    return {
        "backend": engine.backend,
        "provider": engine.provider,
        "batch": batch,
        "runs": runs,
        "images_per_s": batch * runs / sum(seconds),
        "latency_ms": percentiles(seconds),
    }


def host() -> dict:
    """Return what a figure must be read with: the CPU, the cores this process may use, and how busy they are."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "cpu": _cpu_model(),
        "cores": cores(),
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


def _figures(summary: VideoSummary) -> dict:
    frames, stages = max(summary.frames, 1), summary.stages
    rest_s = max(0.0, summary.cpu_s - sum(spent.cpu_s for spent in stages.values()))
    return {
        "batch": summary.batch,
        "frames": summary.frames,
        "faces": summary.faces,
        "seconds": summary.seconds,
        "frames_per_s": summary.frames_per_s,
        "faces_per_s": summary.faces / summary.seconds,
        "cpu_ms_per_frame": 1000 * summary.cpu_s / frames,
        "runtimes_ms_per_frame": 1000 * rest_s / frames,
        "latency_ms": summary.latency_ms,
        "calls": summary.calls,
        "batch_fill": summary.crops / (summary.calls * summary.batch) if summary.calls else None,
        "memory_mb": peak_mb(),
        "stages": {
            name: {
                "cpu_ms_per_frame": 1000 * spent.cpu_s / frames,
                "busy_ms_per_frame": 1000 * spent.busy_s / frames,
                "item_ms": percentiles(spent.each_s),
                "queued": spent.waited_s / summary.seconds,
            }
            for name, spent in stages.items()
        },
    }


def peak_mb() -> float | None:
    """Return the largest memory of this process in MB (VmHWM of /proc); None where the system does not say.

    getrusage would not do: Linux starts a child's ru_maxrss at its parent's.
    """
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="utf-8").splitlines() if status.is_file() else []
    return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM:")), None)


def _forget_peak() -> None:
    """Begin `peak_mb` anew, where the system lets a process do that."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _cpu_model() -> str:
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
