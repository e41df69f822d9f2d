"""Can the probabilities be believed? Accuracy beside confidence, in bins, and their mean gap. NumPy only."""

import numpy as np


def calibration_bins(probabilities: np.ndarray, labels: np.ndarray, *, bins: int = 15) -> tuple[np.ndarray, ...]:
    """Return rows, accuracy and mean confidence of equally wide bins of confidence, (bins,) each; 0 in an empty bin.

    probabilities  float (n, emotions); the highest of a row is its confidence
    labels         int (n,)
    """
    confidence, hit = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    number = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    rows = np.bincount(number, minlength=bins)
    accuracy, mean = (np.bincount(number, values, bins) / np.maximum(rows, 1) for values in (hit, confidence))
    return rows, accuracy, mean


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, *, bins: int = 15) -> float:
    """Return the gap between confidence and accuracy, 0..1, averaged over rows (Guo et al. 2017)."""
    rows, accuracy, confidence = calibration_bins(probabilities, labels, bins=bins)
    return float(np.abs(accuracy - confidence) @ rows / len(labels))
