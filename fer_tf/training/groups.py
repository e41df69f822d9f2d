"""How well a network does on one group of faces and on another, from a table of a user's own; and what that means.

    rows = read_rows("faces.csv", by=["sex"])
    answered = classify(rows, engine=engine, detector=load_detector("full"))
    for found in group_report(answered, by=["sex"]):
        print(found.to_markdown())

A group's figure needs faces: below `minimum` of them it is not given at all. Groups are compared on accuracy, each with
all other faces together. p-values stand for all groups of a column, an interval for its group alone: one without a zero
in it may go with a p that is not small.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from fer_tf.labels import FERPLUS, canonical
from fer_tf.training.compare import LEVEL, holm
from fer_tf.training.evaluate import bootstrap_macro_f1, confusion_matrix, wilson_interval

MINIMUM = 30
"""Faces that a figure needs: with fewer, the 95 % interval of an accuracy spans more than a third of the scale."""
MOST_GROUPS = 20

MAY = (
    "On these pictures, judged by these labels, a group whose p-value is below 0.05 is named rightly more often, or "
    "less often, than the other faces are, by points within the interval given."
)
MAY_NOT = (
    "That a group without a difference is treated alike: where the interval is wide, these faces cannot tell.",
    "Why there is a difference: pictures, light, pose, the mix of emotions and of other traits differ between groups.",
    "That the labels are equally right for all: annotators' own bias is in them, and no figure here shows it.",
    "Anything about groups that are not in the table, about combinations of groups, or about other pictures.",
    "That the network is fit to judge people: labels are what annotators saw, not what a person felt.",
)


@dataclass(frozen=True, kw_only=True)
class Group:
    """One group's figures; those that need more faces than there are, are None.

    n, not_found  faces judged; pictures in which the detector found none, which are not judged
    accuracy      share of right answers, with its 95 % interval (Wilson)
    macro_f1      mean F1 of the emotions that every group has `minimum` faces of, with its 95 % interval (bootstrap)
    recall        emotion -> share of its faces that were named so
    lead          accuracy less that of all other faces, with its 95 % interval (Newcombe 1998, method 10)
    p_holm        Fisher's exact test of that, held against all groups of the column (Holm 1979)
    """

    name: str
    n: int
    not_found: int
    accuracy: float | None = None
    accuracy_interval: tuple[float, float] | None = None
    macro_f1: float | None = None
    macro_f1_interval: tuple[float, float] | None = None
    recall: dict[str, float | None] | None = None
    lead: float | None = None
    lead_interval: tuple[float, float] | None = None
    p_holm: float | None = None


@dataclass(frozen=True, kw_only=True)
class GroupReport:
    """All groups of one column, the largest first; `shared` are the emotions that macro_f1 is over."""

    column: str
    minimum: int
    shared: tuple[str, ...]
    groups: tuple[Group, ...]

    @property
    def sentences(self) -> list[str]:
        """What the tests say, in plain words."""
        told = []
        for group in self.groups:
            if group.lead is None:
                few = f"{group.n} faces are" if group.accuracy is None else "those of all other groups together are"
                told.append(f"{group.name}: {few} too few, {self.minimum} are needed.")
                continue
            low, high = (f"{100 * bound:+.1f}" for bound in group.lead_interval)
            differs = group.p_holm < LEVEL
            verdict = "more than chance would explain" if differs else "chance alone may do as much"
            p = "p < 0.001" if group.p_holm < 0.001 else f"p = {group.p_holm:.3f}"
            facts = f"{100 * group.lead:+.1f} points against all other faces ({low} to {high})"
            told.append(f"{group.name}: {facts}: {verdict} ({p}).")
        return told

    def to_dict(self) -> dict:
        """Return JSON values."""
        return asdict(self)

    def to_markdown(self) -> str:
        """Return the report as a page: the table, what it says, what may and what may not be concluded."""
        emotions = list(next((group.recall for group in self.groups if group.recall), {}))
        head = [self.column, "faces", "no face found", "accuracy", "macro-F1", *emotions]
        lines = [f"# By {self.column}", "", f"| {' | '.join(head)} |", "|---|" + "---:|" * (len(head) - 1)]
        for group in self.groups:
            recall = [_percent((group.recall or {}).get(emotion)) for emotion in emotions]
            whole = _percent(group.accuracy, group.accuracy_interval), _percent(group.macro_f1, group.macro_f1_interval)
            cells = [group.name.replace("|", "\\|"), f"{group.n:,}", f"{group.not_found:,}", *whole, *recall]
            lines.append(f"| {' | '.join(cells)} |")
        over = (
            f"macro-F1 over {', '.join(self.shared)}" if self.shared else "no macro-F1: no emotion is frequent enough"
        )
        rule = f"Columns by emotion are recall; {over}. A dash stands where there are fewer than {self.minimum} faces. "
        rule += "An interval is that of its group alone, a p-value stands for all groups."
        lines += ["", rule, "", *(f"- {sentence}" for sentence in self.sentences)]
        lines += ["", "**May be concluded.** " + MAY, "", "**May not be concluded.**", ""]
        return "\n".join([*lines, *(f"- {sentence}" for sentence in MAY_NOT), ""])


def read_rows(path: Path | str, *, by: Sequence[str]):
    """Read a CSV of labelled faces as a pandas table; emotions in this package's spelling, groups as text.

    Columns: label; predicted, what any system answered, or else path, a picture (relative to the CSV), for `classify`;
    and the columns of `by`. Rows without a group keep an empty one, which no group counts. Raises FileNotFoundError, or
    ValueError that names the column and row at fault.
    """
    import pandas as pd

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no table at {path}: check the path")
    try:
        rows = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no CSV with a header that can be read: {error}") from error
    answered = "predicted" if "predicted" in rows else "path"
    for name in ("label", answered, *by):
        if name not in rows:
            raise ValueError(f"{path} has no column {name!r}, only {', '.join(rows)}: name it so, or take another")
    if not len(rows):
        raise ValueError(f"{path} has no rows")
    for name in {"label", answered} - {"path"}:
        for i, word in enumerate(rows[name]):
            if name == "predicted" and not word.strip():  # no face was found
                rows.loc[i, name] = ""
                continue
            try:
                rows.loc[i, name] = canonical(word)
            except ValueError as error:
                raise ValueError(f"{path}, row {i + 2}, {name}: {error}") from error
    for name in by:
        kinds = rows[name].str.strip().replace("", np.nan).nunique()
        if not 2 <= kinds <= MOST_GROUPS:
            wanted = f"expected 2 to {MOST_GROUPS} groups: cut numbers into ranges first, such as 20-39"
            raise ValueError(f"{path}: {name!r} has {kinds} different values, {wanted}")
        rows[name] = rows[name].str.strip()
    if answered == "path":
        rows["path"] = [str(path.parent / one) for one in rows["path"]]
    return rows


def classify(rows, *, engine, detector, progress=None):
    """Return the table with a column predicted: of each picture's best face, empty where the detector finds none.

    progress  is called with the pictures done and how many there are
    """
    from fer_tf.inference.video import infer_image

    if unknown := set(rows["label"]) - set(engine.card.emotions):
        raise ValueError(f"{engine.card.name} does not know {', '.join(sorted(unknown))}: leave these rows out")
    answers = []
    for path in rows["path"]:
        faces = infer_image(path, engine=engine, detector=detector)
        best = faces.logits[faces.score.argmax()].argmax() if len(faces) else None
        answers.append("" if best is None else engine.card.emotions[best])
        if progress:
            progress(len(answers), len(rows))
    return rows.assign(predicted=answers)


def group_report(rows, *, by: Sequence[str], minimum: int = MINIMUM) -> list[GroupReport]:
    """Judge a table with the columns label, predicted ("" for no face) and those of `by`; a report per column."""
    if minimum < 2:
        raise ValueError(f"minimum must be at least 2 faces, got {minimum}")
    emotions = tuple(emotion for emotion in FERPLUS if emotion in {*rows["label"], *rows["predicted"]})
    return [_judge(rows[rows[column] != ""], column, emotions, minimum) for column in by]


def _judge(rows, column: str, emotions: tuple[str, ...], minimum: int) -> GroupReport:
    found = rows[rows["predicted"] != ""]
    label, predicted = (found[name].map(emotions.index).to_numpy() for name in ("label", "predicted"))
    members = {name: (found[column] == name).to_numpy() for name in rows[column].value_counts().index}
    large = [name for name, mine in members.items() if mine.sum() >= minimum]
    counts = {
        name: confusion_matrix(label[members[name]], predicted[members[name]], emotions=len(emotions)) for name in large
    }
    frequent = [k for k in range(len(emotions)) if all(matrix[k].sum() >= minimum for matrix in counts.values())]
    right, groups, tests = label == predicted, [], {}
    for name in large:
        tests[name] = _against(right, members[name], minimum)
    p = [test[2] for test in tests.values()]
    adjusted = dict(zip(tests, holm(p) if len(members) > 2 else p, strict=True))  # of two groups it is one test, twice
    for name, mine in members.items():
        about = {"name": name, "n": int(mine.sum()), "not_found": int((rows[column] == name).sum() - mine.sum())}
        if name in counts:
            about |= _figures(counts[name], emotions, frequent, minimum)
            if (test := tests[name])[1]:
                about |= {"lead": test[0], "lead_interval": test[1], "p_holm": adjusted[name]}
        groups.append(Group(**about))
    shared = tuple(emotions[k] for k in frequent) if counts else ()
    return GroupReport(column=column, minimum=minimum, shared=shared, groups=tuple(groups))


def _figures(matrix: np.ndarray, emotions: tuple[str, ...], frequent: list[int], minimum: int) -> dict:
    hits, n, support = int(np.trace(matrix)), int(matrix.sum()), matrix.sum(axis=1)
    recall = {
        emotion: float(matrix[k, k] / support[k]) if support[k] >= minimum else None
        for k, emotion in enumerate(emotions)
    }
    found = {"accuracy": hits / n, "accuracy_interval": wilson_interval(hits, n), "recall": recall}
    if frequent:
        f1 = 2 * np.diag(matrix) / np.maximum(matrix.sum(axis=0) + support, 1)
        interval = bootstrap_macro_f1(matrix, emotions=frequent)
        found |= {"macro_f1": float(f1[frequent].mean()), "macro_f1_interval": interval}
    return found


def _against(right: np.ndarray, mine: np.ndarray, minimum: int) -> tuple[float, tuple[float, float] | None, float]:
    """Return a group's lead over all others, its interval and p; no interval, and p = 1, where too few others are."""
    from scipy.stats import fisher_exact

    (a, n), (b, m) = ((int(right[part].sum()), int(part.sum())) for part in (mine, ~mine))
    if m < minimum:
        return 0.0, None, 1.0
    (p, q), (low, high), (floor, top) = (a / n, b / m), wilson_interval(a, n), wilson_interval(b, m)
    lead = p - q
    interval = lead - np.hypot(p - low, top - q), lead + np.hypot(high - p, q - floor)
    return lead, tuple(float(bound) for bound in interval), float(fisher_exact([[a, n - a], [b, m - b]]).pvalue)


def _percent(share: float | None, interval: tuple[float, float] | None = None) -> str:
    if share is None:
        return "–"
    return f"{100 * share:.1f} %" + (f" ({100 * interval[0]:.1f} to {100 * interval[1]:.1f})" if interval else "")
