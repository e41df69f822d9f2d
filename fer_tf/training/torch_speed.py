"""What Keras does slowly on PyTorch, done faster while a model trains; the numbers are the same but for rounding.

Batch norm is one operation, where Keras makes it of a dozen: on one core of an AMD EPYC a step of
`mobilenet_v2_fer2013` takes 0.60 s with it and 0.78 s without. Convolutions and poolings take their inputs as they lie
in memory, channels last, where Keras copies every one to channels first, and what follows from that is slow as well: a
step of `vgg_small_ferplus` takes 0.30 s without these copies and 0.40 s with them.
"""

import logging
from contextlib import contextmanager

import keras

from fer_tf import zoo

logger = logging.getLogger(__name__)

COPYING = "_transpose_spatial_inputs"
"""A function of Keras's own that convolutions and poolings call; a test tells when it is gone."""


@contextmanager
def quick_torch(model: keras.Model):
    """Have `model` train without these detours; without PyTorch nothing changes."""
    if keras.backend.backend() != "torch":
        yield
        return
    from keras.src.backend.torch import nn

    norms = [n for n in zoo.every_layer(model) if type(n) is keras.layers.BatchNormalization and not n.renorm]
    copying = getattr(nn, COPYING, None)
    if copying is None:
        logger.warning("this Keras has no %s: training is right, and slower than it could be", COPYING)
    try:
        for norm in norms:
            norm.call = _call(norm, norm.call)
        if copying:
            setattr(nn, COPYING, channels_first)
        yield
    finally:
        if copying:
            setattr(nn, COPYING, copying)
        for norm in norms:
            vars(norm).pop("call", None)


@contextmanager
def without_gradients():
    """Have PyTorch keep nothing for a backward pass that will not come.

    What it keeps of a forward pass waits for Python's collector of cycles: 17 GB of 50 batches, with a small ViT.
    """
    if keras.backend.backend() != "torch":
        yield
        return
    import torch

    with torch.no_grad():
        yield


def channels_first(inputs):
    """Return (n, h, w, c) as (n, c, h, w), or the like in one or three dimensions, without touching memory."""
    return inputs.movedim(-1, 1)


def _call(norm: keras.layers.BatchNormalization, plain):
    import torch

    def call(inputs, training=None, mask=None):
        if not (training and norm.trainable) or mask is not None:
            return plain(inputs, training=training, mask=mask)
        scale, offset = (norm.gamma.value if norm.scale else None), (norm.beta.value if norm.center else None)
        x = torch.movedim(inputs, norm.axis, 1)
        y, mean, inverse = torch.native_batch_norm(x, scale, offset, None, None, True, 0.0, norm.epsilon)
        with torch.no_grad():
            for moving, value in ((norm.moving_mean, mean), (norm.moving_variance, inverse**-2 - norm.epsilon)):
                moving.assign(norm.momentum * moving.value + (1 - norm.momentum) * value)
        return torch.movedim(y, 1, norm.axis)

    return call
