"""The terminal: results on stdout, messages and progress on stderr, known errors as one sentence, clean ends."""

import _thread
import json
import os
import signal
import sys
import threading
import traceback
from contextlib import contextmanager, suppress

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from typer.core import TyperGroup


def _open_streams() -> None:
    """Give a program that was started without stdout or stderr (`2>&-`) some that lead nowhere."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, number)
            setattr(sys, name, os.fdopen(number, "w", closefd=False))


_open_streams()
STOPPING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
results = Console()
messages = Console(file=os.fdopen(os.dup(2), "w", errors="replace"), emoji=False)  # seen even while `quiet`


class Commands(TyperGroup):
    """Typer's commands; a known error becomes one sentence and exit code 1, an interrupt one and exit code 130."""

    def invoke(self, context):
        try:
            return super().invoke(context)
        except KeyboardInterrupt as interrupt:
            for number in STOPPING:
                signal.signal(number, signal.SIG_IGN)  # the end itself is not interrupted
            say(str(interrupt) or "stopped")
            raise typer.Exit(130) from interrupt
        except typer.Exit:  # a RuntimeError, too
            raise
        except (ValueError, OSError, RuntimeError, ImportError) as error:
            complain(error)
            raise typer.Exit(1) from error


def prepare() -> None:
    """Let SIGTERM and a closed terminal stop a command as Ctrl-C does, and print whatever the terminal can show."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # without Unicode a question mark, not a traceback
    for number in STOPPING:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores some
            signal.signal(number, signal.default_int_handler)
    sys.unraisablehook = _again


def _again(lost) -> None:
    """Interrupt once more if Python lost a Ctrl-C in a place that cannot raise, such as a callback of its collector."""
    if lost.exc_type is KeyboardInterrupt:
        threading.Timer(0.05, _thread.interrupt_main).start()
    else:
        sys.__unraisablehook__(lost)


def say(text: str) -> None:
    """Print a message that is no result."""
    with suppress(OSError):  # the terminal may be gone
        messages.print(escape(text), soft_wrap=True, highlight=False)


def complain(error: Exception) -> None:
    """Print an error in one sentence, with `--debug` its traceback first."""
    if "--debug" in sys.argv:
        traceback.print_exception(error)
    text = escape(str(error) or type(error).__name__)
    with suppress(OSError):
        messages.print(f"[bold red]error:[/] {text}", soft_wrap=True, highlight=False)


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
    # Where the results are seen too, their lines must go above the bar: one console for both.
    console = results if results.is_terminal else messages
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(name, total=total)
        yield lambda done, of=total: progress.update(task, completed=done, total=of)


def busy(what: str):
    """Show that something without a count is going on."""
    return messages.status(what)


@contextmanager
def quiet():
    """Keep what compiled libraries print at their start, TensorFlow's above all, off the screen; `--debug` shows it."""
    if "--debug" in sys.argv:
        yield
        return
    sys.stderr.flush()
    screen = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(screen, 2)
        os.close(screen)
