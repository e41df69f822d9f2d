"""The table of results: what `fer-tf evaluate --results` found, one row per model and data set, kept as JSON."""

import json
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from fer_tf.card import ModelCard
from fer_tf.data.labelled import Splits
from fer_tf.files import write_atomically
from fer_tf.inference.alone import measure_alone
from fer_tf.inference.benchmark import host
from fer_tf.training.compare import Run
from fer_tf.training.evaluate import Report, headline, reports
from fer_tf.training.folder import same_recipe
from fer_tf.training.recipe import Recipe

logger = logging.getLogger(__name__)


def row(engines: list, data: Splits, *, plain: tuple, ten: tuple, others: Sequence[Run] = ()) -> dict:
    """Return what the table says of a model, or of an ensemble of several, as JSON values.

    plain   what `judge` returned of the faces as they are; ten: of ten views each (`evaluate.VIEWS`)
    others  finished runs by the recipe of the one model, with other seeds: "seeds" has their figures beside its own

    "found" has, for every emotion, how many of its test faces are named rightly, and of how many.
    "cpu_ms" is the median latency of one face, of an .onnx file alone in its process; members of an ensemble add up.
    "ece_uncalibrated" is the gap before the temperature; None for an ensemble. Raises ValueError for runs of another
    recipe, of other data or of a seed that is there already.
    """
    cards, files = [engine.card for engine in engines], [_file(engine) for engine in engines]
    alone, timed = len(cards) == 1, []
    if all(hasattr(engine, "path") for engine in engines):
        timed = [measure_alone(engine.path, backend=engine.backend) for engine in engines]
    return {
        "model": " + ".join(card.name for card in cards),
        "architecture": " + ".join(card.architecture for card in cards),
        "dataset": data.name,
        "fingerprint": data.fingerprint,
        "date": datetime.now(UTC).date().isoformat(),
        "host": host(),
        "backend": " + ".join(dict.fromkeys(engine.backend for engine in engines)),
        "seed": cards[0].recipe.get("seed") if alone else None,
        "seeds": _seeds(cards, plain[0], data, others),
        "recipe": {k: v for k, v in cards[0].recipe.items() if k != "seed"} if alone else None,
        "parameters": sum(about["parameters"] for about in files),
        "bytes": sum(about["bytes"] for about in files),
        "temperature": cards[0].temperature if alone else None,
        "cpu_ms": sum(one["batches"]["1"]["latency_ms"]["p50"] for one in timed) if timed else None,
        "found": _found(plain[0]["test"]),
        "plain": _figures(*plain, temperature=cards[0].temperature if alone else None),
        "ten_views": _figures(*ten, temperature=cards[0].temperature if alone else None),
    }


def check(path: Path, engines: list, data: Splits, others: Sequence[Run] = ()) -> None:
    """Raise ValueError or FileNotFoundError for what `row` and `add` would refuse, before anything is judged."""
    if path.is_file():
        read(path)
    for engine in engines:
        _file(engine)
    _check_others([engine.card for engine in engines], data, others)


def add(path: Path, found: dict) -> dict:
    """Write a row into the table at `path`, in place of an earlier one of the same model and data set; return all rows.

    A row without other seeds keeps those of the earlier one, if that is the same model: measuring anew forgets nothing.
    Raises ValueError if the file is no such table, or has rows of other data of that name.
    """
    rows = read(path) if path.is_file() else []
    before = [known for known in rows if (known["model"], known["dataset"]) == (found["model"], found["dataset"])]
    kept = [known for known in rows if known not in before]
    if any(k["dataset"] == found["dataset"] and k["fingerprint"] != found["fingerprint"] for k in kept):
        raise ValueError(f"{path} has rows of other data called {found['dataset']}: give another file")
    if before and before[0].get("seeds") and not found.get("seeds"):
        if _same_model(before[0], found):
            found = found | {"seeds": before[0]["seeds"]}
        else:
            logger.warning("%s was another model before: its runs with other seeds are no longer told", found["model"])
    rows = sorted([*kept, found], key=lambda r: (r["dataset"], -r["plain"]["test"]["accuracy"]))
    write_atomically(path, (json.dumps(rows, indent=2) + "\n").encode())
    return rows


