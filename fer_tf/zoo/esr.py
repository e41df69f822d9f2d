"""ESR: an ensemble whose branches share their first layers, with emotions and affect (valence, arousal) as outputs.

Siqueira, Magg and Wermter, "Efficient facial feature learning with wide ensemble-based convolutional neural networks",
AAAI 2020. Diversified: Heidari and Iosifidis, "Learning diversified feature representations for facial expression
recognition in the wild", 2022, with the attention of Woo et al., "CBAM: convolutional block attention module", ECCV
2018. Unlike there, features are pulled apart, not maps of attention, and faces are judged in grey, as everywhere here.

Millions of parameters at 96 px with 8 emotions:

               ESR-9   ESR-15   diversified ESR-9   diversified ESR-15
    published  20.35   33.67    20.83               34.47
    trainable  20.34   33.65    20.82               34.45
    all        20.36   33.68    20.84               34.48

The published networks have biases in front of batch norm, which takes them out again: 448 in the base and 1,152 in
every branch. With these, the trainable ones are as many as published. Keras also counts batch norm's moving averages.
"""

from itertools import count

import keras
from keras import layers

from fer_tf.zoo.grey import grey_crops

BASE = ((1, 5, "valid", False), (2, 3, "valid", True), (2, 3, "valid", False), (2, 3, "valid", True))
BRANCH = ((2, 3, "valid", False), (4, 3, "valid", True), (4, 3, "valid", False), (8, 3, "same", False))
"""Convolutions: filters as multiples of `width`, side of the kernel, padding, whether a pooling follows."""

REDUCTION = 16  # channels to hidden units of the channel attention


def build(
    *, emotions: int, image_size: int, weights: None = None, branches=9, width=64, diversified=False, diversity=0.1
):
    """Return ESR: RGB 0..255 (n, image_size, image_size, 3) -> logits (n, emotions), the mean of the branches'.

    The layer `head_branches` gives the logits of every branch (n, branches, emotions), `head_affect` valence and
    arousal (n, 2), the mean over the branches; it says 0 until `fer_tf.training.affect` has trained it.

    width        filters of the first convolution; 64 is the published network, 16 trains on a CPU
    diversified  attention after every convolution, and branches whose features are pulled apart
    diversity    weight of the term that does so

    Raises ValueError for an image_size of which the convolutions, mostly without padding, leave nothing.
    """
    if weights is not None:
        raise ValueError(f"esr has no pretrained weights: leave it empty, or give a trained one (got {weights!r})")
    if _last_side(image_size) < 1:
        smallest = next(size for size in count(image_size) if _last_side(size) >= 1)
        raise ValueError(f"esr's convolutions without padding need image_size {smallest} or more, got {image_size}")

    # --- preprocessing ---
    crops, x = grey_crops(image_size, channels=3)
    x = layers.Rescaling(1 / 127.5, offset=-1, name="rescale")(x)  # -1..1

    # --- backbone: what all branches share, then the branches side by side ---
    shared = _convolutions(x, BASE, width, "base", attention=diversified)
    features = []
    for k in range(1, branches + 1):
        x = _convolutions(shared, BRANCH, width, f"branch_{k}", attention=diversified)
        features.append(layers.GlobalAveragePooling2D(name=f"head_pool_{k}")(x))  # (n, 8 * width)

    # --- head ---
    logits, affects = [], []
    for k in range(1, branches + 1):
        x = features[k - 1]
        if diversified and k > 1:
            x = Apart(diversity, name=f"head_apart_{k}")(features[:k])
        logits.append(layers.Dense(emotions, name=f"head_branch_{k}")(x))
        x = layers.ReLU(name=f"head_relu_{k}")(logits[-1])
        affects.append(layers.Dense(2, kernel_initializer="zeros", name=f"head_affect_{k}")(x))
    together = Stack(name="head_branches")(logits)  # (n, branches, emotions)
    affect = layers.GlobalAveragePooling1D(name="head_affect")(Stack(name="head_affects")(affects))  # (n, 2)
    return keras.Model(crops, Ensemble(name="head_logits")([together, affect]), name="esr")


