"""Folders of images with one folder per emotion, as `LabelledFaces` or as a `tf.data.Dataset`."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from fer_tf import labels
from fer_tf.data.images import read_image
from fer_tf.data.labelled import LabelledFaces, to_crops

SPLITS = {"train": ("train", "training"), "valid": ("valid", "val", "validation"), "test": ("test", "testing")}
Progress = Callable[[int, int], None]
LITTER = ("thumbs.db", "desktop.ini")  # what desktops leave in folders; so are names that begin with a dot


def emotion_folders(folder: Path) -> dict[str, Path]:
    """Return emotion -> its folder, in the order of `labels.FERPLUS`; any spelling that `labels.canonical` knows.

    Raises FileNotFoundError, or ValueError if a folder names no emotion, two name the same one, or there is none.
    """
    found = {}
    for path in subfolders(folder):
        try:
            emotion = labels.canonical(path.name)
        except ValueError as error:
            raise ValueError(f"{path} should be named after an emotion: {error}") from error
        if emotion in found:
            raise ValueError(f"{found[emotion]} and {path} both mean {emotion}: put their images into one folder")
        found[emotion] = path
    if not found:
        raise ValueError(f"{folder} holds no folder of images per emotion: expected {', '.join(labels.FER2013)} in it")
    return {emotion: found[emotion] for emotion in labels.FERPLUS if emotion in found}


def subfolders(folder: Path) -> list[Path]:
    """Return the visible folders in `folder`, sorted by name; raises FileNotFoundError if it is no folder."""
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}: check the path")
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def split_folders(folder: Path) -> dict[str, Path]:
    """Return "train", "valid", "test" -> folder of emotion folders; a folder without any of them is train itself.

    ``train_new/`` and ``val_new/``, which `split_folder` writes, go before ``train/`` and ``valid/``. Raises
    FileNotFoundError, or ValueError if two folders look like one split or train is missing.
    """
    inside = {path.name.lower(): path for path in subfolders(folder)}
    found = {}
    for split, spellings in SPLITS.items():
        candidates = [inside[name] for name in spellings if name in inside]
        if len(candidates) > 1:
            raise ValueError(f"{candidates[0]} and {candidates[1]} both look like the {split} split: rename one")
        if candidates:
            found[split] = candidates[0]
    if {"train_new", "val_new"} <= set(inside):  # written by split_folder
        found |= {"train": inside["train_new"], "valid": inside["val_new"]}
    if found and "train" not in found:
        raise ValueError(f"{folder} has {', '.join(path.name for path in found.values())} but no train folder: add one")
    return found or {"train": folder}


def image_files(folder: Path) -> list[Path]:
    """Return every file under `folder` but litter, sorted; raises ValueError if there is none."""
    files = sorted(path for path in folder.rglob("*") if not path.is_dir() and not is_litter(path))
    if not files:
        raise ValueError(f"{folder} holds no images: put some there, or delete the folder")
    return files


def read_folder(
    folder: Path | str,
    *,
    image_size: int = 48,
    emotions: tuple[str, ...] | None = None,
    root: Path | None = None,
    progress: Progress | None = None,
) -> LabelledFaces:
    """Read a folder that holds one folder per emotion; images uint8 (n, image_size, image_size, 3) RGB.

    Every file is decoded by `read_image` and stretched to the square; one that cannot be decoded is an error, never
    dropped. `emotions` (default: those that have a folder, in the order of `labels.FERPLUS`) fixes the label order; ids
    are paths relative to `root` (default: `folder`). `progress(done, total)` is called for every image.

    Raises FileNotFoundError, or ValueError that names the file or folder at fault.
    """
    folder = Path(folder)
    files = {emotion: image_files(path) for emotion, path in emotion_folders(folder).items()}
    emotions = emotions or tuple(files)
    if unknown := set(files) - set(emotions):
        raise ValueError(f"{folder} has folders for {', '.join(sorted(unknown))}; expected {', '.join(emotions)} only")
    chosen = [path for paths in files.values() for path in paths]
    images = np.empty((len(chosen), image_size, image_size, 3), np.uint8)
    for done, (target, path) in enumerate(zip(images, chosen, strict=True), start=1):
        target[:] = to_crops(read_image(path)[None], image_size)[0]
        if progress:
            progress(done, len(chosen))
    return LabelledFaces(
        images=images,
        labels=np.repeat([emotions.index(emotion) for emotion in files], [len(paths) for paths in files.values()]),
        emotions=emotions,
        ids=np.array([path.relative_to(root or folder).as_posix() for path in chosen]),
    )


def tf_dataset(folder: Path | str, *, image_size: int = 48, batch_size: int = 32, shuffle: bool = False, seed: int = 0):
    """Return `folder` as a tf.data.Dataset of (float32 (batch, image_size, image_size, 3) RGB 0..255, int32 (batch,)).

    `keras.utils.image_dataset_from_directory` with the labels of `read_folder`; for data that do not fit into memory.
    TensorFlow decodes JPEG, PNG, GIF and BMP only and ignores EXIF rotation: a file that it would skip is an error.
    """
    import keras

    folder = Path(folder)
    classes = emotion_folders(folder)
    dataset = keras.utils.image_dataset_from_directory(
        str(folder),
        class_names=[path.name for path in classes.values()],
        image_size=(image_size, image_size),
        batch_size=batch_size,
        shuffle=shuffle,
        seed=seed,
        verbose=False,
    )
    files = {path for folder in classes.values() for path in image_files(folder)}
    if skipped := sorted(files ^ {Path(path) for path in dataset.file_paths}):
        raise ValueError(f"TensorFlow reads visible JPEG, PNG, GIF and BMP files, not {skipped[0]}: use read_folder")
    return dataset


def is_litter(path: Path) -> bool:
    """Tell what a desktop leaves, or hides, from what the user put there."""
    return path.name.startswith(".") or path.name.lower() in LITTER
