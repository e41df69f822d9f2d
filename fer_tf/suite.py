"""Runs the notebooks in order with papermill, strictly, and gathers them on one page: `runs/<time>/index.html`.

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

A run folder holds `index.html`, `notebooks/` (executed), `html/`, `report/`, `kernel.log` and what the notebooks write.
No page asks the network for anything: formulas in the notebooks are therefore plain text, not LaTeX.
"""

import ast
import json
import os
import platform
import time
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from difflib import get_close_matches
from pathlib import Path
from typing import BinaryIO

from fer_tf import pages, paths
from fer_tf.data.readers import NAMED, locate
from fer_tf.files import make_folder

KINDS = {"str": str, "int": int, "float": float, "bool": bool}
BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


class SuiteError(RuntimeError):
    """A notebook failed; the message names it, the cell and the cause."""


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One line of a parameters cell."""

    name: str
    kind: type  # str, int, float or bool
    default: str | int | float | bool
    help: str

    def coerce(self, value) -> str | int | float | bool:
        """Return `value` as `kind`; text is read as on a command line ("3", "false"). Raises ValueError."""
        try:
            if isinstance(value, str):
                return BOOLEANS[value.strip().lower()] if self.kind is bool else self.kind(value)
            if type(value) is self.kind or (self.kind is float and type(value) is int):
                return self.kind(value)
        except (KeyError, ValueError):
            pass  # said below, in one sentence for every kind
        raise ValueError(f"parameter {self.name} must be {self.kind.__name__}, such as {self.default!r}; got {value!r}")


@dataclass(frozen=True, kw_only=True)
class Notebook:
    """A notebook and what became of it.

    title       its first markdown heading
    cells       how many it has
    parameters  name -> what its parameters cell declares
    status      waiting, running, done, failed or interrupted
    error       why it failed
    """

    path: Path
    title: str
    cells: int
    parameters: dict[str, Parameter]
    status: str = "waiting"
    seconds: float = 0.0
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class SuiteResult:
    """A finished suite: its folder, its page, and its notebooks in order."""

    run_dir: Path
    index: Path
    notebooks: tuple[Notebook, ...]


def read_notebook(path: Path) -> Notebook:
    """Return the notebook at `path`, not run yet.

    Raises ValueError where there is not exactly one cell tagged `parameters`, or where a line of it is anything but an
    annotated literal with a trailing comment.
    """
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        prose = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown").splitlines()
        tagged = ["".join(cell["source"]) for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a notebook: {error!r}") from error
    title = next((line.lstrip("# ") for line in prose if line.startswith("#")), path.stem)
    if len(tagged) != 1:
        raise ValueError(f"{path.name} has {len(tagged)} cells tagged `parameters`; the suite needs exactly one")
    try:
        parameters = [_parameter(statement, tagged[0]) for statement in ast.parse(tagged[0]).body]
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"{path.name}, parameters cell: {error}") from error
    return Notebook(path=path, title=title, cells=len(cells), parameters={known.name: known for known in parameters})


def _parameter(statement: ast.stmt, source: str) -> Parameter:
    line = source.splitlines()[statement.end_lineno - 1].encode()  # columns of the syntax tree count bytes
    comment = line[statement.end_col_offset :].decode().strip(" #")
    match statement:
        case ast.AnnAssign(target=ast.Name(id=name), annotation=ast.Name(id=kind), value=ast.expr() as value):
            default = ast.literal_eval(value)
            if comment and type(default) is KINDS.get(kind):
                return Parameter(name=name, kind=KINDS[kind], default=default, help=comment)
    raise ValueError(
        "expected lines such as `epochs: int = 3  # passes over the train split`, of type str, int, float or bool; "
        f"got `{line.decode()}`"
    )


def match_parameters(notebooks: Iterable[Notebook], given: dict) -> dict[Path, dict]:
    """Return for every notebook's path the subset of `given` that it declares, in the declared types.

    Raises ValueError for a name that no notebook declares (`run_dir` is the suite's own) and a value of a wrong type.
    """
    known = sorted({name for notebook in notebooks for name in notebook.parameters} - {"run_dir"})
    for name in given:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise ValueError(f"no notebook has a parameter {name!r}{hint}; known are {', '.join(known) or 'none'}")
    return {
        notebook.path: {name: known.coerce(given[name]) for name, known in notebook.parameters.items() if name in given}
        for notebook in notebooks
    }


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
    run_dir     a new or empty folder; None is a new `runs/<time>/`
    progress    a `rich.console.Console` to show progress on (a live bar; plain lines off a terminal); None is silent

    Raises FileNotFoundError, FileExistsError or ValueError before anything runs, SuiteError when a notebook fails.
    However it ends, Ctrl-C included, the executed copies and `index.html` tell what was done.
    """
    from rich.console import Console

    suite = find_notebooks(notebooks)
    values = match_parameters(suite, parameters)
    if dataset := parameters.get("dataset"):
        locate(dataset if dataset in NAMED else paths.ROOT / dataset)
    run_dir = _new_folder(run_dir)
    started = datetime.now()
    console = progress or Console(quiet=True)

    for position, notebook in enumerate(suite):
        label = f"{position + 1}/{len(suite)} {notebook.path.stem}"
        executed = run_dir / "notebooks" / notebook.path.name
        if "run_dir" in notebook.parameters:
            values[notebook.path]["run_dir"] = str(run_dir)
        cells = notebook.cells + bool(values[notebook.path])  # papermill adds one with the given values
        suite[position] = replace(notebook, status="running")
        pages.write_index(run_dir, facts=_facts(suite, parameters, started), notebooks=suite)
        status, error, start = "failed", "", time.perf_counter()
        try:
            with _cell_bar(console, label, cells) as on_cell, (run_dir / "kernel.log").open("ab") as log:
                _execute(notebook.path, executed, values[notebook.path], log=log, on_cell=on_cell)
            status = "done"
        except KeyboardInterrupt:
            status = "interrupted"
            raise
        except SuiteError as failure:
            error = str(failure)
            raise
        finally:
            seconds = time.perf_counter() - start
            suite[position] = replace(notebook, status=status, seconds=seconds, error=error)
            if executed.exists():
                pages.write_notebook(executed, run_dir / "html" / f"{executed.stem}.html")
            pages.write_index(run_dir, facts=_facts(suite, parameters, started), notebooks=suite)
            console.print(f"{label}: {status} in {seconds:.0f} s", highlight=False)
    return SuiteResult(run_dir=run_dir, index=run_dir / "index.html", notebooks=tuple(suite))


@contextmanager
def _cell_bar(console, label: str, cells: int):
    """Show one notebook's progress; yields the function to call with the number of the cell that begins."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    if not console.is_terminal:
        console.print(f"{label}: {cells} cells", highlight=False)
    columns = TextColumn(label), BarColumn(), TextColumn("cell {task.completed}/{task.total}"), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(label, total=cells)
        yield lambda number: bar.update(task, completed=number)


def _execute(source: Path, target: Path, values: dict, *, log: BinaryIO, on_cell: Callable[[int], None]) -> None:
    """Run one notebook; `on_cell(n)` is called as its n-th cell begins. Raises SuiteError; what was done is on disk."""
    import papermill

    current = 0

    def cell_begins(*, cell_index, **_):
        nonlocal current
        current = cell_index + 1
        on_cell(current)

    unfilled = (str(path).replace("{", "{{").replace("}", "}}") for path in (source, target))  # papermill fills braces
    try:
        papermill.execute_notebook(
            *unfilled,
            values,
            kernel_name="python3",
            language="python",
            kernel_manager_class=_kernel_manager_class(log),
            progress_bar=False,
            on_cell_start=cell_begins,
        )
    except papermill.PapermillExecutionError as error:
        line = next(iter(error.source.strip().splitlines()), "")
        where = f"{source.name}, In [{error.exec_count}] `{line}`"
        raise SuiteError(f"{where}: {error.ename}: {error.evalue[:600]}") from error
    except RuntimeError as error:  # nbclient's DeadKernelError and its kin
        cause = "usually memory ran out: close other programs, or pass a smaller limit or batch size"
        raise SuiteError(f"{source.name}, cell {current}: {error} ({cause})") from error


def _kernel_manager_class(log: BinaryIO) -> type:
    """Return a manager whose kernels run this very interpreter, whatever kernels the machine has installed.

    What compiled code prints, TensorFlow's start-up lines above all, goes to `log` instead of the notebook.
    """
    from ipykernel.kernelspec import get_kernel_dict
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    figures = {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}  # whatever this process uses itself

    class ThisInterpreter(AsyncKernelManager):
        kernel_spec = KernelSpec(**get_kernel_dict(["--IPKernelApp.capture_fd_output=False"]), env=figures)

        async def start_kernel(self, **options):
            await super().start_kernel(stdout=log, stderr=log, **options)

    return ThisInterpreter


def _new_folder(wanted: Path | None) -> Path:
    """Return a new run folder with its subfolders; two suites never get the same one."""
    folder = Path(wanted).resolve() if wanted else paths.RUNS / f"{datetime.now():%Y-%m-%d_%H%M%S_%f}"
    if wanted and folder.is_dir() and any(path.is_file() for path in folder.rglob("*")):
        raise FileExistsError(f"{folder} is not empty: name a new folder, or none for one under {paths.RUNS}")
    make_folder(folder) if wanted else folder.mkdir(parents=True)  # a time of its own, or an error
    for name in ("notebooks", "html", "report"):
        (folder / name).mkdir(exist_ok=True)
    return folder


def _facts(suite: list[Notebook], given: dict, started: datetime) -> dict[str, str]:
    """Return what stands at the head of the page: caption -> text."""
    minutes, seconds = divmod(round(sum(notebook.seconds for notebook in suite)), 60)
    so_far = " so far" if any(notebook.status == "running" for notebook in suite) else ""
    default = next((known.parameters["dataset"].default for known in suite if "dataset" in known.parameters), "none")
    cores, python = os.cpu_count(), platform.python_version()
    return {
        "Started": f"{started:%Y-%m-%d %H:%M}",
        "Took": f"{minutes} min {seconds} s{so_far}",
        "Data set": str(given.get("dataset", default)),
        "Parameters": ", ".join(f"{name} = {value}" for name, value in given.items()) or "defaults",
        "Host": f"{platform.node()}, {platform.system()} {platform.machine()}, {cores} cores, Python {python}",
    }
