"""The Vision Transformer, written out: a picture is a sequence of patches, and every patch looks at every other.

Dosovitskiy et al., "An image is worth 16x16 words", ICLR 2021. Every step is a layer of one flat graph; the attention
of block k is the output of the layer `block_k_attention`, so that `training.explain.attention_rollout` can read it.
"""

import keras
from keras import layers

from fer_tf.zoo.grey import grey_crops

SIZES = {"nano": (64, 4, 4), "mini": (128, 6, 4), "tiny": (192, 12, 3), "small": (384, 12, 6), "base": (768, 12, 12)}
"""width, blocks, heads; from tiny on as in Touvron et al., "Training data-efficient image transformers", 2021. nano and
mini train on a CPU."""


@keras.saving.register_keras_serializable("fer_tf")
class PrefixAndPosition(layers.Layer):
    """Puts `prefix` learned tokens before the patch tokens (n, t, width) and adds a learned position to each.

    The first one is the class token; DeiT's distilled checkpoints have a second.
    """

    def __init__(self, prefix: int = 1, **kwargs):
        super().__init__(**kwargs)
        self.prefix = prefix

    def build(self, shape):
        _, tokens, width = shape
        self.tokens = self.add_weight(shape=(1, self.prefix, width), initializer=_normal(), name="tokens")
        self.positions = self.add_weight(
            shape=(1, self.prefix + tokens, width), initializer=_normal(), name="positions"
        )

    def call(self, x):
        shape = (keras.ops.shape(x)[0], self.prefix, self.tokens.shape[-1])
        tokens = keras.ops.broadcast_to(self.tokens, shape)
        return keras.ops.concatenate([tokens, x], axis=1) + self.positions  # (n, prefix + t, width)

    def get_config(self):
        return {**super().get_config(), "prefix": self.prefix}


def _normal() -> keras.initializers.Initializer:
    """Return a new initializer each time: one that is used twice gives the same numbers twice."""
    return keras.initializers.TruncatedNormal(stddev=0.02)


def build(
    *,
    emotions: int,
    image_size: int,
    weights: str | None = None,
    size="tiny",
    patch_size=6,
    mlp_ratio=4,
    dropout=0.1,
    stem="patches",
):
    """Return a ViT: RGB 0..255 (n, image_size, image_size, 3) -> logits (n, emotions).

    weights     None, "hf:<name>" for a ViT or DeiT checkpoint of the Hugging Face hub, or the directory of one; it
                decides size and patch size itself, and its positions are interpolated to `image_size`
    size        nano, mini, tiny, small or base
    patch_size  pixels; must divide image_size
    stem        "patches": a token is a linear map of its patch, as published; "convolutions": 3x3 ones halve the side
                until a cell is a patch, which learns from fewer pictures (Xiao et al., "Early convolutions help
                transformers see better", NeurIPS 2021; here another one stands before each that halves)
    """
    if size not in SIZES:
        raise ValueError(f"unknown size {size!r}; known are {', '.join(SIZES)}")
    if weights is not None:
        from fer_tf.zoo.vit_checkpoint import read_checkpoint

        if stem != "patches":
            raise ValueError(f"a checkpoint has its own stem: leave stem 'patches', got {stem!r}")
        checkpoint = read_checkpoint(weights)
        model = _build(emotions, image_size, dropout=dropout, **checkpoint.shape)
        checkpoint.load_into(model)
        return model
    width, blocks, heads = SIZES[size]
    shape = {"width": width, "blocks": blocks, "heads": heads, "patch_size": patch_size, "hidden": mlp_ratio * width}
    return _build(emotions, image_size, dropout=dropout, stem=stem, **shape)


