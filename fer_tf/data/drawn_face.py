"""From facial action units to the outlines of a face: the geometry under `drawn`.

A face lives in its own square: x to the right, y down, -1..1 over the box that a frontal detector finds, which reaches
from the middle of the forehead to the chin. An outline is float (n, m, k, 2): for n faces, m closed contours of k
points each.
"""

from types import SimpleNamespace

import numpy as np

from fer_tf.data.drawn_tables import UNITS

EAR_Y = -0.1
MIRROR = np.array([-1, 1])
# in front of the ellipsoid of the head, or behind it
DEPTH = {"nose": 0.2, "nostrils": 0.2, "glasses": 0.1, "bridge": 0.1, "ears": -0.2, "hair_back": -0.3}
PIVOT = 0.5  # depth of the axis of rotation: the box turns with the skin, not with the skull
TRUNK = ("neck", "clothes")  # does not turn with the head


def columns(traits: np.ndarray, units: np.ndarray) -> tuple[SimpleNamespace, dict[int, np.ndarray]]:
    """Return traits by name and action units by number, each (n, 1), to be broadcast over points."""
    by_name = SimpleNamespace(**{name: traits[name][:, None] for name in traits.dtype.names})
    return by_name, {unit: units[:, i, None] for i, unit in enumerate(UNITS)}


def outlines(traits: np.ndarray, units: np.ndarray) -> dict[str, np.ndarray]:
    """Return every outline of n faces that look straight ahead. The one place where action units become geometry.

    traits  (n,) from `sample_traits`
    units   float32 (n, units), intensities 0..1 in the order of `UNITS`
    """
    p, au = columns(traits, units)
    parts = _head(p, au) | _hair(p) | _glasses(p) | _brows(p, au) | _eyes(p, au) | _nose(p, au) | _mouth(p, au)
    return {name: np.broadcast_to(part, (len(traits), *part.shape[1:])) for name, part in parts.items()}


def turned(parts: dict[str, np.ndarray], traits: np.ndarray) -> dict[str, np.ndarray]:
    """Return the outlines after yaw, pitch and roll: a shift by depth on an ellipsoid, then a rotation in the plane."""
    yaw, pitch, roll = (traits[name][:, None, None] for name in ("yaw", "pitch", "roll"))
    result = {}
    for name, outline in parts.items():
        if name not in TRUNK:
            x, y = outline[..., 0], outline[..., 1]
            depth = np.sqrt(np.maximum(1 - (x / 1.1) ** 2 - (y / 1.5) ** 2, 0)) + DEPTH.get(name, 0) - PIVOT
            x = x * np.cos(yaw) + depth * np.sin(yaw)
            y = y * np.cos(pitch) + depth * np.sin(pitch)
            outline = np.stack([x * np.cos(roll) - y * np.sin(roll), x * np.sin(roll) + y * np.cos(roll)], axis=-1)
        result[name] = outline
    return result


def _head(p, au):
    turn = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    cos, sin = np.cos(turn), np.sin(turn)
    chin = p.chin + 0.15 * au[26]
    jaw_x = np.sign(cos) * np.abs(cos) ** p.jaw * (1 - p.taper * sin**2)
    jaw_y = np.abs(sin) ** p.jaw * (chin - EAR_Y)
    face_x = p.face_width * np.where(sin > 0, jaw_x, np.sign(cos) * np.abs(cos) ** 0.85)
    face_y = EAR_Y + np.where(sin > 0, jaw_y, -(np.abs(sin) ** 0.85) * (EAR_Y - p.crown))
    across = np.linspace(0.96, -0.96, 21)
    cheeks = _curve(across * p.face_width, 0.1 + (p.mouth_y - 0.27) * (1 - np.abs(across) ** 2.5))
    down = np.linspace(0, 1, 12)
    neck = _curve(0.44 + 0.12 * down**4, 0.4 + down)
    trunk = _curve(0.35 + 1.3 * down**0.6, 1.15 + 0.6 * down**3 + 9.0 * (down == 1))  # down out of the picture
    return {
        "face": _single(_curve(face_x, face_y)),
        "beard": _single(_between(_curve(face_x, face_y)[:, :21], cheeks)),
        "ears": _pair(_curve(p.face_width + 0.02 + 0.09 * cos, 0.02 + 0.20 * sin)),
        "neck": _single(_between(neck, neck * MIRROR)),
        "clothes": _single(_between(trunk, trunk * MIRROR)),
    }


