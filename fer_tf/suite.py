"""Runs the notebooks in order with papermill, strictly, and gathers them as a site: `runs/<time>/index.html`.

What a notebook of the suite has
    One cell tagged `parameters`: lines such as ``epochs: int = 3  # passes over the train split``, each a literal of
    type str, int, float or bool with a trailing comment; derived values belong in the next cell. By convention
    ``dataset: str = "drawn"``, ``run_dir: str = ""`` (empty is the notebook's own choice; the suite passes its run
    folder), ``epochs``, ``limit`` and ``seed: int``. Its first markdown heading is its title on the page.

How a notebook shows a result on the page
    It writes a file into ``Path(run_dir) / "report"``, named by its own number: ``11_comparison.csv`` becomes a table,
    captioned "Comparison", under the title of notebook 11. ``.csv`` is a table, ``.png`` or ``.svg`` a figure, ``.mp4``
    or ``.webm`` a clip, anything else a link, in the order in which they were written. Tables show what the file says,
    with separators in thousands, so round before writing.

A run folder holds `index.html`, `summary.pdf`, `cards/`, `notebooks/` (executed), `html/`, `report/`, `kernel.log`,
`suite.json` (what was asked for, and what is done: a suite that was stopped goes on there), `lock` and what the
notebooks write. No page asks the network for anything: formulas in the notebooks are therefore plain text, not LaTeX.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from shlex import quote

from fer_tf import paths
from fer_tf.card import describe_file
from fer_tf.data.fer2013 import SIZE
from fer_tf.data.readers import NAMED, load, locate
from fer_tf.files import LOCK, locked, make_folder, write_atomically
from fer_tf.notebook import Notebook, match_parameters, read_notebook
from fer_tf.session import Session, SuiteError

PAPER = "suite.json"


@dataclass(frozen=True, kw_only=True)
class SuiteResult:
    """A finished suite: its folder, its page, and its notebooks in order."""

    run_dir: Path
    index: Path
    notebooks: tuple[Notebook, ...]


def find_notebooks(names: Iterable[str | Path] | None = None) -> list[Notebook]:
    """Return notebooks in name order: the whole suite, or those named by a path or by the start of a name ("02").

    Raises FileNotFoundError for a name that fits nothing, ValueError as `read_notebook` does.
    """
    found = set()
    for name in [""] if names is None else names:
        matches = [Path(name)] if Path(name).suffix == ".ipynb" else sorted(paths.NOTEBOOKS.glob(f"{name}*.ipynb"))
        if not matches or not all(path.is_file() for path in matches):
            raise FileNotFoundError(
                f"no notebook {name or paths.NOTEBOOKS}: give a path or the start of a name, as in 02"
            )
        found.update(path.resolve() for path in matches)
    return [read_notebook(path) for path in sorted(found, key=lambda path: path.name)]


def run_suite(*, notebooks=None, parameters: dict, run_dir: Path | None = None, progress=None) -> SuiteResult:
    """Run notebooks in name order, each in a fresh kernel of this interpreter, and stop at the first failure.

    notebooks   as `find_notebooks` takes them; None is the whole suite
    parameters  name -> value or command-line text; every name must be declared by one of the notebooks
    run_dir     a new or empty folder, one that holds nothing but runs of `fit`, or one of a suite that was stopped:
                that goes on at the first notebook that is not done or has changed since, and with neither notebooks
                nor parameters does what it was asked for; finished trainings are kept, and one whose recipe has
                changed must be deleted first. None is a new `runs/<time>/`
    progress    a `rich.console.Console` to show progress on (a live bar; plain lines off a terminal); None is silent

    Raises FileNotFoundError, FileExistsError, ValueError, or RuntimeError for a folder in which another suite is
    running, before anything runs; SuiteError when a notebook fails.
    However it ends, Ctrl-C included, the executed copies and `index.html` tell what was done.
    """
    before = _read_before(run_dir)
    if before and not notebooks and not parameters:
        notebooks, parameters = before["notebooks"], before["parameters"]
    suite = find_notebooks(notebooks)
    values = match_parameters(suite, parameters)
    asked = {notebook.name: values[notebook.path] for notebook in suite}
    if before and asked != before["asked"]:
        raise ValueError(f"{run_dir} was begun with other notebooks or parameters: give none, or another --run-dir")
    if dataset := parameters.get("dataset"):
        locate(dataset if dataset in NAMED else paths.ROOT / dataset)
    default = next((known.parameters["dataset"].default for known in suite if "dataset" in known.parameters), "none")
    facts = {
        "Data set": str(dataset or default),
        "Parameters": ", ".join(f"{name} = {value}" for name, value in parameters.items()) or "defaults",
    }
    folder = _folder(run_dir, goes_on=bool(before))
    with locked(folder, by="suite"):
        session = Session(folder, suite, facts=facts, console=progress)
        paper = {"notebooks": [_below(notebook.path) for notebook in suite], "parameters": parameters, "asked": asked}
        try:
            _run(session, values, paper, before["done"] if before else {})
        except (SuiteError, KeyboardInterrupt) as error:
            session.console.print(
                f"to go on here: fer-tf suite --run-dir {quote(str(folder))}", highlight=False, soft_wrap=True
            )
            if isinstance(error, SuiteError):
                session.finish()
            raise
        session.finish(_data(suite, values) if any(folder.glob("*/data.json")) else None)
    return SuiteResult(run_dir=folder, index=folder / "index.html", notebooks=tuple(session.notebooks))


def _run(session: Session, values: dict[Path, dict], paper: dict, before: dict) -> None:
    """Run what is left: all from the first one that is not done or has changed, for later ones may read its results."""
    done = paper["done"] = before
    for position, notebook in enumerate(list(session.notebooks)):
        source, known = describe_file(notebook.path)["sha256"], done.get(notebook.name, {})
        if known.get("source") == source and session.executed(notebook).is_file():
            session.skip(position, known["seconds"])
            continue
        for later in session.notebooks[position:]:
            done.pop(later.name, None)
        _write_paper(session.run_dir, paper)
        session.run(position, values[notebook.path])
        done[notebook.name] = {"source": source, "seconds": session.notebooks[position].seconds}
        _write_paper(session.run_dir, paper)


def _write_paper(folder: Path, paper: dict) -> None:
    write_atomically(folder / PAPER, (json.dumps(paper, indent=2) + "\n").encode())


def _data(suite: list[Notebook], values: dict[Path, dict]):
    """Return the data set as the first notebook that trains loads it, for its data card; None without such a one."""
    for notebook in suite:
        given = {name: known.default for name, known in notebook.parameters.items()} | values[notebook.path]
        if {"dataset", "image_size", "data_seed", "limit", "epochs"} <= set(given):
            dataset = given["dataset"] if given["dataset"] in NAMED else paths.ROOT / given["dataset"]
            choices = {"labels": given.get("labels", "auto"), "image_size": max(given["image_size"], SIZE)}
            return load(dataset, seed=given["data_seed"], limit=given["limit"] or None, **choices)
    return None


def _below(path: Path) -> str:
    """Return a notebook's path so that it is found in another checkout, too."""
    folder = paths.NOTEBOOKS.resolve()
    return str(path.relative_to(folder) if path.is_relative_to(folder) else path)


