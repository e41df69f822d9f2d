"""`load`: every data set that this package knows, as `Splits`."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from fer_tf import labels as names
from fer_tf import paths
from fer_tf.data.affectnet import is_affectnet, read_affectnet
from fer_tf.data.clip_folders import read_clips
from fer_tf.data.fer2013 import SIZE, ferplus, is_published, read_faces, read_votes, votes_beside
from fer_tf.data.folders import emotion_folders, read_folder, split_folders
from fer_tf.data.labelled import LabelledFaces, Splits
from fer_tf.data.split import CUT, cut, sample

LABELS = ("fer2013", "fer2013-votes", "ferplus-majority", "ferplus-argmax", "ferplus-distribution")
NAMED = ("drawn", "fer2013", "ferplus")
CSV_FILES = ("fer2013.csv", "icml_face_data.csv")
VOTES_FILE = "fer2013new.csv"
FER2013_TERMS = "FER2013 (ICML 2013 challenge, Goodfellow et al.): research use, not redistributable"
FERPLUS_TERMS = f"{FER2013_TERMS}; FER+ votes (Barsoum et al. 2016): MIT"


def load(
    dataset: str | Path,
    *,
    labels: str = "auto",
    image_size: int = SIZE,
    seed: int = 0,
    limit: int | None = None,
    data_dir: Path | None = None,
    window: int = 1,
    **drawn_options: int,
) -> Splits:
    """Return a data set cut into train, valid and test.

    dataset        "drawn", "fer2013", "ferplus", or the path of a CSV like FER2013's or of a folder of images: one
                   folder per emotion, alone or under train/, test/ and valid/ (or train_new/ and val_new/), or
                   AffectNet's, see `affectnet.read_affectnet`
    labels         whose labels a CSV gets, one of `LABELS`; "auto" is fer2013, for "ferplus" ferplus-majority;
                   "fer2013-votes" are FER2013's with the distribution of FER+'s votes beside them;
                   "ferplus-distribution": train has the rows of ferplus-argmax with their votes, valid and test those
                   of ferplus-majority (for the rules see `fer2013.ferplus`)
    image_size     side in pixels to which faces are drawn and folders are read; FER2013's stay at 48 (`crops` resizes)
    seed           of the drawing, of splits that the data set lacks, and of `limit`
    limit          at most so many rows per split, every emotion in proportion, for a quick run
    data_dir       where fer2013/ and cache/ lie, by default `paths.DATA`
    window         frames of a row: above 1 the data set is clips, "drawn" ones (`drawn_sequences`) or a folder of them
                   (`clip_folders`), and images are `LabelledClips`
    drawn_options  n_train, n_valid, n_test of `drawn.splits`

    Raises FileNotFoundError that says how to get what is missing, ValueError that names the file and row at fault.
    """
    data_dir = Path(data_dir or paths.DATA)
    if drawn_options and dataset != "drawn":
        raise ValueError(f"{', '.join(drawn_options)} only fit the data set 'drawn', not {str(dataset)!r}: use limit")
    if type(window) is not int or window < 1:
        raise ValueError(f"window must be a whole number of frames, 1 or more, got {window!r}")
    if path := locate(dataset, data_dir=data_dir):
        if window > 1:
            raise ValueError(f"{path.name} holds single pictures, no clips of {window} frames: take drawn or a folder")
        splits = _csv_splits(path, _rule(dataset, labels), data_dir)
    elif labels != "auto":
        raise ValueError(f"labels={labels!r} needs a CSV like FER2013's, but {str(dataset)!r} has its own: drop it")
    elif dataset == "drawn":
        from fer_tf.data import drawn, drawn_sequences

        draw = drawn.splits if window == 1 else partial(drawn_sequences.splits, window=window)
        splits = draw(size=min(image_size, drawn.SIZES[1]), seed=seed, **drawn_options)
    elif is_affectnet(Path(dataset)) and window == 1:
        return read_affectnet(Path(dataset), image_size=image_size, seed=seed, limit=limit)
    else:
        read = read_folder if window == 1 else partial(read_clips, window=window)
        splits = _folder_splits(Path(dataset), image_size, seed, read)
    if limit is None:
        return splits
    rows = {split: sample(faces.labels, limit, seed=seed) for split, faces in splits.items()}
    clean = {split: splits.audit.clean[split][picked] for split, picked in rows.items()}
    return replace(splits, **{split: faces.take(rows[split]) for split, faces in splits.items()}, clean=clean)


def locate(dataset: str | Path, *, data_dir: Path | None = None) -> Path | None:
    """Return the CSV that `dataset` means, None for "drawn" and for a folder; FileNotFoundError for nothing there."""
    if dataset == "drawn":
        return None
    data_dir = Path(data_dir or paths.DATA)
    named = dataset in ("fer2013", "ferplus")
    path = data_dir / "fer2013" if named else Path(dataset)
    found = path if path.is_file() else next((path / name for name in CSV_FILES if (path / name).is_file()), None)
    if named and not found:
        raise FileNotFoundError(
            f"there is no {' or '.join(CSV_FILES)} in {path}: run `fer-tf download fer2013`, or put one there by hand; "
            "a folder of images (Kaggle's train/ and test/, or one folder per emotion) is read by its path"
        )
    if not found and not path.is_dir():
        raise FileNotFoundError(
            f"there is no data set {str(dataset)!r}: expected drawn, fer2013, ferplus, or the path of a CSV or a folder"
        )
    return found


def _rule(dataset: str | Path, labels: str) -> str:
    if labels == "auto":
        return "ferplus-majority" if dataset == "ferplus" else "fer2013"
    known = LABELS[2:] if dataset == "ferplus" else LABELS
    if labels not in known:
        raise ValueError(f"unknown labels {labels!r} for {str(dataset)!r}; known are auto, {', '.join(known)}")
    return labels


def _csv_splits(path: Path, rule: str, data_dir: Path) -> Splits:
    faces = read_faces(path, cache_dir=data_dir / "cache")
    rows, targets, distributions = np.arange(len(faces["usage"])), faces["emotion"].astype(np.int64), None
    if rule != "fer2013":
        beside = path.with_name(VOTES_FILE)
        votes = read_votes(beside if beside.is_file() else data_dir / "fer2013" / VOTES_FILE, faces["usage"])
        if rule == "fer2013-votes":
            distributions = votes_beside(targets, votes)
        else:
            rows, targets, distributions = ferplus(votes, rule.removeprefix("ferplus-"))
        if rule == "ferplus-distribution":  # the doubtful rows may teach, but do not judge
            kept = (faces["usage"][rows] == 0) | np.isin(rows, ferplus(votes, "majority")[0])
            rows, targets, distributions = rows[kept], targets[kept], distributions[kept]
    everything = LabelledFaces(
        images=faces["pixels"][rows][..., None],
        labels=targets,
        emotions=names.FER2013 if rule.startswith("fer2013") else names.FERPLUS,
        ids=rows,
        distributions=distributions if rule in ("fer2013-votes", "ferplus-distribution") else None,
    )
    usage = faces["usage"][rows]
    judged = rule.removesuffix("-votes")  # FER2013's own labels, with votes beside them or not
    name = judged if judged != "fer2013" or path.name in CSV_FILES else path.stem
    terms = FER2013_TERMS if rule == "fer2013" else FERPLUS_TERMS
    if not is_published(faces):
        name = f"{name} (not as published)" if name == judged else name
        terms = f"the terms of the images in {path.name}, which are not FER2013 as published"
    return Splits(
        train=everything.take(usage == 0),
        valid=everything.take(usage == 1),
        test=everything.take(usage == 2),
        name=name,
        terms=terms,
    )


def _folder_splits(folder: Path, image_size: int, seed: int, read=read_folder) -> Splits:
    """Read a folder of images or of clips; a split that it lacks is cut from train."""
    found = split_folders(folder)
    seen = {emotion for path in found.values() for emotion in emotion_folders(path)}
    reading = {"image_size": image_size, "emotions": tuple(e for e in names.FERPLUS if e in seen), "root": folder}
    faces = {split: read(path, **reading) for split, path in found.items()}
    share = CUT
    for split in ("test", "valid"):
        if split not in faces:
            aside = cut(faces["train"].labels, _together(faces["train"]), fraction=share, seed=seed)
            faces[split], faces["train"] = faces["train"].take(aside), faces["train"].take(~aside)
            share = CUT / (1 - CUT)  # of what is left
    name = folder.resolve().name
    return Splits(**faces, name=name, terms=f"the terms of the images in {name}")


def _together(faces: LabelledFaces) -> np.ndarray:
    """Return (n,) what a cut must not part: equal images, and those in one folder below the emotion's, as of a clip."""
    places = [str(name).rpartition("/")[0] for name in faces.ids]
    top = min(place.count("/") for place in places)
    same = zip(places, faces.hashes, strict=True)
    return np.array([digest.tobytes().hex() if place.count("/") == top else place for place, digest in same])
