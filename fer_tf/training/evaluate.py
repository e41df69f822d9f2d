"""Logits in, `Report` out: the same figures for any model, engine or saved predictions. NumPy only."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from fer_tf.calibration import expected_calibration_error
from fer_tf.data.labelled import LabelledFaces, Splits
from fer_tf.faces import softmax


@dataclass(frozen=True, kw_only=True, eq=False)
class Report:
    """How well logits name the labels.

    n                  rows
    accuracy, macro_f1 shares, 0..1, each with a 95 % interval (low, high)
    nll                mean negative log-likelihood of the label, nats
    ece                expected calibration error over 15 equal-width confidence bins (Guo et al. 2017)
    per_emotion        emotion -> {precision, recall, f1, support}; a share without rows is 0
    confusion          int64 (emotions, emotions): rows true, columns predicted
    """

    emotions: tuple[str, ...]
    n: int
    accuracy: float
    accuracy_interval: tuple[float, float]
    macro_f1: float
    macro_f1_interval: tuple[float, float]
    nll: float
    ece: float
    per_emotion: dict
    confusion: np.ndarray

    def to_dict(self) -> dict:
        """Return JSON values."""
        return asdict(self) | {"confusion": self.confusion.tolist()}


def report(logits: np.ndarray, labels: np.ndarray, emotions: tuple[str, ...]) -> Report:
    """Judge float (n, emotions) logits against int (n,) labels. Raises ValueError for shapes that do not fit."""
    if logits.shape != (len(labels), len(emotions)) or not len(labels):
        raise ValueError(
            f"logits must be (n, {len(emotions)}) with n = {len(labels)} labels above 0, got {logits.shape}"
        )
    if not np.isfinite(logits).all():
        raise ValueError(
            f"{(~np.isfinite(logits)).any(axis=1).sum()} of {len(logits)} rows have logits that are not finite"
        )
    predicted = logits.argmax(axis=1)
    confusion = confusion_matrix(labels, predicted, emotions=len(emotions))
    precision, recall, f1 = _shares(confusion)
    probabilities = softmax(logits)
    likelihood = np.clip(probabilities[np.arange(len(labels)), labels], 1e-12, None)
    names = ("precision", "recall", "f1", "support")
    columns = zip(precision.tolist(), recall.tolist(), f1.tolist(), confusion.sum(axis=1).tolist(), strict=True)
    return Report(
        emotions=emotions,
        n=len(labels),
        accuracy=float((predicted == labels).mean()),
        accuracy_interval=wilson_interval(int((predicted == labels).sum()), len(labels)),
        macro_f1=float(f1.mean()),
        macro_f1_interval=bootstrap_macro_f1(confusion),
        nll=float(-np.log(likelihood).mean()),
        ece=expected_calibration_error(probabilities, labels),
        per_emotion={e: dict(zip(names, row, strict=True)) for e, row in zip(emotions, columns, strict=True)},
        confusion=confusion,
    )


VIEWS = (1, 2, 10)
"""As it is; mirrored, too; both and moved by `VIEW_SHIFT` into each corner, too, as ten crops are taken."""

VIEW_SHIFT = 1 / 24  # of the side: 2 px of 48, what lies between it and a crop of 44


def _views(crops: np.ndarray, count: int) -> list[np.ndarray]:
    """Return `count` of `VIEWS` of crops uint8 (n, ..., s, s, 3), each of the same shape; borders are drawn out."""
    if count not in VIEWS:
        raise ValueError(f"views must be one of {', '.join(map(str, VIEWS))}, got {count}")
    side = crops.shape[-2]
    far = max(1, round(VIEW_SHIFT * side))
    moves = [(0, 0)] if count < 10 else [(0, 0), (-far, -far), (-far, far), (far, -far), (far, far)]
    places = np.arange(side)
    moved = [
        crops.take(np.clip(places + y, 0, side - 1), axis=-3).take(np.clip(places + x, 0, side - 1), axis=-2)
        for y, x in moves
    ]
    return moved if count == 1 else [*moved, *(view[..., ::-1, :] for view in moved)]


def predict(engine, faces: LabelledFaces, *, batch_size: int = 64, views: int = 1, on_batch=None) -> np.ndarray:
    """Return float32 (n, emotions) logits of any engine (`.card`, `.logits(crops)`) over faces, in their label order.

    engine    or several: an ensemble, whose logits are the mean of theirs
    views     of every face, see `VIEWS`; their logits are averaged
    on_batch  is called with the rows done so far

    Raises ValueError if an engine's emotions are not those of the faces.
    """
    if isinstance(engine, list):
        choices, last = {"batch_size": batch_size, "views": views}, len(engine) - 1
        every = [predict(e, faces, **choices, on_batch=on_batch if i == last else None) for i, e in enumerate(engine)]
        return np.mean(every, axis=0)
    named = engine.card.emotions
    if set(named) != set(faces.emotions):
        raise ValueError(f"{engine.card.name} names {named}, but the faces are labelled {faces.emotions}")
    columns = [named.index(emotion) for emotion in faces.emotions]
    logits = np.empty((len(faces), len(faces.emotions)), np.float32)
    for start in range(0, len(faces), batch_size):
        rows = slice(start, start + batch_size)
        seen = _views(faces.crops(engine.card.image_size, rows), views)
        logits[rows] = np.mean([engine.logits(view)[:, columns] for view in seen], axis=0)
        if on_batch:
            on_batch(min(start + batch_size, len(faces)))
    return logits


def judge(engine, data: Splits, *, views: int = 1, on_batch=None) -> tuple[dict[str, Report], dict[str, np.ndarray]]:
    """Judge any engine, or several as `predict` has them, on valid, test and the clean rows of each.

    Returns what `reports` makes of the predictions, and these:
    "<split>_logits" float32 (n, emotions), "<split>_labels" int64 (n,), "<split>_clean" bool (n,)

    on_batch is called with the rows done so far and the rows of both splits.
    """
    predictions, done, total = {}, 0, len(data.valid) + len(data.test)
    for split, faces in (("valid", data.valid), ("test", data.test)):
        tell = on_batch and (lambda rows, before=done: on_batch(before + rows, total))
        logits, clean = predict(engine, faces, views=views, on_batch=tell), data.audit.clean[split]
        done += len(faces)
        predictions |= {f"{split}_logits": logits, f"{split}_labels": faces.labels, f"{split}_clean": clean}
    return reports(predictions, data.emotions), predictions


def reports(predictions: dict[str, np.ndarray], emotions: tuple[str, ...]) -> dict[str, Report]:
    """Return the reports "valid", "valid_clean", "test", "test_clean"; a clean one only where a row is clean."""
    found = {}
    for split in [split for split in ("valid", "test") if f"{split}_logits" in predictions]:
        logits, labels, clean = (predictions[f"{split}_{what}"] for what in ("logits", "labels", "clean"))
        found[split] = report(logits, labels, emotions)
        if clean.any():
            found[f"{split}_clean"] = report(logits[clean], labels[clean], emotions)
    return found


def headline(judged: dict) -> dict:
    """Return the figures of a report that a card carries."""
    names = ("n", "accuracy", "accuracy_interval", "macro_f1", "macro_f1_interval", "nll", "ece", "ece_uncalibrated")
    return {name: judged[name] for name in names if name in judged}


def affect_report(predicted: np.ndarray, true: np.ndarray) -> dict:
    """Judge valence and arousal, float (n, 2) in -1..1 each.

    Returns n, mean_ccc and, for "valence" and for "arousal":
    rmse            root of the mean squared error
    ccc             concordance correlation coefficient (Lin 1989), 1 only where every value is met; 0 if nothing varies
    sign_agreement  share of the rows whose sign is met; those that are exactly 0 have none and do not count
    """
    if predicted.shape != true.shape or true.shape[1:] != (2,) or not len(true):
        raise ValueError(f"affect must be (n, 2) twice with n above 0, got {predicted.shape} and {true.shape}")
    columns = ("valence", predicted[:, 0], true[:, 0]), ("arousal", predicted[:, 1], true[:, 1])
    judged = {name: _agreement(a.astype(np.float64), b.astype(np.float64)) for name, a, b in columns}
    return {"n": len(true), "mean_ccc": (judged["valence"]["ccc"] + judged["arousal"]["ccc"]) / 2} | judged


def judge_affect(engine, data: Splits) -> tuple[dict, dict[str, np.ndarray]]:
    """Judge an engine's output "affect" on valid and test; return figures by split and predictions.

    predictions  "<split>_affect" and "<split>_affect_true", float32 (n, 2)
    """
    figures, predictions = {}, {}
    for split, faces in (("valid", data.valid), ("test", data.test)):
        found = engine.run(faces.crops(engine.card.image_size))["affect"]
        figures[split] = affect_report(found, faces.affect)
        predictions |= {f"{split}_affect": found, f"{split}_affect_true": faces.affect}
    return figures, predictions


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, *, emotions: int) -> np.ndarray:
    """Return int64 (emotions, emotions) counts: rows true, columns predicted."""
    return np.bincount(labels * emotions + predicted, minlength=emotions**2).reshape(emotions, emotions)


def macro_f1(confusions: np.ndarray) -> np.ndarray:
    """Return the mean F1 of the emotions, (...,), of counts (..., emotions, emotions)."""
    return _shares(confusions)[2].mean(axis=-1)


def wilson_interval(hits: int, n: int) -> tuple[float, float]:
    """Return the 95 % score interval of a share (Wilson 1927)."""
    z, share = 1.959964, hits / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return float(centre - half), float(centre + half)


def _agreement(predicted: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """Return rmse, ccc and sign agreement of two columns (n,)."""
    covariance = np.mean((predicted - predicted.mean()) * (true - true.mean()))
    spread = predicted.var() + true.var() + (predicted.mean() - true.mean()) ** 2
    signed = true != 0
    return {
        "rmse": float(np.sqrt(np.mean((predicted - true) ** 2))),
        "ccc": float(2 * covariance / spread) if spread > 0 else 0.0,
        "sign_agreement": float(np.mean(np.sign(predicted[signed]) == np.sign(true[signed]))) if signed.any() else 0.0,
    }


def _shares(confusion: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return precision, recall and F1 per emotion from (..., emotions, emotions) counts; 0 where nothing is counted."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    true, named = confusion.sum(axis=-1), confusion.sum(axis=-2)
    precision, recall = hits / np.maximum(named, 1), hits / np.maximum(true, 1)
    return precision, recall, 2 * hits / np.maximum(true + named, 1)


def bootstrap_macro_f1(
    confusion: np.ndarray, *, emotions: Sequence[int] | None = None, resamples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Return the 95 % percentile interval over resampled rows; resampling rows is resampling cells of the matrix.

    emotions  those that the mean is over, by their indices; all if None
    """
    rng, n = np.random.default_rng(seed), confusion.sum()
    drawn = rng.multinomial(n, confusion.ravel() / n, size=resamples).reshape(resamples, *confusion.shape)
    f1 = _shares(drawn)[2]
    low, high = np.quantile((f1 if emotions is None else f1[:, emotions]).mean(axis=-1), [0.025, 0.975])
    return float(low), float(high)
