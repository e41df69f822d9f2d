"""Drawn faces: labelled drawings driven by facial action units, the data set that needs no download.

Who does what: `drawn_tables` says which action units make an expression, `drawn_face` turns them into outlines,
`drawn_paint` paints these, this module draws labelled pictures and `drawn_clip` moving faces.
"""

from dataclasses import replace

import cv2
import numpy as np

from fer_tf.data.drawn_clip import DrawnClip, draw_clip
from fer_tf.data.drawn_face import outlines, turned
from fer_tf.data.drawn_paint import paint
from fer_tf.data.drawn_tables import APEX, sample_traits
from fer_tf.data.labelled import LabelledFaces, Splits
from fer_tf.labels import CIRCUMPLEX, FER2013

__all__ = [
    "TERMS",
    "DrawnClip",
    "backgrounds",
    "draw_clip",
    "draw_faces",
    "draw_faces_and_regions",
    "photograph",
    "splits",
]

TERMS = "Drawings made by this program, no photographs and no real people; no rights reserved (CC0 1.0)."
SIZES = (48, 224)  # smallest and largest side in pixels
OVERSAMPLING = 2  # faces are painted larger, then averaged
CHUNK = 64  # faces painted at a time, which bounds the memory
REGIONS = {"eyes": "eyes", "brows": "brows", "mouth": "lips"}  # region -> outlines that it encloses
PLANE = np.array([CIRCUMPLEX[emotion] for emotion in FER2013])  # (emotions, 2): valence, arousal


def splits(*, size: int = 48, n_train: int = 4000, n_valid: int = 800, n_test: int = 800, seed: int = 0) -> Splits:
    """Draw a data set of three independent splits; the same arguments give the same pixels."""
    counts = {"train": n_train, "valid": n_valid, "test": n_test}
    drawn = {}
    for (name, n), own_seed in zip(counts.items(), np.random.SeedSequence(seed).spawn(3), strict=True):
        faces = draw_faces(n, size=size, seed=own_seed)
        drawn[name] = replace(faces, ids=np.array([f"{name}-{k:06d}" for k in range(n)]))
    return Splits(**drawn, name="drawn", terms=TERMS)


def draw_faces(n: int, *, size: int = 48, seed: int | np.random.SeedSequence = 0, mix: float = 1.0) -> LabelledFaces:
    """Draw n faces, as evenly spread over FER2013's 7 emotions as n allows, in random order.

    The label distribution of a face is what its muscles do: shares of a main emotion, of a second one and of neutral.
    Its affect is the mean of `labels.CIRCUMPLEX` by these shares.
    size  side in pixels, 48..224
    mix   0 draws pure expressions at their apex, 1 leaves the main emotion a share of 0.5 to 1
    Raises ValueError for other numbers.
    """
    return _faces(n, size, seed, mix)[0]


def draw_faces_and_regions(
    n: int, *, size: int = 48, seed: int | np.random.SeedSequence = 0, mix: float = 1.0
) -> tuple[LabelledFaces, dict[str, np.ndarray]]:
    """Return the faces of `draw_faces`, and where their "eyes", "brows" and "mouth" are, each bool (n, size, size).

    A region is the part's convex hull and a margin of a 24th of the side: the mouth with its lips, each eye with its
    lids. Hair or glasses may lie before it.
    """
    faces, (traits, units, centre, radius) = _faces(n, size, seed, mix)
    parts = turned(outlines(traits, units), traits)
    brush = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * round(size / 24) + 1,) * 2)
    regions = {}
    for name, part in REGIONS.items():
        contours = centre[:, None, None] + radius[:, None, None, None] * parts[part] - 0.5  # of the pixels' middles
        masks = np.zeros((n, size, size), np.uint8)
        for mask, pair in zip(masks, contours.astype(np.float32), strict=True):
            for contour in pair:
                cv2.fillConvexPoly(mask, cv2.convexHull(np.rint(contour).astype(np.int32)), 1)
        regions[name] = np.stack([cv2.dilate(mask, brush) for mask in masks]).astype(bool)
    return faces, regions


