"""Feeds a Keras model from `LabelledFaces`: uint8 crops at the model's size, one batch at a time.

What the loss is to find is a recipe's choice `targets`, one of the four ways that Barsoum et al. compare ("Training
deep networks for facial expression recognition with crowd-sourced label distribution", ICMI 2016). All but the first
need annotators' votes:

labels        the label alone; on FER+ as `labels="ferplus-majority"` reads it, this is their majority voting
distribution  the shares of the votes: their cross-entropy loss
probability   one emotion for each row, drawn by the shares of its votes, anew in every epoch: their probabilistic label
              drawing. Seed and epoch alone decide, so that a resumed run draws what an undisturbed one draws
multi_target  every emotion with a share of `RIGHT` or more is right, and the label always: their multi-label learning.
              The loss is minus the logarithm of the largest probability that goes to one of these

Their code first drops single votes, then rows and emotions on which too few agree, by another rule for each way. Here
rows and shares are the reader's (`labels="ferplus-distribution"`), the same for all.
"""

import keras
import numpy as np

from fer_tf.data.labelled import LabelledFaces

RIGHT = 0.3  # share of the votes from which on an emotion counts as right under "multi_target", as in their code


class Batches(keras.utils.PyDataset):
    """Batches of (crops, targets, sample weights) in a given order; the last one may be smaller.

    crops    uint8 (n, image_size, image_size, 3) RGB
    targets  float32 (n, 2, emotions): what the loss is to find, then the one-hot label, which the metrics count
    order    row numbers; rows in data order if None
    seed     of what "probability" draws: whole numbers such as (seed, epoch)

    Raises ValueError where `targets` needs votes and the faces carry none.
    """

    def __init__(
        self, faces: LabelledFaces, image_size: int, *, batch_size, targets="labels", weights=None, order=None, seed=0
    ):
        super().__init__()
        self.faces, self.image_size, self.batch_size = faces, image_size, batch_size
        self.targets = _targets(faces, targets, seed)
        self.class_weights = np.ones(len(faces.emotions), np.float32) if weights is None else weights
        self.order = np.arange(len(faces)) if order is None else order

    def __len__(self) -> int:
        return -(-len(self.order) // self.batch_size)

    def __getitem__(self, number: int):
        rows = self.order[number * self.batch_size : (number + 1) * self.batch_size]
        return self.faces.crops(self.image_size, rows), self.targets[rows], self.class_weights[self.faces.labels[rows]]


def _targets(faces: LabelledFaces, targets: str, seed) -> np.ndarray:
    """Return float32 (n, 2, emotions) as in `Batches`, rows in data order."""
    one_hot, votes = np.eye(len(faces.emotions), dtype=np.float32), faces.distributions
    labels = one_hot[faces.labels]
    if targets == "labels":
        return np.stack([labels, labels], axis=1)
    if votes is None:
        raise ValueError(
            f"targets={targets!r} needs annotators' votes, and these faces carry none: load FER+ with "
            "labels='ferplus-distribution', or train on targets='labels'"
        )
    if targets == "probability":
        shares = votes.cumsum(axis=1, dtype=np.float64)
        point = np.random.default_rng(seed).random((len(faces), 1)) * shares[:, -1:]
        found = one_hot[(shares <= point).sum(axis=1)]  # the emotion in whose share the point lies
    else:
        found = votes if targets == "distribution" else np.maximum(votes >= RIGHT, labels)
    return np.stack([found, labels], axis=1).astype(np.float32)


def balanced_weights(faces: LabelledFaces) -> np.ndarray:
    """Return float32 (emotions,): inverse frequency, 1 on average over the rows; 0 for an emotion without rows."""
    counts = np.bincount(faces.labels, minlength=len(faces.emotions))
    present = counts > 0
    weights = np.zeros(len(counts), np.float32)
    weights[present] = len(faces) / (present.sum() * counts[present])
    return weights
