"""Model cards and data cards as Markdown, from what the JSON card and the audit of the data say."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from fer_tf import paths
from fer_tf.card import INTENDED_USE, ModelCard
from fer_tf.data.labelled import Splits
from fer_tf.files import write_atomically

ROWS = {"valid": "valid", "valid_clean": "valid, clean", "test": "test", "test_clean": "test, clean"}
NOT_FOR = (
    "To judge, select, watch or score a person: at work, in education, at a border, in court, for insurance.",
    "To say what a person feels: people agree with FER2013's labels on about two faces in three.",
    "Where an answer must be right for everybody: how errors spread over age, sex or skin colour was not measured.",
)
SAYS = "field", "what is known"
SOURCES = {  # how a data set's name begins -> where it is from, and what is known to be wrong with it
    "drawn": (
        "Drawn by `fer_tf.data.drawn` from facial action units, anew from a seed. Nobody's picture is in it.",
        "These are drawings: accuracy on them says nothing about photographs.",
    ),
    "fer2013": (
        "Kaggle's and ICML's challenge of 2013 (Goodfellow et al.): 48 px grey faces, found by searching the web for "
        "words of emotion, cut out by a detector, labelled by people.",
        "Labels are noisy: people agree with 65 ± 5 % of them. Some pictures show no face or have text over it.",
    ),
}
SOURCES["ferplus"] = (
    f"{SOURCES['fer2013'][0]} Labelled again by ten annotators a face (FER+, Barsoum et al. 2016).",
    "Annotators disagree on many faces: the label is that of most votes, and the votes say how many that were.",
)

ROWS_OF = {  # a data set's name -> which rows its figures are of, where that is a choice
    "ferplus-distribution": "learned from votes, of doubtful faces too; judged on faces on which one emotion has more "
    "than half of the votes (for unknown and no face, too) once single votes are dropped: not to be compared with "
    "accuracy on FER2013's labels",
    "ferplus-majority": "faces on which one emotion has more than half of the votes (for unknown and no face, too) "
    "once single votes are dropped",
    "ferplus-argmax": "faces whose most frequent vote is an emotion, doubtful ones included; of equals the first in "
    "FER+'s order",
}


def find_card(model: str | Path) -> Path:
    """Return the card.json of a shipped model's name, a run folder, or a file with its card beside it."""
    path = Path(model)
    folders = (path if path.is_dir() else path.parent) if path.exists() else paths.MODELS / path.name
    if not (folders / "card.json").is_file():
        known = ", ".join(sorted(found.parent.name for found in paths.MODELS.glob("*/card.json")))
        raise FileNotFoundError(f"no card.json for {model}: give a run folder, a file in one, or one of {known}")
    return folders / "card.json"


def model_card(card: ModelCard, *, per_emotion: dict | None = None) -> str:
    """Return a model's card as Markdown; `per_emotion` is that of a `Report` on test."""
    many = f" of {card.window} frames" if card.window > 1 else ""
    side, channels = card.image_size, 3 if card.colour == "RGB" else 1
    shape = (side, side, channels) if card.layout == "NHWC" else (channels, side, side)
    shape = shape if card.window == 1 else (card.window, *shape)
    known = {key: card.data.get(key) for key in ("name", "fingerprint", "terms")}
    known["which rows"] = ROWS_OF.get(known["name"])
    known["its start learned from"] = _learned_from(card.data.get("start", {}))
    for name, teacher in card.data.get("teachers", {}).items():
        known[f"its teacher {name} learned from"] = _learned_from(teacher)
    trained = {k: v for k, v in card.recipe.items() if v not in (None, "", [], {})}
    parts = [
        f"# Model card: {card.name}",
        f"A `{card.architecture}` network that names the emotion which annotators would have seen on a face: "
        f"{_listed(card.emotions)}. A network always answers, whatever it is shown.",
        _table(
            SAYS,
            [
                ("takes", f"faces{many}, {card.colour} {card.layout} {shape}, values {_span(card.value_range)}"),
                ("gives", f"{len(card.emotions)} {card.output}, in the order above"),
            ],
        ),
        "## Intended use\n\nTo teach and to study the method, and to compare networks on the same faces.",
        "## What it must not be used for",
        card.intended_use,
        _list(NOT_FOR),
        "## Data and terms",
        _table(
            SAYS,
            [(key, value) for key, value in known.items() if value] or [("data", "the card does not name them")],
        ),
        *([f"Origin of its weights: {' '.join(card.notices)}"] if card.notices else []),
        "## How it was trained",
        _training(card.recipe),
        *([f"```json\n{json.dumps(trained, indent=2, ensure_ascii=False)}\n```"] if trained else []),
        "## Results",
        _results(card.metrics),
        *(["### Test, per emotion", _per_emotion(per_emotion)] if per_emotion else []),
        "## Calibration",
        _calibration(card),
        "## Files",
        _files(card.files),
        "## Versions",
        _table(("package", "version"), card.versions.items()) if card.versions else "The card does not name them.",
    ]
    return "\n\n".join(parts) + "\n"


