"""Drawn clips to train on: one face each that goes from its resting look to an apex and back, cropped, labelled.

A single frame says little. People differ at rest, as real ones do: a resting face pulls the muscles of some emotion a
little, all the time, and only what changes against it is the clip's emotion. It changes weakly or strongly, early or
late, fast or slowly; a neutral clip stays at rest. The head drifts, and every frame has its own noise.
"""

import cv2
import numpy as np

from fer_tf.data.drawn import CHUNK, OVERSAMPLING, SIZES, TERMS, backgrounds, photograph
from fer_tf.data.drawn_clip import POSE
from fer_tf.data.drawn_paint import paint
from fer_tf.data.drawn_tables import APEX, sample_traits
from fer_tf.data.labelled import LabelledClips, Splits
from fer_tf.labels import FER2013

NEUTRAL = FER2013.index("neutral")
REST = 0.45  # largest share of an emotion's apex that a face shows at rest
APEX_SHARE = 0.45, 1.0  # weakest and strongest share of the apex that a clip reaches
STAGES = (0.05, 0.30), (0.10, 0.25), (0.05, 0.20), (0.10, 0.25)  # rest, rise, hold, fall: shares of a clip, from .. to
FIDGET = 0.04  # standard deviation by which a muscle differs from frame to frame


def splits(
    *, window: int, size: int = 48, n_train: int = 1000, n_valid: int = 300, n_test: int = 600, seed: int = 0
) -> Splits:
    """Draw three independent splits of clips, a new person in each clip; the same arguments give the same pixels."""
    counts = {"train": n_train, "valid": n_valid, "test": n_test}
    seeds = np.random.SeedSequence(seed).spawn(3)
    drawn = {
        name: draw_sequences(n, window=window, size=size, seed=own, prefix=f"{name}-")
        for (name, n), own in zip(counts.items(), seeds, strict=True)
    }
    return Splits(**drawn, name="drawn clips", terms=TERMS)


def draw_sequences(
    n: int, *, window: int = 16, size: int = 48, seed: int | np.random.SeedSequence = 0, prefix: str = ""
) -> LabelledClips:
    """Draw n clips of `window` grey frames, uint8 (n, window, size, size, 1), evenly spread over FER2013's 7 emotions.

    size    side in pixels, 48..224
    prefix  of the ids

    Raises ValueError for fewer than 1 clip or 2 frames and for another size.
    """
    if n < 1 or window < 2:
        raise ValueError(f"expected at least 1 clip of 2 frames, got {n} of {window}")
    if not SIZES[0] <= size <= SIZES[1]:
        raise ValueError(f"size must be {SIZES[0]}..{SIZES[1]} pixels, got {size}: draw at the nearest size and resize")
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % len(FER2013))
    units, people = _muscles(labels, window, rng), sample_traits(n, rng)
    images = np.empty((n, window, size, size, 1), np.uint8)
    each = max(1, CHUNK // window)  # clips painted at a time
    for start in range(0, n, each):
        part = slice(start, start + each)
        _draw(images[part], people[part], units[part], rng)
    ids = np.array([f"{prefix}{k:06d}" for k in range(n)])
    return LabelledClips(images=images, labels=labels, emotions=FER2013, ids=ids)


def time_course(n: int, window: int, rng: np.random.Generator) -> np.ndarray:
    """Return shares of the apex over time, float (n, window) in 0..1: rest, rise, hold, fall, rest, smooth between."""
    rest, up, hold, down = (rng.uniform(low, high, (n, 1)) for low, high in STAGES)
    time = np.linspace(0, 1, window)
    risen, fallen = _smooth((time - rest) / up), _smooth((time - rest - up - hold) / down)
    return rng.uniform(*APEX_SHARE, (n, 1)) * risen * (1 - fallen)


def _smooth(x):
    """0 below 0, 1 above 1, without a corner between."""
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


def _muscles(labels, window, rng):
    """Intensities of the action units, float32 (n, window, units)."""
    n = len(labels)
    look = rng.integers(0, len(FER2013), n)  # which emotion the resting face resembles
    rest = REST * rng.uniform(0, 1, (n, 1, 1)) * APEX[look][:, None]
    change = time_course(n, window, rng)[..., None] * APEX[labels][:, None]  # zero for neutral
    fidget = rng.normal(0, FIDGET, (n, window, APEX.shape[1]))
    return np.clip(rest + change + fidget, 0, 1).astype(np.float32)


def _draw(images, people, units, rng):
    """Fill uint8 (n, window, size, size, 1): one person, place and light a clip, another pose and noise a frame."""
    n, window, size = images.shape[:3]
    side = size * OVERSAMPLING
    traits = np.repeat(people, window).reshape(n, window)
    drift = _drift(n, window, len(POSE) + 3, rng)
    for trait, reach, path in zip(POSE, POSE.values(), drift, strict=False):
        traits[trait] = 0.5 * (people[trait][:, None] + reach * path)
    jitter = rng.normal(0, 0.008, (3, n, window))  # a detector's boxes are never quite still
    x, y, radius = (0.03 * path + shake for path, shake in zip(drift[len(POSE) :], jitter, strict=True))
    centre = np.stack([0.5 + x, 0.5 + y], axis=-1) * side
    radius = (0.485 + radius) * side
    canvases = [room.copy() for room in backgrounds(n, side, rng) for _ in range(window)]
    place = {"centre": centre.reshape(-1, 2), "radius": radius.ravel()}
    paint(canvases, traits.ravel(), units.reshape(n * window, -1), **place)
    blur = (0.25 + 0.75 * rng.uniform(0, 1, n) ** 2) * (size / 48) ** 0.5
    gain, grain = rng.uniform(0.75, 1.1, n), rng.uniform(2, 9, n)
    for k, canvas in enumerate(canvases):
        clip, frame = divmod(k, window)
        camera = {"blur": blur[clip], "gain": gain[clip], "grain": grain[clip]}
        images[clip, frame] = photograph(cv2.cvtColor(canvas, cv2.COLOR_RGB2GRAY), size, **camera, rng=rng)


def _drift(n, window, paths, rng):
    """Smooth paths (paths, n, window) within -1..1: half a wave or less over the clip."""
    phase, speed = rng.uniform(0, 2 * np.pi, (paths, n, 1)), rng.uniform(0.2, 1, (paths, n, 1))
    return np.sin(phase + np.pi * speed * np.linspace(0, 1, window))
