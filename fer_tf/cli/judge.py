"""Commands that judge models: figures, by groups of people, on corrupted faces."""

import io
from pathlib import Path
from typing import Annotated

import typer

from fer_tf import tables, terminal
from fer_tf.cli.options import LABELS, AsJson, Backend, Dataset, Detector, Limit, Model, find_engine
from fer_tf.terminal import bar, busy, show


def evaluate(
    model: Annotated[
        list[str],
        typer.Argument(help="A shipped model's name, a run folder, an .onnx or a .keras file; several: an ensemble."),
    ],
    dataset: Dataset = "drawn",
    labels: Annotated[str, typer.Option(help=f"Whose labels a CSV gets: {LABELS}.")] = "auto",
    views: Annotated[int, typer.Option(help="Views of every face, averaged: 1, 2 (mirrored) or 10 (moved, too).")] = 1,
    results: Annotated[
        Path | None, typer.Option(help="Add a row, of one view and of ten, to this JSON table of results.")
    ] = None,
    seed_run: Annotated[
        list[Path], typer.Option(help="For --results: a run by the same recipe with another seed. Repeatable.")
    ] = (),
    backend: Backend = None,
    limit: Limit = None,
    as_json: AsJson = False,
) -> None:
    """Judge a model, or the mean of several, on valid, test and the rows of each that repeat nothing earlier."""
    from fer_tf.data.fer2013 import SIZE as FER2013_SIZE
    from fer_tf.data.readers import load
    from fer_tf.files import check_writable
    from fer_tf.training.compare import read_run
    from fer_tf.training.evaluate import VIEWS, judge

    if views not in VIEWS:
        raise ValueError(f"--views must be one of {', '.join(map(str, VIEWS))}, got {views}")
    if results and limit is not None:
        raise ValueError("--results takes whole data sets: leave --limit out")
    if seed_run and not results:
        raise ValueError("--seed-run adds to a row of results: give --results, too")
    others = [read_run(folder) for folder in seed_run]
    if results:
        check_writable(results)
    with busy("loading model and data"):
        engines = [find_engine(name, backend) for name in model]
        if len({(engine.card.window, engine.card.recipe.get("data_seed", 0)) for engine in engines}) > 1:
            raise ValueError("these models see other windows or were trained on other splits: judge them one by one")
        first = engines[0].card
        size = max(FER2013_SIZE, *(engine.card.image_size for engine in engines))
        seed = first.recipe.get("data_seed", 0)  # the splits that it was trained on
        data = load(dataset, labels=labels, image_size=size, seed=seed, limit=limit, window=first.window)
    if results:
        from fer_tf.training.results import add, check, row

        check(results, engines, data, others)
    if limit is None:
        _say_if_cut_otherwise(engines, data)
    with bar("evaluate", unit="faces") as advance:
        reports, predictions = judge(engines, data, views=views, on_batch=advance)
    judged = {name: found.to_dict() for name, found in reports.items()}
    name = " + ".join(engine.card.name for engine in engines)
    provider = " + ".join(dict.fromkeys(engine.provider for engine in engines))
    about = {"model": name, "dataset": data.name, "fingerprint": data.fingerprint, "views": views}
    about |= {"backend": engines[0].backend, "provider": provider}
    title = f"{name} on {data.name}, {provider}{f', {views} views' if views > 1 else ''}"
    shares = tables.per_emotion(reports["test"].per_emotion, title="test, per emotion")
    show(about | {"reports": judged}, tables.metrics(judged, title=title), shares, as_json=as_json)
    if results:
        told = {views: (reports, predictions)}
        for count in (1, 10):
            with bar(f"{count} views", unit="faces") as advance:
                told[count] = told.get(count) or judge(engines, data, views=count, on_batch=advance)
        add(results, row(engines, data, plain=told[1], ten=told[10], others=others))


def groups(
    table: Annotated[
        Path, typer.Argument(help="A CSV: label, path of a picture (or predicted), and columns of groups.")
    ],
    by: Annotated[list[str], typer.Option(help="A column of groups, such as sex. Repeatable.")],
    model: Model = "mobilenet_v2",
    detector: Detector = "full",
    backend: Backend = None,
    minimum: Annotated[int, typer.Option(help="Faces that a group's figure needs.")] = 30,
    output: Annotated[Path | None, typer.Option(help="Write the report here, .md.")] = None,
    as_json: AsJson = False,
) -> None:
    """Report how well groups of faces are named, with intervals, and what may and may not be concluded."""
    from fer_tf.files import check_writable, write_atomically
    from fer_tf.inference.detect import load_detector
    from fer_tf.training.groups import classify, group_report, read_rows

    if output:
        check_writable(output)
        if output.resolve() == table.resolve():
            raise ValueError(f"{output} is the table itself: name another file for the report")
    rows = read_rows(table, by=by)
    if "predicted" not in rows:
        engine = find_engine(model, backend)
        with bar("classify", unit="pictures") as advance:
            rows = classify(rows, engine=engine, detector=load_detector(detector), progress=advance)
    found = group_report(rows, by=by, minimum=minimum)
    pages = [report.to_markdown() for report in found]
    if output:
        write_atomically(output, "\n".join(pages).encode())
    lines = [line for report in found for line in (tables.groups(report), *report.sentences)]
    show(
        {"columns": [report.to_dict() for report in found]}, *lines, *([str(output)] if output else []), as_json=as_json
    )


