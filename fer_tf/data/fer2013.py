"""FER2013's CSV files and FER+'s votes, row by row as published."""

import csv
import hashlib
import logging
import os
import zipfile
from pathlib import Path

import numpy as np

from fer_tf import labels as names

logger = logging.getLogger(__name__)

SIZE = 48  # side of a face in pixels
USAGES = ("Training", "PublicTest", "PrivateTest")  # train, valid, test
VOTES_COLUMNS = (*names.FERPLUS_PUBLISHED, "unknown", "NF")  # NF: no face
CACHE_LAYOUT = 1
PUBLISHED = "96ad7fb849b88b60524c1d1b9df5318e"  # what `is_published` finds in fer2013.csv with the known md5


def read_faces(path: Path | str, *, cache_dir: Path | None = None) -> dict[str, np.ndarray]:
    """Read fer2013.csv or icml_face_data.csv, in published row order.

    Returns pixels uint8 (n, 48, 48), emotion uint8 (n,): 0..6 in the order of `labels.FER2013`, usage uint8 (n,): index
    into `USAGES`. With `cache_dir`, a copy is kept there that loads in a fraction of the time; it is made anew when the
    CSV's size or time of change differs, or when it is damaged.

    Raises FileNotFoundError, or ValueError that names the row (the first below the header is row 1).
    """
    path = Path(path)
    if cache_dir is None:
        return _parse(path)
    stat = path.stat()
    key = np.array([CACHE_LAYOUT, stat.st_size, stat.st_mtime_ns])
    cache = Path(cache_dir) / f"{path.stem}-{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]}.npz"
    rows = _read_cache(cache, key)
    if rows is None:
        rows = _parse(path)
        _write_cache(cache, key, rows)
    return rows


def read_votes(path: Path | str, usage: np.ndarray) -> np.ndarray:
    """Read fer2013new.csv: uint8 (n, 10) votes, columns as in `VOTES_COLUMNS`.

    They belong to FER2013's rows by position alone (the number in `Image name` drifts); `usage` (n,) of those rows is
    compared. Raises FileNotFoundError, or ValueError that names the row.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}: run `fer-tf download ferplus`")
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        header, *rows = list(csv.reader(file)) or [[]]
    if header != ["Usage", "Image name", *VOTES_COLUMNS]:
        raise ValueError(f"{path}: expected the columns of FER+'s fer2013new.csv, got {','.join(header)[:200]!r}")
    if len(rows) != len(usage):
        raise ValueError(f"{path} has {len(rows)} rows, the faces have {len(usage)}: use both files as published")
    votes = np.zeros((len(rows), len(VOTES_COLUMNS)), np.uint8)
    for number, (row, expected) in enumerate(zip(rows, usage, strict=True), start=1):
        if len(row) != len(header) or not all(vote.isdecimal() and int(vote) < 100 for vote in row[2:]):
            raise ValueError(f"{path}, row {number}: expected Usage, a name and ten counts of votes, got {row}")
        if row[0] != USAGES[expected]:
            raise ValueError(f"{path}, row {number}: Usage is {row[0]}, but {USAGES[expected]} in the faces")
        votes[number - 1] = row[2:]
    return votes


def ferplus(votes: np.ndarray, rule: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Turn FER+ votes (n, 10) into labels; which rows remain hangs on the rule, so every figure must name it.

    majority      single votes are dropped; a row stays if one emotion has more than half of the votes that remain,
                  those for unknown and NF (no face) included: 25,060 / 3,199 / 3,153 rows (Barsoum et al. 2016)
    argmax        a row stays if the column with most votes is an emotion; of equals the first column counts:
                  28,389 / 3,553 / 3,546 rows
    distribution  those of argmax, to be trained on the distribution; of valid and test `readers.load` keeps majority's

    Returns rows int64 (m,), labels int64 (m,) and distributions float32 (m, 8): the votes for the emotions, normalised;
    labels and columns in the order of `labels.FERPLUS`.
    """
    counted = np.where(votes > 1, votes, 0) if rule == "majority" else votes
    top = counted.argmax(axis=1)
    keep = (top < len(names.FERPLUS)) & counted.any(axis=1)  # the last two columns name no emotion
    if rule == "majority":
        keep &= 2 * counted.max(axis=1) > counted.sum(axis=1)
    rows = np.flatnonzero(keep)
    emotions = votes[rows][:, _columns(names.FERPLUS)].astype(np.float32)  # (m, 8)
    to_label = np.argsort(_columns(names.FERPLUS))
    return rows, to_label[top[rows]], emotions / emotions.sum(axis=1, keepdims=True)


def votes_beside(labels: np.ndarray, votes: np.ndarray) -> np.ndarray:
    """Return float32 (n, 7): FER+ votes (n, 10) for FER2013's emotions, normalised, beside FER2013's labels (n,).

    A row without a vote for any of them gets its label.
    """
    emotions = votes[:, _columns(names.FER2013)].astype(np.float32)
    nobody = ~emotions.any(axis=1)
    emotions[nobody, labels[nobody]] = 1
    return emotions / emotions.sum(axis=1, keepdims=True)


