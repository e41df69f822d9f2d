"""The command line's tables: plain values in, a `rich` table out."""

from rich.box import SIMPLE
from rich.table import Column, Table


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


def groups(report) -> Table:
    """Return a `GroupReport`'s groups: accuracy, and how far it lies from that of all other faces, in points."""
    table = Table(report.column, "faces", "accuracy", "interval", "lead", "interval", "p (Holm)")
    for group in report.groups:
        cells = ["-"] * 5
        if group.accuracy is not None:
            cells[:2] = _percent(group.accuracy), _span(group.accuracy_interval)
        if group.lead is not None:
            cells[2:] = f"{100 * group.lead:+.1f}", _span(group.lead_interval, sign="+"), f"{group.p_holm:.3f}"
        table.add_row(group.name, f"{group.n:,}", *cells)
    return table


def robustness(found: dict, *, title: str) -> Table:
    """Return a line per model: accuracy on faces as they are and corrupted, and the mean corruption error."""
    names = "model", "accuracy", "corrupted", "interval", "mCE", "interval"
    columns = [Column(name, no_wrap=i > 0, overflow="fold") for i, name in enumerate(names)]
    table = Table(*columns, title=f"{title}; mCE: errors over {found['baseline']}'s", box=SIMPLE, padding=(0, 1, 0, 0))
    for name, about in found["models"].items():
        low, high = about["mean_corrupted_interval"]
        cells = [_percent(about["accuracy"]), _percent(about["mean_corrupted"]), f"{100 * low:.1f}-{100 * high:.1f}"]
        error, bounds = about["mce"], about["mce_interval"]
        cells += ["-" if error is None else f"{100 * error:.1f} %"]
        table.add_row(name, *cells, f"{100 * bounds[0]:.1f}-{100 * bounds[1]:.1f}" if bounds else "-")
    return table


def corrupted(found: dict) -> Table:
    """Return accuracy on every corruption, the mean of its severities, a column per model."""
    title = "accuracy by corruption, mean of the severities"
    names = [Column(name, justify="right", overflow="fold") for name in found["models"]]
    table = Table(Column("corruption", no_wrap=True), *names, title=title, box=SIMPLE, padding=(0, 1, 0, 0))
    for corruption in found["corruptions"]:
        shares = (about["corrupted"][corruption] for about in found["models"].values())
        table.add_row(corruption, *(_percent(sum(each) / len(each)) for each in shares))
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


def rows(values: list[dict], *, title: str) -> Table:
    """Return rows of equal keys as they are, the first column to the left."""
    first, *others = values[0]
    columns = [Column(name, justify="right", no_wrap=True) for name in others]
    table = Table(Column(first, overflow="fold"), *columns, title=title, box=SIMPLE, padding=(0, 1, 0, 0))
    for row in values:
        table.add_row(*map(str, row.values()))
    return table


def ladder(result: dict) -> list[Table]:
    """Return a benchmark's rungs, a table per backend: latency and CPU time a frame in ms, memory at its peak.

    "of bound" is the share of what cores that never wait would do, "full" how full the model's batches were.
    """
    host, tables = result["host"], {}
    for rung in result["rungs"]:
        title = f"{result['model']}, {rung['provider']}, {result['detector']}, {host['cpu']}, {host['cores']} cores"
        names = "rung", "frames/s", "of bound", "p50", "p95", "CPU", "full", "MB", "accuracy"
        table = tables.setdefault(rung["backend"], Table(*names, title=title))
        late = [f"{rung['latency_ms'][q]:.0f}" for q in ("p50", "p95")] if rung["latency_ms"] else ["-", "-"]
        table.add_row(
            rung["name"],
            f"{rung['frames_per_s']:.1f}",
            f"{rung['share_of_bound']:.0%}",
            *late,
            f"{rung['cpu_ms_per_frame']:.1f}",
            f"{rung['batch_fill']:.0%}" if rung.get("batch_fill") else "-",
            f"{rung['memory_mb']:.0f}" if rung["memory_mb"] else "-",
            f"{rung['accuracy']:.2%}" if rung["accuracy"] else "-",
        )
    return list(tables.values())


def model_alone(result: dict) -> list[str]:
    """Return a line per backend: faces/s of the model by itself, all cores busy, as the ladder measured it."""
    rungs = [rung for rung in result["rungs"] if rung["name"] == "several requests"]
    name = result["model"]
    return [f"{name} alone on {rung['provider']}: {rung['model_alone_per_s']:,.0f} faces/s" for rung in rungs]


