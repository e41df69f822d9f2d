"""How accuracy falls as pictures get worse: engines on the same corrupted faces, and their mean corruption error."""

from collections.abc import Callable, Sequence

import numpy as np

from fer_tf.data.corrupt import CORRUPTIONS, SEVERITIES, corrupt
from fer_tf.data.labelled import LabelledFaces
from fer_tf.training.evaluate import predict, wilson_interval

RESAMPLES = 1000


def robustness(
    engines: Sequence,
    faces: LabelledFaces,
    *,
    baseline: str,
    corruptions: Sequence[str] = tuple(CORRUPTIONS),
    severities: Sequence[int] = SEVERITIES,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict:
    """Judge engines (`.card`, `.logits(crops)`) on corrupted faces; return JSON values.

    baseline   name on the card of the engine by whose errors those of all are divided
    faces      are corrupted at the size that they have and resized after that: all engines see the same pictures
    progress   is called with the rows judged so far and their number

    n, seed, severities, baseline
    corruptions  name -> unit and the amounts of the severities
    models       name -> provider, accuracy (without corruption) with its interval, and
        corrupted         corruption -> accuracy at each severity
        mean_corrupted    accuracy over all corruptions and severities, with its interval
        corruption_error  corruption -> errors over all severities, as a share of the baseline's
        mce               their mean, with its interval: 1 is as bad as the baseline, less is better

    Intervals are of 95 %: Wilson's for accuracy, and for the others by resampling the rows, in which a row comes with
    all its corruptions and with what the baseline says of it. Where the baseline makes no error, what is divided by
    it is None. Source: Hendrycks and Dietterich 2019, who divide by AlexNet's errors.

    Raises ValueError for two engines of one name, a baseline that is none of them, and what `corrupt` refuses.
    """
    names = [engine.card.name for engine in engines]
    if len(set(names)) < len(names):
        raise ValueError(f"every model needs a name of its own, but the cards say {', '.join(names)}")
    if baseline not in names:
        raise ValueError(f"the baseline {baseline!r} is none of the models, which are {', '.join(names)}")
    wrong = _errors(engines, faces, corruptions, severities, seed, progress)
    n = len(faces)
    weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=RESAMPLES) / n  # (resamples, n)
    share = {name: errors.mean(axis=-1) for name, (_, errors) in wrong.items()}  # (corruptions, severities)
    drawn = {name: np.tensordot(weights, errors, (1, 2)) for name, (_, errors) in wrong.items()}
    models = {}
    for engine in engines:
        name = engine.card.name
        hits = n - int(wrong[name][0].sum())
        ratio, ratios = (_divided(by[name], by[baseline]) for by in (share, drawn))
        models[name] = {
            "provider": engine.provider,
            "accuracy": hits / n,
            "accuracy_interval": wilson_interval(hits, n),
            "corrupted": dict(zip(corruptions, (1 - share[name]).tolist(), strict=True)),
            "mean_corrupted": float(1 - share[name].mean()),
            "mean_corrupted_interval": _interval(1 - drawn[name].mean(axis=(1, 2))),
            "corruption_error": dict(zip(corruptions, map(_finite, ratio), strict=True)),
            "mce": _finite(ratio.mean()),
            "mce_interval": _interval(ratios.mean(axis=1)),
        }
    about = {
        name: {"unit": CORRUPTIONS[name].unit, "amounts": [CORRUPTIONS[name].amounts[s - 1] for s in severities]}
        for name in corruptions
    }
    about = {"n": n, "seed": seed, "severities": list(severities), "corruptions": about, "baseline": baseline}
    return about | {"models": models}


def summary(result: dict) -> dict[str, dict[str, str]]:
    """Return what `robustness` found as the cells of a table, model -> column -> text, in percent."""
    corrupted, error = "corrupted %", f"mCE %, {result['baseline']} = 100"
    return {
        name: {
            "accuracy %": f"{100 * about['accuracy']:.1f}",
            corrupted: f"{100 * about['mean_corrupted']:.1f}",
            "its 95% interval": _cell(about["mean_corrupted_interval"]),
            error: "" if about["mce"] is None else f"{100 * about['mce']:.1f}",
            "95% interval": _cell(about["mce_interval"]),
        }
        for name, about in result["models"].items()
    }


def _cell(bounds: Sequence[float] | None) -> str:
    return " – ".join(f"{100 * bound:.1f}" for bound in bounds or ())


def _errors(engines, faces, corruptions, severities, seed, progress) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return engine's name -> bool (n,) of the rows that it gets wrong, and (corruptions, severities, n) corrupted."""
    steps, done = len(engines) * (1 + len(corruptions) * len(severities)), 0
    every = {engine.card.name: [] for engine in engines}
    kinds = [(name, severity) for name in corruptions for severity in severities]
    for kind in [None, *kinds]:
        seen = faces if kind is None else corrupt(faces, *kind, seed=seed)
        for engine in engines:
            every[engine.card.name].append(predict(engine, seen).argmax(axis=1) != faces.labels)
            done += 1
            if progress:
                progress(done * len(faces), steps * len(faces))
    shape = len(corruptions), len(severities), len(faces)
    return {name: (found[0], np.reshape(found[1:], shape)) for name, found in every.items()}


def _divided(errors: np.ndarray, baseline: np.ndarray) -> np.ndarray:
    """Return errors (..., corruptions, severities) over the baseline's, severities summed; nan where it has none."""
    ours, theirs = errors.sum(axis=-1), baseline.sum(axis=-1)
    return np.divide(ours, theirs, out=np.full(ours.shape, np.nan), where=theirs > 0)


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _interval(resampled: np.ndarray) -> tuple[float, float] | None:
    """Return the 95 % percentile interval, None if a resample has no value."""
    bounds = np.quantile(resampled, [0.025, 0.975])
    return tuple(map(float, bounds)) if np.isfinite(bounds).all() else None
