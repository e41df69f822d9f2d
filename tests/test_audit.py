"""The audit finds what was put into a small data set, and the published facts of the real FER2013."""

import json

import numpy as np
import pytest

from fer_tf.data.audit import audit
from fer_tf.data.labelled import LabelledFaces, Splits
from fer_tf.data.readers import load

EMOTIONS = ("angry", "happy", "sad")


def faces(*rows: tuple[int, str], size=8) -> LabelledFaces:
    """Return one row per (image number, emotion); number 0 is blank, equal numbers are equal images."""
    drawn = [np.random.default_rng(number).integers(0, 256, (size, size, 3), dtype=np.uint8) for number, _ in rows]
    images = np.stack([image * (number > 0) for image, (number, _) in zip(drawn, rows, strict=True)])
    targets = np.array([EMOTIONS.index(emotion) for _, emotion in rows])
    return LabelledFaces(images=images, labels=targets, emotions=EMOTIONS, ids=np.arange(len(rows)))


@pytest.fixture
def splits():
    return Splits(
        train=faces((1, "angry"), (2, "happy"), (2, "happy"), (3, "sad"), (3, "happy"), (0, "sad")),
        valid=faces((4, "angry"), (1, "angry"), (5, "sad")),
        test=faces((6, "happy"), (6, "happy"), (2, "sad"), (4, "angry"), (0, "sad")),
        name="small",
        terms="none",
    )


def test_finds_copies_conflicts_blanks_and_clean_rows(splits):
    found = audit(splits)
    assert found.rows == 14 and found.unique == 7
    assert found.copies == {
        ("train", "train"): 2,
        ("valid", "train"): 1,
        ("valid", "valid"): 0,
        ("test", "train"): 2,
        ("test", "valid"): 1,
        ("test", "test"): 1,
    }
    assert found.conflicting == 2  # image 2 is happy and sad, image 3 sad and happy
    assert found.blank == 2
    assert found.leaked == {"train": 0, "valid": 1, "test": 3}
    assert found.clean["train"].all()
    assert found.clean["valid"].tolist() == [True, False, True]
    assert found.clean["test"].tolist() == [True, True, False, False, False]  # a copy within test stays in


def test_counts_every_emotion_in_every_split(splits):
    table = audit(splits).balance()
    assert table.index.tolist() == list(EMOTIONS)
    assert table["train"].tolist() == [1, 3, 2]
    assert table["valid"].tolist() == [2, 0, 1]
    assert table["test %"].tolist() == [20, 40, 40]


def test_comes_with_every_load_and_is_made_once(splits):
    assert splits.audit is splits.audit
    assert splits.audit.fingerprint == splits.fingerprint
    assert splits.audit.findings["clean test rows"] == 2


def test_can_be_written_down(splits):
    found = audit(splits)
    written = json.loads(json.dumps(found.to_dict()))
    assert written["counts"]["train"] == {"angry": 1, "happy": 3, "sad": 2}
    assert written["findings"] == found.findings
    assert f"small, fingerprint {splits.fingerprint}" in found.summary()
    assert "         3  test rows in train or valid" in found.summary().splitlines()


def test_a_single_colour_is_blank_and_a_single_channel_is_not():
    plain = np.full((1, 8, 8, 3), (200, 10, 10), np.uint8)
    striped = plain.copy()
    striped[0, 3, :, 2] = 0
    images = np.concatenate([plain, striped])
    part = LabelledFaces(images=images, labels=np.array([0, 1]), emotions=EMOTIONS, ids=np.arange(2))
    assert audit(Splits(train=part, valid=part, test=part, name="plain", terms="none")).blank == 3


def test_the_facts_of_fer2013(fer2013_csv):
    found = load("fer2013", data_dir=fer2013_csv.parent.parent).audit
    assert found.rows == 35_887 and found.unique == 34_034
    assert found.copies["valid", "train"] == 280
    assert found.copies["test", "train"] == 288
    assert found.leaked["test"] == 314
    assert found.clean["test"].sum() == 3_275
    assert found.conflicting == 57
    assert found.blank == 12


def test_a_limited_load_keeps_what_the_whole_data_set_says_of_its_rows(fer2013_csv):
    whole, part = load("fer2013"), load("fer2013", limit=700)
    for split in ("valid", "test"):
        faces, mask = getattr(whole, split), whole.audit.clean[split]
        expected = dict(zip(faces.ids.tolist(), mask.tolist(), strict=True))
        rows = getattr(part, split).ids.tolist()
        assert part.audit.clean[split].tolist() == [expected[row] for row in rows] and len(rows) == 700
