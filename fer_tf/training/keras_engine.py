"""`KerasEngine`: a `.keras` file behind the same two members as every inference engine."""

from pathlib import Path
from zipfile import BadZipFile, is_zipfile

import keras
import numpy as np

from fer_tf.card import ModelCard
from fer_tf.training.folder import keras_file


class KerasEngine:
    """A Keras model and its card.

    Crops are uint8 (n, s, s, 3) RGB; logits come back as float32 (n, emotions).
    """

    backend = "keras"

    def __init__(self, model: keras.Model, card: ModelCard):
        expected = (card.image_size, card.image_size, 3), len(card.emotions)
        if (model.input_shape[1:], model.output_shape[-1]) != expected:
            raise ValueError(
                f"{card.name}: the card says input {expected[0]} and {expected[1]} emotions, "
                f"the model has {model.input_shape[1:]} and {model.output_shape[-1]}"
            )
        self.model, self.card = model, card
        self.provider = f"Keras on {keras.backend.backend()}"

    def logits(self, crops: np.ndarray) -> np.ndarray:
        expected = (self.card.image_size, self.card.image_size, 3)
        if crops.dtype != np.uint8 or crops.shape[1:] != expected:
            raise ValueError(
                f"crops must be uint8 (n, {', '.join(map(str, expected))}), got {crops.dtype} {crops.shape}"
            )
        if not len(crops):
            return np.empty((0, len(self.card.emotions)), np.float32)
        return self.model.predict(crops, batch_size=64, verbose=0)


def load_keras(path: Path) -> KerasEngine:
    """Load a `.keras` file, or the `model.keras` of a folder, with the `card.json` beside it."""
    path = keras_file(path)
    if not is_zipfile(path):
        raise ValueError(f"{path} is damaged or no .keras file at all (no whole zip): copy it again, or train it again")
    try:
        model = keras.saving.load_model(path, compile=False)
    except (ValueError, OSError, TypeError, KeyError, BadZipFile) as error:
        raise ValueError(f"{path} is damaged, or not a Keras model that can be read: {error}") from error
    return KerasEngine(model, ModelCard.load(path.with_name("card.json")))