def data_card(data: Splits) -> str:
    """Return a data set's card as Markdown: source, terms, counts, duplicates and leaks, votes, known problems."""
    audit = data.audit
    source = next((known for start, known in SOURCES.items() if data.name.startswith(start)), None)
    totals = {split: int(counts.sum()) for split, counts in audit.counts.items()}
    rows = [
        (emotion, *(f"{counts[i]:,} ({counts[i] / totals[split]:.1%})" for split, counts in audit.counts.items()))
        for i, emotion in enumerate(data.emotions)
    ]
    shape = " x ".join(map(str, data.train.images.shape[1:]))
    rows_of = [("which rows", ROWS_OF[data.name])] if data.name in ROWS_OF else []
    parts = [
        f"# Data card: {data.name}",
        source[0] if source else "Read from files of the user's own; this package knows nothing of their origin.",
        _table(SAYS, [("fingerprint", f"`{data.fingerprint}`"), ("terms", data.terms), *rows_of, ("one row", shape)]),
        "## What it must not be used for",
        INTENDED_USE,
        _list(NOT_FOR),
        "## Counts by emotion and split",
        _table(("emotion", *totals), [*rows, ("all", *(f"{total:,}" for total in totals.values()))], right=True),
        "## Duplicates and leaks",
        "Copies are equal pixel by pixel. Clean test rows repeat no image of train or valid."
        + (" Of a sample, clean is what the whole data set says." if data.clean else ""),
        _table(("finding", "count"), [(name, f"{count:,}") for name, count in audit.findings.items()], right=True),
        "## Votes",
        _votes(data),
        "## Known problems",
        _list(_problems(data, source[1] if source else "")),
    ]
    return "\n\n".join(parts) + "\n"


def write_cards(run_dir: Path, *, data: Splits | None = None) -> list[Path]:
    """Write `run_dir`/cards/: a Markdown card of every model below the folder, and of `data` as data.md first.

    `data` is left out where no run of the folder was trained on exactly these faces. Returns the files.
    """
    cards, written = run_dir / "cards", {}
    if data is not None and data.fingerprint in {_fingerprint(path) for path in run_dir.rglob("data.json")}:
        written[cards / "data.md"] = data_card(data)
    for path in sorted(run_dir.rglob("card.json")):
        name = "-".join(path.parent.relative_to(run_dir).parts)
        written[cards / f"{name}.md"] = read_model_card(path)
    cards.mkdir(exist_ok=True)
    for path, text in written.items():
        write_atomically(path, text.encode())
    return list(written)


def read_model_card(path: Path) -> str:
    """Return the card.json at `path` as Markdown, with figures per emotion where a metrics.json lies beside it.

    Raises ValueError for damaged papers.
    """
    try:
        metrics = path.with_name("metrics.json")
        judged = json.loads(metrics.read_text(encoding="utf-8")) if metrics.is_file() else {}
        return model_card(ModelCard.load(path), per_emotion=judged.get("test", {}).get("per_emotion"))
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}, or a metrics.json beside it, is damaged ({error!r})") from error


def _fingerprint(path: Path) -> str | None:
    return json.loads(path.read_text(encoding="utf-8")).get("fingerprint")


def _learned_from(model: dict) -> str:
    """Return the data of a network as a run's data.json tells of it: name and terms."""
    data = model.get("data", {})
    return ": ".join(data[key] for key in ("name", "terms") if data.get(key))


def _training(recipe: dict) -> str:
    if not recipe:
        return "The card does not say."
    start = recipe.get("weights") or "random numbers"
    epochs = " + ".join(
        f"{recipe[name]} {what}"
        for name, what in (("head_epochs", "of the head alone"), ("branch_epochs", "a branch"), ("epochs", "of all"))
        if recipe.get(name)
    )
    taught = f", and was taught by {' and '.join(recipe['teachers'])}" if recipe.get("teachers") else ""
    again = "; saved as recipe.json, `fer-tf train --recipe recipe.json` trains it anew, on all rows"
    return (
        f"It began from {start}{taught}. Epochs: {epochs or 'not said'}. The weights were selected on valid by "
        f"{recipe.get('monitor', 'accuracy')} and reported on test, seed {recipe.get('seed', 'unknown')}. "
        f"Every choice{again if recipe.get('dataset') else ''}:"
    )


