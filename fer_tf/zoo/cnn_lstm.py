"""CNN and LSTM: the features of every frame of a clip, then two LSTM layers that read them in order.

Donahue et al., "Long-term recurrent convolutional networks for visual recognition and description", CVPR 2015. As
there, a network that was trained on single frames gives the features: what its last layer works on, for any
architecture of the zoo. LSTM: Hochreiter and Schmidhuber, "Long short-term memory", 1997.
"""

import keras
from keras import layers

from fer_tf import paths, zoo


@keras.saving.register_keras_serializable("fer_tf")
class ToFrames(layers.Layer):
    """Clips (n, window, s, s, 3) -> their frames (n * window, s, s, 3)."""

    def call(self, clips):
        return keras.ops.reshape(clips, (-1, *clips.shape[2:]))

    def compute_output_shape(self, input_shape):
        return (None, *input_shape[2:])


@keras.saving.register_keras_serializable("fer_tf")
class ToClips(layers.Layer):
    """Features of frames (n * window, c) -> of clips (n, window, c)."""

    def __init__(self, window: int, **kwargs):
        super().__init__(**kwargs)
        self.window = window

    def call(self, features):
        return keras.ops.reshape(features, (-1, self.window, features.shape[-1]))

    def compute_output_shape(self, input_shape):
        return (None, self.window, input_shape[-1])

    def get_config(self):
        return super().get_config() | {"window": self.window}


def build(
    *, emotions: int, image_size: int, weights: str | None = None, window=16, backbone="lenet", units=64, dropout=0.3
):
    """Return a temporal network: RGB 0..255 (n, window, image_size, image_size, 3) -> logits (n, emotions).

    weights   None, or the trained frame network: a `.keras` file or the folder of one, relative to the project; its
              head_logits is left out. A recipe with head_epochs alone (epochs = 0) keeps it frozen; its dropout, if
              it has any, stays active while the LSTM layers learn
    window    frames of a clip
    backbone  the architecture of the frame network
    units     of each LSTM layer

    Raises FileNotFoundError for weights that are not there, ValueError for those of another network.
    """
    if window < 2:
        raise ValueError(f"window must be 2 frames or more, got {window}: for single pictures take {backbone} itself")

    # --- backbone: what the last layer of a network for single pictures works on ---
    picture = _frame_network(backbone, weights, emotions=emotions, image_size=image_size)
    features = keras.Model(picture.input, picture.get_layer("head_logits").input, name="backbone")
    clips = keras.Input((window, image_size, image_size, 3), name="crops")
    x = ToFrames(name="frames")(clips)  # (n * window, s, s, 3)
    x = features(x)  # (n * window, c)

    # --- head: in the order of time ---
    x = ToClips(window, name="head_clips")(x)  # (n, window, c)
    x = layers.LSTM(units, return_sequences=True, name="head_lstm_1")(x)  # (n, window, units)
    x = layers.LSTM(units, name="head_lstm_2")(x)  # (n, units), after the last frame
    x = layers.Dropout(dropout, name="head_dropout")(x)
    logits = layers.Dense(emotions, name="head_logits")(x)
    return keras.Model(clips, logits, name="cnn_lstm")


def _frame_network(backbone: str, weights: str | None, *, emotions: int, image_size: int) -> keras.Model:
    """Return a network for pictures of this size, new or trained."""
    if zoo.architecture(backbone).window > 1 or backbone == "esr":
        raise ValueError(f"backbone must be an architecture for single pictures with one head, got {backbone!r}")
    if weights is None:
        return zoo.build(backbone, emotions=emotions, image_size=image_size)
    path = paths.ROOT / weights  # an absolute path stays itself
    path = path / "model.keras" if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}: expected a .keras file of {backbone}, or the folder of one")
    model = zoo.load_model(path)
    if model.name != backbone:
        raise ValueError(f"{path} holds {model.name}, but backbone is {backbone!r}: set the option backbone to it")
    if model.input_shape[1:] != (image_size, image_size, 3):
        raise ValueError(f"{path} takes pictures of {model.input_shape[1]} px: set image_size to it, got {image_size}")
    return model
