"""The command line: one command per user's job, each a call or two into the package. Heavy imports wait in commands."""

import logging
import sys
from typing import Annotated

import typer

from fer_tf import __version__, terminal
from fer_tf.cli import convert, data, faces, judge, reports, serve, speed, train

JOBS = (  # in the order of `fer-tf --help`
    data.download,
    data.split,
    train.train,
    judge.evaluate,
    judge.groups,
    judge.robustness,
    convert.export,
    convert.quantise,
    faces.image,
    faces.video,
    faces.annotate_many,
    serve.serve,
    speed.bench,
    speed.measure,
    reports.models,
    reports.suite,
    reports.card,
)

app = typer.Typer(
    cls=terminal.Commands,
    help="Facial emotion recognition: data, training, judging, pictures, video, reports. Labels are what annotators "
    "saw in a picture, not what a person felt.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for job in JOBS:
    app.command()(job)


def main() -> None:
    """Run the command line; `--debug` is taken anywhere."""
    terminal.prepare()
    app([argument for argument in sys.argv[1:] if argument != "--debug"])


def _print_version(asked: bool) -> None:
    if asked:
        print(f"fer-tf {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what happens.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    logging.basicConfig(level="INFO" if verbose else "WARNING", format="%(message)s")
