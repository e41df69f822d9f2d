"""How fast the `fer` package goes through a clip here; adds its line to the JSON that `fer-tf bench --output` wrote.

    .venv/bin/fer-tf bench clip.mp4 --output bench.json
    .venv-fer/bin/python benchmarks/peers/fer_video.py clip.mp4 bench.json        (its environment: fer.txt)

OpenCV reads, the package finds faces (Haar) and names emotions as it does by default (TFLite); nothing is drawn or
written. The first frames are a warm-up and not counted.
"""

import json
import sys
import time
from importlib.metadata import version
from pathlib import Path

import cv2
from fer.fer import FER

WARM_UP = 10


def main(clip: str, result: str) -> None:
    """Time every frame after the warm-up."""
    network, capture, frames, faces = FER(mtcnn=False), cv2.VideoCapture(clip), 0, 0
    while True:
        if frames == WARM_UP:
            started, cpu, faces = time.perf_counter(), time.process_time(), 0
        arrived, image = capture.read()
        if not arrived:
            break
        faces += len(network.detect_emotions(image))
        frames += 1
    counted = frames - WARM_UP
    if counted < 1:
        raise ValueError(f"{clip} has {frames} frames, more than {WARM_UP} are needed")
    seconds, cpu_s = time.perf_counter() - started, time.process_time() - cpu
    found = {"version": version("fer"), "frames": counted, "faces": faces, "frames_per_s": counted / seconds}
    found["cpu_ms_per_frame"] = 1000 * cpu_s / counted
    path = Path(result)
    known = json.loads(path.read_text(encoding="utf-8"))
    known.setdefault("peers", {})["fer"] = found
    path.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main(*sys.argv[1:])
