"""The command that trains by a recipe."""

import json
from pathlib import Path
from typing import Annotated

import typer

from fer_tf import tables, terminal
from fer_tf.cli.options import LABELS, AsJson, Limit
from fer_tf.terminal import bar, busy, show

RECIPES = sorted(path.stem for path in (Path(__file__).parents[1] / "training" / "recipes").glob("*.toml"))


def train(
    recipe: Annotated[str, typer.Option(help=f"{', '.join(RECIPES)}, or a .toml or .json file.")] = "lenet_drawn",
    dataset: Annotated[str | None, typer.Option(help="Another data set than the recipe's.")] = None,
    labels: Annotated[str | None, typer.Option(help=f"Instead of the recipe's: {LABELS}.")] = None,
    run_dir: Annotated[Path | None, typer.Option(help="Where the run goes; runs/<recipe> if left out.")] = None,
    change: Annotated[
        list[str], typer.Option("--set", help="Change a choice of the recipe: --set epochs=3. Repeatable.")
    ] = (),
    devices: Annotated[
        int | None, typer.Option(help="That share every batch; all accelerators if left out. Several on JAX alone.")
    ] = None,
    limit: Limit = None,
    as_json: AsJson = False,
) -> None:
    """Train by a recipe, select on valid, report test once. The same command resumes a run that was killed."""
    from fer_tf import paths
    from fer_tf.training.recipe import find_recipe, with_texts

    if devices is not None and devices < 1:
        raise ValueError(f"devices must be at least 1, got {devices}")
    chosen = with_texts(find_recipe(recipe), change)
    given = {"dataset": dataset, "labels": labels}
    chosen = chosen.with_(**{name: value for name, value in given.items() if value})
    if not chosen.dataset:
        raise ValueError(f"the recipe {recipe} names no data set: give --dataset")
    folder = run_dir or paths.RUNS / Path(recipe).stem
    from fer_tf.data.fer2013 import SIZE as FER2013_SIZE
    from fer_tf.data.readers import load
    from fer_tf.zoo import architecture

    size = max(chosen.image_size or architecture(chosen.architecture).image_size, FER2013_SIZE)
    with busy(f"reading {chosen.dataset}"):
        choices = {"seed": chosen.data_seed, "limit": limit, "window": chosen.window}
        data = load(chosen.dataset, labels=chosen.labels, image_size=size, **choices)
        tell = terminal.say if as_json else lambda line: show({}, line, as_json=False)
        tell(data.audit.summary())
    if not as_json:
        show({}, tables.balance(data.audit), as_json=False)
    with busy("starting Keras"), terminal.quiet():
        from fer_tf.training.fit import build_model, fit

        model = build_model(chosen, emotions=len(data.emotions))
    with bar("train", unit="batches") as advance:
        card = fit(model, data, chosen, folder, devices=devices, report=tell, on_step=advance)
    table = tables.metrics(card.metrics, title=f"{card.name} on {data.name}")
    values = {"run_dir": str(folder), "card": json.loads(card.to_json())}
    show(values, table, f"run folder: {folder}", as_json=as_json)
