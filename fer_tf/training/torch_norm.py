"""Batch norm as one operation of PyTorch, where Keras makes it of a dozen; the numbers are the same.

On one core of an AMD EPYC a step of `mobilenet_v2_fer2013` takes 0.60 s with it and 0.78 s without.
"""

from contextlib import contextmanager

import keras

from fer_tf import zoo


@contextmanager
def one_operation_norms(model: keras.Model):
    """Have every batch norm of `model` normalise in one operation while it trains; without PyTorch nothing changes."""
    torch = keras.backend.backend() == "torch"
    norms = [n for n in zoo.every_layer(model) if torch and type(n) is keras.layers.BatchNormalization and not n.renorm]
    for norm in norms:
        norm.call = _call(norm, norm.call)
    try:
        yield
    finally:
        for norm in norms:
            del norm.call


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
