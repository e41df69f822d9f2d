import pytest

from fer_tf import labels


@pytest.mark.parametrize(
    ("given", "expected"),
    [("Happiness", "happy"), (" anger ", "angry"), ("neutral", "neutral"), ("SADNESS", "sad")],
)
def test_canonical_spelling(given, expected):
    assert labels.canonical(given) == expected


def test_unknown_emotion_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"'bored'.*angry"):
        labels.canonical("bored")


def test_published_orders():
    assert labels.FER2013.index("neutral") == 6 and labels.FER2013[:3] == ("angry", "disgust", "fear")
    assert sorted(labels.AFFECTNET) == sorted(labels.FERPLUS)
    assert sorted(map(labels.canonical, labels.FERPLUS_PUBLISHED)) == sorted(labels.FERPLUS)
    assert sorted(labels.RAFDB) == sorted(labels.FER2013)
    assert set(labels.COLOURS) == set(labels.FERPLUS)
    assert set(labels.CIRCUMPLEX) == set(labels.FER2013)
    assert len(set(labels.COLOURS.values())) == len(labels.FERPLUS)