def _results(metrics: dict) -> str:
    if not metrics:
        return "The card reports none."
    rows = [
        (
            ROWS.get(split, split),
            f"{judged['n']:,}",
            _share(judged, "accuracy"),
            _share(judged, "macro_f1"),
            f"{judged['nll']:.3f}" if "nll" in judged else "",
        )
        for split, judged in metrics.items()
    ]
    table = _table(("rows", "n", "accuracy (95 %)", "macro-F1 (95 %)", "NLL, nats"), rows, right=True)
    return (
        f"{table}\n\nValid chose the weights, so it flatters them; test was looked at once. Clean rows repeat no image "
        "of an earlier split. An interval is that of the rows alone: another seed moves a figure, too."
    )


def _per_emotion(shares: dict) -> str:
    rows = [
        (emotion, *(f"{100 * row[key]:.1f} %" for key in ("precision", "recall", "f1")), f"{row['support']:,}")
        for emotion, row in shares.items()
    ]
    return _table(("emotion", "precision", "recall", "F1", "rows"), rows, right=True)


def _calibration(card: ModelCard) -> str:
    judged = card.metrics.get("test", {})
    fitted = f"Logits are divided by {card.temperature:g}, fitted on valid" if card.temperature != 1 else ""
    if "ece" not in judged:
        return f"{fitted or 'Nothing is divided'}; how far its probabilities can be believed was not measured."
    before = judged.get("ece_uncalibrated")
    change = f", {100 * before:.1f} % before it" if before is not None and fitted else ""
    return (
        f"{fitted or 'No temperature is applied'}. The gap between confidence and accuracy on test (ECE, 15 bins) is "
        f"{100 * judged['ece']:.1f} %{change}."
    )


def _files(files: dict) -> str:
    if not files:
        return "The card names none."
    rows = []
    for name, about in files.items():
        more = [f"{about['parameters']:,} parameters"] if about.get("parameters") else []
        more += [f"{about['multiply_adds'] / 1e6:,.0f} M multiply-adds"] if about.get("multiply_adds") else []
        more += [f"opset {about['opset']}"] if about.get("opset") else []
        if about.get("parity"):
            more.append(f"logits differ from Keras by at most {max(about['parity'].values()):.1e}")
        rows.append((f"`{name}`", f"{about.get('bytes', 0):,}", "; ".join(more), f"`{about.get('sha256', '')}`"))
    return _table(("file", "bytes", "of it", "SHA-256"), rows)


def _votes(data: Splits) -> str:
    rows = [
        (split, f"{len(faces):,}", f"{faces.distributions.max(axis=1).mean():.1%}", f"{_agreed(faces):.1%}")
        for split, faces in data.items()
        if faces.distributions is not None
    ]
    if not rows:
        return "None: every face carries one label, and nothing says how sure the annotators were."
    head = "split", "faces with votes", "mean share of the largest vote", "faces whose label has the largest vote"
    return _table(head, rows, right=True)


def _agreed(faces) -> float:
    own = faces.distributions[np.arange(len(faces)), faces.labels]
    return float((own >= faces.distributions.max(axis=1)).mean())


def _problems(data: Splits, known: str) -> list[str]:
    audit, train = data.audit, data.audit.counts["train"]
    most, least = (data.emotions[i] for i in (train.argmax(), train.argmin()))
    found = [known] if known else []
    if train.min() == 0:
        found.append(f"No train face is {least}.")
    elif train.max() >= 1.5 * train.min():
        ratio = f"{train.max() / train.min():.1f} times as many {most} as {least} faces in train"
        found.append(f"Unbalanced: {ratio}. Look at macro-F1 beside accuracy.")
    if data.name.startswith("ferplus-distribution"):
        doubtful = (
            "Train has doubtful faces, too, labelled by the largest vote; valid and test only those with a majority."
        )
        found.append(doubtful)
    if leaked := audit.leaked["test"]:
        found.append(f"{leaked:,} test rows show an image of train or valid: report the clean rows, too.")
    if audit.conflicting:
        found.append(f"{audit.conflicting:,} images carry more than one label.")
    if audit.blank:
        found.append(f"{audit.blank:,} rows are one colour all over.")
    if data.name.startswith("drawn"):
        return found
    return [*found, "Nothing says how old the people are, or of what sex or skin colour: errors by group stay unknown."]


def _share(judged: dict, name: str) -> str:
    if name not in judged:
        return ""
    low, high = judged.get(f"{name}_interval", (None, None))
    span = f" ({100 * low:.1f} to {100 * high:.1f})" if low is not None else ""
    return f"{100 * judged[name]:.2f} %{span}"


def _span(bounds: Sequence) -> str:
    return " to ".join(map(str, bounds))


def _listed(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}"


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _table(head: Sequence[str], rows: Iterable[Sequence], *, right: bool = False) -> str:
    """Return a Markdown table; with `right`, all columns but the first are set to the right."""
    rule = ["---", *(["---:" if right else "---"] * (len(head) - 1))]
    cells = [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in (head, rule, *rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)