def _columns(emotions: tuple[str, ...]) -> list[int]:
    """Return where the votes for these emotions stand."""
    published = [names.canonical(column) for column in names.FERPLUS_PUBLISHED]
    return [published.index(emotion) for emotion in emotions]


def is_published(faces: dict[str, np.ndarray]) -> bool:
    """Tell whether `read_faces` gave FER2013 as published: every pixel, label and split, in its order."""
    digest = hashlib.blake2b(digest_size=16)
    for name in ("pixels", "emotion", "usage"):
        digest.update(np.ascontiguousarray(faces[name]))
    return digest.hexdigest() == PUBLISHED


def _parse(path: Path) -> dict[str, np.ndarray]:
    import pyarrow
    from pyarrow.csv import ConvertOptions, ParseOptions, ReadOptions, open_csv

    with path.open(encoding="utf-8-sig", errors="replace") as file:
        columns = [column.strip(' "\r\n') for column in file.readline(10_000).split(",")]
    if any(columns.count(name) != 1 for name in ("emotion", "pixels", "Usage")):
        raise ValueError(
            f"{path}: expected the columns emotion, pixels and Usage once each, got {','.join(columns)[:200]!r}"
        )
    misshapen = []
    pixels, emotion, usage = [], [], []
    try:
        batches = open_csv(
            path,
            read_options=ReadOptions(column_names=columns, skip_rows=1, use_threads=False, block_size=1 << 24),
            parse_options=ParseOptions(invalid_row_handler=lambda row: misshapen.append(row) or "skip"),
            convert_options=ConvertOptions(column_types=dict.fromkeys(columns, pyarrow.binary())),
        )
        for batch in batches:
            if misshapen:
                break
            for row in zip(*(batch[name].to_pylist() for name in ("pixels", "emotion", "Usage")), strict=True):
                image, label, split = _parse_row(*row)
                pixels.append(image)
                emotion.append(label)
                usage.append(split)
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"{path} is no CSV like FER2013's: {error}") from error
    except ValueError as error:
        raise ValueError(f"{path}, row {len(usage) + 1}: {error}") from error
    if misshapen:
        row = misshapen[0]  # its number counts the header
        raise ValueError(f"{path}, row {row.number - 1}: expected {len(columns)} columns, got {row.actual_columns}")
    if not usage:
        raise ValueError(f"{path} has no rows below its header: fetch it again")
    return {"pixels": np.stack(pixels), "emotion": np.array(emotion, np.uint8), "usage": np.array(usage, np.uint8)}


def _parse_row(pixels: bytes, emotion: bytes, usage: bytes) -> tuple[np.ndarray, int, int]:
    """Return one row's image uint8 (48, 48), emotion and usage; ValueError says what is wrong with it."""
    try:
        values = np.fromstring(pixels, dtype=np.int64, sep=" ")
    except ValueError as error:
        raise ValueError(f"expected pixels as whole numbers between spaces, got {pixels[:60]!r}...") from error
    if len(values) != SIZE * SIZE:
        raise ValueError(f"expected {SIZE * SIZE} pixels, got {len(values)}")
    if values.min() < 0 or values.max() > 255:
        raise ValueError(f"expected pixels in 0..255, got {values.min()}..{values.max()}")
    emotion, usage = emotion.strip(), usage.decode("ascii", "replace").strip()
    if emotion not in (b"0", b"1", b"2", b"3", b"4", b"5", b"6"):
        raise ValueError(f"expected an emotion in 0..6, got {emotion!r}")
    if usage not in USAGES:
        raise ValueError(f"expected a Usage of {', '.join(USAGES)}, got {usage!r}")
    return values.astype(np.uint8).reshape(SIZE, SIZE), int(emotion), USAGES.index(usage)


def _read_cache(cache: Path, key: np.ndarray) -> dict[str, np.ndarray] | None:
    """Return the rows in `cache`, None if it is missing, of another CSV or damaged."""
    if not cache.is_file():
        return None
    try:
        with np.load(cache) as stored:  # a zip file: every member carries a checksum
            if np.array_equal(stored["key"], key):
                return {name: stored[name] for name in ("pixels", "emotion", "usage")}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        logger.warning("the cache %s is damaged (%s): reading the CSV again", cache, error)
    return None


def _write_cache(cache: Path, key: np.ndarray, rows: dict[str, np.ndarray]) -> None:
    """Write `cache` under another name first; a disk that is full or read-only costs the cache, not the load."""
    part = cache.with_name(f"{cache.name}.{os.getpid()}.part")
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("wb") as file:
                np.savez(file, key=key, **rows)
            part.replace(cache)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        logger.warning("the cache %s cannot be written (%s): the next load reads the CSV again", cache, error)
