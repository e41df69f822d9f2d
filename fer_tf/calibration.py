"""Can the probabilities be believed? Accuracy beside confidence, and whether an ensemble is of one mind. NumPy only."""

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


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the temperature, 0.5..5 in steps of one per cent, by which logits (n, emotions) divided fit labels best.

    Fitted is the negative log-likelihood; the order of the emotions and so the accuracy stay (Guo et al. 2017). Fit it
    on valid, never on test.
    """
    steps = np.exp(np.arange(np.log(0.5), np.log(5), 0.01))
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    own = shifted[np.arange(len(labels)), labels].mean()
    nll = [np.log(np.exp(shifted / t).sum(axis=1)).mean() - own / t for t in steps]
    return round(float(steps[np.argmin(nll)]), 4)


def disagreement(branch_logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how far the branches of an ensemble differ on each of n faces, (n,) each, from logits (n, b, emotions).

    mutual information  entropy of the branches' mean probabilities minus their mean entropy, nats, 0 where all say the
                        same: the part of the uncertainty that more training faces could take away, unlike what the
                        picture itself leaves open (Depeweg et al. 2018; ensembles: Lakshminarayanan et al. 2017)
    dissent             share of the branches whose highest logit is not the ensemble's, the highest mean logit
    """
    if branch_logits.ndim != 3:
        raise ValueError(f"expected the logits of every branch (n, branches, emotions), got {branch_logits.shape}")
    shifted = branch_logits.astype(np.float64) - branch_logits.max(axis=-1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    own = -(np.exp(logs) * logs).sum(axis=-1).mean(axis=1)  # (n,)
    mean = np.exp(logs).mean(axis=1)  # (n, emotions)
    shared = -(mean * np.log(np.maximum(mean, 1e-300))).sum(axis=-1)
    votes, ensemble = branch_logits.argmax(axis=-1), branch_logits.mean(axis=1).argmax(axis=-1)
    return np.maximum(shared - own, 0), (votes != ensemble[:, None]).mean(axis=1)