def _read_before(folder: Path | None) -> dict | None:
    """Return what a suite that was stopped in this folder was asked for and had done; None where there is none."""
    path = folder and Path(folder) / PAPER
    if not path or not path.is_file():
        return None
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        kinds = {"notebooks": list, "parameters": dict, "asked": dict, "done": dict}
        before = {name: kind(before[name]) for name, kind in kinds.items()}
        return before | {"notebooks": [paths.NOTEBOOKS / name for name in before["notebooks"]]}  # absolute ones stay
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} cannot be read ({error}): name another --run-dir") from error


def _folder(wanted: Path | None, *, goes_on: bool) -> Path:
    """Return a new run folder, never the same one for two suites, or a known one: a suite's to go on in, or of runs."""
    folder = Path(wanted).resolve() if wanted else paths.RUNS / f"{datetime.now():%Y-%m-%d_%H%M%S_%f}"
    if wanted and not goes_on and folder.is_dir():
        strange = [path for path in folder.iterdir() if path.name != LOCK and not (path / "recipe.json").is_file()]
        if any(path.is_file() or any(inner.is_file() for inner in path.rglob("*")) for path in strange):
            raise FileExistsError(
                f"{folder} is not empty: name a new folder, one that holds nothing but runs, or none for one under "
                f"{paths.RUNS}"
            )
    make_folder(folder) if wanted else folder.mkdir(parents=True)  # a time of its own, or an error
    return folder
