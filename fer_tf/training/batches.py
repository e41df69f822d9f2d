"""Feeds a Keras model from `LabelledFaces`, one batch at a time: crops, or the numbers of rows that it has already.

What the loss is to find is a recipe's choice `targets`: one of the four ways that Barsoum et al. compare ("Training
deep networks for facial expression recognition with crowd-sourced label distribution", ICMI 2016), or a blend. All but
the first need annotators' votes, or what teachers say in place of them:

labels        the label alone; on FER+ as `labels="ferplus-majority"` reads it, this is their majority voting
distribution  the shares of the votes: their cross-entropy loss
probability   one emotion for each row, drawn by the shares of its votes, anew in every epoch: their probabilistic label
              drawing. Seed and epoch alone decide, so that a resumed run draws what an undisturbed one draws
blend         the label and the shares of the votes, mixed: (1 - vote_share) * label + vote_share * votes. It is for
              labels that come from elsewhere than the votes, as FER2013's own with FER+'s votes beside them
multi_target  every emotion with a share of `RIGHT` or more is right, and the label always: their multi-label learning.
              The loss is minus the logarithm of the largest probability that goes to one of these

Their code first drops single votes, then rows and emotions on which too few agree, by another rule for each way. Here
rows and shares are the reader's (`labels="ferplus-distribution"`), the same for all.
"""

import keras
import numpy as np

from fer_tf.data.labelled import LabelledFaces

RIGHT = 0.3  # share of the votes from which on an emotion counts as right under "multi_target", as in their code


RESIDENT = 2 * 2**30  # bytes of train images up to which all of them lie on the device


class Batches(keras.utils.PyDataset):
    """Batches of (inputs, targets, sample weights) in a given order; the last one may be smaller.

    inputs      "images": uint8 (n, image_size, image_size, 3) RGB crops, or int32 (n,) row numbers if `image_size` is
                None; with mixup also "partners" int32 (n,), places in the batch, and "shares" float32 (n,), 0.5..1
    targets     float32 (n, 2, emotions): what the loss is to find, then the one-hot label, which the metrics count
    vote_share  of "blend": what the votes weigh beside the label
    order       row numbers; rows in data order if None
    mixup       alpha of the Beta distribution that shares are drawn from (Zhang et al. 2018); 0 mixes nothing
    seed        of what is drawn: whole numbers such as (seed, epoch)

    Raises ValueError where `targets` needs votes and the faces carry none.
    """

    def __init__(
        self,
        faces: LabelledFaces,
        image_size: int | None,
        *,
        batch_size: int,
        targets: str = "labels",
        vote_share: float = 0.5,
        weights: np.ndarray | None = None,
        order: np.ndarray | None = None,
        mixup: float = 0.0,
        seed=(0,),
    ):
        super().__init__()
        self.faces, self.image_size, self.batch_size = faces, image_size, batch_size
        self.targets = _targets(faces, targets, vote_share=vote_share, seed=seed)
        class_weights = np.ones(len(faces.emotions), np.float32) if weights is None else weights
        self.weights = class_weights[faces.labels]
        self.order = np.arange(len(faces)) if order is None else order
        self.mixup, self.seed = mixup, seed

    def __len__(self) -> int:
        return -(-len(self.order) // self.batch_size)

    def __getitem__(self, number: int):
        rows = self.order[number * self.batch_size : (number + 1) * self.batch_size]
        given = rows.astype(np.int32) if self.image_size is None else self.faces.crops(self.image_size, rows)
        inputs, targets, weights = {"images": given}, self.targets[rows], self.weights[rows]
        if self.mixup:
            rng = np.random.default_rng((*self.seed, 1, number + 1))  # not the numbers that draw targets
            partners = rng.permutation(len(rows)).astype(np.int32)
            shares = rng.beta(self.mixup, self.mixup, len(rows)).astype(np.float32)
            shares = np.maximum(shares, 1 - shares)  # the same pairs, and the larger part is the row's own label's
            inputs |= {"partners": partners, "shares": shares}
            own, other = shares * weights, (1 - shares) * weights[partners]
            weights = own + other
            mixed = own[:, None] * targets[:, 0] + other[:, None] * targets[partners, 0]
            targets = np.stack([mixed / np.maximum(weights, 1e-12)[:, None], targets[:, 1]], axis=1)
        return inputs, targets, weights


class Crops(keras.utils.PyDataset):
    """Batches of crops alone, uint8 (n, image_size, image_size, 3) RGB in data order: what `predict` takes."""

    def __init__(self, faces: LabelledFaces, image_size: int, *, batch_size: int):
        super().__init__()
        self.faces, self.image_size, self.batch_size = faces, image_size, batch_size

    def __len__(self) -> int:
        return -(-len(self.faces) // self.batch_size)

    def __getitem__(self, number: int):
        rows = slice(number * self.batch_size, (number + 1) * self.batch_size)
        return (self.faces.crops(self.image_size, rows),)


def resident(faces: LabelledFaces, image_size: int) -> np.ndarray | None:
    """Return all images at the model's size, uint8 (n, ..., 1 or 3), or None if they are more than `RESIDENT` bytes."""
    *shape, _, _, channels = faces.images.shape
    if np.prod([*shape, image_size, image_size, channels], dtype=np.int64) > RESIDENT:
        return None
    return np.ascontiguousarray(faces.crops(image_size)[..., :channels])


def _targets(faces: LabelledFaces, targets: str, *, vote_share: float, seed) -> np.ndarray:
    """Return float32 (n, 2, emotions) as in `Batches`, rows in data order."""
    one_hot, votes = np.eye(len(faces.emotions), dtype=np.float32), faces.distributions
    labels = one_hot[faces.labels]
    if targets == "labels":
        return np.stack([labels, labels], axis=1)
    if votes is None:
        raise ValueError(
            f"targets={targets!r} needs annotators' votes, and these faces carry none: load FER+ with "
            "labels='ferplus-distribution', give teachers, or train on targets='labels'"
        )
    if targets == "blend":
        found = (1 - vote_share) * labels + vote_share * votes
    elif targets == "probability":
        shares = votes.cumsum(axis=1, dtype=np.float64)
        point = np.random.default_rng(seed).random((len(faces), 1)) * shares[:, -1:]
        found = one_hot[(shares <= point).sum(axis=1)]  # the emotion in whose share the point lies
    elif targets == "distribution":
        found = votes
    elif targets == "multi_target":
        found = np.maximum(votes >= RIGHT, labels)
    else:
        raise ValueError(f"unknown targets {targets!r}; settle 'auto' first")
    return np.stack([found, labels], axis=1).astype(np.float32)


def balanced_weights(faces: LabelledFaces) -> np.ndarray:
    """Return float32 (emotions,): inverse frequency, 1 on average over the rows; 0 for an emotion without rows."""
    counts = np.bincount(faces.labels, minlength=len(faces.emotions))
    present = counts > 0
    weights = np.zeros(len(counts), np.float32)
    weights[present] = len(faces) / (present.sum() * counts[present])
    return weights
