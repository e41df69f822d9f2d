"""What a network says when parts of a crop are gone: the occlusion map, for any engine. NumPy only.

To take a part of a crop away is to paint it in the crop's mean colour. Black or white would be a strong shape of its
own, and dark on a face are the very places that matter: pupils, brows, an open mouth.
"""

import numpy as np

from fer_tf.faces import check_crops


def occlusion(
    engine, crops: np.ndarray, *, emotion=None, patch: float = 0.25, places: int | None = None, batch_size: int = 64
) -> np.ndarray:
    """Return maps of how much a logit falls where a patch covers the crop, float32 (n, s, s) in 0..1.

    A pixel gets the mean fall over all patches that cover it; where the logit rises it gets 0, and a map without any
    fall stays all zero. The n maps are each divided by their peak. Clips have a map for every frame, (n, window, s, s),
    of which one is covered at a time. Source: Zeiler and Fergus, "Visualizing and understanding convolutional
    networks", ECCV 2014, section 4.2.

    engine   anything with `.card` and `.logits(crops)`, on Keras, ONNX Runtime or OpenVINO
    crops    uint8 (n, *card.input_shape), RGB
    emotion  what to explain, as `asked` takes it; None for each crop's own highest logit
    patch    side of the patch as a share of the crop's
    places   of the patch along a side, evenly from border to border; None for steps of half a patch. Each crop takes
             places ** 2 answers for every frame
    """
    check_crops(crops, engine.card.input_shape)
    size = engine.card.image_size
    side = max(1, round(patch * size))
    if not 0 < patch <= 1 or (places is not None and places < 1):
        raise ValueError(f"patch must be a share above 0, 1 at most, and places 1 or more, got {patch} and {places}")
    places = places or round(2 * (size - side) / side) + 1
    starts = np.linspace(0, size - side, places).round().astype(int)
    chosen, maps = asked(emotion, len(crops), len(engine.card.emotions)), np.zeros(crops.shape[:-1], np.float32)
    for i, crop in enumerate(crops):
        frames, fill = crop.reshape(-1, size, size, 3), _whole(mean_colour(crop)).reshape(-1, 1, 1, 3)
        corners = [(f, y, x) for f in range(len(frames)) for y in starts for x in starts]
        whole = engine.logits(crop[None])[0]
        k = whole.argmax() if chosen is None else chosen[i]
        fall, times = np.zeros(frames.shape[:3]), np.zeros(frames.shape[:3])
        for first in range(0, len(corners), batch_size):
            part = corners[first : first + batch_size]
            covered = np.repeat(frames[None], len(part), axis=0)  # (places, frames, s, s, 3)
            for one, (f, y, x) in zip(covered, part, strict=True):
                one[f, y : y + side, x : x + side] = fill[f]
            answers = engine.logits(covered.reshape(len(part), *crop.shape))[:, k]
            for answer, (f, y, x) in zip(answers, part, strict=True):
                fall[f, y : y + side, x : x + side] += whole[k] - answer
                times[f, y : y + side, x : x + side] += 1
        fall = np.maximum(fall / np.maximum(times, 1), 0)
        maps[i] = (fall / (fall.max() or 1)).reshape(maps[i].shape)
    return maps


def asked(emotion, n: int, emotions: int) -> np.ndarray | None:
    """Return the emotion asked for of each of n crops, int (n,), from an index or an array of them; None stays None.

    Raises ValueError for anything that is not a whole number from 0 to `emotions` - 1, or not one for each crop.
    """
    if emotion is None:
        return None
    given = np.asarray(emotion)
    fits = given.shape in ((), (n,)) and np.issubdtype(given.dtype, np.integer)
    if not fits or (given.size and not 0 <= given.min() <= given.max() < emotions):
        raise ValueError(
            f"emotion must be an index 0..{emotions - 1}, or one for each of {n} crops, got {given.dtype} "
            f"{given.shape}: {np.array2string(given, threshold=8)}"
        )
    return np.broadcast_to(given, n)


def mean_colour(crops: np.ndarray) -> np.ndarray:
    """Return the mean colour of every picture (..., s, s, 3), float32 (..., 1, 1, 3)."""
    return crops.mean(axis=(-3, -2), keepdims=True, dtype=np.float32)


def _whole(colour: np.ndarray) -> np.ndarray:
    return np.rint(colour).astype(np.uint8)
