import hashlib

import pytest

from fer_tf import labels
from fer_tf.card import INTENDED_USE, ModelCard, describe_file

CARD = ModelCard(name="toy", architecture="lenet", emotions=labels.FER2013, image_size=48, metrics={"test": {"n": 3}})


def test_a_card_survives_json(tmp_path):
    CARD.save(tmp_path / "card.json")
    assert ModelCard.load(tmp_path / "card.json") == CARD
    assert "AI Act" in CARD.intended_use == INTENDED_USE


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is JSON"),
        ("[]", "JSON object"),
        ('{"name": "x"}', "lacks.*architecture"),
        (CARD.to_json().replace('"colour"', '"color"'), "unknown fields.*color"),
        (CARD.to_json().replace('"RGB"', '"BGR"'), "BGR"),
        (CARD.to_json().replace("48", "0"), "image_size"),
        (CARD.to_json().replace("48", "true"), "image_size"),
        (CARD.to_json().replace('"temperature": 1.0', '"temperature": 0'), "temperature must be a number above 0"),
        ('{"name": "x", "architecture": "lenet", "emotions": [1, 2], "image_size": 48}', "emotions by name"),
        ('{"name": "x", "architecture": "lenet", "emotions": 5, "image_size": 48}', "emotions must be a list"),
        (CARD.to_json().replace('"happy"', '"sad"'), "different emotions"),
        (CARD.to_json().replace('"files": {}', '"files": ["model.onnx"]'), "files must be a table"),
        (CARD.to_json().replace('"files": {}', '"files": {"model.onnx": "abc"}'), r"model\.onnx must be a table"),
    ],
)
def test_a_wrong_card_is_refused_and_its_file_named(tmp_path, text, message):
    path = tmp_path / "card.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=rf"card\.json.*{message}"):
        ModelCard.load(path)


def test_describe_file(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert describe_file(tmp_path / "x") == {"sha256": hashlib.sha256(b"abc").hexdigest(), "bytes": 3}
