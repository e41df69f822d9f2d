"""A grid of trainings, models x seeds, each an executed notebook, and one comparison. Killed, it is taken up again.

The grid is a TOML file::

    seeds = [0, 1]
    dataset = "drawn"        # instead of the recipes' own; optional
    limit = 350              # at most so many images per split; optional

    [every]                  # choices changed in every recipe, as `fer-tf train --set` does; optional
    epochs = 2
    augmentation.rotate = 5.0

    [recipes.lenet_drawn]    # a shipped recipe, as it is

    [recipes.slow_lenet]     # any other name: `recipe` says which, a shipped one or a .toml beside this file
    recipe = "lenet_drawn"
    learning_rate = 5e-4

The run of recipe `slow_lenet` with seed 1 is the folder `slow_lenet_s1`. Beside these lie what every suite has, with a
page for each run, and `grid.json`: what was asked for, so that a folder never mixes two grids' runs under one name.
"""

import json
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fer_tf import paths
from fer_tf.data.fer2013 import SIZE
from fer_tf.data.readers import NAMED, load, locate
from fer_tf.files import locked, make_folder, write_atomically
from fer_tf.notebook import read_notebook
from fer_tf.session import Session, SuiteError
from fer_tf.suite import find_notebooks
from fer_tf.training.compare import Run, read_run
from fer_tf.training.folder import is_finished, same_recipe
from fer_tf.training.recipe import Recipe, find_recipe
from fer_tf.zoo import architecture

NOTEBOOK = paths.NOTEBOOKS / "grid" / "train_recipe.ipynb"
COMPARISON = "11"  # the notebook that compares the runs
TABLE = "11_over_seeds.csv"
FIGURES = (
    ("accuracy %", "test", "accuracy"),
    ("macro-F1 %", "test", "macro_f1"),
    ("on valid %", "valid", "accuracy"),
)
KNOWN = {
    "seeds": (list, "a list such as [0, 1, 2]"),
    "recipes": (dict, "tables such as [recipes.lenet_drawn]"),
    "every": (dict, "a table of choices"),
    "dataset": (str, "a text"),
    "limit": (int, "a whole number"),
}


@dataclass(frozen=True, kw_only=True)
class Grid:
    """What a grid file asks for: run's name -> its recipe, in the order of the file, seed by seed."""

    recipes: dict[str, Recipe]
    limit: int


@dataclass(frozen=True, kw_only=True)
class GridResult:
    """A grid that came to its end.

    failed  run's name, or the comparison's -> the cell that failed and its message
    table   one row per model, as in report/11_over_seeds.csv
    """

    run_dir: Path
    index: Path
    failed: dict[str, str]
    table: list[dict]


def read_grid(path: Path) -> Grid:
    """Read a grid file; raises FileNotFoundError, or ValueError that names the file and what is wrong in it."""
    try:
        if not path.is_file():
            raise FileNotFoundError(f"there is no grid at {path}: give a .toml file with a table per model")
        return _grid(tomllib.loads(path.read_text(encoding="utf-8")), path.parent)
    except ValueError as error:  # TOMLDecodeError is one
        raise ValueError(f"{path}: {error}") from error


def run_grid(path: Path, *, run_dir: Path | None = None, progress=None) -> GridResult:
    """Train every recipe with every seed in the folder, then compare them.

    run_dir   None is `runs/<name of the file>`; what is finished there is skipped, what was killed goes on
    progress  as `suite.run_suite` takes it

    A run that fails does not stop the others. Raises FileNotFoundError, ValueError, or RuntimeError for a folder in
    which another grid is running, before anything runs.
    """
    grid = read_grid(path)
    folder = Path(run_dir).resolve() if run_dir else paths.RUNS / path.stem
    make_folder(folder)
    with locked(folder, by="grid"):
        _check_folder(folder, grid)
        return _run(grid, folder, name=path.name, progress=progress)


def _run(grid: Grid, folder: Path, *, name: str, progress) -> GridResult:
    trained = read_notebook(NOTEBOOK)
    notebooks = [replace(trained, name=name, title=name) for name in grid.recipes]
    facts = {"Grid": name, "Data set": ", ".join(sorted({recipe.dataset for recipe in grid.recipes.values()}))}
    session = Session(folder, [*notebooks, *find_notebooks([COMPARISON])], facts=facts, console=progress)
    failed = {}
    for position, (name, recipe) in enumerate(grid.recipes.items()):
        if is_finished(folder / name):
            session.skip(position, read_run(folder / name).history["seconds"].sum())
            continue
        planned = folder / "recipes" / f"{name}.json"
        recipe.save(planned)
        try:
            session.run(position, {"recipe": str(planned), "name": name, "limit": grid.limit})
        except SuiteError as error:
            failed[name] = str(error)
    runs = [read_run(folder / name) for name in grid.recipes if is_finished(folder / name)]
    table = over_seeds(runs)
    if runs:
        _write_table(folder / "report" / TABLE, table)
        try:
            session.run(len(notebooks), {})
        except SuiteError as error:
            failed["comparison"] = str(error)
    session.finish(_data(runs, grid) if runs else None)
    return GridResult(run_dir=folder, index=folder / "index.html", failed=failed, table=table)


