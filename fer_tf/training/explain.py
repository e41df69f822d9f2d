"""Where a network looks: saliency maps from gradients, and Score-CAM. TensorFlow backend only.

Five methods weight the feature maps A[k] of a late layer and add them up; g[k] is the gradient of the logit.

grad_cam    every feature map by its mean gradient. Exact where the layer goes straight into averaging over places, as
            MobileNetV2's last one (out_relu) does. Selvaraju et al., "Grad-CAM", ICCV 2017, equations 1, 2.
grad_cam_pp by a mean of its positive gradients, in which places of small g * sum(A) count more: 1 / (2 + g * sum(A)),
            scaled to sum 1, as the authors' code has it. Chattopadhyay et al., "Grad-CAM++", WACV 2018, equation 10.
hires_cam   every cell of every feature map by its own gradient. Exact, too, where one dense layer follows; behind
            several, as in LeNet, it is gradient times activation, the local share of each place. There, mean gradients
            cancel and leave many maps empty. Draelos and Carin, "Use HiResCAM instead of Grad-CAM for faithful
            explanations of convolutional neural networks", 2020.
layer_cam   every cell by its own positive gradient. Jiang et al., "LayerCAM", IEEE TIP 2021.
score_cam   without gradients: by the probability that the network gives the emotion when it sees the crop only where
            the feature map is bright. The one method on probabilities, as its authors' code: weights must not be
            negative. One answer for every feature map. Wang et al., "Score-CAM", CVPR workshops 2020.

One needs no layer, it asks the pixels:

integrated_gradients  the gradient of the logit by every pixel, averaged on the straight way from the crop's mean colour
                      to the crop, times how far the pixel went. Sundararajan et al., "Axiomatic attribution for deep
                      networks", ICML 2017.

`attention_rollout` is for ViT; `fer_tf.training.occlusion` asks any engine, not only Keras.
"""

import keras
import numpy as np

from fer_tf import zoo
from fer_tf.faces import check_crops, softmax
from fer_tf.training.keras_engine import KerasEngine
from fer_tf.training.occlusion import asked, mean_colour

METHODS = ("grad_cam", "grad_cam_pp", "hires_cam", "layer_cam", "score_cam", "integrated_gradients")


def saliency(
    engine: KerasEngine,
    crops: np.ndarray,
    *,
    method: str = "hires_cam",
    emotion=None,
    layer: str | None = None,
    channels: int | None = None,
    steps: int = 64,
    batch_size: int = 64,
) -> np.ndarray:
    """Return saliency maps, float32 (n, s, s) in 0..1 at image size; a map without positive evidence stays all zero.

    Clips have a map for every frame, (n, window, s, s): 1 is the peak of the clip, so the maps say when, too.

    crops     uint8 (n, s, s, 3) RGB, or (n, window, s, s, 3)
    method    one of `METHODS`
    emotion   what to explain: an index, an array (n,) of indices, or None for each crop's own highest logit
    layer     name of a layer with output (n, h, w, c) or tokens (n, t, c) of a square grid, class tokens first; the
              registry's choice for the architecture if None. integrated_gradients looks at no layer
    channels  score_cam alone: so many feature maps of each crop, those that vary most over its places; None for all
    steps     integrated_gradients alone: see there

    Gradients are taken of logits, not of probabilities, whose softmax would mix in the other emotions. Raises
    ValueError for an unknown method or an unfit layer.
    """
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; known are {', '.join(METHODS)}")
    if method == "integrated_gradients":
        signed = integrated_gradients(engine, crops, emotion=emotion, steps=steps, batch_size=batch_size)
        return _scaled(np.maximum(signed.sum(axis=-1), 0)) if len(crops) else signed[..., 0]
    chosen = _checked(engine, crops, emotion)
    if channels is not None and channels < 1:
        raise ValueError(f"channels must be 1 or more, or None for all, got {channels}")
    layer = layer or zoo.architecture(engine.card.architecture).saliency_layer
    probe = _probe(engine, layer)
    shape = probe.outputs[0].shape
    if len(shape) not in (3, 4) or (engine.card.window > 1 and "/" not in layer):  # outside, it is one for all frames
        raise ValueError(f"saliency needs a layer with a map or tokens; {layer!r} gives {tuple(shape)}")
    maps = []
    for start in range(0, len(crops), batch_size):
        rows = slice(start, start + batch_size)
        given = probe, crops[rows], None if chosen is None else chosen[rows]
        if method == "score_cam":
            maps.append(_score_cam(engine.model, *given, channels=channels, batch_size=batch_size))
        else:
            maps.append(_gradient_cam(*given, method))
    return np.concatenate(maps) if maps else np.empty(crops.shape[:-1], np.float32)


