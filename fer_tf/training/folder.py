"""The run folder: who owns it, and its log. Without Keras, so that a wrong folder is refused before anything starts."""

import json
import sys
from contextlib import contextmanager
from pathlib import Path

from fer_tf.data.labelled import Splits
from fer_tf.files import make_folder, write_atomically
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
def claim(run_dir: Path, recipe: Recipe, data: Splits):
    """Make the folder and hold it while the context lasts; write recipe.json and data.json.

    Raises ValueError for a file, a finished run's folder and another run's of which an epoch is finished, RuntimeError
    for a folder that another process holds.
    """
    make_folder(run_dir)
    with _locked(run_dir):
        for left in run_dir.glob(".*.partial*"):  # by a kill
            left.unlink()
        if is_finished(run_dir):
            (run_dir / "checkpoint.npz").unlink(missing_ok=True)  # a kill may have come before fit did it
        refuse_finished(run_dir)
        described = {"name": data.name, "fingerprint": data.fingerprint, "terms": data.terms}
        for path, values in (run_dir / "recipe.json", recipe.to_dict()), (run_dir / "data.json", described):
            text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
            begun = path.exists() and (run_dir / "checkpoint.npz").exists()
            if begun and path.read_text(encoding="utf-8") != text:
                raise ValueError(
                    f"{run_dir} holds an unfinished run of another recipe or other data; give another folder"
                )
            write_atomically(path, text.encode())
        yield


@contextmanager
def _locked(run_dir: Path):
    """Keep every other process out of the folder; the system lifts the lock when this one ends, however it ends."""
    path = run_dir / "lock"
    try:
        with path.open("a") as file:
            try:
                _lock(file)
            except (BlockingIOError, PermissionError) as error:
                raise RuntimeError(
                    f"another training is running in {run_dir}: wait until it ends, or give another folder"
                ) from error
            yield
    finally:
        if is_finished(run_dir):  # it is refused without a lock
            path.unlink(missing_ok=True)


def _lock(file) -> None:
    """Lock an open file for this process alone, or raise BlockingIOError (PermissionError on Windows) at once."""
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def write_log(run_dir: Path, line: str, *, once: bool = False) -> None:
    """Append a line to log.txt; `once` leaves it out if it is there, as it may be after a kill."""
    path = run_dir / "log.txt"
    if once and path.exists() and line in path.read_text(encoding="utf-8").splitlines():
        return
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
