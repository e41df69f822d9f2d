"""`summary.pdf`: what a run folder found, on one A4 page that can be printed. Read from its runs alone."""

import textwrap
from pathlib import Path

from fer_tf.files import partial_path, settled
from fer_tf.training.compare import Run, paired_tests, read_run

A4 = (8.27, 11.69)  # inches
MOST = 14  # runs in the table and in the figures; more would not be readable on one page
SMALL = {"font.size": 8, "axes.titlesize": 9, "figure.constrained_layout.use": False, "pdf.fonttype": 42}
LEFT, RIGHT = 0.08, 0.94  # of the page's width
NOT_TO_CONCLUDE = (
    "What a person feels: labels are what annotators saw in a picture. Never to be used to judge a person (EU AI Act, "
    "Article 5(1)(f), for work and education).",
    "That the higher of two accuracies is the better network where their intervals overlap: the paired tests of "
    "notebook 11 say which differences are more than chance.",
    "What another training would give: an interval is that of the test rows; a seed moves a figure, too.",
    "How well it does on other pictures, or on other groups of people: only these rows were looked at.",
)
DRAWN = "Anything about photographs: these faces are drawings."


def write_summary(run_dir: Path, *, facts: dict[str, str]) -> Path:
    """Write `run_dir`/summary.pdf over the finished runs in the folder, of which there may be none.

    facts  caption -> text, at the head of the page
    """
    import matplotlib

    from fer_tf import plots

    path = run_dir / "summary.pdf"
    partial = partial_path(path)
    with matplotlib.rc_context(plots.STYLE | SMALL), settled(partial, path, keep=True):
        figure = draw_summary(run_dir, facts=facts)
        figure.savefig(partial, format="pdf", metadata={"Title": f"{run_dir.name}: summary", "Creator": "fer-tf"})
    return path


def draw_summary(run_dir: Path, *, facts: dict[str, str]):
    """Return the page as a matplotlib Figure, drawn in the style that is set."""
    from matplotlib.figure import Figure

    runs, unusable = _runs(run_dir)
    figure = Figure(figsize=A4)
    top = _head(figure, run_dir, facts, runs)
    top = _table(figure, runs, top=top) if runs else _say(figure, "No finished run is in this folder.", top)
    top = _say(figure, "\n".join(unusable), top) if unusable else top
    top = _figures(figure, runs[:MOST], top=top) if runs else top
    _conclusions(figure, runs, top=top)
    return figure


def _runs(run_dir: Path) -> tuple[list[Run], list[str]]:
    """Return the finished runs, best on test first, and a sentence on each that cannot be read."""
    runs, unusable = [], []
    for path in sorted(run_dir.glob("*/metrics.json")):
        try:
            runs.append(read_run(path.parent))
        except (ValueError, FileNotFoundError) as error:
            unusable.append(f"Left out: {error}")
    return sorted(runs, key=lambda run: -run.metrics["test"]["accuracy"]), unusable


def _head(figure, run_dir: Path, facts: dict[str, str], runs: list[Run]) -> float:
    """Write title and facts; return where they end, as a share of the height."""
    figure.text(LEFT, 0.95, "Facial emotion recognition: summary", fontsize=17, fontweight="bold", va="baseline")
    seen = sorted({f"{run.card.data.get('name')}, fingerprint {run.card.data.get('fingerprint')}" for run in runs})
    facts = {"Run folder": run_dir.name, **facts} | ({"Trained on": "; ".join(seen)} if seen else {})
    top = 0.927
    for name, text in facts.items():
        lines = textwrap.wrap(text, 105) or [""]
        figure.text(LEFT, top, name, color="#5d646c", va="baseline")
        for line in lines:
            figure.text(LEFT + 0.13, top, line, va="baseline")
            top -= 0.0155
    return top - 0.005


def _table(figure, runs: list[Run], *, top: float) -> float:
    head = ["model", "architecture", "parameters", "test rows", "accuracy (95 %)", "macro-F1", "ECE", "trained"]
    rows = [_row(run) for run in runs[:MOST]]
    step = 0.0165
    places = [0.0, 0.175, 0.405, 0.495, 0.69, 0.785, 0.85, 1.0]  # left edges of two, then right edges
    for number, row in enumerate([head, *rows]):
        y = top - step * number
        for column, (x, text) in enumerate(zip(places, row, strict=True)):
            look = {"ha": "left" if column < 2 else "right", "fontweight": "bold" if number == 0 else "normal"}
            figure.text(LEFT + x * (RIGHT - LEFT), y, text, va="top", **look)
        _rule(figure, y - 0.0125, heavy=number == 0)
    top -= step * (len(rows) + 1)
    if len(runs) > MOST:
        return _say(figure, f"and {len(runs) - MOST} more, less accurate: the index page has them all", top)
    return top - 0.01


