"""Train rows to train crops, on the device: all images lie there, random changes happen there. Keras 3 only.

A step gets row numbers; what it needs of an image is one gather away, so that the input never holds up an accelerator.
"""

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
        lambda: layers.RandomRotation(a.rotate / 360, fill_mode="nearest"): a.rotate,
        lambda: layers.RandomZoom(a.zoom, fill_mode="nearest"): a.zoom,
        lambda: layers.RandomBrightness(a.brightness, value_range=pixels): a.brightness,
        lambda: layers.RandomContrast(a.contrast, value_range=pixels): a.contrast,
        lambda: layers.RandomErasing(0.5, scale=(a.erase / 4, a.erase), value_range=pixels): a.erase,
    }
    return [make() for make, wanted in choices.items() if wanted]
