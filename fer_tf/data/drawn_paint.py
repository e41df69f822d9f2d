"""Paints the outlines of `drawn_face` with OpenCV: colours, order, shading."""

import cv2
import numpy as np

from fer_tf.data.drawn_face import columns, outlines, turned
from fer_tf.data.drawn_tables import UNITS

LAYERS = (  # from back to front: (outline, colour)
    ("hair_back", "hair_shade"),
    ("clothes", "cloth"),
    ("neck", "skin_shade"),
    ("ears", "skin_shade"),
    ("face", "skin"),
    ("forehead", "forehead"),
    ("furrows", "furrows"),
    ("nose_wrinkles", "nose_wrinkles"),
    ("folds", "folds"),
    ("bags", "bags"),
    ("beard", "beard"),
    ("nose", "skin_line"),
    ("nostrils", "nostril"),
    ("creases", "skin_line"),
    ("eyes", "eye_white"),
    ("iris", "iris"),
    ("pupils", "black"),
    ("catchlights", "white"),
    ("lower_lids", "skin_line"),
    ("lashes", "lash"),
    ("moustache", "hair_shade"),
    ("lip_shade", "skin_line"),
    ("lips", "lip"),
    ("glint", "lip_glint"),
    ("mouth", "mouth"),
    ("tongue", "tongue"),
    ("teeth", "teeth"),
    ("brows", "brow"),
    ("hair_front", "hair"),
    ("temples", "frame"),
    ("glasses", "frame"),
    ("bridge", "frame"),
)

SKIN = ("#E3C4AA", "#DBB08B", "#CF9B70", "#BC855C", "#A5704A", "#8A5838", "#74492F")
HAIR = ("#15100D", "#2B1B13", "#4A2E1C", "#744625", "#A5723D", "#CDA868", "#8F8D8A", "#D9D6D0")
IRIS = ("#22150C", "#4A2D16", "#6A5729", "#4D6B3C", "#3D6C94")
CLOTH = ("#27364F", "#7C2D36", "#2F6B5A", "#C9B458", "#8A8F99", "#D9D4C7", "#5B3F73", "#1E1E22")

UNIT = {unit: i for i, unit in enumerate(UNITS)}
GRID = 40  # cells along the side of the shading map
FRACTION = 4  # bits of a pixel's fraction in OpenCV's fixed-point coordinates
REACH = 1.9  # half the side of the shaded window, in half faces


def paint(canvases, traits: np.ndarray, units: np.ndarray, *, centre: np.ndarray, radius: np.ndarray) -> None:
    """Paint n faces, each on its canvas, in place.

    canvases  n uint8 arrays (h, w, 3), RGB; the same array may stand several times
    traits    (n,) people; units float32 (n, units)
    centre    float (n, 2): x, y of the face box in pixels; radius float (n,): half its side
    """
    blobs, widths, strengths = _blobs(traits, units)
    parts = turned(outlines(traits, units) | {"blobs": blobs}, traits)
    pixels = {name: centre[:, None, None] + radius[:, None, None, None] * part for name, part in parts.items()}
    fixed = {name: np.rint((part - 0.5) * 2**FRACTION).astype(np.int32) for name, part in pixels.items()}
    colours = {name: colour.tolist() for name, colour in palette(traits, units).items()}
    seen = {name: mask.tolist() for name, mask in shown(traits, units).items()}
    always = [True] * len(traits)
    layers = [(fixed[part], colours[colour], seen.get(part, always)) for part, colour in LAYERS]
    windows = _windows(canvases, centre, radius)
    light = _shading(windows, pixels["blobs"][:, 0], widths * radius[:, None, None], strengths)
    for i, (canvas, (left, top, right, bottom)) in enumerate(zip(canvases, windows, strict=True)):
        for contours, colour, visible in layers:
            if visible[i]:
                cv2.fillPoly(canvas, contours[i], colour[i], cv2.LINE_AA, FRACTION)
        window = canvas[top:bottom, left:right]
        shade = cv2.merge([cv2.resize(light[i], (right - left, bottom - top))] * 3)
        window[:] = cv2.multiply(window, shade, scale=1 / 128)


def palette(traits: np.ndarray, units: np.ndarray) -> dict[str, np.ndarray]:
    """Return the colours of n faces: name -> float (n, 3), RGB 0..255. Lines in the skin show as their muscle pulls."""
    p, au = columns(traits, units)
    dark = 1 - 0.7 * p.skin_tone  # dark skin goes with dark hair and eyes
    skin, hair, iris = _tone(SKIN, p.skin_tone), _tone(HAIR, p.hair_tone * dark), _tone(IRIS, p.iris_tone * dark)
    lip = _mix(skin, (178, 52, 60), 0.35 + 0.4 * p.lip_tone)
    line = 0.62 * skin * (1.0, 0.92, 0.90)

    def crease(strength):
        return _mix(skin, line, np.clip(strength, 0, 1))

    return {
        "skin": skin,
        "skin_shade": 0.80 * skin,
        "skin_line": line,
        "nostril": 0.40 * skin,
        "hair": hair,
        "hair_shade": 0.75 * hair,
        "beard": _mix(skin, hair, np.where(p.beard > 0.93, 0.85, 0.28)),
        "brow": np.minimum(_mix(hair, (20, 14, 10), 0.4), 0.6 * skin),
        "lash": _mix(skin, (15, 10, 10), 0.85),
        "eye_white": _mix(skin, (228, 228, 228), 0.65),
        "iris": iris,
        "black": np.full_like(skin, 8),
        "lip": lip,
        "lip_glint": _mix(lip, (255, 255, 255), 0.22),
        "mouth": 0.35 * lip,
        "tongue": _mix(lip, (190, 80, 85), 0.5),
        "teeth": _mix(skin, (232, 230, 225), 0.8),
        "white": np.full_like(skin, 245),
        "cloth": _tone(CLOTH, p.cloth_tone),
        "frame": 0.45 * skin,
        "furrows": crease(0.9 * au[4]),
        "forehead": crease(0.6 * np.maximum(au[1], au[2])),
        "nose_wrinkles": crease(0.9 * au[9]),
        "folds": crease(0.08 + 0.5 * np.maximum(au[12], au[9]) + 0.25 * au[15]),
        "bags": crease(0.1 + 0.6 * au[6]),
    }