def _hair(p):
    turn = np.linspace(np.pi, 0, 25)
    volume = p.hair_volume + 0.05 * np.maximum(p.curls - 0.5, 0) * np.sin(12 * turn)
    cos, sin = np.sign(np.cos(turn)) * np.abs(np.cos(turn)) ** 0.85, np.abs(np.sin(turn)) ** 0.85
    outer = _curve(cos * (p.face_width + volume), EAR_Y - sin * (EAR_Y - p.crown + volume))
    down = np.linspace(0, 1, 6)
    side_x = p.face_width + p.hair_volume + 0.06 * down * np.maximum(p.hair_length, 0)
    side = _curve(side_x, EAR_Y + down * (p.hair_length - EAR_Y))
    across = np.linspace(-1, 1, 25)
    fringe = 0.16 * np.clip(np.abs(across - p.parting) - 0.1, 0, 0.8) + (EAR_Y - 0.1 - p.hairline) * across**6
    return {
        "hair_back": _single(np.concatenate([side[:, ::-1] * MIRROR, outer, side], axis=1)),
        "hair_front": _single(_between(outer, _curve(across * p.face_width * 0.98, p.hairline + fringe))),
    }


def _brows(p, au):
    t = np.linspace(0, 1, 9)  # from the inner to the outer end
    x = p.eye_distance + 0.24 * p.eye_size * (2 * t - 1) - 0.06 * au[4] * (1 - t)
    raised = 0.17 * (au[1] * (1 - t) ** 1.3 + au[2] * t**0.8)
    lowered = au[4] * (0.05 + 0.12 * (1 - t)) + au[9] * (0.03 + 0.07 * (1 - t))
    y = p.eye_y - p.brow_height - p.brow_arch * np.sin(np.pi * t**1.4) - raised + lowered
    line = np.linspace(-1, 1, 9)
    forehead_y = p.eye_y - p.brow_height - 0.20 - 0.08 * np.maximum(au[1], au[2]) + 0.03 * line**2
    aside = np.array([0.013, 0])
    furrow = _curve(0.075 - 0.025 * line, p.eye_y - 0.14 + 0.12 * line)
    return {
        "brows": _pair(_ribbon(_curve(x, y), p.brow_thickness * (1.15 - 0.85 * t**2))),
        "furrows": _pair(_between(furrow - aside, furrow + aside)),
        "forehead": _stack(*(_ribbon(_curve(0.4 * line, forehead_y - up), 0.011) for up in (0, 0.09))),
    }


def _eyes(p, au):
    v = np.linspace(-1, 1, 13)
    half = 0.175 * p.eye_size
    up = 0.100 * p.eye_size * (1 + 0.50 * au[5] - 0.45 * au[7] - 0.30 * au[6] - 0.45 * au[9])
    low = 0.062 * p.eye_size * (1 + 0.20 * au[5] - 0.60 * au[7] - 0.60 * au[6] - 0.40 * au[9])

    def upper(v):
        return p.eye_y - up * (1 - v**2) ** 0.7 - p.eye_tilt * v

    def lower(v):
        return p.eye_y + low * (1 - v**2) - p.eye_tilt * v

    def disc(radius, at=(0, 0)):  # the lids cover it
        turn = np.linspace(0, 2 * np.pi, 16, endpoint=False)
        x, y = radius * p.eye_size * np.cos(turn), p.eye_y - 0.015 + radius * p.eye_size * np.sin(turn)
        contour = _curve(p.eye_distance + x, np.clip(y, upper(x / half), lower(x / half)))
        return _pair(contour) + gaze + np.array(at)

    gaze = np.stack([p.gaze, 0 * p.gaze], axis=-1)[:, None]
    x = p.eye_distance + half * v
    arc = 1 - v**2
    return {
        "eyes": _pair(_between(_curve(x, upper(v)), _curve(x, lower(v)))),
        "iris": disc(0.090),
        "pupils": disc(0.042),
        "catchlights": disc(0.022, at=(-0.035, -0.030)),
        "lashes": _pair(_ribbon(_curve(x, upper(v) - 0.008), 0.024 * (1.1 - v**2))),
        "lower_lids": _pair(_ribbon(_curve(x, lower(v)), 0.007)),
        "creases": _pair(_ribbon(_curve(x, p.eye_y - (up + 0.055) * arc**0.6 - p.eye_tilt * v), 0.008)),
        "bags": _pair(_ribbon(_curve(x, p.eye_y + 0.10 + 0.05 * arc), 0.012 * (1.1 - v**2))),
    }


def _glasses(p):
    turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    power = np.where(p.round_glasses < 0.5, 0.5, 1.0)
    x, y = (np.sign(wave) * np.abs(wave) ** power for wave in (np.cos(turn), np.sin(turn)))
    rims = [_curve(p.eye_distance + a * x, p.eye_y + 0.02 + b * y) for a, b in ((0.30, 0.235), (0.28, 0.215))]
    nose = np.linspace(-1, 1, 7) * (p.eye_distance - 0.285)
    temple = _curve(p.eye_distance + 0.29 + np.linspace(0, 1, 4) * (p.face_width - p.eye_distance - 0.29), p.eye_y)
    return {
        "glasses": np.concatenate([_pair(rim) for rim in rims], axis=1),  # even-odd: the lenses stay clear
        "bridge": _single(_ribbon(_curve(nose, p.eye_y - 0.02 + 3 * nose**2), 0.015)),
        "temples": _pair(_ribbon(temple, 0.015)),
    }