def read(path: Path) -> list[dict]:
    """Return the rows at `path`; raises ValueError if it is no such table."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        for known in rows:
            known["model"], known["dataset"], known["fingerprint"], known["plain"]["test"]["accuracy"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} was not written by `fer-tf evaluate --results`: give another file") from error
    return rows


def _seeds(cards: list[ModelCard], own: dict[str, Report], data: Splits, others: Sequence[Run]) -> list[dict] | None:
    """Return accuracy and macro-F1 per split of the one model's seed and of each other, by seed."""
    if not others:
        return None
    _check_others(cards, data, others)
    names = "accuracy", "macro_f1"
    found = {cards[0].recipe["seed"]: {s: {n: getattr(report, n) for n in names} for s, report in own.items()}}
    found |= {run.card.recipe["seed"]: {s: {n: run.metrics[s][n] for n in names} for s in own} for run in others}
    return [{"seed": seed} | found[seed] for seed in sorted(found)]


def _check_others(cards: list[ModelCard], data: Splits, others: Sequence[Run]) -> None:
    """Refuse runs that are not the one model's training with another seed."""
    if others and len(cards) > 1:
        raise ValueError("an ensemble has no seeds to add: give runs of other seeds with one model")
    known = cards[0].recipe
    if others and "seed" not in known:
        raise ValueError(f"the card of {cards[0].name} tells no seed, so no run is by its recipe with another one")
    taken = {known.get("seed")}
    for run in others:
        theirs = run.card.recipe
        same = same_recipe(theirs | {"seed": 0}, Recipe.from_dict(known | {"seed": 0}))
        same &= run.card.data.get("teachers") == cards[0].data.get("teachers")
        if not same or run.card.data.get("fingerprint") != data.fingerprint:
            raise ValueError(
                f"{run.folder} was trained by another recipe than {cards[0].name}, on other data, or by other teachers"
            )
        if theirs["seed"] in taken:
            raise ValueError(f"seed {theirs['seed']} comes twice, the second time from {run.folder}")
        taken.add(theirs["seed"])


def _same_model(before: dict, after: dict) -> bool:
    """Tell whether two rows are of the same weights, as far as rows tell: data, recipe, seed, size, hits."""
    same = all(before.get(name) == after.get(name) for name in ("fingerprint", "recipe", "seed", "parameters", "bytes"))
    hits = [{s: round(j["accuracy"] * j["n"]) for s, j in r["plain"].items()} for r in (before, after)]
    return same and hits[0].keys() == hits[1].keys() and all(abs(hits[0][s] - hits[1][s]) <= 2 for s in hits[0])


def _found(judged: Report) -> dict:
    """Return how many test faces of every emotion are named rightly, and of how many."""
    hits, n = judged.confusion.diagonal().tolist(), judged.confusion.sum(axis=1).tolist()
    return {e: {"right": right, "n": count} for e, right, count in zip(judged.emotions, hits, n, strict=True)}


def _file(engine) -> dict:
    """Return what the card beside the engine's file says of it; the one inside an .onnx file cannot know.

    Raises FileNotFoundError without that card, ValueError if it does not name the file.
    """
    if not hasattr(engine, "path"):
        return engine.card.files["model.keras"]
    card = engine.path.with_name("card.json")
    files = ModelCard.load(card).files
    if engine.path.name not in files:
        raise ValueError(f"{card} does not name {engine.path.name}: export it again, or give its name back")
    return files[engine.path.name]


def _figures(judged: dict, predictions: dict[str, np.ndarray], *, temperature: float | None) -> dict:
    before = {}
    if temperature is not None:
        hot = {n: v * np.float32(temperature) if n.endswith("_logits") else v for n, v in predictions.items()}
        before = {split: report.ece for split, report in reports(hot, judged["test"].emotions).items()}
    return {s: headline(report.to_dict() | {"ece_uncalibrated": before.get(s)}) for s, report in judged.items()}
