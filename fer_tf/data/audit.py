"""What a data set holds and what is wrong with it: class balance, copies within and across splits, clean rows."""

from dataclasses import dataclass

import numpy as np

from fer_tf.data.labelled import Splits


@dataclass(frozen=True, kw_only=True, eq=False)
class Audit:
    """The findings of `audit`. Two images are copies if they are equal pixel by pixel.

    counts       split -> int64 (emotions,): rows of every emotion
    unique       different images in the whole data set
    copies       (split, earlier split) -> rows of the one that show an image of the other;
                 (split, same split) -> rows that repeat an earlier row of it
    conflicting  different images that carry more than one label
    blank        rows whose image is one colour all over
    clean        split -> bool (n,): rows whose image is in no earlier split (train, valid, test in this order). Clean
                 test rows repeat nothing that was trained on or selected on; copies within test stay in. Splits that
                 `load(limit=...)` cut down keep what the whole data set says of their rows.
    """

    name: str
    fingerprint: str
    emotions: tuple[str, ...]
    counts: dict[str, np.ndarray]
    unique: int
    copies: dict[tuple[str, str], int]
    conflicting: int
    blank: int
    clean: dict[str, np.ndarray]

    @property
    def rows(self) -> int:
        """Rows in all splits."""
        return int(sum(counts.sum() for counts in self.counts.values()))

    @property
    def leaked(self) -> dict[str, int]:
        """split -> rows that show an image of any earlier split."""
        return {split: int((~clean).sum()) for split, clean in self.clean.items()}

    def balance(self):
        """Return a pandas table, one row per emotion: the count and the share of the split, for every split."""
        import pandas as pd

        columns = {}
        for split, counts in self.counts.items():
            columns |= {split: counts, f"{split} %": (100 * counts / counts.sum()).round(1)}
        return pd.DataFrame(columns, index=pd.Index(self.emotions, name="emotion"))

    @property
    def findings(self) -> dict[str, int]:
        """Return what was found -> how many."""
        found = {"rows": self.rows, "different images": self.unique}
        for (split, other), count in self.copies.items():
            found[f"{split} rows {'that repeat an earlier one' if split == other else f'in {other}'}"] = count
        found["test rows in train or valid"] = self.leaked["test"]
        found["clean test rows"] = int(self.clean["test"].sum())
        return found | {"images with conflicting labels": self.conflicting, "blank rows": self.blank}

    def to_dict(self) -> dict:
        """Return everything but the masks as JSON values."""
        counts = {s: dict(zip(self.emotions, counts.tolist(), strict=True)) for s, counts in self.counts.items()}
        return {"name": self.name, "fingerprint": self.fingerprint, "counts": counts, "findings": self.findings}

    def summary(self) -> str:
        """Return the findings as text, one a line."""
        lines = [f"{count:>10,}  {finding}" for finding, count in self.findings.items()]
        return "\n".join([f"{self.name}, fingerprint {self.fingerprint}", *lines])


def audit(splits: Splits) -> Audit:
    """Look through every image of `splits` once: 0.2 s for FER2013."""
    faces = dict(splits.items())
    _, image = np.unique(np.concatenate([part.hashes for part in faces.values()]), return_inverse=True)
    labels = np.concatenate([part.labels for part in faces.values()])
    images = dict(zip(faces, np.split(image, np.cumsum([len(part) for part in faces.values()])[:-1]), strict=True))
    copies, clean, earlier = {}, {}, np.empty(0, np.int64)
    for i, (split, shown) in enumerate(images.items()):
        copies |= {(split, other): int(np.isin(shown, images[other]).sum()) for other in list(images)[:i]}
        copies[split, split] = len(shown) - len(np.unique(shown))
        clean[split] = ~np.isin(shown, earlier)
        earlier = np.append(earlier, shown)
    labels_of_image = np.bincount(np.unique(np.stack([image, labels]), axis=1)[0])
    return Audit(
        name=splits.name,
        fingerprint=splits.fingerprint,
        emotions=splits.emotions,
        counts={s: np.bincount(part.labels, minlength=len(splits.emotions)) for s, part in faces.items()},
        unique=len(labels_of_image),
        copies=copies,
        conflicting=int((labels_of_image > 1).sum()),
        blank=sum(_blank(part.images) for part in faces.values()),
        clean=splits.clean or clean,
    )


def _blank(images: np.ndarray) -> int:
    """Count the rows (n, ..., channels) that are one colour all over."""
    pixels = images.reshape(len(images), -1, images.shape[-1])
    return int((pixels == pixels[:, :1]).all(axis=(1, 2)).sum())
