"""Clips of coloured squares that stand in for faces, what finds them, and an engine that can fail."""

import numpy as np

from fer_tf.inference.detect import Detector

RED, BLUE = (220, 20, 20), (20, 20, 220)


def squares(n: int, width: int = 160, height: int = 120):
    """Frame k shows k % 3 coloured squares of 40 px: red, then blue."""
    for k in range(n):
        image = np.full((height, width, 3), 128, np.uint8)
        for face in range(k % 3):
            image[40:80, 20 + 60 * face : 60 + 60 * face] = (RED, BLUE)[face]
        yield image


def find_squares(image: np.ndarray):
    """What a perfect detector returns for `squares`."""
    found = [face for face in range(2) if np.ptp(image[60, 40 + 60 * face]) > 100]
    return [[20 + 60 * face, 40, 60 + 60 * face, 80] for face in found], [1 - 0.1 * face for face in found]


FINDER = Detector(name="squares", find=find_squares, pixels=None, scale=1.0)
BLIND = Detector(name="blind", find=lambda image: ([], []), pixels=None, scale=1.0)


class Noted:
    """An engine that notes its batches, and fails in the one with the number `fails`, from 1."""

    def __init__(self, engine, fails: int = 0):
        self.engine, self.card, self.fails, self.sizes = engine, engine.card, fails, []

    def logits(self, crops):
        self.sizes.append(len(crops))
        if len(self.sizes) == self.fails:
            raise MemoryError("no room")
        return self.engine.logits(crops)
