"""The run folder: who owns it, and its log. Without Keras."""

import json
from contextlib import contextmanager
from pathlib import Path

from fer_tf.data.labelled import Splits
from fer_tf.files import LOCK, locked, make_folder, write_atomically
from fer_tf.training.recipe import Recipe


def is_finished(run_dir: Path) -> bool:
    """Tell whether a run came to its end: metrics.json is the last file that it writes."""
    return (run_dir / "metrics.json").exists()


def refuse_finished(run_dir: Path) -> None:
    """Raise ValueError for the folder of a finished run."""
    if is_finished(run_dir):
        raise ValueError(f"{run_dir} holds a finished run; give another folder, or delete this one")


def keras_file(path: Path) -> Path:
    """Return a `.keras` file that has its card beside it, given as such or by its folder; raises FileNotFoundError."""
    path = path / "model.keras" if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"no Keras model at {path}: give a .keras file, or a folder that holds model.keras")
    if not path.with_name("card.json").is_file():
        raise FileNotFoundError(f"{path} has no card.json beside it, so its emotions and image size are unknown")
    return path


@contextmanager
def claim(run_dir: Path, recipe: Recipe, data: Splits, *, models: dict | None = None):
    """Make the folder and hold it while the context lasts; write recipe.json and data.json.

    `models`, what data.json says of the trained networks that the recipe names, belong to the run as its data do.

    Yields whether it holds this very run, finished: then there is nothing to do. Raises ValueError for a file, another
    finished run's folder and another run's of which an epoch is finished, RuntimeError for a folder that another
    process holds.
    """
    make_folder(run_dir)
    with _locked(run_dir):
        for left in run_dir.glob(".*.partial*"):  # by a kill
            left.unlink()
        if is_finished(run_dir):
            (run_dir / "checkpoint.npz").unlink(missing_ok=True)  # a kill may have come before fit did it
        described = {"name": data.name, "fingerprint": data.fingerprint, "terms": data.terms}
        described |= models or {}
        unsaid = {name: value for name, value in described.items() if name == "start"}  # by runs of earlier versions
        known = unsaid | _read(run_dir / "data.json")
        same = same_recipe(_read(run_dir / "recipe.json"), recipe) and known == described
        if is_finished(run_dir) and same:
            yield True
            return
        refuse_finished(run_dir)
        if (run_dir / "checkpoint.npz").exists() and not same:
            raise ValueError(f"{run_dir} holds an unfinished run of another recipe or other data; give another folder")
        for name, values in (("recipe.json", recipe.to_dict()), ("data.json", described)):
            write_atomically(run_dir / name, (json.dumps(values, indent=2, ensure_ascii=False) + "\n").encode())
        yield False


def same_recipe(known: dict, recipe: Recipe) -> bool:
    """Tell whether choices as a file has them are these; one that was made before a choice existed has its default."""
    try:
        return Recipe.from_dict(known) == Recipe.from_dict(json.loads(json.dumps(recipe.to_dict())))
    except ValueError:
        return False


def _read(path: Path) -> dict:
    """Return what a paper of a run says; nothing where it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


@contextmanager
def _locked(run_dir: Path):
    """Keep every other process out of the folder."""
    try:
        with locked(run_dir, by="training"):
            yield
    finally:
        if is_finished(run_dir):  # nothing is written there any more
            (run_dir / LOCK).unlink(missing_ok=True)


def write_log(run_dir: Path, line: str, *, once: bool = False) -> None:
    """Append a line to log.txt; `once` leaves it out if it is there, as it may be after a kill."""
    path = run_dir / "log.txt"
    if once and path.exists() and line in path.read_text(encoding="utf-8").splitlines():
        return
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
