"""The terminal: results on stdout, messages and progress on stderr, known errors as one sentence, clean ends."""

import json
import signal
import sys
import traceback
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

results = Console()
messages = Console(stderr=True, emoji=False)


def guarded(command) -> None:
    """Run `command(arguments)`; a known error becomes one sentence and exit code 1.

    Ctrl-C, SIGTERM and a closed terminal all end it the same way: files are closed, exit code 130.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # a terminal without Unicode gets a question mark, not a traceback
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.default_int_handler)
    try:
        command([argument for argument in sys.argv[1:] if argument != "--debug"])
    except KeyboardInterrupt as interrupt:
        say(str(interrupt) or "stopped")
        sys.exit(130)
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        complain(error)
        sys.exit(1)


def say(text: str) -> None:
    """Print a message that is no result."""
    messages.print(escape(text), soft_wrap=True, highlight=False)


def complain(error: Exception) -> None:
    """Print an error in one sentence, with `--debug` its traceback first."""
    if "--debug" in sys.argv:
        traceback.print_exception(error)
    messages.print(f"[bold red]error:[/] {escape(str(error) or type(error).__name__)}", soft_wrap=True, highlight=False)


def show(values: dict, *shown, as_json: bool) -> None:
    """Print a result: `values` as JSON for programs, else the tables and lines `shown` for people."""
    if as_json:
        print(json.dumps(values))
        return
    for item in shown:
        results.print(item, soft_wrap=isinstance(item, str), highlight=False, markup=not isinstance(item, str))


@contextmanager
def bar(name: str, *, unit: str, total: int | None = None):
    """Show a progress bar where there is a terminal; yields `advance(done, total=...)`."""
    columns = TextColumn(name), BarColumn(), MofNCompleteColumn(), TextColumn(unit), TimeRemainingColumn()
    with Progress(*columns, console=messages, transient=True, disable=not messages.is_terminal) as progress:
        task = progress.add_task(name, total=total)
        yield lambda done, of=total: progress.update(task, completed=done, total=of)


def busy(what: str):
    """Show that something without a count is going on."""
    return messages.status(what)