def shown(traits: np.ndarray, units: np.ndarray) -> dict[str, np.ndarray]:
    """Return which outlines are drawn, where not all are: name -> bool (n,)."""
    haired, glasses = traits["bald"] < 0.92, traits["glasses"] > 0.82
    bearded = traits["beard"] > 0.84
    return {
        "hair_back": haired,
        "hair_front": haired,
        "beard": bearded,
        "moustache": (traits["beard"] > 0.93) | (traits["moustache"] > 0.92),
        "glasses": glasses,
        "bridge": glasses,
        "temples": glasses,
        "furrows": units[:, UNIT[4]] > 0.15,
        "forehead": np.maximum(units[:, UNIT[1]], units[:, UNIT[2]]) > 0.15,
        "nose_wrinkles": units[:, UNIT[9]] > 0.15,
        "teeth": units[:, UNIT[25]] + units[:, UNIT[26]] > 0.15,
        "tongue": units[:, UNIT[26]] > 0.3,
    }


def _blobs(traits, units):
    """Soft spots of light and shadow: places (n, 1, b, 2), widths (b, 2) in half faces, strengths (n, b)."""
    p, au = columns(traits, units)
    side = np.sign(p.light)
    table = (  # x, y, width, height, strength (1 doubles the brightness, -1 is black)
        (p.eye_distance, p.eye_y - 0.05, 0.20, 0.13, -0.34),
        (-p.eye_distance, p.eye_y - 0.05, 0.20, 0.13, -0.34),
        (0.17, p.eye_y - 0.02, 0.07, 0.13, -0.26),
        (-0.17, p.eye_y - 0.02, 0.07, 0.13, -0.26),
        (0.0, p.eye_y + 0.08, 0.06, 0.25, 0.30),
        (0.0, p.nose_y - 0.07, 0.08, 0.07, 0.18),
        (p.nose_width + 0.03, p.nose_y - 0.03, 0.06, 0.09, -0.10),
        (-p.nose_width - 0.03, p.nose_y - 0.03, 0.06, 0.09, -0.10),
        (0.48, 0.10 - 0.03 * au[12], 0.19, 0.14, 0.28 + 0.06 * au[12]),
        (-0.48, 0.10 - 0.03 * au[12], 0.19, 0.14, 0.28 + 0.06 * au[12]),
        (0.0, -0.72, 0.45, 0.16, 0.08),
        (0.0, p.chin - 0.13 + 0.12 * au[26], 0.16, 0.09, 0.07),
        (p.face_width, 0.45, 0.14, 0.45, -0.16),
        (-p.face_width, 0.45, 0.14, 0.45, -0.16),
        (0.0, p.chin + 0.18 + 0.15 * au[26], 0.55, 0.14, -0.30),
        (0.50 * side, -0.1, 0.32, 0.60, 0.16 * np.abs(p.light)),
        (-0.65 * side, 0.0, 0.30, 0.60, -0.28 * np.abs(p.light)),
    )
    x, y, strength = (
        np.concatenate([np.broadcast_to(row[i], p.light.shape) for row in table], axis=1) for i in (0, 1, 4)
    )
    return np.stack([x, y], axis=-1)[:, None], np.array([row[2:4] for row in table]), strength


def _windows(canvases, centre, radius):
    """Integer left, top, right, bottom of the part of each canvas that the face's light and shadow reach."""
    reach = REACH * radius[:, None]
    corners = np.concatenate([np.floor(centre - reach), np.ceil(centre + reach)], axis=1)
    limits = np.array([canvas.shape[1::-1] * 2 for canvas in canvases])
    return np.clip(corners, 0, limits).astype(int).tolist()


def _shading(windows, places, widths, strengths):
    """Return uint8 (n, GRID, GRID): brightness over each window, 128 leaves a pixel as it is."""
    edges = np.array(windows)[:, None]
    cells = (np.arange(GRID)[:, None] + 0.5) / GRID  # (g, 1)
    x = edges[..., 0:1] + cells * (edges[..., 2:3] - edges[..., 0:1])  # (n, g, 1)
    y = edges[..., 1:2] + cells * (edges[..., 3:4] - edges[..., 1:2])
    along = np.exp(-0.5 * ((x - places[:, None, :, 0]) / widths[:, None, :, 0]) ** 2)  # (n, g, b)
    down = np.exp(-0.5 * ((y - places[:, None, :, 1]) / widths[:, None, :, 1]) ** 2)
    light = (down * strengths[:, None]) @ along.transpose(0, 2, 1)  # (n, g, g)
    return np.clip(128 + 128 * light, 0, 255).astype(np.uint8)


def _tone(palette, place):
    """Return the colours (n, 3) at these places (n, 1), 0..1, along a palette of hex colours."""
    stops = np.array([[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in palette], float)
    place = place[:, 0] * (len(stops) - 1)
    return np.stack([np.interp(place, np.arange(len(stops)), channel) for channel in stops.T], axis=-1)


def _mix(one, other, share):
    return one + share * (np.asarray(other) - one)