def live(result: dict) -> list[str]:
    """Return a benchmark's live run as a line, where there is one."""
    if not (run := result.get("live")):
        return []
    late = ", ".join(f"{q} {value:.0f} ms" for q, value in (run["latency_ms"] or {}).items())
    return [
        f"live at {run['arriving_per_s']:g} frames/s on {run['provider']}: {run['frames']} frames, {run['dropped']} "
        f"dropped, from arrival to drawn {late}"
    ]


def architectures(known: dict) -> Table:
    """Return what the zoo builds, from `catalogue`'s values."""
    table = _figures("architecture", *COST, "ONNX\nMB", title="architectures, for training")
    table.add_column("source")
    for name, about in known.items():
        table.add_row(name, *_cost(about), _megabytes(about.get("onnx_bytes")), about["source"])
    return table


def models(entries: dict, *, title: str) -> Table:
    """Return shipped models or trained runs, from `catalogue`'s values."""
    figures = "test\nacc. %", "test\nF1 %", "test\nrows"
    table = _figures("model", *COST, "file\nMB", *figures, "labels", title=title)
    table.add_column("trained\non", overflow="fold")
    for name, about in entries.items():
        figures = ["-"] * 3
        if judged := about["test"]:
            figures = [f"{100 * judged[key]:.2f}" for key in ("accuracy", "macro_f1")] + [f"{judged['n']:,}"]
        described = about["label_set"], about["data"].get("name", "-")
        table.add_row(name, *_cost(about), _megabytes(about["file"]["bytes"]), *figures, *described)
    return table


def measured(found: dict, conditions: dict) -> Table:
    """Return the speed of every architecture on every backend at batch 1 and 8, from `measure`'s values."""
    host, timing = conditions["host"], ("images/s", "p50\nms", "p95\nms")
    title = f"{host['cpu']}, {host['cores']} cores, {conditions['runs']} runs; images/s and latency at batch 1, then 8"
    table = _figures("architecture", *timing, *timing, "peak\nMB", "parity", title=title)
    for name, about in found.items():
        table.add_row(name)
        for backend, timed in about["backends"].items():
            cells = []
            for batch in timed["batches"].values():
                latency = batch["latency_ms"]
                cells += [f"{batch['images_per_s']:,.1f}", f"{latency['p50']:.1f}", f"{latency['p95']:.1f}"]
            peak = timed["memory_mb"]["peak"]
            cells += ["-" if peak is None else f"{peak:,.0f}", f"{about['parity'][backend]:.0e}"]
            table.add_row(f"  {backend}", *cells)
    return table


def beside_published(found: dict) -> list[str]:
    """Return a line per architecture of which others published a speed: ours at batch 1, theirs, how and on what."""
    lines = []
    for name, about in found.items():
        if theirs := about.get("published"):
            speeds = {backend: timed["batches"]["1"]["images_per_s"] for backend, timed in about["backends"].items()}
            ours = ", ".join(f"{speed:.1f} ({backend})" for backend, speed in speeds.items())
            method = f"{theirs['cpu']}, {theirs['method']}: {theirs['source']}"
            lines.append(f"{name}, images/s at batch 1: {ours}; published {theirs['images_per_s']} ({method})")
    return lines


COST = "image\npx", "param.\nM", "mult.-\nadds, M"


def _cost(about: dict) -> tuple[str, str, str]:
    """Return the cells below `COST`; a clip's image is frames x pixels."""
    shape, parameters, multiply_adds = (about.get(key) for key in ("input_shape", "parameters", "multiply_adds"))
    frames = f"{shape[0]} x " if shape and len(shape) == 4 else ""
    return (
        f"{frames}{about['image_size']}",
        "-" if parameters is None else f"{parameters / 1e6:,.2f}",
        "-" if multiply_adds is None else f"{multiply_adds / 1e6:,.0f}",
    )


def _megabytes(size: int | None) -> str:
    return "-" if size is None else f"{size / 1e6:.1f}"


def _figures(first: str, *columns: str, title: str) -> Table:
    """Return a table that fits 80 columns: figures to the right, of which none is cut."""
    table = Table(Column(first, min_width=15, overflow="fold"), title=title, box=SIMPLE, padding=0)
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _span(interval: tuple[float, float], *, sign: str = "") -> str:
    return " to ".join(f"{100 * bound:{sign}.1f}" for bound in interval)


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"
