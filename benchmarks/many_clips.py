"""How much more do two workers do than one, and what does a killed worker cost? Annotates clips on a local Ray.

    python benchmarks/many_clips.py clips/*.mkv --copies 3 --output reports/many_clips.json

The seconds hold everything, the start of Ray and of the workers too; that start is what a list of one clip of a single
frame takes. In the last run the first worker is killed as soon as it is in the middle of a clip.
"""

import argparse
import json
import os
import shutil
import signal
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from fer_tf.files import write_atomically
from fer_tf.inference.benchmark import host
from fer_tf.inference.clips import write_video
from fer_tf.inference.pipeline import cores
from fer_tf.inference.scale import annotate_many


def main() -> None:
    """Run with one worker, with one per core, and with one that is killed; write what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--copies", type=int, default=1, help="every clip so many times")
    parser.add_argument("--model", default="mobilenet_v2")
    parser.add_argument("--detector", default="yunet")
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    choices = {"model": given.model, "detector": given.detector}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "in").mkdir()
        single = write_video(folder / "single.mp4", [np.zeros((480, 640, 3), np.uint8)], fps=30)
        clips = [
            Path(shutil.copy(clip, folder / "in" / f"{copy}_{clip.name}"))
            for copy in range(given.copies)
            for clip in given.clips
        ]
        rows = []
        for workers in (1, cores()):
            _, start_s = timed([single], folder / f"start_{workers}", workers=workers, **choices)
            rows.append({"workers": workers, "killed": 0, "start_s": round(start_s, 1)})
            rows[-1] |= told(*timed(clips, folder / str(workers), workers=workers, **choices))
            rows[-1]["frames_per_s_after_start"] = round(rows[-1]["frames"] / (rows[-1]["seconds"] - start_s))
        rows.append({"workers": cores(), "killed": 1})
        killer = threading.Thread(target=kill_one, args=(folder / "killed",), daemon=True)
        killer.start()
        rows[-1] |= told(*timed(clips, folder / "killed", workers=cores(), **choices))
        killer.join(1)
        if killer.is_alive():
            raise SystemExit("no worker was killed: give longer clips")
        same = [
            (folder / "killed" / f"{clip.name}.csv").read_bytes() == (folder / "1" / f"{clip.name}.csv").read_bytes()
            for clip in clips
        ]
    found = {"date": f"{datetime.now(UTC):%Y-%m-%d}", "host": host(), **choices, "runs": rows}
    found["tables_equal_to_those_of_one_worker"] = f"{sum(same)} of {len(same)}"
    write_atomically(given.output, (json.dumps(found, indent=2) + "\n").encode())
    print(json.dumps(found, indent=2))


def timed(clips: list[Path], out: Path, **choices) -> tuple[list, float]:
    """Annotate; return what became of the clips, and the seconds."""
    start = time.perf_counter()
    return annotate_many(clips, out, **choices), time.perf_counter() - start


def told(found: list, seconds: float) -> dict:
    """Return a run's figures."""
    frames = sum(clip.frames for clip in found)
    statuses = dict(Counter(clip.status for clip in found))
    return {"clips": statuses, "frames": frames, "seconds": round(seconds, 1), "frames_per_s": round(frames / seconds)}


def kill_one(out: Path) -> None:
    """Kill the worker that is first in the middle of a clip, as its mark in `out` says."""
    while True:
        time.sleep(0.005)
        with suppress(OSError, IndexError):  # the mark is there a moment later, or no more
            mark = next(out.glob("*.tries"), None)
            if mark and time.time() - mark.stat().st_mtime > 0.2:
                os.kill(int(mark.read_text().split()[-1]), signal.SIGKILL)
                return


if __name__ == "__main__":
    main()
