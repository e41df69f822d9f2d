"""Does it pay to turn tilted faces upright? FER2013's valid faces, tilted, found by YuNet, cropped both ways.

    python benchmarks/rolled_faces.py mobilenet_v2 --output reports/rolled_faces.json

Every face is enlarged, turned by so many degrees and set into a larger picture. Accuracy counts the faces that the
detector finds, the same ones for both crops; `found` is their share. Nothing here looks at test rows.
"""

import argparse
import json
from datetime import UTC, datetime
from itertools import product
from pathlib import Path

import cv2
import numpy as np

from fer_tf.data.readers import load
from fer_tf.files import write_atomically
from fer_tf.inference import detect
from fer_tf.inference.detect import crop_faces, load_detector
from fer_tf.inference.engine import load_engine

ANGLES = (0, 10, 20, 30, 45)
FACES = (192, 96)
"""Pixels of a face in the picture of `SIDE`, which the detector sees as it is."""
SIDE = 320


def tilted(face: np.ndarray, pixels: int, degrees: float) -> np.ndarray:
    """Return a picture of a face, uint8 RGB (SIDE, SIDE, 3), tilted clockwise; its border is drawn out."""
    large = cv2.resize(face, (pixels, pixels), interpolation=cv2.INTER_CUBIC)
    large = cv2.copyMakeBorder(large, *[(SIDE - pixels) // 2] * 4, cv2.BORDER_REPLICATE)
    matrix = cv2.getRotationMatrix2D(((SIDE - 1) / 2,) * 2, -degrees, 1)
    return cv2.warpAffine(large, matrix, (SIDE, SIDE), borderMode=cv2.BORDER_REPLICATE)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--detector", default="yunet")
    parser.add_argument("--rows", type=int, default=1500)
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    engine, detector = load_engine(given.model), load_detector(given.detector)
    valid = load("fer2013").valid
    faces, labels = valid.crops(48, slice(0, given.rows)), valid.labels[: given.rows]
    choices, rows = {"image_size": engine.card.image_size, "scale": detector.scale}, []
    for pixels, degrees in product(FACES, ANGLES):
        crops, true = {"turned_upright": [], "as_it_is": []}, []
        for k, (face, label) in enumerate(zip(faces, labels, strict=True)):
            picture = tilted(face, pixels, degrees if k % 2 else -degrees)
            xyxy, _, roll = detector(picture)
            if len(xyxy):
                true.append(label)
                crops["turned_upright"].append(crop_faces(picture, xyxy[:1], roll=roll[:1], **choices)[0])
                crops["as_it_is"].append(crop_faces(picture, xyxy[:1], **choices)[0])
        row = {"face_pixels": pixels, "degrees": degrees, "found": len(true) / len(faces), "n": len(true)}
        for name, cut in crops.items():
            said = np.concatenate(
                [engine.logits(np.stack(cut[i : i + 64])).argmax(axis=1) for i in range(0, len(cut), 64)]
            )
            row[name] = float((said == true).mean())
        rows.append(row)
        print(json.dumps(row), flush=True)
    about = {"date": datetime.now(UTC).date().isoformat(), "model": engine.card.name, "detector": detector.name}
    about |= {"rows": len(faces), "turned_from_degrees": detect.TILTED, "angles": rows}
    write_atomically(given.output, (json.dumps(about, indent=2) + "\n").encode())


if __name__ == "__main__":
    main()
