"""AffectNet in the published layout: numbered folders of face crops whose names carry emotion, valence and arousal."""

import hashlib
import logging
import re
from collections import Counter
from pathlib import Path

import numpy as np

from fer_tf import labels
from fer_tf.data.folders import image_files, subfolders
from fer_tf.data.images import read_image
from fer_tf.data.labelled import LabelledFaces, Splits, to_crops
from fer_tf.data.split import CUT, cut, sample

logger = logging.getLogger(__name__)

FOLDERS = {"train": "Training_Labeled", "valid": "Validation", "test": "Test"}
OTHERS = {8: "none", 9: "uncertain", 10: "no face"}  # what AffectNet's ids beyond the eight emotions mean
TERMS = "AffectNet (Mollahosseini, Hasani and Mahoor 2019): research use only, not redistributable"
NAME = re.compile(r".+(?P<mark>[s_])(?P<emotion>\d+)(?P=mark)(?P<valence>-?\d+)(?P=mark)(?P<arousal>-?\d+)")


def is_affectnet(folder: Path) -> bool:
    """Tell whether a folder has the layout: it holds Training_Labeled/."""
    return (folder / FOLDERS["train"]).is_dir()


def read_affectnet(folder: Path, *, image_size: int = 48, seed: int = 0, limit: int | None = None) -> Splits:
    """Return the faces under `folder`, affect included; images uint8 (n, image_size, image_size, 3) RGB.

    ``Training_Labeled/`` is train and ``Validation/``, AffectNet's only published judge, is valid. ``Test/`` is test;
    where there is none, test is cut from train, each emotion in proportion, equal files on one side. In each lie
    numbered folders of images named ``[id]s[emotion]s[valence x 1000]s[arousal x 1000].jpg``, as OpenDR's tool writes
    them, or with ``_`` for the ``s``, as the documents have it; emotions as in `labels.AFFECTNET`. Images without one
    of these are left out and counted in the log.

    limit  at most so many rows per split, chosen by their names, so that the others need not be read; copies, too, are
           then only looked for among the chosen

    Raises FileNotFoundError for a folder that is missing, ValueError that names the file or folder at fault.
    """
    present = {path.name for path in subfolders(folder)}
    if missing := {FOLDERS["train"], FOLDERS["valid"]} - present:
        raise FileNotFoundError(f"{folder} has no {', '.join(sorted(missing))}: AffectNet comes with both; add it")
    rows = {split: _named(folder / name) for split, name in FOLDERS.items() if name in present}
    if "test" not in rows:
        train = rows["train"]
        digests = np.array(
            [hashlib.blake2b(path.read_bytes(), digest_size=16).digest() for path in train["path"]], "V16"
        )
        aside = cut(train["label"], digests, fraction=CUT, seed=seed)
        rows |= {"train": train[~aside], "test": train[aside]}
    if limit is not None:
        rows = {split: named[sample(named["label"], limit, seed=seed)] for split, named in rows.items()}
    faces = {split: _read(named, folder, image_size) for split, named in rows.items()}
    return Splits(**faces, name=folder.resolve().name, terms=TERMS)


def parse_name(path: Path) -> tuple[int, float, float]:
    """Return AffectNet's emotion id 0..10, valence and arousal in -1..1 (-2 where no emotion is) of a file's name.

    Raises ValueError that names the file, what was expected and what was found.
    """
    found = NAME.fullmatch(path.stem)
    if not found:
        raise ValueError(
            f"{path}: expected a name such as 0000012s6s-400s550.jpg or 0000012_6_-400_550.jpg (id, emotion, valence "
            f"x 1000, arousal x 1000), found {path.name!r}"
        )
    emotion, valence, arousal = (int(found[name]) for name in ("emotion", "valence", "arousal"))
    if emotion >= len(labels.AFFECTNET) + len(OTHERS):
        raise ValueError(f"{path}: expected an emotion of 0..10, found {emotion}")
    if emotion not in OTHERS and max(abs(valence), abs(arousal)) > 1000:
        raise ValueError(f"{path}: expected valence and arousal x 1000 in -1000..1000, found {valence} and {arousal}")
    return emotion, valence / 1000, arousal / 1000


def _named(folder: Path) -> np.ndarray:
    """Return what the names under a split's folder tell, as a structured array (n,): path, label and affect."""
    rows, skipped = [], Counter()
    for path in image_files(folder):
        emotion, *affect = parse_name(path)
        if emotion in OTHERS:
            skipped[OTHERS[emotion]] += 1
        else:
            rows.append((path, labels.FERPLUS.index(labels.AFFECTNET[emotion]), affect))
    if skipped:
        counts = ", ".join(f"{name} {count:,}" for name, count in skipped.items())
        logger.info(f"{folder}: {skipped.total():,} images without one of the eight emotions are left out ({counts})")
    if not rows:
        raise ValueError(f"{folder} holds no image of one of the eight emotions: check that it is AffectNet's")
    return np.array(rows, [("path", object), ("label", np.int64), ("affect", np.float32, 2)])


def _read(rows: np.ndarray, root: Path, image_size: int) -> LabelledFaces:
    images = np.empty((len(rows), image_size, image_size, 3), np.uint8)
    for target, path in zip(images, rows["path"], strict=True):
        target[:] = to_crops(read_image(path)[None], image_size)[0]
    return LabelledFaces(
        images=images,
        labels=rows["label"],
        emotions=labels.FERPLUS,
        ids=np.array([path.relative_to(root).as_posix() for path in rows["path"]]),
        affect=rows["affect"],
    )
