"""What does one more face cost? Times clips of 0 to 16 faces on frames of one size, and fits a line.

    python benchmarks/many_faces.py --output reports/many_faces.json

Every face is the same portrait, panned over, in a grid; the rest of the frame is grey. Every frame is looked at, every
face classified, and both the annotated clip and the table are written.
"""

import argparse
import json
import tempfile
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from fer_tf.data.demo_clip import demo_frames
from fer_tf.files import write_atomically
from fer_tf.inference.benchmark import host
from fer_tf.inference.clips import write_video
from fer_tf.inference.detect import load_detector
from fer_tf.inference.engine import load_engine
from fer_tf.inference.pipeline import cores
from fer_tf.inference.video import annotate_video

FACES = 0, 1, 2, 4, 8, 12, 16
GRID, CELL = (4, 4), (320, 240)  # columns, rows; width, height


def frames_with(faces: int, portraits: list[np.ndarray]):
    """Yield a frame per portrait that shows it so many times."""
    for portrait in portraits:
        image = np.full((GRID[1] * CELL[1], GRID[0] * CELL[0], 3), 128, np.uint8)
        for place in range(faces):
            left, top = place % GRID[0] * CELL[0], place // GRID[0] * CELL[1]
            image[top : top + CELL[1], left : left + CELL[0]] = portrait
        yield image


def main() -> None:
    """Run each clip several times, keep the quickest, write the table and the line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="mobilenet_v2")
    parser.add_argument("--backend", default="openvino")
    parser.add_argument("--detector", default="yunet")
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    engine = load_engine(given.model, backend=given.backend, requests=cores())
    detectors = [load_detector(given.detector) for _ in range(cores())]
    views = [cv2.resize(frame, CELL) for frame in islice(demo_frames(portrait=given.frames), given.frames)]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        files = {"output": Path(folder) / "annotated.mp4", "table": Path(folder) / "faces.csv"}
        for faces in FACES:
            clip = write_video(Path(folder) / f"{faces}.mp4", frames_with(faces, views), fps=30)
            done = [annotate_video(clip, engine=engine, detector=detectors, **files) for _ in range(given.runs)]
            best = min(done, key=lambda one: one.seconds)
            row = {"faces_shown": faces, "faces_a_frame": best.faces / best.frames}
            row |= {"ms_a_frame": 1000 * best.seconds / best.frames, "cpu_ms_a_frame": 1000 * best.cpu_s / best.frames}
            rows.append(row)
            print({name: round(value, 2) for name, value in row.items()}, flush=True)
    x, y = (np.array([row[name] for row in rows]) for name in ("faces_a_frame", "ms_a_frame"))
    slope, start = np.polyfit(x, y, 1)
    result = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": host(),
        "model": engine.card.name,
        "provider": engine.provider,
        "detector": given.detector,
        "frame": [GRID[0] * CELL[0], GRID[1] * CELL[1]],
        "frames": given.frames,
        "runs": given.runs,
        "ms_a_frame_without_faces": start,
        "ms_a_face": slope,
        "r_squared": float(np.corrcoef(x, y)[0, 1] ** 2),
        "rows": rows,
    }
    write_atomically(given.output, (json.dumps(result, indent=2) + "\n").encode())


if __name__ == "__main__":
    main()