def _nose(p, au):
    v = np.linspace(-1, 1, 15)
    width, tip = p.nose_width * (1 + 0.15 * au[9]), p.nose_y - 0.04 * au[9]
    turn = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    down = np.linspace(0, 1, 9)
    side = p.mouth_width * (1 + 0.2 * au[12]) + 0.11
    fold = _curve(width + 0.05 + (side - width - 0.05) * down**1.2, tip - 0.05 + (p.mouth_y - 0.02 - tip) * down)
    fold_half = np.stack([0.014 * np.sin(np.pi * (0.1 + 0.8 * down)), 0 * down], axis=-1)
    wrinkle = p.eye_y + 0.05 - 0.04 * v**2
    return {
        "nose": _single(_ribbon(_curve(width * v, tip + 0.035 * np.cos(3.0 * v) - 0.06 * v**6), 0.014 + 0.01 * v**2)),
        "nostrils": _pair(_curve(0.5 * width + 0.050 * np.cos(turn), tip + 0.012 + 0.022 * np.sin(turn))),
        "folds": _pair(_between(fold - fold_half, fold + fold_half)),
        "nose_wrinkles": _stack(*(_ribbon(_curve(0.10 * v, wrinkle + at), 0.011) for at in (0.0, 0.08, 0.16))),
    }


def _mouth(p, au):
    v = np.linspace(-1, 1, 17)
    arc = 1 - v**2
    x = v * p.mouth_width * (1 + 0.25 * au[12] + 0.28 * au[20] - 0.16 * au[23] - 0.22 * au[26] + 0.04 * au[15])
    corners = -0.20 * au[12] + 0.19 * au[15] + 0.05 * au[20]
    middle = p.mouth_y - 0.04 * au[9] + 0.02 * au[26] + corners * (v**2 - 0.3)
    gap = (0.20 * au[25] + 0.34 * au[26] + 0.07 * au[16]) * arc**0.6
    top, bottom = middle - 0.25 * gap - 0.008, middle + 0.75 * gap + 0.008
    bow = 1 - 0.22 * np.exp(-((v / 0.2) ** 2))
    upper = top - 0.80 * p.lips * (1 - 0.60 * au[23] - 0.2 * au[12]) * arc**0.8 * bow
    lower = bottom + p.lips * (1 - 0.55 * au[23] + 0.2 * au[16]) * arc**0.7
    teeth = np.minimum(top + 0.10 * arc**0.3, bottom)
    tongue = np.maximum(top, bottom - 0.12 * np.maximum(1 - (v / 0.6) ** 2, 0))
    whiskers = upper - 0.035 - 0.05 * arc
    inner = slice(4, 13)  # the middle half of a curve
    return {
        "moustache": _single(_between(_curve(x, whiskers), _curve(x, upper + 0.01))),
        "lips": _single(_between(_curve(x, upper), _curve(x, lower))),
        "glint": _single(_ribbon(_curve(x, 0.5 * (bottom + lower))[:, inner], 0.012 * arc[inner])),
        "mouth": _single(_between(_curve(x, top), _curve(x, bottom))),
        "teeth": _single(_between(_curve(0.94 * x, top), _curve(0.94 * x, teeth))),
        "tongue": _single(_between(_curve(x, tongue), _curve(x, bottom))),
        "lip_shade": _single(_ribbon(_curve(x, lower + 0.05)[:, inner], 0.016 * arc[inner])),
    }


def _curve(x, y):
    """float (n, k, 2); an axis n that is missing is 1."""
    return np.stack(np.broadcast_arrays(*np.atleast_2d(x, y)), axis=-1)


def _between(one, other):
    """The closed contour that runs along one curve and back along another."""
    one, other = np.broadcast_arrays(one, other)
    return np.concatenate([one, other[:, ::-1]], axis=1)


def _ribbon(curve, half):
    """The closed contour that reaches `half` above and below a curve."""
    offset = np.stack([np.zeros_like(curve[..., 0]), half + 0 * curve[..., 0]], axis=-1)
    return _between(curve - offset, curve + offset)


def _single(contour):
    return contour[:, None]


def _pair(contour):
    return np.stack([contour, contour * MIRROR], axis=1)


def _stack(*contours):
    return np.stack(contours, axis=1)
