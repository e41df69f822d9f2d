"""How good is a saliency map? Scores for maps of any method, on any engine.

deletion, insertion  does the answer fall when the brightest places go, and come when they alone are there?
                     Petsiuk, Das and Saenko, "RISE: randomized input sampling for explanation of black-box models",
                     BMVC 2018, section 4.3
pointing             does the peak lie where it should? Zhang et al., "Top-down neural attention by excitation
                     backprop", IJCV 2018
forgetting           does the map change when the network forgets what it learned? Adebayo et al., "Sanity checks for
                     saliency maps", NeurIPS 2018, section 3

Maps are float (n, s, s), or (n, window, s, s) for clips, in any unit; only forgetting needs Keras.
"""

from collections.abc import Callable, Iterator, Mapping

import cv2
import numpy as np
import pandas as pd

from fer_tf.faces import check_crops, softmax
from fer_tf.training.occlusion import asked, mean_colour


def deletion(
    engine, crops: np.ndarray, maps: np.ndarray, *, emotion=None, steps: int = 20, seed: int = 0, batch_size: int = 64
) -> np.ndarray:
    """Return the emotion's probability while the crop is taken away, brightest places first, float32 (n, steps + 1).

    Column k is what the engine says when k / steps of the pixels have the crop's mean colour. A good map makes the
    probability fall early: a small `area`. Dots and blobs destroy a face differently, so hold a map against
    `random_maps` of its own grain.

    engine   anything with `.card` and `.logits(crops)`
    emotion  as for the maps; None for what the engine says of the whole crop
    seed     of the order of places with equal strength, such as the zeros of a map
    """
    return _covered(engine, crops, np.rint(mean_colour(crops)), maps, emotion, steps, seed, batch_size)


def insertion(
    engine, crops: np.ndarray, maps: np.ndarray, *, emotion=None, steps: int = 20, seed: int = 0, batch_size: int = 64
) -> np.ndarray:
    """Return the emotion's probability while the crop comes out of a blur, brightest places first; see `deletion`.

    A good map makes the probability rise early: a large `area`. It starts from a blur, as the method's authors do, for
    single sharp pixels on a plane would be edges of their own; with `blurred` no eye and no mouth is left.
    """
    return _covered(engine, blurred(crops), crops, maps, emotion, steps, seed, batch_size, whole=crops)


def area(curves: np.ndarray) -> np.ndarray:
    """Return the area under each curve (n, steps + 1) over the share 0..1 of the pixels, float (n,), in 0..1."""
    return np.trapezoid(curves, dx=1 / (curves.shape[1] - 1), axis=1)


def blurred(crops: np.ndarray) -> np.ndarray:
    """Return crops under a Gaussian blur whose standard deviation is an eighth of their side, uint8 as they are."""
    size = crops.shape[-2]
    soft = [cv2.GaussianBlur(crop, (0, 0), size / 8) for crop in crops.reshape(-1, size, size, 3)]
    return np.reshape(soft, crops.shape).astype(np.uint8)


def random_maps(shape: tuple[int, ...], *, cells: int | None = None, seed: int = 0) -> np.ndarray:
    """Return maps that know nothing, float32 of shape (..., s, s) in 0..1: what a score must be held against.

    cells  along a side: random cells, enlarged as those of a late layer are; None for a random value in every pixel
    """
    *rows, size = shape[:-1]
    rng = np.random.default_rng(seed)
    if cells is None:
        return rng.random(shape, np.float32)
    small = rng.random((int(np.prod(rows)), cells, cells), np.float32)
    return np.reshape([cv2.resize(one, (size, size), interpolation=cv2.INTER_LINEAR) for one in small], shape)