def over_seeds(runs: Sequence[Run]) -> list[dict]:
    """Return one row per model: mean and standard deviation over its seeds, in per cent, the best on test first.

    A model is what a run's name says before `_s<seed>`. The standard deviation is that of a sample (n - 1); with one
    seed there is none.
    """
    models: dict[str, list[Run]] = {}
    for run in runs:
        models.setdefault(run.name.rpartition("_s")[0], []).append(run)
    rows = []
    for name, group in models.items():
        row = {"model": name, "seeds": len(group)}
        for told, split, figure in FIGURES:
            values = np.array([100 * run.metrics[split][figure] for run in group])
            spread = f" ± {values.std(ddof=1):.2f}" if len(values) > 1 else ""
            row[told] = f"{values.mean():.2f}{spread}"
        seconds = [run.history["seconds"].sum() for run in group]
        rows.append(row | {"training s": f"{np.mean(seconds):.0f}", "n": group[0].metrics["test"]["n"]})
    return sorted(rows, key=lambda row: -float(row["accuracy %"].partition(" ")[0]))


def _grid(values: dict, beside: Path) -> Grid:
    for name, value in values.items():
        if name not in KNOWN:
            raise ValueError(f"a grid has no {name!r}; known are {', '.join(KNOWN)}")
        kind, words = KNOWN[name]
        if type(value) is not kind:
            raise ValueError(f"{name} must be {words}, got {value!r}")
    seeds, recipes = values.get("seeds", [0]), values.get("recipes", {})
    if not recipes or not all(isinstance(changes, dict) for changes in recipes.values()):
        raise ValueError("a grid needs tables such as [recipes.lenet_drawn], one per model")
    if not seeds or len(set(seeds)) < len(seeds) or not all(type(seed) is int and seed >= 0 for seed in seeds):
        raise ValueError(f"seeds must be different whole numbers, 0 or more, such as [0, 1, 2], got {seeds}")
    if values.get("limit", 0) < 0:
        raise ValueError(f"limit must be 0 (all images) or more, got {values['limit']}")
    planned = {}
    for name, changes in recipes.items():
        if not name.replace("_", "").replace("-", "").isalnum():
            raise ValueError(f"[recipes.{name}]: a name has letters, digits, - and _, for it names a folder")
        every = values.get("every", {}) | ({"dataset": values["dataset"]} if "dataset" in values else {})
        try:
            recipe = _recipe(changes.get("recipe", name), beside)
            for changed in (every, {key: value for key, value in changes.items() if key != "recipe"}):
                recipe = _with(recipe, changed)
        except (ValueError, FileNotFoundError) as error:
            raise ValueError(f"[recipes.{name}]: {error}") from error
        if not recipe.dataset:
            raise ValueError(f"[recipes.{name}] names no data set: give `dataset` in the grid")
        locate(recipe.dataset if recipe.dataset in NAMED else paths.ROOT / recipe.dataset)
        planned |= {f"{name}_s{seed}": recipe.with_(seed=seed) for seed in seeds}
    return Grid(recipes=planned, limit=values.get("limit", 0))


def _recipe(wanted: str, beside: Path) -> Recipe:
    return Recipe.load(beside / wanted) if Path(str(wanted)).suffix else find_recipe(str(wanted))


def _with(recipe: Recipe, changes: dict) -> Recipe:
    """Return the recipe with these choices; of a table, such as `augmentation`, only the named ones change."""
    values = recipe.to_dict()
    if "seed" in changes:
        raise ValueError("seed is not changed here: give `seeds`")
    for name, value in changes.items():
        table = isinstance(value, dict) and isinstance(values.get(name), dict)
        values[name] = values[name] | value if table else value
    return Recipe.from_dict(values)


def _check_folder(folder: Path, grid: Grid) -> None:
    """Refuse a folder in which a run of this grid's names was made by other choices; note the choices of this one."""
    path = folder / "grid.json"
    asked = {name: {"limit": grid.limit, "recipe": recipe.to_dict()} for name, recipe in grid.recipes.items()}
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    for name in asked:
        begun = is_finished(folder / name) or (folder / name / "checkpoint.npz").exists()
        before = known.get(name)
        same = before and before["limit"] == grid.limit and same_recipe(before["recipe"], grid.recipes[name])
        if begun and not same:
            raise ValueError(
                f"{folder / name} was trained by other choices than this grid's: name another --run-dir, rename the "
                "recipe in the grid, or delete that folder"
            )
    (folder / "recipes").mkdir(exist_ok=True)
    write_atomically(path, (json.dumps(known | asked, indent=2) + "\n").encode())


def _write_table(path: Path, table: list[dict]) -> None:
    import pandas as pd

    write_atomically(path, pd.DataFrame(table).to_csv(index=False).encode())


def _data(runs: Sequence[Run], grid: Grid):
    """Return the data set of the first run as it was loaded: what the data card describes."""
    recipe = grid.recipes[runs[0].name]
    size = max(recipe.image_size or architecture(recipe.architecture).image_size, SIZE)
    choices = {"seed": recipe.data_seed, "limit": grid.limit or None, "window": recipe.window}
    dataset = recipe.dataset if recipe.dataset in NAMED else paths.ROOT / recipe.dataset
    return load(dataset, labels=recipe.labels, image_size=size, **choices)
