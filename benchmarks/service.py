"""How much the service bears: 32 clients at once, with micro-batches and picture by picture; writes JSON.

    .venv/bin/pip install locust
    python benchmarks/service.py --output reports/service.json

Server and clients share the machine. The bound is what a thread per core does with the same picture without HTTP:
decode, detect, crop, classify; and what the model alone does with full batches.
"""

import argparse
import csv
import io
import json
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterable
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from PIL import Image
from skimage.data import astronaut

from fer_tf.files import write_atomically
from fer_tf.inference.benchmark import host, throughput
from fer_tf.inference.detect import load_detector
from fer_tf.inference.engine import load_engine
from fer_tf.inference.pipeline import cores
from fer_tf.inference.serve import Limits, _Numbers, _Worker

HERE = Path(__file__).parent


def main() -> None:
    """Run both ways and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--model", default="mobilenet_v2")
    parser.add_argument("--backend", default="openvino")
    parser.add_argument("--detector", default="yunet")
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    result = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "host": host(), **vars(given)}
    del result["output"]
    for name, batch, wait in (("picture by picture", 1, 0), ("micro-batches", 8, 2)):
        result[name] = load(given, ["--batch", str(batch), "--max-wait", str(wait)])
        print(name, json.dumps(result[name]), flush=True)
    result["without HTTP, pictures_per_s"] = bare(given)
    engine = load_engine(given.model, backend=given.backend, requests=cores())
    result["model alone, faces_per_s"] = throughput(engine, batch=8)
    write_atomically(given.output, (json.dumps(result, indent=2) + "\n").encode())
    print(json.dumps(result, indent=2))


def load(given, choices: list[str]) -> dict:
    """Start the service, have Locust ask it, and return rates and latencies."""
    with tempfile.TemporaryDirectory() as folder, served(given, choices) as (url, server):
        locust = [sys.executable, "-m", "locust", "-f", str(HERE / "locustfile.py"), "--headless", "--only-summary"]
        locust += ["-u", str(given.clients), "-r", str(given.clients), "-t", f"{given.seconds}s", "--host", url]
        done = subprocess.run([*locust, "--csv", f"{folder}/out"], check=False, capture_output=True, text=True)
        rows = csv.DictReader((Path(folder) / "out_stats.csv").read_text().splitlines())
        row = next(row for row in rows if row["Name"] == "Aggregated")
        text = urllib.request.urlopen(f"{url}/metrics", timeout=10).read().decode()
    counted = {k: float(v) for k, v in (line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")}
    return {
        "requests": int(row["Request Count"]),
        "failures": int(row["Failure Count"]),
        "requests_per_s": float(row["Requests/s"]),
        "latency_ms": {f"p{q}": float(row[f"{q}%"]) for q in (50, 95, 99)},
        "pictures_a_batch": counted["fer_batch_pictures_sum"] / counted["fer_batch_pictures_count"],
        "locust_exit_code": done.returncode,
        "server_exit_code": server.returncode,
    }


@contextmanager
def served(given, choices: Iterable[str] = ()):
    """Run `fer-tf serve` on a free port; yields its address and its process, which has ended afterwards."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    about = ["--model", given.model, "--backend", given.backend, "--detector", given.detector, "--port", str(port)]
    command = [sys.executable, "-c", "from fer_tf.cli import main; main()", "serve", *about, *choices]
    with tempfile.TemporaryFile() as log:
        server = subprocess.Popen(command, stderr=log, stdout=log)
        try:
            until_ready(f"http://127.0.0.1:{port}")
            yield f"http://127.0.0.1:{port}", server
        finally:
            server.terminate()
            server.wait(60)


def until_ready(url: str) -> None:
    """Wait for the service, a minute at most."""
    for _ in range(600):
        try:
            urllib.request.urlopen(f"{url}/readyz", timeout=1).read()
            return
        except OSError:
            time.sleep(0.1)
    raise TimeoutError(f"{url} is not ready after a minute")


def bare(given, *, seconds: float = 10.0) -> float:
    """Return pictures/s of the workers alone, one per core, eight pictures at a time."""
    file = io.BytesIO()
    Image.fromarray(astronaut()).crop((96, 0, 368, 256)).save(file, "JPEG", quality=90)
    engine = load_engine(given.model, backend=given.backend, requests=cores())
    numbers, done, until = _Numbers(), [0] * cores(), time.perf_counter() + seconds
    workers = [_Worker(engine, load_detector(given.detector), Limits(), numbers) for _ in range(cores())]

    def go(k: int) -> None:
        while time.perf_counter() < until:
            workers[k]([(file.getvalue(), 0.0)] * 8)
            done[k] += 8

    threads = [threading.Thread(target=go, args=(k,)) for k in range(cores())]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / seconds


if __name__ == "__main__":
    main()
