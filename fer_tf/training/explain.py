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

    Clips have a map for every frame, (n, window, s, s): 1 is the peak of the clip, so the maps say when, too.

    crops    uint8 (n, s, s, 3) RGB, or (n, window, s, s, 3)
    method   one of `METHODS`
    emotion  what to explain: an index, an array (n,) of indices, or None for each crop's own highest logit
    layer    name of a layer with output (n, h, w, c) or tokens (n, t, c) of a square grid, class tokens first; the
             registry's choice for the architecture if None

    Gradients are taken of logits, not of probabilities, whose softmax would mix in the other emotions. Raises
    ValueError for an unknown method or an unfit layer.
    """
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; known are {', '.join(METHODS)}")
    if keras.backend.backend() != "tensorflow":
        raise RuntimeError("saliency maps use tf.GradientTape: start Python with KERAS_BACKEND=tensorflow")
    layer = layer or zoo.architecture(engine.card.architecture).saliency_layer
    probe = _probe(engine, layer)
    shape = probe.outputs[0].shape
    if len(shape) not in (3, 4) or (engine.card.window > 1 and "/" not in layer):  # outside, it is one for all frames
        raise ValueError(f"saliency needs a layer with a map or tokens; {layer!r} gives {tuple(shape)}")
    chosen = None if emotion is None else np.broadcast_to(emotion, len(crops))
    maps = []
    for start in range(0, len(crops), batch_size):
        rows = slice(start, start + batch_size)
        maps.append(_maps(probe, crops[rows], None if chosen is None else chosen[rows], method))
    return np.concatenate(maps) if maps else np.empty(crops.shape[:-1], np.float32)


def attention_rollout(engine: KerasEngine, crops: np.ndarray, *, batch_size: int = 64) -> np.ndarray:
    """Return where the class token of a ViT looks through all blocks, float32 (n, s, s) in 0..1 at image size.

    The mean attention over heads, mixed half and half with the token itself (the shortcut around it), multiplied from
    block to block. It knows no emotion: it shows what was looked at, whatever came of it. Source: Abnar and Zuidema,
    "Quantifying attention flow in transformers", ACL 2020. Raises ValueError for a model without attention layers.
    """
    import tensorflow as tf

    attention = [layer.output for layer in engine.model.layers if layer.name.endswith("_attention")]
    if not attention:
        raise ValueError(f"{engine.card.name} has no attention layers: rollout is for vit, take `saliency`")
    probe, maps = keras.Model(engine.model.input, attention), []
    for start in range(0, len(crops), batch_size):
        images, flow = crops[start : start + batch_size].astype(np.float32), tf.eye(attention[0].shape[-1])
        for scores in probe(images, training=False):
            flow = (tf.reduce_mean(scores, axis=1) + tf.eye(scores.shape[-1])) / 2 @ flow  # (n, t, t), rows sum to 1
        maps.append(_enlarged(_grid(flow[:, 0, :, None]), images.shape[:-1]))
    return np.concatenate(maps) if maps else np.empty(crops.shape[:3], np.float32)


def _probe(engine: KerasEngine, layer: str) -> keras.Model:
    """Return a model that gives a layer's output and the logits; "outer/inner" names a layer inside another."""
    model, (outer, _, inner) = engine.model, layer.partition("/")
    names = [known.name for known in model.layers]
    inside = [known.name for known in getattr(model.get_layer(outer), "layers", ())] if outer in names else []
    if outer not in names or (inner and inner not in inside):
        last = inside[-8:] or names[-8:]
        raise ValueError(f"{engine.card.name} has no layer {layer!r}; its last ones are {', '.join(last)}")
    if not inner:
        return keras.Model(model.input, [model.get_layer(outer).output, model.output])
    at, nested = names.index(outer), model.get_layer(outer)
    tapped = keras.Model(nested.input, [nested.get_layer(inner).output, nested.output])
    features, x = tapped(model.layers[at - 1].output)
    for step in model.layers[at + 1 :]:  # around the nested model it is a chain
        x = step(x)
    return keras.Model(model.input, [features, x])


def _maps(probe: keras.Model, crops: np.ndarray, emotion: np.ndarray | None, method: str) -> np.ndarray:
    import tensorflow as tf

    with tf.GradientTape() as tape:
        images = tf.constant(crops, tf.float32)
        tape.watch(images)  # so that a frozen backbone is recorded too
        features, logits = probe(images, training=False)  # (n, h, w, c) or (n, t, c), (n, emotions); n * window frames
        chosen = tf.argmax(logits, axis=1) if emotion is None else emotion
        evidence = tf.gather(logits, chosen, batch_dims=1)  # (n,)
    weights, features = _grid(tape.gradient(evidence, features)), _grid(features)  # (n, h, w, c)
    if method == "grad_cam":
        weights = tf.reduce_mean(weights, axis=(1, 2), keepdims=True)  # (n, 1, 1, c)
    return _enlarged(tf.nn.relu(tf.reduce_sum(weights * features, axis=-1, keepdims=True)), crops.shape[:-1])


def _grid(tokens):
    """Return tokens (n, t, c) as a map (n, side, side, c), class tokens dropped; a map stays as it is."""
    if len(tokens.shape) == 4:
        return tokens
    side = int(tokens.shape[1] ** 0.5)
    patches = tokens[:, tokens.shape[1] - side * side :]
    return keras.ops.reshape(patches, (-1, side, side, tokens.shape[2]))


def _enlarged(maps, shape: tuple) -> np.ndarray:
    """Return maps (m, h, w, 1) in a shape (n, s, s) or (n, window, s, s), each of the n divided by its peak, if any."""
    import tensorflow as tf

    maps = tf.reshape(tf.image.resize(maps, shape[-2:]), shape)
    return tf.math.divide_no_nan(maps, tf.reduce_max(maps, axis=list(range(1, len(shape))), keepdims=True)).numpy()
