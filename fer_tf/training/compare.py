"""Finished runs side by side, read from their folders alone: tables, paired tests, agreement, what all get wrong."""

import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np

from fer_tf import zoo
from fer_tf.card import ModelCard
from fer_tf.data.labelled import Splits
from fer_tf.faces import softmax
from fer_tf.training.evaluate import macro_f1, reports, wilson_interval

LEVEL = 0.05
"""A p-value below this is called a real difference."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """What a finished run left behind.

    history      pandas table, one row per epoch
    metrics      split -> `Report.to_dict()`; splits are valid, valid_clean, test, test_clean, those that have rows;
                 "affect" -> split -> `evaluate.affect_report`, where a run trained it
    predictions  "<split>_logits" float32 (n, emotions), "<split>_labels" int64 (n,), "<split>_clean" bool (n,)
    parameters   numbers in the saved network, moving averages included; None where there is no model.keras
    """

    name: str
    folder: Path
    card: ModelCard
    history: object
    metrics: dict
    predictions: dict
    parameters: int | None

    def hits(self, split: str) -> np.ndarray:
        """Return bool (n,): which rows of valid, valid_clean, test or test_clean were named rightly."""
        whole = split.removesuffix("_clean")
        if f"{whole}_logits" not in self.predictions:
            splits = [name.removesuffix("_logits") for name in self.predictions if name.endswith("_logits")]
            known = ", ".join(f"{name}, {name}_clean" for name in splits)
            raise ValueError(f"{self.name} has no predictions on {split!r}; known are {known}")
        right = self.answers(whole) == self.predictions[f"{whole}_labels"]
        return right if split == whole else right[self.predictions[split]]

    def answers(self, split: str) -> np.ndarray:
        """Return int64 (n,): the emotion that is named on each row of valid or test."""
        return self.predictions[f"{split}_logits"].argmax(axis=1)


@dataclass(frozen=True, kw_only=True)
class Paired:
    """McNemar's exact test of two runs on the same n rows: only rows that one of the two got right tell them apart.

    p       how often two equally good runs would differ at least so much
    p_holm  the same, held against all the tests that were made (Holm 1979)
    """

    first: str
    second: str
    n: int
    both: int
    only_first: int
    only_second: int
    neither: int
    p: float
    p_holm: float

    @property
    def sentence(self) -> str:
        """What the test says, in plain words."""
        better, worse = (self.first, self.second)[:: 1 if self.only_first >= self.only_second else -1]
        more, fewer = sorted((self.only_first, self.only_second), reverse=True)
        points = 100 * (more - fewer) / self.n
        facts = f"{better} alone is right on {more:,} of {self.n:,} faces, {worse} alone on {fewer:,}"
        if more == fewer:
            return f"{facts}: no difference in accuracy."
        found = f"{facts}: {better} leads by {points:.1f} points"
        if self.p_holm < LEVEL:
            return f"{found}, and that is more than chance would explain ({_p(self.p_holm)})."
        return f"{found}, but chance alone may well do as much ({_p(self.p_holm)}): these faces do not tell them apart."


@dataclass(frozen=True, kw_only=True)
class Difference:
    """What the first run has over the second on the same n rows, as shares, each with a 95 % bootstrap interval."""

    first: str
    second: str
    n: int
    accuracy: float
    accuracy_interval: tuple[float, float]
    macro_f1: float
    macro_f1_interval: tuple[float, float]


def read_run(folder: Path) -> Run:
    """Read a finished run; raises FileNotFoundError for a folder that is none, ValueError for a damaged one."""
    import pandas as pd

    for name in ("metrics.json", "card.json", "history.csv", "predictions.npz"):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} is no finished run: it has no {name}; train it again")
    try:
        with np.load(folder / "predictions.npz") as saved:
            predictions = dict(saved)
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        parameters = count_parameters(folder / "model.keras")
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{folder} holds a damaged file ({error}): train it again") from error
    return Run(
        name=folder.resolve().name,
        folder=folder,
        card=ModelCard.load(folder / "card.json"),
        history=pd.read_csv(folder / "history.csv"),
        metrics=metrics,
        predictions=predictions,
        parameters=parameters,
    )


def read_runs(folder: Path) -> list[Run]:
    """Read every finished run in `folder`, in name order.

    Raises FileNotFoundError if there is none, ValueError if they did not see the same data or name other emotions:
    such figures must not stand in one table.
    """
    runs = [read_run(path.parent) for path in sorted(folder.glob("*/metrics.json"))]
    if not runs:
        raise FileNotFoundError(
            f"no finished run in {folder}: run notebook 02_lenet or 03_mobilenet_v2 first, with the same run_dir"
        )
    for what, of in (("data", _data), ("emotions", lambda run: ", ".join(run.card.emotions))):
        if len({of(run) for run in runs}) > 1:
            seen = "; ".join(f"{run.name}: {of(run)}" for run in runs)
            raise ValueError(
                f"the runs in {folder} do not share their {what} ({seen}): train them on the same dataset, limit, "
                "image_size and data_seed, or delete those that do not belong here"
            )
    return runs


def ensemble(runs: Sequence[Run], *, name: str = "ensemble") -> Run:
    """Return several runs as one that gives the mean of their logits, with predictions and metrics of its own.

    Raises ValueError for none, and for runs whose faces, labels or emotions differ.
    """
    if not runs or any(run.card.emotions != runs[0].card.emotions for run in runs):
        raise ValueError("an ensemble needs runs that name the same emotions in the same order")
    predictions = {what: values for what, values in runs[0].predictions.items() if "_affect" not in what}
    for split in [name.removesuffix("_logits") for name in predictions if name in ("valid_logits", "test_logits")]:
        if any(not np.array_equal(run.predictions[f"{split}_labels"], predictions[f"{split}_labels"]) for run in runs):
            raise ValueError("the runs were not judged on the same faces: they make no ensemble")
        predictions[f"{split}_logits"] = np.mean([run.predictions[f"{split}_logits"] for run in runs], axis=0)
    judged = reports(predictions, runs[0].card.emotions)
    sizes = [run.parameters for run in runs]
    return replace(
        runs[0],
        name=name,
        card=runs[0].card.with_(name=name, metrics={}, files={}),
        metrics={split: report.to_dict() for split, report in judged.items()},
        predictions=predictions,
        parameters=None if None in sizes else sum(sizes),
    )


def summary(judged: dict) -> dict[str, str]:
    """Return a report (`Report.to_dict()`, or its headline in a card) as the cells of a table, in percent and nats."""
    return {
        "accuracy %": f"{100 * judged['accuracy']:.1f}",
        "95% interval": _interval(judged["accuracy_interval"]),
        "macro-F1 %": f"{100 * judged['macro_f1']:.1f}",
        "its 95% interval": _interval(judged["macro_f1_interval"]),
        "NLL nats": f"{judged['nll']:.3f}",
        "ECE %": f"{100 * judged['ece']:.1f}",
        "n": f"{judged['n']:,}",
    }


def paired_tests(runs: Sequence[Run], *, split: str = "test") -> list[Paired]:
    """Test every two runs on valid, valid_clean, test or test_clean (McNemar 1947, exact binomial).

    Empty for fewer than two runs. Raises ValueError for another split and for one without rows.
    """
    tests = [_mcnemar(first, second, split) for first, second in combinations(runs, 2)]
    return [replace(test, p_holm=p) for test, p in zip(tests, holm([test.p for test in tests]), strict=True)]


def leads(tests: Sequence[Paired]):
    """Return who beats whom as two square pandas tables, runs as rows and columns, from `paired_tests`.

    The first holds the points of accuracy by which the run of a row leads that of a column, the second Holm's p.
    """
    import pandas as pd

    names = list(dict.fromkeys(name for test in tests for name in (test.first, test.second)))
    points = pd.DataFrame(0.0, index=names, columns=names)
    p = pd.DataFrame(1.0, index=names, columns=names)
    for test in tests:
        lead = 100 * (test.only_first - test.only_second) / test.n
        points.loc[test.first, test.second], points.loc[test.second, test.first] = lead, -lead
        p.loc[test.first, test.second] = p.loc[test.second, test.first] = test.p_holm
    return points, p


def difference(first: Run, second: Run, *, split: str = "test", resamples: int = 2000, seed: int = 0) -> Difference:
    """Return what one run has over another in accuracy and macro-F1 on valid or test, with paired bootstrap intervals.

    A resample takes rows, each with the answers of both runs; that is the same as resampling the cells of the table
    label x first answer x second answer (Efron 1979, percentiles).
    """
    labels, k = first.predictions[f"{split}_labels"], len(first.card.emotions)
    cells = (labels * k + first.answers(split)) * k + second.answers(split)
    counts, n = np.bincount(cells, minlength=k**3), len(labels)
    drawn = np.random.default_rng(seed).multinomial(n, counts / n, size=resamples)
    table = np.concatenate([counts[None], drawn]).reshape(-1, k, k, k)
    confusions = table.sum(axis=3), table.sum(axis=2)
    hits = [np.trace(confusion, axis1=1, axis2=2) / n for confusion in confusions]
    accuracy, f1 = hits[0] - hits[1], macro_f1(confusions[0]) - macro_f1(confusions[1])
    bounds = np.quantile([accuracy[1:], f1[1:]], [0.025, 0.975], axis=1).T
    return Difference(
        first=first.name,
        second=second.name,
        n=n,
        accuracy=float(accuracy[0]),
        accuracy_interval=tuple(bounds[0].tolist()),
        macro_f1=float(f1[0]),
        macro_f1_interval=tuple(bounds[1].tolist()),
    )


def recalls(runs: Sequence[Run], *, split: str = "test"):
    """Return the recall of every emotion (columns) by every run (rows), a pandas table of 0..1."""
    import pandas as pd

    found = {run.name: {e: each["recall"] for e, each in run.metrics[split]["per_emotion"].items()} for run in runs}
    return pd.DataFrame(found).T


def agreement(runs: Sequence[Run], *, split: str = "test"):
    """Return how alike the answers of every two runs are, as two square pandas tables: share of equal ones, kappa.

    Cohen's kappa (1960) is the share over what two would reach who give the same emotions as often, by chance: 0 is
    chance, 1 the same answer to every face.
    """
    import pandas as pd

    names, emotions = [run.name for run in runs], len(runs[0].card.emotions)
    answers = np.eye(emotions)[[run.answers(split) for run in runs]]  # (runs, n, emotions)
    same = np.einsum("anc,bnc->ab", answers, answers) / answers.shape[1]
    shares = answers.mean(axis=1)  # (runs, emotions)
    chance = shares @ shares.T
    kappa = np.divide(same - chance, 1 - chance, out=np.ones_like(same), where=chance < 1)
    return tuple(pd.DataFrame(table, index=names, columns=names) for table in (same, kappa))


def missed_by_all(runs: Sequence[Run], *, split: str = "test"):
    """Return the rows of valid or test that every run gets wrong, as a pandas table, the surest mistakes first.

    row       number in the split
    label     index into the emotions; said: what most runs answer, and how many of them: votes
    p         the mean probability that the runs give to that answer
    """
    import pandas as pd

    missed = np.flatnonzero(~np.any([run.hits(split) for run in runs], axis=0))
    answers = np.eye(len(runs[0].card.emotions), dtype=int)[[run.answers(split)[missed] for run in runs]]
    votes = answers.sum(axis=0)  # (missed, emotions)
    p = np.mean([softmax(run.predictions[f"{split}_logits"][missed]) for run in runs], axis=0)
    said = (votes + p).argmax(axis=1)  # of answers given equally often the more probable
    each = np.arange(len(missed)), said
    labels = runs[0].predictions[f"{split}_labels"][missed]
    table = pd.DataFrame({"row": missed, "label": labels, "said": said, "votes": votes[each], "p": p[each]})
    return table.sort_values("p", ascending=False, kind="stable", ignore_index=True)


def clean_and_leaked(runs: Sequence[Run], *, split: str = "test"):
    """Return accuracy on clean rows of valid or test and on leaked ones, whose image an earlier split has, too.

    A pandas table of shares, a row per run: clean and leaked, each with the low and high end of its 95 % interval, and
    gap, leaked minus clean. None where there is no leaked or no clean row.
    """
    import pandas as pd

    rows = {}
    for run in runs:
        hits, clean = run.hits(split), run.predictions[f"{split}_clean"]
        if not 0 < clean.sum() < len(clean):
            return None
        cells = rows[run.name] = {}
        for name, part in (("clean", hits[clean]), ("leaked", hits[~clean])):
            low, high = wilson_interval(int(part.sum()), len(part))
            cells |= {name: part.mean(), f"{name} low": low, f"{name} high": high}
        cells["gap"] = cells["leaked"] - cells["clean"]
    return pd.DataFrame(rows).T


def costs(runs: Sequence[Run]) -> tuple[str, list[float]]:
    """Return what one face costs each run, and in what: the best measure that is known of all of them.

    That is the median latency that `fer-tf measure` found for the network (the same architecture, input shape and
    number of parameters) on the machine that the words name; else multiply-adds, which cards of exported runs carry,
    too; else the number of parameters, nan where there is no model.keras.
    """
    found = zoo.measured()
    same = [_measured(run, found["architectures"]) for run in runs]
    if all(same):
        host = f"{found['host']['cores']} cores of {found['host']['cpu']}"
        timed = [about["backends"]["openvino-provider"]["batches"]["1"]["latency_ms"]["p50"] for about in same]
        return f"one face, ms (OpenVINO's provider, {host})", timed
    told = [
        [about.get("multiply_adds") for about in (*run.card.files.values(), like)]
        for run, like in zip(runs, same, strict=True)
    ]
    if all(map(any, told)):
        return "multiply-adds of one face, millions", [next(filter(None, each)) / 1e6 for each in told]
    return "parameters, millions", [np.nan if run.parameters is None else run.parameters / 1e6 for run in runs]


def judged_data(runs: Sequence[Run], *, limit: int | None = None) -> Splits:
    """Return the data set that runs of one folder were judged on, read anew as their cards say, with votes if known.

    limit  rows per split that the training was given; all of them are tried, too

    Raises what `load` does where the data are not there, ValueError if they are not those of the cards' fingerprint or
    are clips.
    """
    from fer_tf.data.readers import SIZE, load

    card = runs[0].card
    if card.window > 1:
        raise ValueError("these runs learned from clips, which are not read anew: only pictures are")
    dataset, labels = card.recipe.get("dataset") or card.data.get("name", ""), card.recipe.get("labels", "auto")
    own = dataset != "ferplus" and labels in ("auto", "fer2013", "fer2013-votes")
    for size in sorted({SIZE, *(max(SIZE, run.card.image_size) for run in runs)}):
        for rows in dict.fromkeys([limit, None]):
            choices = {"image_size": size, "seed": card.recipe.get("data_seed", 0), "limit": rows}
            try:
                data = load(dataset, labels="fer2013-votes" if own else labels, **choices)
            except (FileNotFoundError, ValueError):
                if not own:
                    raise
                data = load(dataset, labels=labels, **choices)  # there are no votes beside it
            if data.fingerprint == card.data.get("fingerprint"):
                return data
    raise ValueError(
        f"{data.name} as it is read here is not what the runs saw ({_data(runs[0])}): give the limit that they had"
    )


def read_ablations(path: Path):
    """Return what benchmarks/ablations.py wrote as a pandas table, one row per run.

    change, seed, valid, ten views   the accuracies in per cent
    macro_f1                         on valid, in per cent
    gain, margin                     points over the run of this seed without a change, and its 95 % margin by the rows
                                     of valid that only one of the two named rightly: valid's chance, not the seed's
    """
    import pandas as pd

    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    table = pd.DataFrame([{"change": row["change"]} | run for row in rows for run in row["runs"]])
    with_, without, n = table["only_right_with"], table["only_right_without"], table["n"]
    table["gain"] = 100 * (with_ - without) / n
    table["margin"] = 196 * np.sqrt(with_ + without - (with_ - without) ** 2 / n) / n
    return table


def holm(p: Sequence[float]) -> list[float]:
    """Return p-values adjusted for being several, in the given order (Holm 1979)."""
    adjusted, highest = [1.0] * len(p), 0.0
    for rank, i in enumerate(np.argsort(p, kind="stable")):
        highest = max(highest, min(1.0, p[i] * (len(p) - rank)))
        adjusted[i] = highest
    return adjusted


def _mcnemar(first: Run, second: Run, split: str) -> Paired:
    from scipy.stats import binomtest

    a, b = first.hits(split), second.hits(split)
    if not len(a):
        raise ValueError(f"no row of {split} is left to test on: take {split.removesuffix('_clean')!r}")
    only_first, only_second = int((a & ~b).sum()), int((b & ~a).sum())
    differing = only_first + only_second
    p = float(binomtest(only_first, differing).pvalue) if differing else 1.0
    return Paired(
        first=first.name,
        second=second.name,
        n=len(a),
        both=int((a & b).sum()),
        only_first=only_first,
        only_second=only_second,
        neither=int((~a & ~b).sum()),
        p=p,
        p_holm=p,
    )


def _data(run: Run) -> str:
    return f"{run.card.data.get('name', 'unnamed')} {run.card.data.get('fingerprint', 'without fingerprint')}"


def _measured(run: Run, architectures: dict) -> dict:
    """Return the figures of the network that `fer-tf measure` built, if it is this one; else nothing."""
    like = architectures.get(run.card.architecture, {})
    shape = like.get("input_shape"), like.get("parameters")
    return like if shape == (list(run.card.input_shape), run.parameters) else {}


def count_parameters(model: Path) -> int | None:
    """Count the numbers in a `.keras` file, which is a zip with an HDF5 file of weights."""
    if not model.is_file():
        return None
    import h5py

    items = []
    with zipfile.ZipFile(model) as archive, h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as weights:
        weights.visititems(lambda _, item: items.append(item))
        arrays = [item for item in items if isinstance(item, h5py.Dataset)]
        return sum(array.size for array in arrays if array.dtype.kind == "f")  # the others are random states


def _interval(bounds: Sequence[float]) -> str:
    return " – ".join(f"{100 * bound:.1f}" for bound in bounds)


def _p(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
