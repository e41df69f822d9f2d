"""The network inside `facial-emotion-recognition` on FER2013's test rows; adds its line to reports/peers.json.

    .venv/bin/python benchmarks/peers/rows.py
    .venv-pytorch/bin/python benchmarks/peers/pytorch_package.py        (its environment: pytorch.txt)

Each row goes through the package's own preparation and network; no detector runs, for a row is a face already. The
`PyEmotion` package holds the same file of weights. Which rows these were trained on is not documented.
"""

from functools import partial
from pathlib import Path

import facial_emotion_recognition
import numpy as np
import torch
from judging import test_rows, write


def main() -> None:
    """Judge the network as the package runs it: one face at a time."""
    rows = test_rows()
    torch.load = partial(torch.load, map_location="cpu")  # the package leaves it out and fails where there is no GPU
    network = facial_emotion_recognition.EmotionRecognition(device="cpu")
    claimed = torch.load(Path(facial_emotion_recognition.__file__).parent / "model" / "model.pkl")["accuracy"]
    places = {name.lower(): place for place, name in enumerate(rows["emotions"].tolist())}
    named = np.array([places[network._predict(image).lower()] for image in rows["images"]])
    write("facial-emotion-recognition", {f"PyTorch; its file says {100 * claimed:.1f} %": named}, rows)


if __name__ == "__main__":
    main()
