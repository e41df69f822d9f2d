"""A run folder that fills: notebooks run one by one with papermill, and the site that tells what became of them."""

import os
import platform
import time
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

from fer_tf import pages
from fer_tf.notebook import Notebook


class SuiteError(RuntimeError):
    """A notebook failed; the message names it, the cell and the cause."""


class Session:
    """Notebooks that are run into one folder, each in a fresh kernel of this interpreter.

    notebooks  in order, with what became of each
    facts      caption -> text, at the head of the index, beside the session's own
    console    a `rich.console.Console` to show progress on: a live bar, plain lines off a terminal; None is silent

    However a notebook ends, its executed copy and the site tell what was done.
    """

    def __init__(self, run_dir: Path, notebooks: Iterable[Notebook], *, facts: dict[str, str], console=None):
        from rich.console import Console

        self.run_dir, self.notebooks = run_dir, list(notebooks)
        self.console = console or Console(quiet=True)
        self._facts, self._started, self._pages, self._papers = facts, datetime.now(), {}, {}
        for name in ("notebooks", "html", "report"):
            (run_dir / name).mkdir(exist_ok=True)

    def run(self, position: int, values: dict) -> None:
        """Run one of the notebooks with these parameters; raises SuiteError where it fails."""
        notebook, values = self.notebooks[position], dict(values)
        label, executed = f"{position + 1}/{len(self.notebooks)} {notebook.name}", self.executed(notebook)
        if "run_dir" in notebook.parameters:
            values["run_dir"] = str(self.run_dir)
        cells = notebook.cells + bool(values)  # papermill adds one with the given values
        self.settle(position, status="running")
        status, error, start = "failed", "", time.perf_counter()
        try:
            with _cell_bar(self.console, label, cells) as on_cell, (self.run_dir / "kernel.log").open("ab") as log:
                _execute(notebook.path, executed, values, log=log, on_cell=on_cell)
            status = "done"
        except KeyboardInterrupt:
            status = "interrupted"
            raise
        except SuiteError as failure:
            error = str(failure)
            raise
        finally:
            seconds = time.perf_counter() - start
            self.settle(position, status=status, seconds=seconds, error=error)
            self.console.print(f"{label}: {status} in {seconds:.0f} s", highlight=False)

    def skip(self, position: int, seconds: float) -> None:
        """Take a notebook that was done before, in so many seconds, as it lies in the folder."""
        self.settle(position, status="done", seconds=seconds)
        label = f"{position + 1}/{len(self.notebooks)} {self.notebooks[position].name}"
        self.console.print(f"{label}: was done before", highlight=False)

    def executed(self, notebook: Notebook) -> Path:
        """Return where a notebook's executed copy lies."""
        return self.run_dir / "notebooks" / f"{notebook.name}.ipynb"

    def settle(self, position: int, **changes) -> None:
        """Note what became of a notebook, and write the site."""
        notebook = self.notebooks[position] = replace(self.notebooks[position], **changes)
        if notebook.status != "running" and self.executed(notebook).exists():
            self._pages[notebook.name] = pages.read_notebook_page(self.executed(notebook), title=notebook.title)
        self.write()

    def finish(self, data=None) -> None:
        """Write the cards of the folder's models, that of `data` (`Splits`) if given, and summary.pdf; link them."""
        from fer_tf.cards import write_cards
        from fer_tf.summary import write_summary

        write_summary(self.run_dir, facts=self._head())
        self._papers = {"Summary on one page (PDF)": "summary.pdf"}
        for path in write_cards(self.run_dir, data=data):
            name = f"card_{path.stem}"
            text = path.read_text(encoding="utf-8")
            title = text.partition("\n")[0].lstrip("# ")
            beside = f"\n[This card as Markdown](../cards/{quote(path.name)})\n"
            self._pages[name] = pages.read_markdown_page(text + beside, title=title)
            self._papers[title] = f"html/{name}.html"
        self.write()

    def write(self) -> None:
        """Write the site."""
        pages.write_site(
            self.run_dir, facts=self._head(), notebooks=self.notebooks, pages=self._pages, papers=self._papers
        )

    def _head(self) -> dict[str, str]:
        """Return what stands at the head of the index: caption -> text."""
        minutes, seconds = divmod(round(sum(notebook.seconds for notebook in self.notebooks)), 60)
        so_far = " so far" if any(notebook.status == "running" for notebook in self.notebooks) else ""
        cores, python = os.cpu_count(), platform.python_version()
        return {
            "Started": f"{self._started:%Y-%m-%d %H:%M}",
            "Took": f"{minutes} min {seconds} s{so_far}",
            **self._facts,
            "Host": f"{platform.node()}, {platform.system()} {platform.machine()}, {cores} cores, Python {python}",
        }


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
