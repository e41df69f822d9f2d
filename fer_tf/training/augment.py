"""Train rows to train crops, on the device: all images lie there, random changes happen there. Keras 3 only.

A step gets row numbers; what it needs of an image is one gather away, so that the input never holds up an accelerator.
"""

import math

import keras
from keras import layers, ops

from fer_tf.training.recipe import Augmentation


class Rows(layers.Layer):
    """Row numbers int (n,) -> the float32 RGB crops (n, ...) of these rows, 0..255.

    images  uint8 (rows, ..., 1 or 3), at the model's size; grey is repeated
    """

    def __init__(self, images, **kwargs):
        super().__init__(dtype="float32", trainable=False, **kwargs)
        self.images = self.add_weight(
            shape=images.shape, dtype="uint8", initializer="zeros", trainable=False, name="images"
        )
        self.images.assign(images)

    def call(self, rows):
        crops = ops.cast(ops.take(self.images, rows, axis=0), "float32")
        return ops.repeat(crops, 3, axis=-1) if crops.shape[-1] == 1 else crops


class RandomShift(layers.Layer):
    """Moves each image (n, s, s, c) by whole pixels, up to `share` of its side along both axes.

    Its border is drawn out, so this is a random crop of a larger image, and blurs nothing. At inference nothing moves.
    """

    def __init__(self, share: float, **kwargs):
        super().__init__(**kwargs)
        self.share, self.random = share, keras.random.SeedGenerator()

    def call(self, images, training=False):
        return self._moved(images) if training else images

    def _moved(self, images):
        count = ops.shape(images)[0]
        for axis in (1, 2):
            side = images.shape[axis]
            most = max(1, round(self.share * side))
            moves = keras.random.randint((count, 1), -most, most + 1, seed=self.random)
            places = ops.clip(ops.arange(side, dtype="int32")[None] + moves, 0, side - 1)  # (n, side)
            shape = (-1, side, 1, 1) if axis == 1 else (-1, 1, side, 1)
            images = ops.take_along_axis(images, ops.reshape(places, shape), axis=axis)
        return images


class RandomTurn(layers.Layer):
    """Turns each image (n, s, s, c) about its centre by up to `degrees`, and scales it by up to the share `zoom`.

    Both in one bilinear interpolation, and the whole batch at once: on PyTorch the layers of Keras go image by image.
    The border is drawn out. At inference nothing turns.
    """

    def __init__(self, degrees: float, zoom: float, **kwargs):
        super().__init__(**kwargs)
        self.degrees, self.zoom, self.random = degrees, zoom, keras.random.SeedGenerator()

    def call(self, images, training=False):
        return self._turned(images) if training else images

    def _turned(self, images):
        count, (height, width, channels) = ops.shape(images)[0], images.shape[1:]
        drawn = keras.random.uniform((2, count, 1, 1), -1, 1, seed=self.random)
        angle, scale = drawn[0] * self.degrees * math.pi / 180, 1 + drawn[1] * self.zoom
        y = ops.reshape(ops.arange(height, dtype="float32"), (1, -1, 1)) - (height - 1) / 2
        x = ops.reshape(ops.arange(width, dtype="float32"), (1, 1, -1)) - (width - 1) / 2
        cos, sin = ops.cos(angle) / scale, ops.sin(angle) / scale
        rows = ops.clip(cos * y + sin * x + (height - 1) / 2, 0, height - 1)  # (n, height, width), where to look
        columns = ops.clip(cos * x - sin * y + (width - 1) / 2, 0, width - 1)
        top, left = ops.floor(rows), ops.floor(columns)
        down, right = (ops.reshape(part, (-1, height * width, 1)) for part in (rows - top, columns - left))
        pixels = ops.reshape(images, (-1, height * width, channels))

        def look(row, column):
            place = ops.cast(ops.minimum(row, height - 1) * width + ops.minimum(column, width - 1), "int32")
            return ops.take_along_axis(pixels, ops.reshape(place, (-1, height * width, 1)), axis=1)

        upper = look(top, left) * (1 - right) + look(top, left + 1) * right
        lower = look(top + 1, left) * (1 - right) + look(top + 1, left + 1) * right
        return ops.reshape(upper * (1 - down) + lower * down, (-1, height, width, channels))


class Mix(layers.Layer):
    """Images (n, ...), partners int (n,), shares (n,) -> share * image + (1 - share) * the partner's image.

    Zhang et al., "mixup: beyond empirical risk minimization", 2018; partners are places in the same batch.
    """

    def call(self, images, partners, shares):
        shares = ops.reshape(shares, (-1, *[1] * (len(images.shape) - 1)))
        return shares * images + (1 - shares) * ops.take(images, partners, axis=0)


def augmentation_layers(augmentation: Augmentation) -> list[layers.Layer]:
    """Return Keras layers that change train images (n, s, s, c) at random and leave them alone at inference."""
    a, pixels = augmentation, (0, 255)
    choices = {
        lambda: layers.RandomFlip("horizontal"): a.flip,
        lambda: RandomShift(a.shift): a.shift,
        lambda: RandomTurn(a.rotate, a.zoom): a.rotate or a.zoom,
        lambda: layers.RandomBrightness(a.brightness, value_range=pixels): a.brightness,
        lambda: layers.RandomContrast(a.contrast, value_range=pixels): a.contrast,
        lambda: layers.RandomErasing(0.5, scale=(a.erase / 4, a.erase), value_range=pixels): a.erase,
    }
    return [make() for make, wanted in choices.items() if wanted]