def integrated_gradients(
    engine: KerasEngine, crops: np.ndarray, *, emotion=None, steps: int = 64, batch_size: int = 64
) -> np.ndarray:
    """Return what every pixel adds to the logit, float32 shaped as the crops, positive or negative.

    Its sum over a crop is the crop's logit less that of a plane in the crop's mean colour, as nearly as `steps` points
    on the way between the two allow. That plane, where the way begins, has the exposure of the picture and no face: so
    a pixel is asked what its being lighter or darker than the picture adds. From black, as is usual, dark pixels would
    never get anything, and pupils, brows and open mouths are dark.
    """
    import tensorflow as tf

    chosen, found = _checked(engine, crops, emotion), np.empty(crops.shape, np.float32)
    if steps < 1:
        raise ValueError(f"steps must be 1 or more, got {steps}")
    middles = (np.arange(steps, dtype=np.float32) + 0.5) / steps
    for i, crop in enumerate(crops):
        start, way = mean_colour(crop), crop - mean_colour(crop)
        k = engine.model.predict_on_batch(crop[None].astype(np.float32)).argmax() if chosen is None else chosen[i]
        total = np.zeros_like(way)
        for first in range(0, steps, batch_size):
            places = middles[first : first + batch_size].reshape(-1, *[1] * crop.ndim)
            with tf.GradientTape() as tape:
                images = tf.constant(start + places * way)
                tape.watch(images)
                logit = engine.model(images, training=False)[:, k]
            total += tf.reduce_sum(tape.gradient(logit, images), axis=0).numpy()
        found[i] = way * total / steps
    return found


def branch_engines(engine: KerasEngine) -> list[KerasEngine]:
    """Return every branch of an ensemble as an engine of its own logits; none for other architectures."""
    return [KerasEngine(keras.Model(engine.model.input, own), engine.card) for own in zoo.branches(engine.model)]


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


def _checked(engine: KerasEngine, crops: np.ndarray, emotion) -> np.ndarray | None:
    """Return the emotion asked for of each crop, or None; raise for what no method takes."""
    if keras.backend.backend() != "tensorflow":
        raise RuntimeError("saliency maps use tf.GradientTape: start Python with KERAS_BACKEND=tensorflow")
    check_crops(crops, engine.card.input_shape)
    return asked(emotion, len(crops), len(engine.card.emotions))


def _gradient_cam(probe: keras.Model, crops: np.ndarray, emotion: np.ndarray | None, method: str) -> np.ndarray:
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
    elif method == "grad_cam_pp":
        # The sum over a map that is not behind a ReLU may be negative, and the share would have a pole: taken as 0.
        bright, positive = tf.nn.relu(tf.reduce_sum(features, axis=(1, 2), keepdims=True)), tf.nn.relu(weights)
        shares = tf.where(weights > 0, 1 / (2 + positive * bright), 0.0)
        shares = tf.math.divide_no_nan(shares, tf.reduce_sum(shares, axis=(1, 2), keepdims=True))
        weights = tf.reduce_sum(shares * positive, axis=(1, 2), keepdims=True)
    elif method == "layer_cam":
        weights = tf.nn.relu(weights)
    return _enlarged(tf.nn.relu(tf.reduce_sum(weights * features, axis=-1, keepdims=True)), crops.shape[:-1])


def _score_cam(
    model: keras.Model,
    probe: keras.Model,
    crops: np.ndarray,
    emotion: np.ndarray | None,
    *,
    channels: int | None,
    batch_size: int,
) -> np.ndarray:
    import tensorflow as tf

    found, logits = probe(tf.constant(crops, tf.float32), training=False)
    chosen = logits.numpy().argmax(axis=1) if emotion is None else emotion
    found, maps = _grid(found).numpy(), []
    for crop, k, features in zip(crops, chosen, found.reshape(len(crops), -1, *found.shape[1:]), strict=True):
        if channels is not None:  # (frames, h, w, c)
            features = features[..., np.argsort(-features.std(axis=(0, 1, 2)), kind="stable")[:channels]]
        start, weights = mean_colour(crop), []
        for first in range(0, features.shape[-1], batch_size):
            part = tf.image.resize(features[..., first : first + batch_size], crop.shape[-3:-1]).numpy()
            low, high = part.min(axis=(0, 1, 2)), part.max(axis=(0, 1, 2))
            part = (part - low) / np.where(high > low, high - low, 1)  # (frames, s, s, c), 0..1
            seen = np.moveaxis(part, -1, 0).reshape(-1, *crop.shape[:-1], 1)
            answers = model.predict_on_batch(start + seen * (crop - start))
            weights.append(softmax(answers)[:, k])
        maps.append(np.maximum(features @ np.concatenate(weights), 0)[..., None])
    return _enlarged(np.concatenate(maps), crops.shape[:-1])


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

    return _scaled(tf.image.resize(maps, shape[-2:]).numpy().reshape(shape))


def _scaled(maps: np.ndarray) -> np.ndarray:
    """Return maps (n, ...), each divided by its peak; one that is all zero stays so."""
    peaks = maps.max(axis=tuple(range(1, maps.ndim)), keepdims=True)
    return maps / np.where(peaks > 0, peaks, 1)
