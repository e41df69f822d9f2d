"""Emotion names: every order and spelling that the field's data sets use, typed once."""

FER2013 = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
"""The 7 emotions in the order of FER2013's label ids."""

FERPLUS = (*FER2013, "contempt")
"""The 8 emotions of FER+, in this package's order: FER2013's ids, then contempt."""

FERPLUS_PUBLISHED = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
"""FER+'s own order and spelling: the columns of its votes, and the scores of the ONNX Model Zoo's emotion-ferplus."""

AFFECTNET = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "angry", "contempt")
"""AffectNet's ids 0..7."""

RAFDB = ("surprise", "fear", "disgust", "happy", "sad", "angry", "neutral")
"""RAF-DB's ids 1..7, so index + 1."""

CIRCUMPLEX = {  # valence, arousal in -1..1
    "angry": (-0.51, 0.59),
    "disgust": (-0.60, 0.35),
    "fear": (-0.64, 0.60),
    "happy": (0.81, 0.51),
    "sad": (-0.63, -0.27),
    "surprise": (0.40, 0.67),
    "neutral": (0.0, 0.0),
}
"""Where FER2013's emotions lie in the plane of Russell's circumplex (1980): pleasure and arousal as Russell and
Mehrabian (1977) had the words rated, neutral in the middle. How people judge words, not what a face shows."""

ALIASES = {
    "anger": "angry",
    "disgusted": "disgust",
    "fearful": "fear",
    "afraid": "fear",
    "happiness": "happy",
    "joy": "happy",
    "sadness": "sad",
    "surprised": "surprise",
    "contemptuous": "contempt",
}

# Okabe and Ito's palette but for neutral and contempt. Under Machado's (2009) full deuteranopia, protanopia and
# tritanopia any two lie at least 10 apart in CIEDE2000 (12.5, 12.2 and 10.9), with sight of all colours 21.7.
COLOURS = {  # hex RGB
    "angry": "#D55E00",
    "disgust": "#009E73",
    "fear": "#CC79A7",
    "happy": "#E69F00",
    "sad": "#0072B2",
    "surprise": "#56B4E9",
    "neutral": "#646464",
    "contempt": "#A3232F",
}


def set_name(emotions: tuple[str, ...]) -> str:
    """Return which labels these are, in any order: "FER2013-7", "FER+-8", or such as "other-5"."""
    known = {frozenset(FER2013): "FER2013-7", frozenset(FERPLUS): "FER+-8"}
    return known.get(frozenset(emotions), f"other-{len(emotions)}")


def canonical(name: str) -> str:
    """Return this package's spelling of an emotion: ``canonical("Happiness") == "happy"``.

    Raises ValueError for a name that no known data set uses.
    """
    word = name.strip().lower()
    word = ALIASES.get(word, word)
    if word not in FERPLUS:
        raise ValueError(
            f"unknown emotion {name!r}; known are {', '.join(FERPLUS)} and the spellings {', '.join(ALIASES)}"
        )
    return word
