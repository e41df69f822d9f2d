"""Eyes, brows and mouth of real crops, by YuNet's landmarks. Drawn faces know theirs: `draw_faces_and_regions`."""

from pathlib import Path

import cv2
import numpy as np

from fer_tf import paths

SIDE = 160
"""Pixels: what YuNet looks at, around a crop of `INSIDE`; it was trained on faces in scenes."""
INSIDE = 112


def landmark_regions(
    crops: np.ndarray, *, file: Path | None = None, min_score: float = 0.6
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return where YuNet found a face, bool (n,), and its "eyes", "brows" and "mouth", each bool (n, s, s).

    crops  uint8 (n, s, s, 3) RGB; where no face is found the regions are empty

    YuNet gives the eyes' centres and the corners of the mouth. The regions are ellipses around them, in units of the
    distance d of the eyes: an eye 0.30 d by 0.20 d, half axes; its brow 0.36 d by 0.16 d, centred 0.36 d above; the
    mouth 0.7 by 0.45 times the distance of its corners, centred a tenth of it below their middle. Raises
    FileNotFoundError without YuNet's file.
    """
    file = Path(file or paths.YUNET)
    if not file.is_file():
        raise FileNotFoundError(f"YuNet's model is not at {file}: run `fer-tf download yunet`, or name the file")
    detector = cv2.FaceDetectorYN.create(str(file), "", (SIDE, SIDE), score_threshold=min_score)
    size = crops.shape[1]
    seen = np.zeros(len(crops), bool)
    regions = {name: np.zeros(crops.shape[:3], bool) for name in ("eyes", "brows", "mouth")}
    margin = (SIDE - INSIDE) // 2
    for i, crop in enumerate(crops):
        large = cv2.resize(crop[..., ::-1], (INSIDE, INSIDE), interpolation=cv2.INTER_CUBIC)
        faces = detector.detect(cv2.copyMakeBorder(large, *[margin] * 4, cv2.BORDER_REPLICATE))[1]
        if faces is None:
            continue
        seen[i] = True
        best = faces[faces[:, -1].argmax()]
        points = (best[4:14].reshape(5, 2) - margin) * size / INSIDE  # eye, eye, nose, corner, corner
        for name, ellipses in _ellipses(points).items():
            for centre, axes, degrees in ellipses:
                canvas = np.zeros((size, size), np.uint8)
                cv2.ellipse(canvas, (tuple(centre.tolist()), tuple(2 * a for a in axes), degrees), 1, cv2.FILLED)
                regions[name][i] |= canvas > 0
    return seen, regions


def _ellipses(points: np.ndarray) -> dict[str, list]:
    """Return centre, half axes and angle in degrees of the ellipses of each region, from five landmarks (5, 2)."""
    left, right, _, *corners = points  # as the viewer sees them
    across, wide = right - left, corners[1] - corners[0]
    down = np.array([-across[1], across[0]])  # at right angles, as long
    d, w = np.hypot(*across), np.hypot(*wide)
    tilt, mouth_tilt = np.degrees(np.arctan2(across[1], across[0])), np.degrees(np.arctan2(wide[1], wide[0]))
    middle = (corners[0] + corners[1]) / 2 + 0.1 * w / max(d, 1e-6) * down
    return {
        "eyes": [(eye, (0.30 * d, 0.20 * d), tilt) for eye in (left, right)],
        "brows": [(eye - 0.36 * down, (0.36 * d, 0.16 * d), tilt) for eye in (left, right)],
        "mouth": [(middle, (0.7 * w, 0.45 * w), mouth_tilt)],
    }
