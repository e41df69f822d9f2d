"""How small may a detector look? Runs one at several sizes over clips, and says what each finds and what it costs.

    python benchmarks/detector_sizes.py --clips *.mkv *.gif --output reports/detector_sizes.json

On given clips, what it finds at the largest size is the reference; on drawn ones, the boxes that were drawn are. A face
is found where a box shares half of its union with it or more. CPU time is that of all threads, the change of size
included. `--detector haar` measures Haar, and `--against yunet` holds it against what YuNet finds at the largest size.
"""

import argparse
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median

import cv2
import numpy as np

from fer_tf.data.drawn_clip import draw_clip
from fer_tf.inference.benchmark import host, save
from fer_tf.inference.clips import read_frames
from fer_tf.inference.detect import load_detector
from fer_tf.inference.track import overlap

SIZES = ("640x480", "480x360", "400x300", "360x270", "320x240", "256x192", "192x144", "160x120")
FOUND = 0.5
DRAWN = {f"drawn, {faces} faces": {"faces": faces, "frames": 60, "seed": faces} for faces in (1, 2, 4)}


def main() -> None:
    """Write the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", nargs="*", type=Path, default=[])
    parser.add_argument("--detector", default="yunet")
    parser.add_argument("--against", help="the detector whose finds at the largest size are the reference")
    parser.add_argument("--sizes", nargs="+", default=SIZES, help="the largest first")
    parser.add_argument("--output", type=Path, default=Path("reports/detector_sizes.json"))
    given = parser.parse_args()
    cv2.setNumThreads(1)
    pixels = {size: int(np.prod([int(side) for side in size.split("x")])) for size in given.sizes}
    detectors = {size: load_detector(given.detector, pixels=pixels[size]) for size in given.sizes}
    judge = load_detector(given.against or given.detector, pixels=max(pixels.values()))
    clips = {}
    for path in given.clips:
        frames = [frame.image for frame in read_frames(path)]
        clips[path.name] = figures(detectors, frames, [judge(frame)[0] for frame in frames])
    for name, choices in DRAWN.items():
        clip = draw_clip(**choices)
        clips[name] = figures(detectors, list(clip.frames), list(clip.xyxy))
    result = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": host(),
        "versions": {name: version(name) for name in ("numpy", "opencv-python-headless", "openvino")},
        "detector": given.detector,
        "against": given.against or given.detector,
        "found_at_iou": FOUND,
        "all clips": {size: together([clips[path.name][size] for path in given.clips]) for size in given.sizes},
        "clips": clips,
    }
    save(result, given.output)


def figures(detectors: dict, frames: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> dict:
    """Return, per size, what a detector finds of the boxes expected in every frame, and its CPU time."""
    found = {}
    for size, detector in detectors.items():
        detector(frames[0])  # compiles
        seconds, shared, extra = [], [], 0
        for frame, boxes in zip(frames, expected, strict=True):
            started = time.process_time()
            xyxy, *_ = detector(frame)
            seconds.append(time.process_time() - started)
            hits = paired(overlap(boxes, xyxy))
            shared += hits
            extra += len(xyxy) - len(hits)
        faces = sum(map(len, expected))
        found[size] = {
            "frames": len(frames),
            "faces": faces,
            "recall": round(len(shared) / faces, 4) if faces else None,
            "extra": extra,
            "median_iou": round(median(shared), 3) if shared else None,
            "cpu_ms_per_frame": round(1000 * median(seconds), 2),
        }
    return found


def paired(shared: np.ndarray) -> list[float]:
    """Return the IoU of each pair of expected and found boxes, (m, n), that is FOUND or more; no box is in two."""
    pairs, shared = [], shared.copy()
    while shared.size and shared.max() >= FOUND:
        row, column = np.unravel_index(shared.argmax(), shared.shape)
        pairs.append(float(shared[row, column]))
        shared[row], shared[:, column] = 0, 0
    return pairs


def together(clips: list[dict]) -> dict | None:
    """Return the figures of all clips as one: faces count alike, frames count alike."""
    faces, frames = (sum(clip[name] for clip in clips) for name in ("faces", "frames"))
    if not faces:
        return None
    return {
        "frames": frames,
        "faces": faces,
        "recall": round(sum(clip["faces"] * (clip["recall"] or 0) for clip in clips) / faces, 4),
        "extra": sum(clip["extra"] for clip in clips),
        "cpu_ms_per_frame": round(sum(clip["frames"] * clip["cpu_ms_per_frame"] for clip in clips) / frames, 2),
    }


if __name__ == "__main__":
    main()