def _row(run: Run) -> list[str]:
    judged, trained = run.metrics["test"], run.history["seconds"].sum() if "seconds" in run.history else 0
    low, high = judged["accuracy_interval"]
    return [
        _short(run.name, 22),
        _short(run.card.architecture, 16),
        f"{run.parameters / 1e6:.2f} M" if run.parameters else "",
        f"{judged['n']:,}",
        f"{100 * judged['accuracy']:.1f} % ({100 * low:.1f} to {100 * high:.1f})",
        f"{100 * judged['macro_f1']:.1f} %",
        f"{100 * judged['ece']:.1f} %",
        f"{len(run.history)} ep., {_duration(trained)}",
    ]


def _figures(figure, runs: list[Run], *, top: float) -> float:
    """Draw accuracies with intervals and, in the same order, how long each run trained; return where they end."""
    import pandas as pd

    from fer_tf import plots

    height = min(0.06 + 0.026 * len(runs), top - 0.3)
    low = top - height - 0.025
    frame = pd.DataFrame(
        {
            "model": [_short(run.name, 22) for run in runs],
            "accuracy": [run.metrics["test"]["accuracy"] for run in runs],
            "low": [run.metrics["test"]["accuracy_interval"][0] for run in runs],
            "high": [run.metrics["test"]["accuracy_interval"][1] for run in runs],
            "minutes": [run.history["seconds"].sum() / 60 if "seconds" in run.history else 0 for run in runs],
        }
    )
    ax = figure.add_axes((LEFT + 0.15, low, 0.4, height))
    plots.compare_models(frame, ax=ax).set(title="Accuracy on test", xlabel="with 95 % interval")
    for text in list(ax.texts):  # the table has them
        text.remove()
    beside = figure.add_axes((LEFT + 0.61, low, 0.24, height))
    order = frame.sort_values("accuracy")  # as `compare_models` does
    beside.barh(range(len(order)), order["minutes"], 0.5, color=plots.SERIES[2])
    beside.set(title="Training", xlabel="minutes", yticks=[], ylim=ax.get_ylim())
    beside.grid(axis="y", visible=False)
    return low - 0.06


def _conclusions(figure, runs: list[Run], *, top: float) -> None:
    drawn = any(str(run.card.data.get("name")).startswith("drawn") for run in runs)
    if len(runs) > 1 and (found := _best_two(runs)):
        top = _paragraphs(figure, "The two best, row by row", [found], top) - 0.008
    _paragraphs(figure, "What may not be concluded", [*([DRAWN] if drawn else []), *NOT_TO_CONCLUDE], top)


def _best_two(runs: list[Run]) -> str | None:
    """Say what the paired test of the two best runs finds, among those of all that saw these faces."""
    first, second = runs[:2]
    alike = [run for run in runs if run.card.data.get("fingerprint") == first.card.data.get("fingerprint")]
    if second not in alike:
        return None
    return paired_tests(alike)[0].sentence  # the first is that of the first two


def _paragraphs(figure, heading: str, texts: list[str], y: float) -> float:
    figure.text(LEFT, y, heading, fontsize=9, fontweight="bold", va="top")
    y -= 0.018
    for text in texts:
        lines = textwrap.wrap(text, 122)
        figure.text(LEFT, y, "–", va="top")
        figure.text(LEFT + 0.015, y, "\n".join(lines), va="top", linespacing=1.3)
        y -= 0.0135 * len(lines) + 0.004
    return y


def _say(figure, text: str, top: float) -> float:
    lines = [part for line in text.splitlines() for part in textwrap.wrap(line, 125)]
    figure.text(LEFT, top, "\n".join(lines), va="top", color="#5d646c", linespacing=1.3)
    return top - 0.0145 * len(lines) - 0.01


def _rule(figure, y: float, *, heavy: bool) -> None:
    from matplotlib.lines import Line2D

    colour, width = ("#222222", 0.8) if heavy else ("#d8d8d8", 0.5)
    figure.add_artist(Line2D([LEFT, RIGHT], [y, y], color=colour, linewidth=width))


def _short(text: str, letters: int) -> str:
    """Shorten in the middle: what follows the last word tells seeds apart."""
    return text if len(text) <= letters else f"{text[: letters - 9]}…{text[-8:]}"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
