"""Where a network looks: saliency maps from gradients. TensorFlow backend only."""

import keras
import numpy as np

from fer_tf import zoo
from fer_tf.training.keras_engine import KerasEngine


def grad_cam(engine: KerasEngine, crops: np.ndarray, *, emotion=None, layer=None, batch_size: int = 64) -> np.ndarray:
    """Return Grad-CAM maps, float32 (n, s, s) in 0..1 at image size; a map without positive evidence stays all zero.

    crops    uint8 (n, s, s, 3) RGB
    emotion  what to explain: an index, an array (n,) of indices, or None for each crop's own highest logit
    layer    name of a layer with output (n, h, w, c); the registry's choice for the architecture if None

    Gradients are taken of logits, not of probabilities, whose softmax would mix in the other emotions.
    Source: Selvaraju et al., "Grad-CAM", ICCV 2017, equations 1 and 2.
    """
    if keras.backend.backend() != "tensorflow":
        raise RuntimeError("Grad-CAM uses tf.GradientTape: start Python with KERAS_BACKEND=tensorflow")
    layer = layer or zoo.architecture(engine.card.architecture).saliency_layer
    names = [candidate.name for candidate in engine.model.layers]
    if layer not in names:
        raise ValueError(f"{engine.card.name} has no layer {layer!r}; its last ones are {', '.join(names[-8:])}")
    shape = engine.model.get_layer(layer).output.shape
    if len(shape) != 4:
        raise ValueError(f"Grad-CAM needs a layer with a spatial map (n, h, w, c); {layer!r} gives {tuple(shape)}")
    probe = keras.Model(engine.model.inputs, [engine.model.get_layer(layer).output, engine.model.output])
    chosen = None if emotion is None else np.broadcast_to(emotion, len(crops))
    maps = []
    for start in range(0, len(crops), batch_size):
        rows = slice(start, start + batch_size)
        maps.append(_grad_cam(probe, crops[rows], None if chosen is None else chosen[rows]))
    return np.concatenate(maps) if maps else np.empty(crops.shape[:3], np.float32)


def _grad_cam(probe: keras.Model, crops: np.ndarray, emotion: np.ndarray | None) -> np.ndarray:
    import tensorflow as tf

    with tf.GradientTape() as tape:
        images = tf.constant(crops, tf.float32)
        tape.watch(images)  # so that a frozen backbone is recorded too
        features, logits = probe(images, training=False)  # (n, h, w, c), (n, emotions)
        chosen = tf.argmax(logits, axis=1) if emotion is None else emotion
        evidence = tf.gather(logits, chosen, batch_dims=1)  # (n,)
    weights = tf.reduce_mean(tape.gradient(evidence, features), axis=(1, 2), keepdims=True)  # (n, 1, 1, c)
    maps = tf.nn.relu(tf.reduce_sum(weights * features, axis=-1, keepdims=True))  # (n, h, w, 1)
    maps = tf.image.resize(maps, crops.shape[1:3])[..., 0]
    peak = tf.reduce_max(maps, axis=(1, 2), keepdims=True)
    return tf.math.divide_no_nan(maps, peak).numpy()