def _convolutions(x, table: tuple, width: int, prefix: str, *, attention: bool):
    for i, (multiple, kernel, padding, pooled) in enumerate(table, start=1):
        x = layers.Conv2D(multiple * width, kernel, padding=padding, use_bias=False, name=f"{prefix}_conv_{i}")(x)
        x = layers.BatchNormalization(momentum=0.9, name=f"{prefix}_norm_{i}")(x)
        x = layers.ReLU(name=f"{prefix}_relu_{i}")(x)
        if pooled:
            x = layers.MaxPooling2D(name=f"{prefix}_pool_{i}")(x)
        if attention:
            x = Attention(name=f"{prefix}_attention_{i}")(x)
    return x


def _last_side(side: int) -> int:
    """Return the side of the last feature map in pixels; below 1 there is none."""
    for _, kernel, padding, pooled in BASE + BRANCH:
        side -= kernel - 1 if padding == "valid" else 0
        side //= 2 if pooled else 1
    return side


@keras.saving.register_keras_serializable("fer_tf")
class Attention(layers.Layer):
    """CBAM: a feature map (n, h, w, c), each channel and then each place weighted by a factor 0..1.

    Both look at mean and maximum: of a channel over all places (equation 2), of a place over all channels (equation 3).
    """

    def build(self, shape):
        channels = shape[-1]
        self.hidden = layers.Dense(max(channels // REDUCTION, 1), activation="relu", name="hidden")
        self.channels = layers.Dense(channels, name="channels")
        self.places = layers.Conv2D(1, 7, padding="same", use_bias=False, name="places")
        self.norm = layers.BatchNormalization(momentum=0.9, name="norm")
        self.hidden.build((None, channels))
        self.channels.build((None, self.hidden.units))
        self.places.build((*shape[:-1], 2))
        self.norm.build((*shape[:-1], 1))

    def call(self, x, training=False):
        ops = keras.ops
        pooled = ops.mean(x, axis=(1, 2)), ops.max(x, axis=(1, 2))  # (n, c) each
        weights = ops.sigmoid(sum(self.channels(self.hidden(each)) for each in pooled))
        x = x * weights[:, None, None, :]
        pooled = ops.mean(x, axis=-1, keepdims=True), ops.max(x, axis=-1, keepdims=True)  # (n, h, w, 1) each
        weights = self.places(ops.concatenate(pooled, axis=-1))
        return x * ops.sigmoid(self.norm(weights, training=training))

    def compute_output_shape(self, shape):  # known, so that Keras need not trace it: a large ensemble has many of them
        return shape


@keras.saving.register_keras_serializable("fer_tf")
class Apart(layers.Layer):
    """Features (n, c) of the last of several branches, unchanged; in training, being like the others costs.

    The loss is `weight` times the mean similarity exp(-|a - b|^2) of a, its features, and b, those of a branch before
    it, both scaled to length 1: 1 where they are alike, 0.14 where they have nothing in common.
    """

    def __init__(self, weight: float, **kwargs):
        super().__init__(**kwargs)
        self.weight = weight

    def call(self, features, training=False):
        if training:
            *others, own = (_unit(each) for each in features)
            distances = keras.ops.stack([keras.ops.sum((own - each) ** 2, axis=-1) for each in others])
            self.add_loss(self.weight * keras.ops.mean(keras.ops.exp(-distances)))
        return features[-1]

    def compute_output_shape(self, shapes):
        return shapes[-1]

    def get_config(self):
        return {**super().get_config(), "weight": self.weight}


@keras.saving.register_keras_serializable("fer_tf")
class Stack(layers.Layer):
    """The branches' outputs, each (n, c), as one tensor (n, branches, c)."""

    def call(self, outputs):
        return keras.ops.stack(outputs, axis=1)


@keras.saving.register_keras_serializable("fer_tf")
class Ensemble(layers.Layer):
    """Logits (n, emotions): the mean of the branches' (n, branches, emotions).

    Affect comes in and changes nothing: Keras saves the layers on the way to a model's output, and so it lies there.
    """

    def call(self, inputs):
        branches, _ = inputs
        return keras.ops.mean(branches, axis=1)


def _unit(features):
    return features * keras.ops.rsqrt(keras.ops.sum(features**2, axis=-1, keepdims=True) + 1e-8)
