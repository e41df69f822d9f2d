"""`FaceTable`: one row per face and frame, written while the clip runs, as CSV, Parquet or JSON lines."""

import csv
import json
from contextlib import closing
from functools import partial
from pathlib import Path

from fer_tf.faces import Faces
from fer_tf.files import partial_path, settled

CHUNK = 4096
"""Rows held in memory before they are written."""
BOX = dict.fromkeys(("left", "top", "right", "bottom"), float)
FIELDS = {"frame": int, "time_s": float, "face": int, "track": int, **BOX}
SMOOTHED = "smoothed_"
"""Stands before an emotion's name over its smoothed probabilities."""


class FaceTable:
    """A table that grows beside its final place and is moved there when closed.

    Columns: frame, time_s (since the first frame, as in the annotated clip), face (0.. within its frame, best score
    first), track (whose face it is, from frame to frame; empty for faces without), left, top, right, bottom in pixels,
    score, label, one probability per emotion, as the model gave it for this frame, and one smoothed over time, named
    smoothed_<emotion>; empty for faces without. The label is that of the smoothed ones, or else the most probable
    emotion. Raises ValueError for a suffix other than .csv, .parquet, .jsonl.
    """

    def __init__(self, path: Path, emotions: tuple[str, ...]):
        suffix = path.suffix.lower()
        if suffix not in FORMATS:
            raise ValueError(f"a table is {', '.join(FORMATS)} by its suffix, got {path.name}")
        self.path, self.emotions = path, emotions
        self.partial = partial_path(path)
        shares = [*emotions, *(SMOOTHED + emotion for emotion in emotions)]
        types = {**FIELDS, "score": float, "label": str, **dict.fromkeys(shares, float)}
        try:
            self.sink = FORMATS[suffix](self.partial, types)
        except BaseException:
            self.partial.unlink(missing_ok=True)
            raise
        self.rows, self.whole = [], True

    def write(self, faces: Faces) -> None:
        """Add the faces of one frame."""
        probabilities = faces.probabilities if len(faces) else ()
        for face, p in enumerate(probabilities):
            box = (round(float(v), 2) for v in faces.xyxy[face])
            score = round(float(faces.score[face]), 4)
            shares = [round(float(v), 5) for v in p]
            if faces.smoothed is None:
                shares += [None] * len(self.emotions)
            else:
                shares += [round(float(v), 5) for v in faces.smoothed[face]]
            label = self.emotions[p.argmax() if faces.label is None else faces.label[face]]
            track = None if faces.track_id is None else int(faces.track_id[face])
            place = faces.frame_index, round(faces.time_s, 6), face, track
            self.rows.append((*place, *box, score, label, *shares))
        if len(self.rows) >= CHUNK:
            self._flush()

    def close(self, *, keep: bool) -> bool:
        """Finish the file and move it into place, or remove it; return whether it is there."""
        keep = keep and self.whole
        with settled(self.partial, self.path, keep=keep), closing(self.sink):
            if keep:
                self._flush()
        return keep

    def _flush(self) -> None:
        if self.rows:
            self.whole = False  # unless all of them arrive
            self.sink.write(self.rows)
            self.rows, self.whole = [], True


class _Csv:
    def __init__(self, path: Path, types: dict[str, type]):
        self.file = path.open("w", newline="", encoding="utf-8")
        self.writer = csv.writer(self.file)
        self.writer.writerow(types)

    def write(self, rows: list[tuple]) -> None:
        self.writer.writerows(rows)

    def close(self) -> None:
        self.file.close()


class _JsonLines:
    def __init__(self, path: Path, types: dict[str, type]):
        self.file, self.names = path.open("w", encoding="utf-8"), list(types)

    def write(self, rows: list[tuple]) -> None:
        self.file.writelines(json.dumps(dict(zip(self.names, row, strict=True))) + "\n" for row in rows)

    def close(self) -> None:
        self.file.close()


class _Parquet:
    def __init__(self, path: Path, types: dict[str, type]):
        import pyarrow
        from pyarrow import parquet

        kinds = {int: pyarrow.int64(), float: pyarrow.float64(), str: pyarrow.string()}
        self.schema = pyarrow.schema([(name, kinds[kind]) for name, kind in types.items()])
        self.file = pyarrow.OSFile(str(path), "wb")  # a path with a colon would be an address
        self.writer = parquet.ParquetWriter(self.file, self.schema)

    def write(self, rows: list[tuple]) -> None:
        import pyarrow

        columns = dict(zip(self.schema.names, zip(*rows, strict=True), strict=True))
        self.writer.write_batch(pyarrow.RecordBatch.from_pydict(columns, schema=self.schema))

    def close(self) -> None:
        with self.file:
            self.writer.close()


FORMATS = {".csv": _Csv, ".parquet": _Parquet, ".jsonl": _JsonLines}


def read_table(path: Path):
    """Return what a `FaceTable` wrote as a pandas table."""
    import pandas as pd

    if path.stat().st_size == 0:  # JSON lines of a clip without a face
        return pd.DataFrame(columns=[*FIELDS, "score", "label"])
    readers = {".csv": pd.read_csv, ".parquet": pd.read_parquet, ".jsonl": partial(pd.read_json, lines=True)}
    return readers[path.suffix.lower()](path)
