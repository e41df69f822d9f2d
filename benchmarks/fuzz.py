"""Thousands of damaged pictures, sent to the service: what it answers, and whether its memory grows; writes JSON.

    python benchmarks/fuzz.py --detector yunet --output reports/fuzz.json

The pictures are those of `mutants.py`; whole ones are sent between them and must be answered as at the first time. The
service is a process of its own. Where schemathesis is installed it then asks whatever the OpenAPI description allows,
and what it does not.
"""

import argparse
import http.client
import importlib.util
import itertools
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from mutants import mutant, pictures
from service import served

from fer_tf.files import write_atomically
from fer_tf.inference.benchmark import host

CLIENTS = 4
WHOLE_EVERY = 50
KEY = "fuzz"
HEAD = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'


def main() -> None:
    """Send them, have the description tried, and write what was found; exit 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="mobilenet_v2")
    parser.add_argument("--backend", default="openvino")
    parser.add_argument("--detector", default="haar")
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    result = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "host": host(), **vars(given)}
    del result["output"]
    with served(given) as (url, server):
        result |= damaged(url, server.pid, requests=given.requests, seed=given.seed)
    result["server_exit_code"] = server.returncode
    with served(given, ["--api-key", KEY]) as (url, _):
        result["schemathesis"] = described(url, seed=given.seed)
    write_atomically(given.output, (json.dumps(result, indent=2) + "\n").encode())
    print(json.dumps(result, indent=2))
    wrong = result["wrong"] or result["whole_pictures_wrong"] or (result["schemathesis"] or {}).get("failures")
    sys.exit(bool(wrong) or server.returncode != 0)


def damaged(url: str, pid: int, *, requests: int, seed: int) -> dict:
    """Send the mutants with several clients; return counts, times, and the server's memory at each tenth."""
    numbers, lock = itertools.count(), threading.Lock()
    statuses, wrong, whole_wrong, slowest, memory = Counter(), [], 0, (0.0,), {}
    first = {kind: _ask(url, data)[1] for kind, data in pictures().items()}

    def client() -> None:
        nonlocal whole_wrong, slowest
        kinds = itertools.cycle(first)
        while (n := next(numbers)) < requests:
            kind, done, data = mutant(n, seed=seed)
            began = time.perf_counter()
            status, told = _ask(url, data)
            took = time.perf_counter() - began
            again = next(kinds) if n % WHOLE_EVERY == 0 else None
            changed = again and _ask(url, pictures()[again])[1].get("faces") != first[again]["faces"]
            with lock:
                statuses[kind, done, status] += 1
                slowest = max(slowest, (round(took, 3), kind, done, n))
                whole_wrong += bool(changed)
                if status not in (200, 400, 413, 415) or (status != 200 and set(told) != {"detail", "request_id"}):
                    wrong.append({"number": n, "kind": kind, "mutation": done, "status": status, "answer": told})
                if n % max(requests // 10, 1) == 0:
                    memory[n] = round(_resident_mb(pid), 1)

    threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    memory[requests] = round(_resident_mb(pid), 1)
    return {
        "seconds": round(time.perf_counter() - began, 1),
        "by_status": _counted(statuses, lambda kind, done, status: status),
        "by_kind": _counted(statuses, lambda kind, done, status: f"{kind}: {status}"),
        "by_mutation": _counted(statuses, lambda kind, done, status: f"{done}: {status}"),
        "wrong": wrong,
        "whole_pictures": len(first) + -(-requests // WHOLE_EVERY),
        "whole_pictures_wrong": whole_wrong,
        "slowest_s_kind_mutation_number": slowest,
        "memory_mb_by_requests": dict(sorted(memory.items())),
        "memory_mb_peak": round(_resident_mb(pid, "VmHWM"), 1),
    }


def described(url: str, *, seed: int) -> dict | None:
    """Return what schemathesis counts on the service's OpenAPI description; None where it is not installed.

    One of its checks is left out, that all which the description allows is accepted: it cannot say what a picture is.
    """
    if not importlib.util.find_spec("schemathesis"):
        return None
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        choices = "--checks all --exclude-checks positive_data_acceptance --continue-on-failure --max-examples 200"
        command = [Path(sys.executable).with_name("schemathesis"), "run", f"{url}/openapi.json", *choices.split()]
        command += ["--seed", str(seed), "--header", f"X-API-Key: {KEY}", "--report-json-path", report]
        done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=folder)
        print(done.stdout[-6000:], done.stderr[-2000:], flush=True)
        told = json.loads(report.read_text(encoding="utf-8"))
        kept = "schemathesis_version", "running_time", "operations", "test_cases", "failures", "errors"
        return {"choices": choices} | {name: told[name] for name in kept}


def _ask(url: str, data: bytes) -> tuple[int, dict]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    try:
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        connection.request("POST", "/v1/detect", HEAD + data + b"\r\n--x--\r\n", headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    except (OSError, http.client.HTTPException, ValueError) as error:  # no answer, or one that is no JSON
        return 0, {"detail": repr(error)}
    finally:
        connection.close()


def _counted(counts: Counter, name) -> dict:
    found = Counter()
    for key, n in counts.items():
        found[name(*key)] += n
    return dict(sorted(found.items()))


def _resident_mb(pid: int, line: str = "VmRSS") -> float:
    """Return a process's memory, now or at its most (VmHWM)."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return next(int(text.split()[1]) * 1024 / 1e6 for text in lines if text.startswith(f"{line}:"))


if __name__ == "__main__":
    main()
