"""Swin Transformer from keras_hub with a 128-dimensional embedding before the classifier.

Liu et al., "Swin Transformer: hierarchical vision transformer using shifted windows", ICCV 2021. The embedding has
length 1 and the classifier compares it with one learned direction per emotion: a softmax over scaled cosines, which
trains the embedding itself (Wang et al., "NormFace: L2 hypersphere embedding for face verification", 2017).
"""

import keras
import keras_hub
from keras import layers

from fer_tf.zoo.grey import grey_crops

SIZES = {  # nano, which trains on a CPU, is no published one
    "nano": {"embed_dim": 32, "depths": (2, 2, 2), "num_heads": (2, 4, 8), "drop_path": 0.0},
    "tiny": {"embed_dim": 96, "depths": (2, 2, 6, 2), "num_heads": (3, 6, 12, 24), "drop_path": 0.2},
    "base": {"embed_dim": 128, "depths": (2, 2, 18, 2), "num_heads": (4, 8, 16, 32), "drop_path": 0.5},
}
IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@keras.saving.register_keras_serializable("fer_tf")
class CosineLogits(layers.Layer):
    """Logits (n, emotions) of unit embeddings (n, d): learned scale times the cosine to each emotion's direction."""

    def __init__(self, emotions: int, scale: float = 16.0, **kwargs):
        super().__init__(**kwargs)
        self.emotions, self.first_scale = emotions, scale

    def build(self, shape):
        self.directions = self.add_weight(shape=(shape[-1], self.emotions), initializer="orthogonal", name="directions")
        constant = keras.initializers.Constant(self.first_scale)
        self.scale = self.add_weight(shape=(), initializer=constant, name="scale")

    def call(self, embedding):
        return self.scale * keras.ops.matmul(embedding, keras.ops.normalize(self.directions, axis=0))

    def get_config(self):
        return {**super().get_config(), "emotions": self.emotions, "scale": self.first_scale}


def build(
    *,
    emotions: int,
    image_size: int,
    weights: str | None = None,
    size="tiny",
    patch_size=4,
    embedding=128,
    dropout=0.1,
):
    """Return Swin: RGB 0..255 (n, image_size, image_size, 3) -> logits (n, emotions).

    The layer `head_embedding` gives the embedding (n, 128) of length 1: the second output of the ONNX file.

    Windows have as many patches a side as the last stage has, so that it is one window: 7 at the published 224 px.

    weights     None, or a preset of keras_hub by name or directory, such as "swin_tiny_patch4_window7_224"; it decides
                size and patch size itself and fits one image_size alone, there 224; ValueError for others
    size        nano, tiny or base
    patch_size  pixels; 4 as published, 2 keeps small pictures sharp
    """
    if size not in SIZES:
        raise ValueError(f"unknown size {size!r}; known are {', '.join(SIZES)}")
    stride = patch_size * 2 ** (len(SIZES[size]["depths"]) - 1)
    if image_size % stride:
        raise ValueError(
            f"swin {size} with patches of {patch_size} px, two by two merged after each stage but the last: image_size "
            f"must be a multiple of {stride}, got {image_size}"
        )
    backbone_class, shape = keras_hub.models.SwinTransformerBackbone, (image_size, image_size, 3)

    # --- preprocessing ---
    crops, x = grey_crops(image_size, channels=3)
    scale = [1 / (255 * d) for d in IMAGENET_DEVIATION]
    offset = [-m / d for m, d in zip(IMAGENET_MEAN, IMAGENET_DEVIATION, strict=True)]
    x = layers.Rescaling(scale, offset=offset, name="rescale")(x)

    # --- backbone: one layer of this graph, so that Keras can save it ---
    if weights is None:
        kind = SIZES[size] | {"patch_size": patch_size, "window_size": image_size // stride}
        backbone = backbone_class(image_shape=shape, name="backbone", **kind)
    else:
        try:
            backbone = backbone_class.from_preset(weights, image_shape=shape, name="backbone")
        except ValueError as error:
            raise ValueError(f"swin's weights {weights} do not fit image_size {image_size} ({error})") from error
    x = backbone(x)  # (n, (image_size / stride) ** 2, c)

    # --- head ---
    x = layers.GlobalAveragePooling1D(name="head_pool")(x)  # (n, c)
    x = layers.Dropout(dropout, name="head_dropout")(x)
    x = layers.Dense(embedding, use_bias=False, name="head_dense")(x)
    x = layers.BatchNormalization(momentum=0.9, name="head_norm")(x)  # without it all faces begin in one direction
    x = layers.UnitNormalization(name="head_embedding")(x)  # (n, 128), length 1
    logits = CosineLogits(emotions, name="head_logits")(x)
    return keras.Model(crops, logits, name="swin")