def robustness(
    model: Annotated[
        list[str], typer.Argument(help="A shipped model's name, a run folder, an .onnx or a .keras file; or several.")
    ],
    dataset: Dataset = "drawn",
    labels: Annotated[str, typer.Option(help=f"Whose labels a CSV gets: {LABELS}.")] = "auto",
    split: Annotated[str, typer.Option(help="valid or test.")] = "valid",
    baseline: Annotated[str, typer.Option(help="The model by whose errors those of all are divided.")] = "lenet",
    corruption: Annotated[list[str], typer.Option(help="Only this one; all if left out. Repeatable.")] = (),
    seed: Annotated[int, typer.Option(help="Of the noise and the directions.")] = 0,
    output: Annotated[Path | None, typer.Option(help="Write the result here as JSON.")] = None,
    figure: Annotated[Path | None, typer.Option(help="A picture of the curves, .png.")] = None,
    backend: Backend = None,
    limit: Limit = None,
    as_json: AsJson = False,
) -> None:
    """Judge models on corrupted faces: noise, blur, light, blocks, covered eyes ... at five severities."""
    from datetime import UTC, datetime

    from fer_tf.data.corrupt import CORRUPTIONS
    from fer_tf.data.fer2013 import SIZE as FER2013_SIZE
    from fer_tf.data.readers import load
    from fer_tf.files import check_writable
    from fer_tf.inference.benchmark import host, save
    from fer_tf.training import robustness as room

    if split not in ("valid", "test"):
        raise ValueError(f"--split must be valid or test, got {split!r}")
    if unknown := [name for name in corruption if name not in CORRUPTIONS]:
        raise ValueError(f"unknown corruption {unknown[0]!r}; known are {', '.join(CORRUPTIONS)}")
    if figure and figure.suffix.lower() != ".png":
        raise ValueError(f"a figure is written as .png, got {figure.name}")
    for path in filter(None, (output, figure)):
        check_writable(path)
    with busy("loading models and data"):
        engines = {name: find_engine(name, backend) for name in dict.fromkeys([baseline, *model])}
        cards = [engine.card for engine in engines.values()]
        if len({card.recipe.get("data_seed", 0) for card in cards}) > 1:
            raise ValueError("these models were trained on other splits: judge them one by one")
        size = max(FER2013_SIZE, *(card.image_size for card in cards))
        data = load(dataset, labels=labels, image_size=size, seed=cards[0].recipe.get("data_seed", 0), limit=limit)
    if limit is None:
        _say_if_cut_otherwise(engines.values(), data)
    faces = getattr(data, split)
    about = {"dataset": data.name, "split": split, "fingerprint": data.fingerprint, "limit": limit}
    about |= {"image_size": faces.size, "date": datetime.now(UTC).date().isoformat(), "host": host()}
    choices = {"corruptions": list(corruption) or list(CORRUPTIONS), "seed": seed}
    with bar("robustness", unit="faces") as advance:
        first = engines[baseline].card.name
        found = about | room.robustness(list(engines.values()), faces, baseline=first, **choices, progress=advance)
    if output:
        save(found, output)
    if figure:
        _save_robustness(found, figure)
    title = f"{data.name}, {found['n']:,} {split} rows"
    show(found, tables.robustness(found, title=title), tables.corrupted(found), as_json=as_json)


def _say_if_cut_otherwise(engines, data) -> None:
    """Say which models were trained on this data set cut or read in another way."""
    for card in (engine.card for engine in engines):
        known = card.data
        if known.get("name") == data.name and known.get("fingerprint") != data.fingerprint:
            terminal.say(f"{data.name} is not cut or read as {card.name} was trained: it may have seen test rows")


def _save_robustness(found: dict, path: Path) -> None:
    """Draw the curves, with the corruptions shown on a drawn face."""
    from fer_tf import plots
    from fer_tf.data.corrupt import examples
    from fer_tf.data.drawn import draw_faces
    from fer_tf.files import write_atomically

    plots.use_style()
    pictures = examples(draw_faces(1, size=48, seed=4), found["corruptions"], severities=found["severities"])
    picture = io.BytesIO()
    plots.robustness(found, pictures)[0].figure.savefig(picture, dpi=100)
    write_atomically(path, picture.getvalue())