def _faces(n, size, seed, mix):
    """Return the faces, and traits, units, centres (n, 2) and radii (n,) in pixels of the pictures."""
    if n < 1:
        raise ValueError(f"n must be at least 1 face, got {n}")
    if not SIZES[0] <= size <= SIZES[1]:
        raise ValueError(f"size must be {SIZES[0]}..{SIZES[1]} pixels, got {size}: draw at the nearest size and resize")
    if not 0 <= mix <= 1:
        raise ValueError(f"mix must lie in 0..1, got {mix}")
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % len(FER2013))
    distributions = _distributions(labels, mix, rng)
    units = np.clip(distributions @ APEX * rng.uniform(0.75, 1.15, (n, APEX.shape[1])), 0, 1).astype(np.float32)
    traits = sample_traits(n, rng)
    images, centre, radius = np.empty((n, size, size, 3), np.uint8), np.empty((n, 2)), np.empty(n)
    for start in range(0, n, CHUNK):
        part = slice(start, start + CHUNK)
        centre[part], radius[part] = _draw(images[part], traits[part], units[part], rng)
    faces = LabelledFaces(
        images=images,
        labels=labels,
        emotions=FER2013,
        ids=np.arange(n),
        distributions=distributions.astype(np.float32),
        affect=(distributions @ PLANE).astype(np.float32),
    )
    return faces, (traits, units, centre, radius)


def _distributions(labels, mix, rng):
    """Shares (n, 7): the label's is the largest; what it leaves goes to a second emotion and to neutral."""
    n = len(labels)
    others = (labels + rng.integers(1, len(FER2013), n)) % len(FER2013)
    rest = mix * 0.48 * rng.uniform(0.0, 1.0, n) ** 2
    second = rng.uniform(0.0, 1.0, n) * rest
    shares = np.zeros((n, len(FER2013)))
    for emotion, share in ((labels, 1 - rest), (others, second), (FER2013.index("neutral"), rest - second)):
        shares[np.arange(n), emotion] += share
    return shares


def _draw(images, traits, units, rng):
    """Fill uint8 (n, size, size, 3): background, face, then what a camera does: blur, exposure, noise.

    Returns the centres (n, 2) and radii (n,) of the faces, in pixels of the pictures.
    """
    n, size = images.shape[:2]
    side = size * OVERSAMPLING
    canvases = backgrounds(n, side, rng)
    centre, radius = rng.uniform(0.46, 0.54, (n, 2)) * side, rng.uniform(0.45, 0.52, n) * side
    paint(canvases, traits, units, centre=centre, radius=radius)
    blur = (0.25 + 0.75 * rng.uniform(0, 1, n) ** 2) * (size / 48) ** 0.5
    grain = rng.uniform(0, 7, n)
    gain = rng.uniform(0.75, 1.1, n)
    for i, canvas in enumerate(canvases):
        images[i] = photograph(canvas, size, blur=blur[i], gain=gain[i], grain=grain[i], rng=rng)
    return centre / OVERSAMPLING, radius / OVERSAMPLING


def backgrounds(n: int, side: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Return n blurred backgrounds, uint8 (side, side, 3) RGB."""
    patches = rng.uniform(40, 200, (n, 1, 1, 1)) + rng.normal(0, 18, (n, 1, 1, 3)) + rng.normal(0, 24, (n, 4, 4, 1))
    return [cv2.resize(patch, (side, side)) for patch in np.clip(patches, 0, 255).astype(np.uint8)]


def photograph(
    canvas: np.ndarray, size: int, *, blur: float, gain: float, grain: float, rng: np.random.Generator
) -> np.ndarray:
    """Return uint8 (size, size, channels) of a painted canvas (side, side) or (side, side, 3): a camera's picture.

    blur   standard deviation in pixels
    gain   factor of the exposure
    grain  standard deviation of the noise, of 255
    """
    image = cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA)
    image = cv2.GaussianBlur(image, (0, 0), blur).reshape(size, size, -1)
    noise = grain * rng.standard_normal((size, size, 1), np.float32)
    return np.clip(image * np.float32(gain) + noise, 0, 255).astype(np.uint8)