def pointing(maps: np.ndarray, regions: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return of every map (n, s, s) whether its peak lies in each region, bool (n, s, s) by name: float (n,), 0 or 1.

    Of several equal peaks it is the share that lies inside. A map that is all zero points nowhere: 0. A peak drawn by
    lot lies inside as often as the region is large, `region.mean()`: hold the hits against that.
    """
    peaks = (maps == maps.max(axis=(1, 2), keepdims=True)) & (maps > 0)
    count = np.maximum(peaks.sum(axis=(1, 2)), 1)
    return {name: (peaks & region).sum(axis=(1, 2)) / count for name, region in regions.items()}


def rank_correlation(maps: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return how alike two maps of each of n crops are, float (n,): Spearman's correlation over their pixels.

    1 is the same order of places, 0 no relation; 0, too, where a map is the same everywhere.
    """
    from scipy.stats import rankdata

    ranks = [rankdata(each.reshape(len(each), -1), axis=1) for each in (maps, others)]
    one, other = (each - each.mean(axis=1, keepdims=True) for each in ranks)
    lengths = np.sqrt((one**2).sum(axis=1) * (other**2).sum(axis=1))
    return (one * other).sum(axis=1) / np.where(lengths > 0, lengths, 1)


def randomised(engine, *, stages: int = 3, seed: int = 0) -> Iterator[tuple[str, object]]:
    """Yield copies of a `KerasEngine` that forget more and more from the head down: what is forgotten, the copy.

    At the first stage the layers `head_...` have new random weights; at each further one so has another part of the
    backbone, an even share of its layers with weights, until at the last no trained weight is left. Batch norm that
    has forgotten changes nothing.
    """
    import keras

    from fer_tf import zoo

    if stages < 2:
        raise ValueError(f"stages must be 2 or more, the head and the whole network, got {stages}")
    keras.utils.set_random_seed(seed)
    trained, new = {name: layer.get_weights() for name, layer in _parts(engine.model).items()}, {}
    backbone = {layer.name for layer in zoo.backbone_layers(engine.model)}
    body = [name for name in trained if name.split("/")[0] in backbone]
    for stage in range(stages):
        copy = keras.models.clone_model(engine.model)  # the same layers, new random weights
        parts = _parts(copy)
        new = new or {name: layer.get_weights() for name, layer in parts.items()}
        kept = set(body[: len(body) - round(len(body) * stage / (stages - 1))])
        for name, layer in parts.items():
            layer.set_weights(trained[name] if name in kept else new[name])
        name = "head" if not stage else "all" if stage == stages - 1 else f"head and {stage}/{stages - 1} of the rest"
        yield name, type(engine)(copy, engine.card)


def forgetting(
    engine, explain: Mapping[str, Callable[[object], np.ndarray]], *, stages: int = 3, seed: int = 0
) -> pd.DataFrame:
    """Return how alike a method's maps are before and after forgetting: a row per method, a column per stage.

    Values are means of `rank_correlation`. A method whose maps stay alike, whatever the network knows, draws the
    picture and explains nothing.

    explain  method -> function of an engine that gives its maps, of the same crops and for the same emotions each time
    """
    trained = {method: maps(engine) for method, maps in explain.items()}
    alike = {
        stage: {method: rank_correlation(trained[method], maps(other)).mean() for method, maps in explain.items()}
        for stage, other in randomised(engine, stages=stages, seed=seed)
    }
    return pd.DataFrame(alike)


def _covered(engine, start, end, maps, emotion, steps, seed, batch_size, *, whole=None) -> np.ndarray:
    """Return the emotion's probability (n, steps + 1) while `start` becomes `end`, the brightest places first."""
    whole = start if whole is None else whole
    check_crops(whole, engine.card.input_shape)
    if maps.shape != whole.shape[:-1]:
        raise ValueError(f"maps must be {whole.shape[:-1]}, one for each crop at its size, got {maps.shape}")
    if steps < 1:
        raise ValueError(f"steps must be 1 or more, got {steps}")
    chosen, curves = asked(emotion, len(whole), len(engine.card.emotions)), []
    end = np.broadcast_to(end, whole.shape).astype(np.uint8)
    shuffled = np.random.default_rng(seed).permutation(int(np.prod(maps.shape[1:])))
    for first in range(0, len(whole), batch_size):
        rows = slice(first, first + batch_size)
        n = len(whole[rows])
        order = shuffled[np.argsort(-maps[rows].reshape(n, -1)[:, shuffled], axis=1, kind="stable")]
        now, then = start[rows].reshape(n, -1, 3).copy(), end[rows].reshape(n, -1, 3)
        k = engine.logits(whole[rows]).argmax(axis=1) if chosen is None else chosen[rows]
        said = []
        for step in range(steps + 1):
            places = order[:, : round(step / steps * order.shape[1]), None]
            np.put_along_axis(now, places, np.take_along_axis(then, places, axis=1), axis=1)
            said.append(softmax(engine.logits(now.reshape(n, *whole.shape[1:])))[np.arange(n), k])
        curves.append(np.stack(said, axis=1))
    return np.concatenate(curves) if curves else np.empty((0, steps + 1), np.float32)


def _parts(model) -> dict:
    """Return a model's layers that have weights, by name, first to last; those of a model inside as "outer/inner"."""
    import keras

    found = {}
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            found |= {f"{layer.name}/{name}": inner for name, inner in _parts(layer).items()}
        elif layer.weights:
            found[layer.name] = layer
    return found
