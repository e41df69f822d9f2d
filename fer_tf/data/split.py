"""Cutting a data set: a seeded stratified split that keeps copies together, a stratified sample, a split on disk."""

import os
import shutil
from pathlib import Path

import numpy as np

from fer_tf.data.folders import Progress, read_folder, split_folders

CUT = 0.15  # share of the images that a missing valid or test split takes


def cut(labels: np.ndarray, hashes: np.ndarray, *, fraction: float = CUT, seed: int = 0) -> np.ndarray:
    """Return a bool mask (n,) of the rows to set aside: `fraction` of the different images of every emotion.

    Rows with the same hash stay on one side. An emotion with two or more different images has some on both sides, one
    with a single image stays behind. Raises ValueError for a fraction outside 0..1 and if nothing can be set aside.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction must lie between 0 and 1, got {fraction}")
    rng = np.random.default_rng(seed)
    _, first, group = np.unique(hashes, return_index=True, return_inverse=True)
    leader = first[group]  # (n,) the first row that shows the same image
    leaders = np.unique(leader)  # in row order, so that the split does not hang on the hash values
    chosen = []
    for emotion in np.unique(labels[leaders]):
        rows = rng.permutation(leaders[labels[leaders] == emotion])
        chosen.append(rows[: min(max(round(fraction * len(rows)), 1), len(rows) - 1)])
    aside = np.isin(leader, np.concatenate(chosen))
    if not aside.any():
        raise ValueError("no emotion has two different images, so none can be set aside: add images")
    return aside


def sample(labels: np.ndarray, limit: int, *, seed: int = 0) -> np.ndarray:
    """Return at most `limit` row numbers in order, every emotion in proportion and, where `limit` allows, present."""
    if limit < 1:
        raise ValueError(f"limit must be at least 1 row per split, got {limit}")
    order = np.random.default_rng(seed).permutation(len(labels))
    depth = np.empty(len(labels))  # how far down its emotion's shuffled list a row stands, 0..1
    for emotion in np.unique(labels):
        rows = order[labels[order] == emotion]
        depth[rows] = np.arange(len(rows)) / len(rows)
    return np.sort(np.argsort(depth, kind="stable")[:limit])


def split_folder(
    folder: Path | str, *, fraction: float = CUT, seed: int = 0, copy: bool = False, progress: Progress | None = None
) -> dict[Path, int]:
    """Write a stratified split of a folder of emotion folders to disk; return new folder -> number of images.

    The images of ``folder/train``, or of `folder` itself where that has no ``train``, go to ``train_new/`` and
    ``val_new/`` beside it: as links (hard where the disk has them), or as copies. It is the split that `readers.load`
    makes, at its default image size, of a folder with train/ and test/ by the same seed. Everything is written under
    another name first, so an interrupted run leaves neither folder. `progress(done, total)` counts images read.

    Raises FileExistsError if one of the two is there already, ValueError for what `read_folder` refuses.
    """
    source = split_folders(Path(folder).resolve())["train"]
    targets = [source.with_name(name) for name in ("train_new", "val_new")]
    for target in targets:
        if target.exists():
            raise FileExistsError(f"{target} is there already: delete or rename it, then split again")
    faces = read_folder(source, progress=progress)
    aside = cut(faces.labels, faces.hashes, fraction=fraction, seed=seed)
    draft = source.with_name(f".{source.name}.split")
    shutil.rmtree(draft, ignore_errors=True)  # what a killed run left
    try:
        for name, is_valid in zip(faces.ids, aside, strict=True):
            target = draft / targets[int(is_valid)].name / name
            target.parent.mkdir(parents=True, exist_ok=True)
            _place(source / name, target, copy)
        for target in reversed(targets):
            (draft / target.name).rename(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return {targets[0]: int((~aside).sum()), targets[1]: int(aside.sum())}


def _place(source: Path, target: Path, copy: bool) -> None:
    """Copy `source` to `target`, or link it: hard, else (another disk, a system without hard links) symbolic."""
    if copy:
        shutil.copy2(source, target)
        return
    try:
        os.link(source.resolve(), target)
    except OSError:
        target.symlink_to(source.resolve())
