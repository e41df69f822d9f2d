"""One model on one backend, alone in a fresh process, so that no other model's memory or speed gets into its own."""

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

from fer_tf.inference.benchmark import peak_mb, time_engine
from fer_tf.inference.engine import load_engine

BATCHES = (1, 8)


def measure_alone(path: Path, *, backend: str, runs: int = 100, threads: int | None = None) -> dict:
    """Time an ONNX file at batch 1 and 8 in a process of its own, and see how much memory that took.

    Returns "provider"; "batches": batch as text -> images/s over all runs and percentiles of a call; "memory_mb":
    the process's largest memory so far, "imported" before the model is loaded and "peak" at the end, None where the
    system does not say. Raises RuntimeError with what the process said last if it failed.
    """
    given = json.dumps({"path": str(path), "backend": backend, "runs": runs, "threads": threads})
    done = subprocess.run([sys.executable, "-m", __name__, given], capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise RuntimeError(f"{path.name} could not be measured on {backend}: {said}")
    return json.loads(done.stdout.splitlines()[-1])


def _measure(*, path: str, backend: str, runs: int, threads: int | None) -> dict:
    import_module("openvino" if backend == "openvino" else "onnxruntime")  # belongs to what is imported, not the model
    imported = peak_mb()
    engine = load_engine(path, backend=backend, threads=threads)
    timed = {batch: time_engine(engine, batch=batch, runs=runs) for batch in BATCHES}
    batches = {batch: {key: found[key] for key in ("images_per_s", "latency_ms")} for batch, found in timed.items()}
    memory = {"imported": imported, "peak": peak_mb()}
    return {"provider": engine.provider, "batches": batches, "memory_mb": memory}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_measure(**json.loads(sys.argv[1]))) + "\n")
