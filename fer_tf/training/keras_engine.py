"""`KerasEngine`: a `.keras` file behind the same two members as every inference engine."""

from functools import cached_property
from pathlib import Path

import keras
import numpy as np

from fer_tf import zoo
from fer_tf.card import ModelCard
from fer_tf.faces import check_crops
from fer_tf.training.folder import keras_file


class KerasEngine:
    """A Keras model and its card.

    Crops are uint8 (n, s, s, 3) RGB, or (n, window, s, s, 3); logits come back as float32 (n, emotions).
    `model_outputs` are those of the ONNX file, by name.
    """

    backend = "keras"

    def __init__(self, model: keras.Model, card: ModelCard):
        expected = card.input_shape, len(card.emotions)
        if (model.input_shape[1:], model.output_shape[-1]) != expected:
            raise ValueError(
                f"{card.name}: the card says input {expected[0]} and {expected[1]} emotions, "
                f"the model has {model.input_shape[1:]} and {model.output_shape[-1]}"
            )
        self.model, self.card = model, card
        self.model_outputs = zoo.named_outputs(model)
        self.provider = f"Keras on {keras.backend.backend()}"

    def logits(self, crops: np.ndarray) -> np.ndarray:
        """Return float32 (n, emotions) over the card's temperature for RGB crops uint8 (n, *card.input_shape)."""
        return self._predict(self.model, crops) / np.float32(self.card.temperature)

    def run(self, crops: np.ndarray) -> dict[str, np.ndarray]:
        """Return every output as the model gives it, by name, float32 (n, ...)."""
        return self._predict(self._every_output, crops)

    @cached_property
    def _every_output(self) -> keras.Model:
        return keras.Model(self.model.input, self.model_outputs)

    def extract_features(self, crops: np.ndarray) -> np.ndarray:
        """Return what the head works on, float32 (n, c) or (n, window, c): the backbone's features, pooled or flat.

        Those of an ensemble's branches stand side by side.
        """
        head = [layer for layer in self.model.layers if layer.name.startswith("head_")]
        first = [layer.output for layer in head if layer.name.startswith("head_pool_")] or [head[0].output]
        return np.concatenate([self._predict(keras.Model(self.model.input, each), crops) for each in first], axis=-1)

    def _predict(self, model: keras.Model, crops: np.ndarray):
        check_crops(crops, self.card.input_shape)
        if not len(crops):
            return keras.tree.map_structure(lambda output: np.empty((0, *output.shape[1:]), np.float32), model.output)
        return model.predict(crops, batch_size=64, verbose=0)


def load_keras(path: Path) -> KerasEngine:
    """Load a `.keras` file, or the `model.keras` of a folder, with the `card.json` beside it."""
    path = keras_file(path)
    return KerasEngine(zoo.load_model(path), ModelCard.load(path.with_name("card.json")))