def _build(
    emotions: int,
    image_size: int,
    *,
    width: int,
    blocks: int,
    heads: int,
    patch_size: int,
    hidden: int,
    dropout: float,
    stem: str = "patches",
    prefix: int = 1,
    epsilon: float = 1e-6,
    mean=(0.5, 0.5, 0.5),
    deviation=(0.5, 0.5, 0.5),
) -> keras.Model:
    if image_size % patch_size:
        raise ValueError(
            f"patches of {patch_size} px do not divide an image of {image_size} px: take image_size "
            f"{image_size // patch_size * patch_size} or {(image_size // patch_size + 1) * patch_size}"
        )
    if stem not in ("patches", "convolutions"):
        raise ValueError(f"stem must be 'patches' or 'convolutions', got {stem!r}")
    ops, side = keras.ops, image_size // patch_size
    tokens = side * side + prefix

    def dense(units, name):
        return layers.Dense(units, name=name)  # Xavier's initial weights, as the authors have them: they fit any width

    def norm(name):
        return layers.LayerNormalization(epsilon=epsilon, name=name)

    # --- preprocessing ---
    crops, x = grey_crops(image_size, channels=3)
    scale = [1 / (255 * d) for d in deviation]
    x = layers.Rescaling(scale, offset=[-m / d for m, d in zip(mean, deviation, strict=True)], name="rescale")(x)

    # --- patches to tokens ---
    if stem == "convolutions":
        x = _convolutions(x, width, patch_size)
        patch_size = 1  # a cell is a patch
    x = layers.Conv2D(width, patch_size, strides=patch_size, name="patches")(x)  # (n, side, side, width)
    x = layers.Reshape((side * side, width), name="sequence")(x)  # (n, side * side, width)
    x = PrefixAndPosition(prefix, name="position")(x)  # (n, tokens, width)
    x = layers.Dropout(dropout, name="position_dropout")(x)

    # --- blocks: every token looks at every other, then thinks for itself ---
    for k in range(blocks):
        name = f"block_{k}"
        if k == blocks - 1:
            x = layers.Identity(name="last_block")(x)  # where saliency maps look, however many blocks there are
        y = norm(f"{name}_norm_1")(x)
        query, key, value = (
            layers.Reshape((tokens, heads, width // heads))(dense(width, f"{name}_{part}")(y))  # (n, tokens, heads, d)
            for part in ("query", "key", "value")
        )
        scores = ops.einsum("nqhd,nkhd->nhqk", query, key) / (width // heads) ** 0.5
        attention = layers.Softmax(name=f"{name}_attention")(scores)  # (n, heads, tokens, tokens), rows add up to 1
        y = ops.einsum("nhqk,nkhd->nqhd", attention, value)
        y = dense(width, f"{name}_out")(layers.Reshape((tokens, width))(y))  # (n, tokens, width)
        x = layers.Add(name=f"{name}_middle")([x, layers.Dropout(dropout, name=f"{name}_dropout_1")(y)])
        y = norm(f"{name}_norm_2")(x)
        y = dense(hidden, f"{name}_hidden")(y)
        y = 0.5 * y * (1 + ops.erf(y / 2**0.5))  # GELU, exactly; spelt out, because its layer exports to a bad node
        y = dense(width, f"{name}_mlp")(y)
        x = layers.Add(name=f"{name}_tokens")([x, layers.Dropout(dropout, name=f"{name}_dropout_2")(y)])

    # --- head: the class token answers ---
    x = norm("norm")(x)
    x = layers.Dropout(dropout, name="head_dropout")(x[:, 0])  # (n, width)
    logits = dense(emotions, "head_logits")(x)
    return keras.Model(crops, logits, name="vit")


def _convolutions(x, width: int, patch_size: int):
    """Return (n, side, side, width): the side is halved by every second convolution, the channels end at `width`."""
    halvings = patch_size.bit_length() - 1
    if patch_size != 2**halvings or not halvings:
        raise ValueError(f"a stem of convolutions needs patches of 2, 4, 8 ... px, got {patch_size}")
    for k in range(1, halvings + 1):
        filters = max(width // 2 ** (halvings - k), 8)
        for part, strides in (("a", 1), ("b", 2)):
            name = f"{k}_{part}"
            x = layers.Conv2D(filters, 3, strides, padding="same", use_bias=False, name=f"stem_conv_{name}")(x)
            x = layers.BatchNormalization(momentum=0.9, name=f"stem_norm_{name}")(x)
            x = layers.ReLU(name=f"stem_relu_{name}")(x)
    return x
