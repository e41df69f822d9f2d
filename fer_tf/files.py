"""Files that appear whole or not at all: they grow beside their place under another name, and are moved when done."""

import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK = "lock"


def make_folder(path: Path) -> None:
    """Make a folder, or raise ValueError if a file is in the way."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ValueError(f"{path} must be a folder, but a file is in the way: give another one") from error


def check_writable(path: Path) -> None:
    """Refuse, before any work, a place for no file; raises FileNotFoundError or PermissionError."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder of {path} does not exist: make it first")
    if (path.exists() and not path.is_file()) or not os.access(path.parent, os.W_OK):
        raise PermissionError(f"{path} cannot be written: choose another place")


def partial_path(path: Path) -> Path:
    """Return where a file grows until it is whole: a new name at every call, in every process of every container."""
    return path.with_name(f".{secrets.token_hex(8)}.partial")


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader finds the old content or the new, never a part."""
    partial = partial_path(path)
    with settled(partial, path, keep=True):
        partial.write_bytes(content)


@contextmanager
def settled(partial: Path, path: Path, *, keep: bool) -> Iterator[None]:
    """Move a grown file into place after the block that closes it; remove it if it is not to be kept or that fails."""
    try:
        yield
        if keep:
            os.replace(partial, path)
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(partial)):
            raise
        raise type(error)(error.errno, f"{error.strerror}: {path} could not be written") from error
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def locked(folder: Path, *, by: str) -> Iterator[None]:
    """Keep every other process out of a folder; the system lifts the lock when this one ends, however it ends.

    Raises RuntimeError, which names what it is held `by`, if another process has it. The file of the lock stays.
    """
    with (folder / LOCK).open("a") as file:
        try:
            _lock(file)
        except (BlockingIOError, PermissionError) as error:
            raise RuntimeError(
                f"another {by} is running in {folder}: wait until it ends, or give another folder"
            ) from error
        yield


def _lock(file) -> None:
    """Lock an open file for this process alone, or raise BlockingIOError (PermissionError on Windows) at once."""
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
