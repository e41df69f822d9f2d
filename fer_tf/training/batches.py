"""Feeds a Keras model from `LabelledFaces`: uint8 crops at the model's size, one batch at a time."""

import keras
import numpy as np

from fer_tf.data.labelled import LabelledFaces


class Batches(keras.utils.PyDataset):
    """Batches of (crops, targets, sample weights) in a given order; the last one may be smaller.

    crops    uint8 (n, image_size, image_size, 3) RGB
    targets  float32 (n, emotions): one-hot labels or vote distributions
    order    row numbers; rows in data order if None
    """

    def __init__(
        self, faces: LabelledFaces, image_size: int, *, batch_size, targets="labels", weights=None, order=None
    ):
        super().__init__()
        if targets == "distribution" and faces.distributions is None:
            raise ValueError("targets='distribution' needs annotators' votes, and these faces carry none; use 'labels'")
        self.faces, self.image_size, self.batch_size = faces, image_size, batch_size
        self.one_hot = targets == "labels"
        self.class_weights = np.ones(len(faces.emotions), np.float32) if weights is None else weights
        self.order = np.arange(len(faces)) if order is None else order

    def __len__(self) -> int:
        return -(-len(self.order) // self.batch_size)

    def __getitem__(self, number: int):
        rows = self.order[number * self.batch_size : (number + 1) * self.batch_size]
        labels = self.faces.labels[rows]
        one_hot = np.eye(len(self.faces.emotions), dtype=np.float32)[labels]
        # Where votes tie, the label leads by a hair, so that train's figures count the same label as valid's.
        targets = one_hot if self.one_hot else self.faces.distributions[rows] + 1e-6 * one_hot
        return self.faces.crops(self.image_size, rows), targets, self.class_weights[labels]


def balanced_weights(faces: LabelledFaces) -> np.ndarray:
    """Return float32 (emotions,): inverse frequency, 1 on average over the rows; 0 for an emotion without rows."""
    counts = np.bincount(faces.labels, minlength=len(faces.emotions))
    present = counts > 0
    weights = np.zeros(len(counts), np.float32)
    weights[present] = len(faces) / (present.sum() * counts[present])
    return weights
