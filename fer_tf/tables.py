"""The command line's tables: plain values in, a `rich` table out."""

from rich.box import SIMPLE
from rich.table import Column, Table

from fer_tf.card import ModelCard
from fer_tf.zoo import ARCHITECTURES


def metrics(judged: dict, *, title: str) -> Table:
    """Return one line per set of rows, from reports or from a card: accuracy, macro-F1, intervals, calibration."""
    columns = [
        Column(name, no_wrap=True) for name in ("rows", "n", "accuracy", "interval", "macro-F1", "interval", "NLL")
    ]
    table = Table(
        *columns, Column("ECE", no_wrap=True), title=title, box=SIMPLE, padding=(0, 1, 0, 0)
    )  # fits 80 columns
    for name, row in judged.items():
        cells = [f"{row['n']:,}"]
        for figure in ("accuracy", "macro_f1"):
            low, high = row[f"{figure}_interval"]
            cells += [_percent(row[figure]), f"{100 * low:.1f}-{100 * high:.1f}"]
        table.add_row(name.replace("_clean", ", clean"), *cells, f"{row['nll']:.3f}", f"{100 * row['ece']:.1f} %")
    return table


def per_emotion(shares: dict, *, title: str) -> Table:
    """Return precision, recall and F1 of every emotion."""
    table = Table("emotion", "precision", "recall", "F1", "rows", title=title)
    for emotion, row in shares.items():
        table.add_row(emotion, *(f"{100 * row[k]:.1f} %" for k in ("precision", "recall", "f1")), f"{row['support']:,}")
    return table


def balance(audit) -> Table:
    """Return how many images every emotion has in every split, from a data set's `Audit`."""
    table = Table("emotion", *(Column(split, justify="right") for split in audit.counts), title="class balance")
    for i, emotion in enumerate(audit.emotions):
        shares = (f"{counts[i]:,} ({100 * counts[i] / counts.sum():.1f} %)" for counts in audit.counts.values())
        table.add_row(emotion, *shares)
    return table


def faces(found: list[dict]) -> Table:
    """Return every face of a picture with its emotions, the most probable first."""
    table = Table("face", "box, px", "detector score", "emotions")
    for number, face in enumerate(found, start=1):
        bars = [f"{emotion:<9}{100 * p:>4.0f} %  {'█' * round(20 * p)}" for emotion, p in face["probabilities"].items()]
        box = " ".join(f"{v:.0f}" for v in face["box"])
        table.add_row(str(number), box, f"{face['score']:.2f}", "\n".join(bars), end_section=True)
    return table


def ladder(result: dict) -> Table:
    """Return a benchmark's rungs."""
    host = result["host"]
    title = f"{result['model']}, {result['detector']}, {host['cpu']}, {host['cores']} cores"
    table = Table("backend", "rung", "frames/s", "faces/s", "model p50", "p95", "busiest stage", title=title)
    for rung in result["rungs"]:
        busiest, spent = max(rung["stages"].items(), key=lambda item: item[1]["share"])
        calls = [f"{rung['latency_ms'][q]:.2f} ms" for q in ("p50", "p95")] if rung["latency_ms"] else ["-", "-"]
        speed = f"{rung['frames_per_s']:.1f}", f"{rung['faces_per_s']:.1f}"
        table.add_row(rung["backend"], rung["name"], *speed, *calls, f"{busiest} {100 * spent['share']:.0f} %")
    return table


def architectures() -> Table:
    """Return what the zoo builds."""
    table = Table("architecture", "default image", "source", title="architectures, for training")
    for name, known in ARCHITECTURES.items():
        table.add_row(name, f"{known.image_size} px", known.source)
    return table


def models(cards: list[ModelCard]) -> Table:
    """Return what the cards of shipped models say."""
    columns = "size", "trained on", "test", "macro-F1", "clean rows", "files"
    table = Table(Column("model", no_wrap=True), *columns, title="shipped models")
    for card in cards:
        test, clean = card.metrics["test"], card.metrics.get("test_clean")
        shares = (
            _percent(test["accuracy"]),
            _percent(test["macro_f1"]),
            _percent(clean["accuracy"]) if clean else "none",
        )
        megabytes = sum(about["bytes"] for about in card.files.values()) / 1e6
        table.add_row(card.name, f"{card.image_size} px", card.data.get("name", ""), *shares, f"{megabytes:.1f} MB")
    return table


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"
