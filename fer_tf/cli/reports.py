"""Commands for what people read: the list of models, the notebooks' site, cards."""

from pathlib import Path
from typing import Annotated

import typer

from fer_tf import tables, terminal
from fer_tf.cli.options import LABELS, AsJson
from fer_tf.terminal import busy, show


def models(
    runs: Annotated[Path | None, typer.Option(help="The folder of trained runs; runs/ if left out.")] = None,
    as_json: AsJson = False,
) -> None:
    """List every architecture, shipped model and trained run, with size, cost, labels and test figures."""
    from itertools import groupby

    from fer_tf import paths
    from fer_tf.training.catalogue import catalogue

    if runs and not runs.is_dir():
        raise FileNotFoundError(f"no folder {runs}: give the one that holds the runs")
    folder = runs or paths.RUNS
    found = catalogue(folder)
    shown = [tables.architectures(found["architectures"]), tables.models(found["models"], title="shipped models")]
    places = sorted(map(Path, found["runs"]), key=lambda path: (path.parent, path.name))
    for parent, group in groupby(places, key=lambda path: path.parent):
        trained = {path.name or folder.name: found["runs"][str(path)] for path in group}
        shown.append(tables.models(trained, title=f"trained in {folder / parent}"))
    shown += [f"{folder / name}: {reason}" for name, reason in found["unusable"].items()]
    show(found, *shown, as_json=as_json)


def suite(
    parameter: Annotated[
        list[str], typer.Option("--parameter", "-p", help="NAME=VALUE for the notebooks that declare it. Repeatable.")
    ] = (),
    dataset: Annotated[str | None, typer.Option(help="Short for -p dataset=...")] = None,
    notebook: Annotated[list[str], typer.Option(help="Only these, by path or number: --notebook 02. Repeatable.")] = (),
    grid: Annotated[
        Path | None, typer.Option(help="Train models x seeds of this .toml instead, and compare them; resumable.")
    ] = None,
    run_dir: Annotated[
        Path | None,
        typer.Option(
            help="A new folder, or that of a suite that was stopped, which goes on; left out: runs/<time>, of a grid "
            "runs/<its name>."
        ),
    ] = None,
) -> None:
    """Run the notebooks in order and gather them on one page; or a grid of trainings, each an executed notebook."""
    from fer_tf.suite import run_suite

    given = dict(_pair(text) for text in parameter) | ({"dataset": dataset} if dataset else {})
    if grid:
        if given or notebook:
            raise ValueError("a grid names its own recipes, data set and choices: leave -p, --dataset, --notebook out")
        _run_grid(grid, run_dir)
        return
    result = run_suite(notebooks=list(notebook) or None, parameters=given, run_dir=run_dir, progress=terminal.results)
    show({}, f"the suite's page: {result.index}", as_json=False)


def card(
    model: Annotated[
        str | None, typer.Argument(help="A shipped model's name, a run folder, or a file with card.json beside it.")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Instead of a model: drawn, fer2013, ferplus, or the path of a CSV or a folder.")
    ] = None,
    labels: Annotated[str, typer.Option(help=f"Whose labels a CSV gets: {LABELS}.")] = "auto",
    output: Annotated[Path | None, typer.Option(help="Write it here, .md, instead of printing it.")] = None,
) -> None:
    """Print the card of a model, or of a data set, as Markdown."""
    from fer_tf.cards import data_card, find_card, model_card, read_model_card
    from fer_tf.files import check_writable, write_atomically

    if (model is None) == (dataset is None):
        raise ValueError("give a model, or --dataset, and not both")
    if output:
        check_writable(output)
    if dataset:
        from fer_tf.data.readers import load

        with busy(f"reading {dataset}"):
            text = data_card(load(dataset, labels=labels))
    else:
        file = _other_precision(model)
        text = model_card(_card_of(file)) if file else read_model_card(find_card(model))
    if output:
        write_atomically(output, text.encode())
    show({}, str(output or text.rstrip()), as_json=False)


def _other_precision(model: str) -> Path | None:
    """Return the INT8 or FP16 file that a name or a path means; None for all else."""
    from fer_tf.inference.engine import PRECISIONS, shipped_model

    path = Path(model)
    if path.match("model-*.onnx"):
        return path
    return shipped_model(path.name) if not path.exists() and path.name.endswith(PRECISIONS) else None


def _card_of(path: Path):
    """Return the card inside an .onnx file, with its own figures and what the card beside it says of the file."""
    from fer_tf.card import ModelCard
    from fer_tf.inference.engine import load_engine

    card, beside = load_engine(path).card, path.with_name("card.json")
    files = ModelCard.load(beside).files if beside.is_file() else {}
    return card.with_(files={name: files[name] for name in [path.name] if name in files})


def _run_grid(grid: Path, run_dir: Path | None) -> None:
    """Run a grid; list what failed, and exit with 1 if anything did."""
    from fer_tf.grid import run_grid

    result = run_grid(grid, run_dir=run_dir, progress=terminal.results)
    if result.table:
        show({}, tables.rows(result.table, title="mean ± standard deviation over the seeds"), as_json=False)
    show({}, f"the grid's page: {result.index}", as_json=False)
    for name, message in result.failed.items():
        terminal.say(f"failed: {name}: {message}")
    if result.failed:
        raise typer.Exit(1)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise ValueError(f"expected NAME=VALUE, got {text!r}")
    return name.strip(), value.strip()
