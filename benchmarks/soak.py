"""Does a long clip cost more per frame than a short one? Annotates half an hour and watches time and memory.

    python benchmarks/soak.py clip.mp4 --output reports/soak.json --figure reports/soak.png

The clip is repeated, its packets as they are, up to the length asked for.
"""

import argparse
import json
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import av
import numpy as np
import pandas as pd

from fer_tf import plots
from fer_tf.files import write_atomically
from fer_tf.inference.benchmark import host
from fer_tf.inference.detect import load_detector
from fer_tf.inference.engine import load_engine
from fer_tf.inference.pipeline import cores
from fer_tf.inference.video import annotate_video

EVERY = 1000
"""Frames from one sample to the next."""
TRACKED = 5


def repeated(clip: Path, target: Path, *, seconds: float) -> None:
    """Write a clip's pictures again and again, without decoding them."""
    with av.open(str(target), "w") as output:
        copy, shift, done_s = None, 0, 0.0
        while done_s < seconds:
            with av.open(str(clip)) as source:
                track, ends = source.streams.video[0], shift
                copy = copy or output.add_stream_from_template(track)
                for packet in source.demux(track):
                    if packet.dts is None:
                        continue
                    packet.dts, packet.pts, packet.stream = packet.dts + shift, packet.pts + shift, copy
                    ends = max(ends, packet.pts + packet.duration)
                    output.mux(packet)
                shift, done_s = ends, float(ends * track.time_base)


def resident_mb() -> float:
    """Return this process's memory now."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmRSS:"))


def main() -> None:
    """Run once, write the samples and draw them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clip", type=Path)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--model", default="mobilenet_v2")
    parser.add_argument("--backend", default="openvino")
    parser.add_argument("--detector", default="yunet")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--figure", type=Path, required=True)
    given = parser.parse_args()
    samples = []

    def sample(frames: int) -> None:
        if frames % EVERY == 0:
            samples.append({"frames": frames, "seconds": time.perf_counter() - started, "memory_mb": resident_mb()})

    engine = load_engine(given.model, backend=given.backend, requests=cores())
    choices = {"engine": engine, "detector": [load_detector(given.detector) for _ in range(cores())]}
    choices |= {"detect_every": TRACKED, "classify_every": TRACKED}
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "long.mp4"
        repeated(given.clip, clip, seconds=60 * given.minutes)
        started = time.perf_counter()
        files = {"output": Path(folder) / "annotated.mp4", "table": Path(folder) / "faces.parquet"}
        summary = annotate_video(clip, **choices, **files, progress=sample)
    frame = pd.DataFrame(samples)
    frame["ms_per_frame"] = 1000 * np.diff(frame["seconds"], prepend=0) / EVERY
    later = frame.iloc[1:]  # the first sample has the start in it
    thirds = [later.iloc[places] for places in np.array_split(np.arange(len(later)), 3)]
    result = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": host(),
        "clip": given.clip.name,
        "minutes": given.minutes,
        "model": engine.card.name,
        "provider": engine.provider,
        "detector": summary.detector,
        "every": TRACKED,
        "frames": summary.frames,
        "faces": summary.faces,
        "frames_per_s": summary.frames_per_s,
        "ms_per_frame_first_middle_last_third": [float(part["ms_per_frame"].mean()) for part in thirds],
        "memory_mb_first_middle_last_third": [float(part["memory_mb"].mean()) for part in thirds],
        "memory_mb_largest_minus_smallest": float(np.ptp(later["memory_mb"])),
        "samples": samples,
    }
    write_atomically(given.output, (json.dumps(result, indent=2) + "\n").encode())
    plots.use_style()
    axes = later.plot(
        "frames", ["ms_per_frame", "memory_mb"], subplots=True, legend=False, figsize=(8, 4.5), xlabel="frames done"
    )
    for ax, label in zip(axes, ("ms per frame", "memory, MB"), strict=True):
        ax.set(ylabel=label, ylim=(0, None))
    axes[0].set_title(f"{given.minutes:g} minutes of video, {engine.card.name}, {summary.detector}, tracked")
    axes[0].figure.savefig(given.figure, dpi=110)
    print(json.dumps({name: value for name, value in result.items() if name != "samples"}, indent=2))


if __name__ == "__main__":
    main()
