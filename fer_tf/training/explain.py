"""Where a network looks: saliency maps from gradients. TensorFlow backend only.

grad_cam   every feature map is weighted by its mean gradient. Exact where the layer goes straight into averaging over
           places, as MobileNetV2's last one (out_relu) does. Selvaraju et al., "Grad-CAM", ICCV 2017, equations 1, 2.
hires_cam  every cell of every feature map is weighted by its own gradient. Exact, too, where one dense layer follows;
           behind several, as in LeNet, it is gradient times activation, the local share of each place. There, mean
           gradients cancel and leave many maps empty. Draelos and Carin, "Use HiResCAM instead of Grad-CAM for
           faithful explanations of convolutional neural networks", 2020.
"""

import keras
import numpy as np

from fer_tf import zoo
from fer_tf.training.keras_engine import KerasEngine

METHODS = ("grad_cam", "hires_cam")


def saliency(
    engine: KerasEngine,
    crops: np.ndarray,
    *,
    method: str = "hires_cam",
    emotion=None,
    layer: str | None = None,
    batch_size: int = 64,
) -> np.ndarray:
    """Return saliency maps, float32 (n, s, s) in 0..1 at image size; a map without positive evidence stays all zero.

    crops    uint8 (n, s, s, 3) RGB
    method   one of `METHODS`
    emotion  what to explain: an index, an array (n,) of indices, or None for each crop's own highest logit
    layer    name of a layer with output (n, h, w, c); the registry's choice for the architecture if None

    Gradients are taken of logits, not of probabilities, whose softmax would mix in the other emotions. Raises
    ValueError for an unknown method or an unfit layer.
    """
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; known are {', '.join(METHODS)}")
    if keras.backend.backend() != "tensorflow":
        raise RuntimeError("saliency maps use tf.GradientTape: start Python with KERAS_BACKEND=tensorflow")
    layer = layer or zoo.architecture(engine.card.architecture).saliency_layer
    names = [candidate.name for candidate in engine.model.layers]
    if layer not in names:
        raise ValueError(f"{engine.card.name} has no layer {layer!r}; its last ones are {', '.join(names[-8:])}")
    shape = engine.model.get_layer(layer).output.shape
    if len(shape) != 4:
        raise ValueError(f"saliency needs a layer with a spatial map (n, h, w, c); {layer!r} gives {tuple(shape)}")
    probe = keras.Model(engine.model.inputs, [engine.model.get_layer(layer).output, engine.model.output])
    chosen = None if emotion is None else np.broadcast_to(emotion, len(crops))
    maps = []
    for start in range(0, len(crops), batch_size):
        rows = slice(start, start + batch_size)
        maps.append(_maps(probe, crops[rows], None if chosen is None else chosen[rows], method))
    return np.concatenate(maps) if maps else np.empty(crops.shape[:3], np.float32)


def _maps(probe: keras.Model, crops: np.ndarray, emotion: np.ndarray | None, method: str) -> np.ndarray:
    import tensorflow as tf

    with tf.GradientTape() as tape:
        images = tf.constant(crops, tf.float32)
        tape.watch(images)  # so that a frozen backbone is recorded too
        features, logits = probe(images, training=False)  # (n, h, w, c), (n, emotions)
        chosen = tf.argmax(logits, axis=1) if emotion is None else emotion
        evidence = tf.gather(logits, chosen, batch_dims=1)  # (n,)
    weights = tape.gradient(evidence, features)  # (n, h, w, c)
    if method == "grad_cam":
        weights = tf.reduce_mean(weights, axis=(1, 2), keepdims=True)  # (n, 1, 1, c)
    maps = tf.nn.relu(tf.reduce_sum(weights * features, axis=-1, keepdims=True))  # (n, h, w, 1)
    maps = tf.image.resize(maps, crops.shape[1:3])[..., 0]
    peak = tf.reduce_max(maps, axis=(1, 2), keepdims=True)
    return tf.math.divide_no_nan(maps, peak).numpy()
