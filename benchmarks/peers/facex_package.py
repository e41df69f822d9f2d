"""The network inside the `facex` package on FER2013's test rows; adds its line to reports/peers.json.

    .venv/bin/python benchmarks/peers/rows.py
    .venv-facex/bin/python benchmarks/peers/facex_package.py        (its environment: facex.txt)

Each grey row goes through the package's own preparation and network, as a detected face does; no detector runs, for a
row is a face already. Which rows the weights were trained on is not documented.
"""

from pathlib import Path

import facex.core
import numpy as np
from judging import test_rows, write

NAMES = {"anger": "angry", "sadness": "sad", "surprised": "surprise"}  # the package's, where they are not FER2013's


def main() -> None:
    """Judge the network as the package runs it: one face at a time."""
    rows = test_rows()
    network = facex.core.EmotionClassifier(str(Path(facex.core.__file__).parent / "assets" / "model_optimized.tflite"))
    places = [rows["emotions"].tolist().index(NAMES.get(name, name)) for name in network.category]
    scores = np.array([list(network.detect_emotion(image).values()) for image in rows["images"]])
    write("facex", {"tflite": np.array(places)[scores.argmax(axis=1)]}, rows)


if __name__ == "__main__":
    main()
