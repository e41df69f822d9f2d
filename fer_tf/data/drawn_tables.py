"""The two tables under `drawn`: which action units make an expression, and what differs between people and pictures."""

import numpy as np

from fer_tf.labels import FER2013

UNITS = {  # Ekman & Friesen, Facial Action Coding System (1978)
    1: "inner brow raiser",
    2: "outer brow raiser",
    4: "brow lowerer",
    5: "upper lid raiser",
    6: "cheek raiser",
    7: "lid tightener",
    9: "nose wrinkler",
    12: "lip corner puller",
    15: "lip corner depressor",
    16: "lower lip depressor",
    20: "lip stretcher",
    23: "lip tightener",
    25: "lips part",
    26: "jaw drop",
}

EXPRESSIONS = {  # after EMFACS (Friesen & Ekman 1983): emotion -> intensity 0..1 of each unit at its apex
    "angry": {4: 1.0, 5: 0.5, 7: 0.9, 23: 1.0},
    "disgust": {9: 1.0, 15: 0.6, 16: 0.6},
    "fear": {1: 1.0, 2: 0.6, 4: 0.6, 5: 1.0, 20: 1.0, 25: 0.7},
    "happy": {6: 0.9, 12: 1.0, 25: 0.6},
    "sad": {1: 1.0, 4: 0.5, 15: 1.0},
    "surprise": {1: 0.9, 2: 0.9, 5: 0.8, 25: 0.3, 26: 1.0},
    "neutral": {},
}

APEX = np.array([[EXPRESSIONS[emotion].get(unit, 0.0) for unit in UNITS] for emotion in FER2013], np.float32)
"""float32 (emotions, units) in the order of FER2013 and `UNITS`; `distributions @ APEX` mixes expressions."""

TRAITS = {  # what differs between people and pictures: name -> (lowest, highest), uniform
    "face_width": (0.76, 0.90),
    "jaw": (0.68, 0.92),  # exponent of the jaw line: low is square
    "taper": (0.00, 0.16),
    "chin": (0.95, 1.06),
    "crown": (-1.36, -1.20),
    "eye_distance": (0.36, 0.42),
    "eye_y": (-0.29, -0.23),
    "eye_size": (0.90, 1.15),
    "eye_tilt": (-0.01, 0.03),
    "gaze": (-0.03, 0.03),
    "brow_height": (0.22, 0.27),
    "brow_arch": (0.01, 0.05),
    "brow_thickness": (0.022, 0.042),
    "nose_y": (0.15, 0.23),
    "nose_width": (0.14, 0.20),
    "mouth_y": (0.52, 0.58),
    "mouth_width": (0.29, 0.35),
    "lips": (0.045, 0.080),
    "hairline": (-0.98, -0.80),
    "parting": (-0.8, 0.8),
    "hair_volume": (0.04, 0.16),
    "hair_length": (-0.3, 1.6),
    "curls": (0.0, 1.0),
    "bald": (0.0, 1.0),  # these four are worn where high enough: see `drawn_paint.shown`
    "beard": (0.0, 1.0),
    "moustache": (0.0, 1.0),
    "glasses": (0.0, 1.0),
    "round_glasses": (0.0, 1.0),
    "skin_tone": (0.0, 1.0),  # the tones are places in the palettes of `drawn_paint`
    "hair_tone": (0.0, 1.0),
    "iris_tone": (0.0, 1.0),
    "lip_tone": (0.0, 1.0),
    "cloth_tone": (0.0, 1.0),
    "light": (-1.0, 1.0),  # from the left .. from the right
    "yaw": (-0.22, 0.22),  # radians, as are the next two
    "pitch": (-0.08, 0.08),
    "roll": (-0.10, 0.10),
}


def sample_traits(n: int, rng: np.random.Generator) -> np.ndarray:
    """Return n people as a structured array (n,) with one float32 field per name of `TRAITS`."""
    traits = np.empty(n, [(name, "f4") for name in TRAITS])
    for name, (low, high) in TRAITS.items():
        traits[name] = rng.uniform(low, high, n)
    return traits
