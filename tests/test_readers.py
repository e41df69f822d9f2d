"""Readers: FER2013's CSV files, FER+'s votes, folders of images, splits on disk; and what they refuse."""

import csv
import logging
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from fer_tf import labels
from fer_tf.data import affectnet, fer2013, readers
from fer_tf.data.fer2013 import VOTES_COLUMNS, ferplus, read_faces, read_votes, votes_beside
from fer_tf.data.folders import read_folder, tf_dataset
from fer_tf.data.readers import load
from fer_tf.data.split import cut, sample, split_folder

USAGES = ("Training", "PublicTest", "PrivateTest")  # train, valid, test
N = 21  # rows of the small CSV: every emotion once in every split
USAGE = np.repeat([0, 1, 2], 7)
EMOTION = np.tile(np.arange(7), 3)
PIXELS = np.random.default_rng(0).integers(0, 256, (N, 48, 48), dtype=np.uint8)
VOTES = np.zeros((N, 10), np.uint8)
VOTES[np.arange(N), EMOTION] = 10  # FER2013 emotion k has FER+ column k: neutral for angry, and so on


def csv_text(header="emotion,pixels,Usage", row="{emotion},{pixels},{usage}"):
    lines = [
        row.format(emotion=EMOTION[i], pixels=" ".join(map(str, PIXELS[i].ravel())), usage=USAGES[USAGE[i]])
        for i in range(N)
    ]
    return "\n".join([header, *lines]) + "\n"


def write_votes(path, votes=VOTES, usage=USAGE, columns=VOTES_COLUMNS):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["Usage", "Image name", *columns])
        writer.writerows([USAGES[u], "", *row] for u, row in zip(usage, votes, strict=True))


@pytest.fixture
def data_dir(tmp_path):
    """A data folder with a small FER2013 and its FER+ votes."""
    (tmp_path / "fer2013").mkdir()
    (tmp_path / "fer2013" / "fer2013.csv").write_text(csv_text())
    write_votes(tmp_path / "fer2013" / "fer2013new.csv")
    return tmp_path


def picture(seed, size=(48, 48)):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8))


def write_folder(folder, emotions=("angry", "happy", "neutral"), each=8, seed=0):
    for k, emotion in enumerate(emotions):
        (folder / emotion).mkdir(parents=True)
        for i in range(each):
            picture(seed + 1000 * k + i).save(folder / emotion / f"{i:03d}.png")
    return folder


# --- CSV ---


@pytest.mark.parametrize(
    "text",
    [
        csv_text(),
        csv_text("emotion, Usage, pixels", "{emotion},{usage},{pixels}"),  # icml_face_data.csv
        csv_text('"emotion","pixels","Usage"', '"{emotion}","{pixels}","{usage}"'),
        csv_text().replace("\n", "\r\n"),
        "\ufeff" + csv_text().rstrip("\n"),
        csv_text("row,emotion,pixels,Usage", "9,{emotion},{pixels},{usage}"),
    ],
    ids=["fer2013", "icml", "quoted", "crlf", "bom", "more columns"],
)
def test_reads_every_spelling_of_the_csv(text, tmp_path):
    (tmp_path / "a.csv").write_text(text, encoding="utf-8", newline="")
    rows = read_faces(tmp_path / "a.csv")
    np.testing.assert_array_equal(rows["pixels"], PIXELS)
    np.testing.assert_array_equal(rows["emotion"], EMOTION)
    np.testing.assert_array_equal(rows["usage"], USAGE)


def spoil(row, old, new):
    """Return the CSV with `old` replaced in one row (1 is the first below the header)."""
    lines = csv_text().splitlines()
    assert old in lines[row]
    lines[row] = lines[row].replace(old, new, 1)
    return "\n".join(lines) + "\n"


FIRST = f",{PIXELS[2, 0, 0]} "  # the first pixel of row 3
BAD_CSV = {
    "too few columns": (spoil(3, ",Training", ""), r"row 3: expected 3 columns, got 2"),
    "too many columns": (spoil(3, ",Training", ",Training,x"), r"row 3: expected 3 columns, got 4"),
    "pixel above 255": (spoil(3, FIRST, ",256 "), r"row 3: expected pixels in 0\.\.255, got 0\.\.256"),
    "pixel far above 255": (spoil(3, FIRST, ",65536 "), r"row 3: expected pixels in 0\.\.255"),
    "negative pixel": (spoil(3, FIRST, ",-1 "), r"row 3: expected pixels in 0\.\.255, got -1"),
    "pixel is no number": (spoil(3, FIRST, ",x "), r"row 3: expected pixels as whole numbers"),
    "pixel is no whole number": (spoil(3, FIRST, ",1.5 "), r"row 3: expected pixels as whole numbers"),
    "pixel missing": (spoil(3, FIRST, ","), r"row 3: expected 2304 pixels, got 2303"),
    "pixel too many": (spoil(3, FIRST, ",0 0 "), r"row 3: expected 2304 pixels, got 2305"),
    "no pixels": ("emotion,pixels,Usage\n0,,Training\n", r"row 1: expected 2304 pixels, got 0"),
    "emotion 7": (spoil(7, "6,", "7,"), r"row 7: expected an emotion in 0\.\.6, got b'7'"),
    "emotion missing": (spoil(7, "6,", ","), r"row 7: expected an emotion in 0\.\.6, got b''"),
    "unknown Usage": (spoil(8, "PublicTest", "Public"), r"row 8: expected a Usage of Training.*got 'Public'"),
    "cut short": (csv_text()[:-500], r"row 21: expected 3 columns, got 2"),
    "no Usage column": (
        "emotion,pixels\n0,1 2\n",
        r"expected the columns emotion, pixels and Usage once each, got 'emotion,pixels'",
    ),
    "no rows": ("emotion,pixels,Usage\n", r"no CSV like FER2013's|no rows"),
    "empty": ("", r"expected the columns"),
    "a picture": ("\x89PNG\r\n\x1a\n\x00\x00", r"expected the columns"),
}


@pytest.mark.parametrize("kind", BAD_CSV)
def test_refuses_a_bad_csv_and_names_file_and_row(kind, tmp_path):
    text, words = BAD_CSV[kind]
    (tmp_path / "a.csv").write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=rf"a\.csv.*{words}"):
        load(tmp_path / "a.csv", data_dir=tmp_path)
    assert not (tmp_path / "cache").exists()


def test_the_second_load_comes_from_the_cache(data_dir, monkeypatch):
    first = load("fer2013", data_dir=data_dir)
    monkeypatch.setattr(fer2013, "_parse", lambda path: pytest.fail("the CSV was read again"))
    second = load("fer2013", data_dir=data_dir)
    assert second.fingerprint == first.fingerprint
    assert [path.suffix for path in (data_dir / "cache").iterdir()] == [".npz"]


def test_a_changed_csv_is_read_again(data_dir):
    load("fer2013", data_dir=data_dir)
    path = data_dir / "fer2013" / "fer2013.csv"
    path.write_text(spoil(3, FIRST, ",0 "))
    os.utime(path, ns=(1, 1))
    assert load("fer2013", data_dir=data_dir).train.images[2, 0, 0, 0] == 0


@pytest.mark.parametrize(
    "damage",
    [lambda b: b"", lambda b: b[: len(b) // 2], lambda b: b"garbage" * 99, lambda b: b[:9999] + b"x" + b[10000:]],
    ids=["empty", "cut short", "garbage", "one byte"],
)
def test_a_damaged_cache_is_made_anew(damage, data_dir, caplog):
    first = load("fer2013", data_dir=data_dir)
    (cache,) = (data_dir / "cache").iterdir()
    whole = cache.read_bytes()
    cache.write_bytes(damage(whole))
    assert load("fer2013", data_dir=data_dir).fingerprint == first.fingerprint
    assert "damaged" in caplog.text
    assert len(cache.read_bytes()) == len(whole)


def test_loads_without_a_place_for_the_cache(data_dir, caplog):
    (data_dir / "cache").write_text("a file where the folder should be")
    assert len(load("fer2013", data_dir=data_dir).train) == 7
    assert "cannot be written" in caplog.text


def test_public_test_is_valid_and_private_test_is_test(data_dir):
    splits = load("fer2013", data_dir=data_dir)
    assert splits.name == "fer2013 (not as published)" and splits.emotions == labels.FER2013
    assert "research use" not in splits.terms
    for number, (_, faces) in enumerate(splits.items()):
        np.testing.assert_array_equal(faces.ids, np.arange(7 * number, 7 * number + 7))
        np.testing.assert_array_equal(faces.images[..., 0], PIXELS[faces.ids])
        np.testing.assert_array_equal(faces.labels, EMOTION[faces.ids])
        assert faces.distributions is None


def test_finds_the_csv_by_path_folder_and_other_name(data_dir):
    expected = load("fer2013", data_dir=data_dir).fingerprint
    folder = data_dir / "fer2013"
    assert load(folder, data_dir=data_dir).fingerprint == expected
    assert load(str(folder / "fer2013.csv"), data_dir=data_dir).fingerprint == expected
    (folder / "fer2013.csv").rename(folder / "icml_face_data.csv")
    assert load("fer2013", data_dir=data_dir).fingerprint == expected


def test_says_how_to_get_what_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"icml_face_data\.csv.*fer-tf download fer2013"):
        load("fer2013", data_dir=tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no data set 'fer2031'.*expected drawn, fer2013"):
        load("fer2031", data_dir=tmp_path)
    (tmp_path / "a.csv").write_text(csv_text())
    with pytest.raises(FileNotFoundError, match="fer-tf download ferplus"):
        load(tmp_path / "a.csv", labels="ferplus-argmax", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("dataset", "options", "words"),
    [
        ("fer2013", {"labels": "ferplus"}, "unknown labels 'ferplus'.*ferplus-majority"),
        ("ferplus", {"labels": "fer2013"}, "unknown labels 'fer2013' for 'ferplus'"),
        ("drawn", {"labels": "fer2013"}, "'drawn' has its own"),
        ("fer2013", {"n_train": 5}, "n_train only fit the data set 'drawn'"),
        ("fer2013", {"limit": 0}, "limit must be at least 1"),
    ],
)
def test_refuses_options_that_do_not_fit(dataset, options, words, data_dir):
    with pytest.raises(ValueError, match=words):
        load(dataset, data_dir=data_dir, **options)


def test_draws():
    splits = load("drawn", image_size=48, n_train=14, n_valid=7, n_test=7, seed=3)
    assert [len(faces) for _, faces in splits.items()] == [14, 7, 7]
    assert splits.name == "drawn" and splits.train.size == 48
    assert splits.fingerprint == load("drawn", n_train=14, n_valid=7, n_test=7, seed=3).fingerprint


# --- FER+ ---

VOTE_CASES = {  # votes in the file's order -> (label by majority, label by argmax), None where the row goes
    "clear": ((0, 8, 1, 1, 0, 0, 0, 0, 0, 0), "happy", "happy"),
    "single votes do not count": ((0, 4, 1, 1, 1, 1, 1, 1, 0, 0), "happy", "happy"),
    "half is not a majority": ((5, 5, 0, 0, 0, 0, 0, 0, 0, 0), None, "neutral"),
    "unknown counts in the sum": ((0, 0, 0, 0, 5, 0, 0, 0, 5, 0), None, "angry"),
    "single unknown is dropped": ((0, 0, 0, 5, 0, 4, 0, 0, 1, 0), "sad", "sad"),
    "unknown wins": ((1, 0, 0, 0, 0, 0, 0, 2, 7, 0), None, None),
    "no face": ((0, 0, 0, 0, 0, 0, 0, 0, 0, 10), None, None),
    "contempt": ((2, 0, 0, 0, 0, 0, 0, 8, 0, 0), "contempt", "contempt"),
    "only single votes": ((1, 1, 1, 1, 1, 1, 1, 1, 1, 1), None, "neutral"),
}


@pytest.mark.parametrize("case", VOTE_CASES)
def test_ferplus_rules(case):
    votes, majority, argmax = VOTE_CASES[case]
    votes = np.array([votes], np.uint8)
    for rule, expected in (("majority", majority), ("argmax", argmax), ("distribution", argmax)):
        rows, targets, distributions = ferplus(votes, rule)
        assert [labels.FERPLUS[target] for target in targets] == [expected] * (expected is not None)
        assert len(rows) == len(distributions) == len(targets)


def test_a_distribution_is_the_votes_for_emotions_in_our_order():
    votes = np.array([(1, 2, 0, 0, 3, 0, 0, 2, 2, 0)], np.uint8)  # neutral, happy, angry, contempt; two unknown
    (distribution,) = ferplus(votes, "distribution")[2]
    expected = {"neutral": 1 / 8, "happy": 2 / 8, "angry": 3 / 8, "contempt": 2 / 8}
    np.testing.assert_allclose(distribution, [expected.get(emotion, 0) for emotion in labels.FERPLUS])


def test_votes_stand_beside_fer2013s_own_labels(data_dir):
    plain, voted = load("fer2013", data_dir=data_dir), load("fer2013", labels="fer2013-votes", data_dir=data_dir)
    np.testing.assert_array_equal(plain.train.labels, voted.train.labels)
    assert voted.emotions == labels.FER2013 and plain.train.distributions is None
    assert (voted.name, voted.fingerprint) == (plain.name, plain.fingerprint)  # so their runs can be compared
    np.testing.assert_allclose(voted.train.distributions.sum(axis=1), 1, atol=1e-6)
    votes = np.zeros((3, 10), np.uint8)
    votes[0, [VOTES_COLUMNS.index("happiness"), VOTES_COLUMNS.index("contempt")]] = 6, 4
    votes[1, [VOTES_COLUMNS.index("fear"), VOTES_COLUMNS.index("anger")]] = 3, 1
    votes[2, VOTES_COLUMNS.index("NF")] = 10
    shares = votes_beside(np.array([0, 1, 4]), votes)
    expected = [{"happy": 1}, {"fear": 0.75, "angry": 0.25}, {"sad": 1}]
    for row, named in zip(shares, expected, strict=True):
        assert {labels.FER2013[k]: row[k] for k in np.flatnonzero(row)} == named


def test_loads_ferplus_by_row_position(data_dir):
    splits = load("ferplus", data_dir=data_dir)
    assert splits.name == "ferplus-majority (not as published)" and splits.emotions == labels.FERPLUS
    expected = [labels.FERPLUS.index(labels.canonical(column)) for column in VOTES_COLUMNS[:7]]
    for _, faces in splits.items():
        np.testing.assert_array_equal(faces.labels, expected)
        np.testing.assert_array_equal(faces.images[..., 0], PIXELS[faces.ids])
        assert faces.distributions is None
    soft = load("fer2013", labels="ferplus-distribution", data_dir=data_dir)
    np.testing.assert_array_equal(soft.test.distributions, np.eye(8)[expected])


def test_rows_that_ferplus_drops_keep_the_others_in_place(data_dir):
    votes = VOTES.copy()
    votes[[0, 9]] = [0] * 9 + [10]  # no face
    write_votes(data_dir / "fer2013" / "fer2013new.csv", votes)
    splits = load("ferplus", data_dir=data_dir)
    assert [faces.ids.tolist() for _, faces in splits.items()] == [
        [1, 2, 3, 4, 5, 6],
        [7, 8, 10, 11, 12, 13],
        [14, 15, 16, 17, 18, 19, 20],
    ]
    for _, faces in splits.items():
        np.testing.assert_array_equal(faces.images[..., 0], PIXELS[faces.ids])


def test_doubtful_rows_teach_but_do_not_judge(data_dir):
    votes = VOTES.copy()
    votes[[3, 8, 15]] = [5, 5, 0, 0, 0, 0, 0, 0, 0, 0]  # one row of each split; half is no majority
    write_votes(data_dir / "fer2013" / "fer2013new.csv", votes)
    splits = load("ferplus", labels="ferplus-distribution", data_dir=data_dir)
    assert [len(faces) for _, faces in splits.items()] == [7, 6, 6]
    assert 3 in splits.train.ids and 8 not in splits.valid.ids and 15 not in splits.test.ids
    np.testing.assert_array_equal(np.sort(splits.train.distributions[splits.train.ids == 3])[0, -3:], [0, 0.5, 0.5])
    judged = load("ferplus", data_dir=data_dir)
    np.testing.assert_array_equal(splits.test.labels, judged.test.labels)


BAD_VOTES = {
    "a row is missing": ({"votes": VOTES[1:], "usage": USAGE[1:]}, "20 rows, the faces have 21"),
    "another split": ({"usage": np.roll(USAGE, 1)}, "row 1: Usage is PrivateTest, but Training"),
    "other columns": ({"columns": VOTES_COLUMNS[::-1]}, "expected the columns"),
    "a negative count": ({"votes": -VOTES.astype(int)}, "row 1: expected Usage, a name and ten counts"),
    "a count is missing": ({"votes": VOTES[:, :9]}, "row 1: expected Usage, a name and ten counts"),
}


@pytest.mark.parametrize("kind", BAD_VOTES)
def test_refuses_votes_that_do_not_fit(kind, tmp_path):
    change, words = BAD_VOTES[kind]
    write_votes(tmp_path / "votes.csv", **change)
    with pytest.raises(ValueError, match=rf"votes\.csv.*{words}"):
        read_votes(tmp_path / "votes.csv", USAGE)


# --- the real thing ---


@pytest.fixture(scope="module")
def real_dir(fer2013_csv):
    if not fer2013_csv.with_name("fer2013new.csv").is_file():
        pytest.skip("real FER+ votes are not here (no data/fer2013/fer2013new.csv)")
    return fer2013_csv.parent.parent


REAL_COUNTS = {
    "fer2013": (28709, 3589, 3589),
    "ferplus-majority": (25060, 3199, 3153),
    "ferplus-argmax": (28389, 3553, 3546),
    "ferplus-distribution": (28389, 3199, 3153),
}


@pytest.mark.parametrize("rule", REAL_COUNTS)
def test_real_row_counts(rule, real_dir):
    splits = load("fer2013", labels=rule, data_dir=real_dir)
    assert tuple(len(faces) for _, faces in splits.items()) == REAL_COUNTS[rule]
    assert splits.name == rule and "research use" in splits.terms


def test_real_csv_and_cache_agree(real_dir):
    fresh = read_faces(real_dir / "fer2013" / "fer2013.csv")
    splits = load("fer2013", data_dir=real_dir)
    np.testing.assert_array_equal(fresh["pixels"][fresh["usage"] == 2], splits.test.images[..., 0])
    np.testing.assert_array_equal(np.bincount(splits.train.labels), [3995, 436, 4097, 7215, 4830, 3171, 4965])
    np.testing.assert_array_equal(np.bincount(splits.valid.labels), [467, 56, 496, 895, 653, 415, 607])
    np.testing.assert_array_equal(np.bincount(splits.test.labels), [491, 55, 528, 879, 594, 416, 626])


# --- folders ---


def test_labels_follow_our_order_not_the_alphabet(tmp_path):
    write_folder(tmp_path, ["Sadness", "anger", "Happy", "contempt", "surprised"], each=2)
    faces = read_folder(tmp_path, image_size=32)
    assert faces.emotions == ("angry", "happy", "sad", "surprise", "contempt")
    assert faces.images.shape == (10, 32, 32, 3)
    assert [id_.split("/")[0] for id_ in faces.ids] == [
        name for name in ("anger", "Happy", "Sadness", "surprised", "contempt") for _ in range(2)
    ]
    np.testing.assert_array_equal(faces.labels, np.repeat(np.arange(5), 2))


def test_agrees_with_image_dataset_from_directory(tmp_path):
    write_folder(tmp_path, ["neutral", "happiness", "angry"], each=5)
    faces = read_folder(tmp_path, image_size=48)
    batches = list(tf_dataset(tmp_path, image_size=48, batch_size=4))
    np.testing.assert_array_equal(np.concatenate([targets for _, targets in batches]), faces.labels)
    np.testing.assert_array_equal(np.concatenate([images for images, _ in batches]), faces.images)
    assert batches[0][0].shape == (4, 48, 48, 3)
    picture(1).save(tmp_path / "angry" / "more.webp")
    with pytest.raises(ValueError, match=r"not .*more\.webp"):
        tf_dataset(tmp_path)


@pytest.mark.parametrize(
    ("given", "cut_splits"),
    [
        (("train", "test", "validation"), ()),
        (("Train", "Test", "val"), ()),
        (("train", "test"), ("valid",)),
        (("train", "valid"), ("test",)),
        (("train",), ("valid", "test")),
        ((), ("valid", "test")),
    ],
)
def test_reads_every_layout(given, cut_splits, tmp_path):
    for seed, name in enumerate(given):
        write_folder(tmp_path / name, each=20, seed=100 * seed)
    if not given:
        write_folder(tmp_path, each=20)
    splits = load(tmp_path)
    total = 60 * max(len(given), 1)
    assert (
        sum(len(faces) for _, faces in splits.items())
        == total
        == len({id_ for _, faces in splits.items() for id_ in faces.ids})
    )
    for split, faces in splits.items():
        assert faces.emotions == ("angry", "happy", "neutral")
        if split in cut_splits:
            np.testing.assert_array_equal(np.bincount(faces.labels), [3, 3, 3])  # 15 % of every emotion


def test_an_emotion_may_be_missing_from_a_split(tmp_path):
    write_folder(tmp_path / "train", ["angry", "happy", "sad"])
    write_folder(tmp_path / "test", ["sad"], seed=100)
    splits = load(tmp_path)
    assert splits.test.emotions == splits.train.emotions
    assert set(splits.test.labels) == {2}


def break_folder(folder, kind):
    if kind == "no emotion":
        (folder / "cats").mkdir()
    elif kind == "two spellings":
        write_folder(folder, ["anger"], each=1)
    elif kind == "empty emotion":
        (folder / "sad").mkdir()
        (folder / "sad" / ".DS_Store").touch()
    elif kind == "no image":
        (folder / "angry" / "notes.txt").write_text("not an image")
    elif kind == "cut short":
        path = folder / "angry" / "000.png"
        path.write_bytes(path.read_bytes()[:100])
    elif kind == "broken link":
        (folder / "angry" / "000.png").unlink()
        (folder / "angry" / "000.png").symlink_to(folder / "gone.png")
    elif kind == "nothing":
        for path in folder.iterdir():
            path.rename(folder.with_name(path.name))
    elif kind == "no train":
        for path in folder.iterdir():
            path.rename(path.with_name("test") if path.name == "angry" else path)
    elif kind == "two valid":
        for name in ("train", "val", "valid"):
            (folder / name).mkdir()


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("no emotion", r"cats should be named after an emotion.*angry, disgust"),
        ("two spellings", r"anger and .*angry both mean angry"),
        ("empty emotion", r"sad holds no images"),
        ("no image", r"notes\.txt is no picture"),
        ("cut short", r"000\.png"),
        ("broken link", r"no image at .*000\.png"),
        ("nothing", r"faces holds no folder of images per emotion: expected angry"),
        ("no train", r"has test but no train folder"),
        ("two valid", r"valid and .*val both look like the valid split"),
    ],
)
def test_refuses_a_bad_folder_and_names_what_is_wrong(kind, words, tmp_path):
    folder = write_folder(tmp_path / "faces", each=2)
    break_folder(folder, kind)
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        load(folder)


def test_reads_odd_pictures_and_passes_over_litter(tmp_path):
    folder = write_folder(tmp_path, ["happy"], each=1) / "happy"
    tall = np.zeros((40, 20, 3), np.uint8)
    tall[:20] = 255  # white above black, and turned by EXIF to white on the right
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(tall).save(folder / "1_turned.jpg", exif=exif)
    picture(1).convert("L").save(folder / "2_grey.png")
    picture(1).convert("P").save(folder / "3_palette.png")
    picture(1).convert("RGBA").save(folder / "4_rgba.png")
    picture(1).convert("CMYK").save(folder / "5_cmyk.jpg")
    picture(1, (1, 1)).save(folder / "6_dot.png")
    picture(1, (20_000, 3)).save(folder / "7_wide.png")
    for name in ("Thumbs.db", ".hidden.png", "desktop.ini"):
        (folder / name).touch()
    faces = read_folder(tmp_path, image_size=48)
    assert faces.images.shape == (8, 48, 48, 3)
    assert faces.images[1, :, :20].mean() < 30 and faces.images[1, :, 28:].mean() > 225
    np.testing.assert_array_equal(faces.images[4], np.asarray(picture(1)))


def test_frames_of_one_clip_stay_on_one_side(tmp_path):
    for emotion in ("happy", "sad"):
        for clip in range(6):
            (tmp_path / emotion / f"clip {clip}").mkdir(parents=True)
            for frame in range(4):
                picture(100 * clip + frame + len(emotion)).save(tmp_path / emotion / f"clip {clip}" / f"{frame}.png")
        picture(999 + len(emotion)).save(tmp_path / emotion / "alone.png")
    sides = {split: {name.rpartition("/")[0] for name in faces.ids} for split, faces in load(tmp_path).items()}
    clips = {split: {place for place in places if "clip" in place} for split, places in sides.items()}
    assert sum(map(len, clips.values())) == 12 == len(set.union(*clips.values())) and all(sides.values())


# --- AffectNet ---


def write_affectnet(root, *, each=3, test=False, mark="s"):
    """Write `each` images of each of the eight emotions per split, in two numbered folders, and one of no face."""
    for split in ("Training_Labeled", "Validation", *(["Test"] if test else [])):
        for number in ("0", "1"):
            (root / split / number).mkdir(parents=True)
        for k in range(8 * each):
            name = mark.join([f"{k:07d}", str(k % 8), str(100 * (k % 8) - 400), f"{-5 * k}.jpg"])
            picture(k + 1000 * len(split)).save(root / split / str(k % 2) / name)
        picture(0).save(root / split / "1" / mark.join(["0000999", "10", "-2000", "-2000.jpg"]))
    return root


@pytest.mark.parametrize(("test", "mark"), [(True, "_"), (False, "s")])
def test_reads_affectnet(test, mark, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        splits = load(write_affectnet(tmp_path / "AffectNet", each=4, test=test, mark=mark), image_size=32)
    sizes = {split: len(faces) for split, faces in splits.items()}
    assert sizes == ({"train": 32, "valid": 32, "test": 32} if test else {"train": 24, "valid": 32, "test": 8})
    assert "Training_Labeled: 1 images without one of the eight emotions are left out (no face 1)" in caplog.text
    assert splits.emotions == labels.FERPLUS and splits.terms.startswith("AffectNet")
    row = next(
        i
        for i, name in enumerate(splits.valid.ids)
        if name == mark.join(["Validation/1/0000013", "5", "100", "-65.jpg"])
    )
    assert splits.emotions[splits.valid.labels[row]] == "disgust"  # AffectNet's 5
    assert splits.valid.affect[row] == pytest.approx([0.1, -0.065])
    assert not set(splits.train.ids) & set(splits.test.ids)


def test_a_limit_of_affectnet_reads_only_the_chosen(tmp_path, monkeypatch):
    read, kept = [], affectnet.read_image
    monkeypatch.setattr(affectnet, "read_image", lambda path: read.append(path) or kept(path))
    splits = load(write_affectnet(tmp_path), image_size=16, limit=8)
    assert [len(faces) for _, faces in splits.items()] == [8, 8, 8] and len(read) == 24
    assert set(splits.train.labels) == set(range(8)) and set(splits.train.ids) < set(load(tmp_path).train.ids)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a.jpg", r"0/a\.jpg: expected a name such as 0000012s6s-400s550\.jpg.*found 'a\.jpg'"),
        ("a_1_0.5_100.jpg", "expected a name such as"),
        ("a_11_0_0.jpg", r"expected an emotion of 0\.\.10, found 11"),
        ("a_1_-2000_-2000.jpg", r"-1000\.\.1000, found -2000 and -2000"),
    ],
)
def test_refuses_names_that_do_not_parse(name, words, tmp_path):
    picture(0).save(write_affectnet(tmp_path) / "Validation" / "0" / name)
    with pytest.raises(ValueError, match=words):
        load(tmp_path)


def test_affectnet_needs_both_folders(tmp_path):
    (write_affectnet(tmp_path) / "Validation").rename(tmp_path / "Val")
    with pytest.raises(FileNotFoundError, match="has no Validation"):
        load(tmp_path)


# --- splits ---


def test_a_cut_is_stratified_seeded_and_keeps_copies_together():
    rng = np.random.default_rng(5)
    targets = rng.integers(0, 5, 2000)
    hashes = rng.integers(0, 900, 2000).astype("V16")  # copies everywhere, many with other labels
    aside = cut(targets, hashes, fraction=0.2, seed=1)
    assert not set(hashes[aside].tolist()) & set(hashes[~aside].tolist())
    assert np.abs(np.bincount(targets[aside]) / np.bincount(targets) - 0.2).max() < 0.08
    np.testing.assert_array_equal(aside, cut(targets, hashes, fraction=0.2, seed=1))
    assert (aside != cut(targets, hashes, fraction=0.2, seed=2)).any()


def test_a_cut_leaves_every_emotion_on_both_sides_where_it_can():
    targets = np.array([0, 0, 1, 2, 2, 2])
    hashes = np.array([1, 2, 3, 4, 4, 4]).astype("V16")  # two images, one image, three copies of one
    assert np.bincount(targets[cut(targets, hashes, seed=0)], minlength=3).tolist() == [1, 0, 0]
    with pytest.raises(ValueError, match=r"between 0 and 1, got 1\.5"):
        cut(targets, hashes, fraction=1.5)


def test_a_sample_is_stratified_and_seeded():
    targets = np.repeat([0, 1, 2], [600, 300, 3])
    rows = sample(targets, 90, seed=1)
    assert len(rows) == len(set(rows)) == 90 and (np.diff(rows) > 0).all()
    assert np.abs(np.bincount(targets[rows]) - [60, 30, 0]).max() <= 1
    np.testing.assert_array_equal(rows, sample(targets, 90, seed=1))
    assert set(targets[sample(targets, 3)]) == {0, 1, 2}
    assert len(sample(targets, 5000)) == 903


def test_limit_keeps_the_splits(data_dir):
    splits = load("fer2013", data_dir=data_dir, limit=3)
    assert [len(faces) for _, faces in splits.items()] == [3, 3, 3]
    assert splits.name.startswith("fer2013") and splits.test.ids.min() >= 14


def ids_by_name(faces):
    return {id_.split("/", 1)[1] for id_ in faces.ids}


@pytest.mark.parametrize("copy", [False, True])
def test_split_folder_writes_the_split_that_load_makes(copy, tmp_path):
    write_folder(tmp_path / "train", each=20)
    write_folder(tmp_path / "test", each=2, seed=100)
    for i in range(5):  # copies of one face
        picture(0).save(tmp_path / "train" / "angry" / f"copy{i}.png")
    before = load(tmp_path, image_size=32, seed=7)
    written = split_folder(tmp_path, seed=7, copy=copy)
    assert written == {tmp_path / "train_new": len(before.train), tmp_path / "val_new": len(before.valid)}
    after = load(tmp_path, seed=7)
    assert ids_by_name(after.train) == ids_by_name(before.train)
    assert ids_by_name(after.valid) == ids_by_name(before.valid)
    assert len(after.test) == 6
    assert not set(after.train.hashes.tolist()) & set(after.valid.hashes.tolist())
    assert (tmp_path / "train_new" / after.train.ids[0].split("/", 1)[1]).stat().st_nlink == (1 if copy else 2)
    with pytest.raises(FileExistsError, match="train_new is there already"):
        split_folder(tmp_path)


def test_split_folder_splits_a_plain_folder_beside_it(tmp_path):
    folder = write_folder(tmp_path / "faces", each=10)
    assert split_folder(folder, fraction=0.3) == {tmp_path / "train_new": 21, tmp_path / "val_new": 9}
    assert len(read_folder(tmp_path / "val_new")) == 9


def test_emotions_with_one_image_each_cannot_be_split(tmp_path):
    write_folder(tmp_path / "train", each=1)
    with pytest.raises(ValueError, match="no emotion has two different images"):
        split_folder(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["train"]


def test_an_interrupted_split_leaves_nothing(tmp_path, monkeypatch):
    write_folder(tmp_path / "train", each=4)
    calls = []

    def break_off(*arguments):
        calls.append(arguments)
        if len(calls) == 7:
            raise KeyboardInterrupt

    monkeypatch.setattr("fer_tf.data.split._place", break_off)
    with pytest.raises(KeyboardInterrupt):
        split_folder(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["train"]


def test_what_a_killed_split_left_is_in_nobodys_way(tmp_path):
    write_folder(tmp_path / "train", each=4)
    left = tmp_path / ".train.split" / "train_new" / "angry"
    left.mkdir(parents=True)
    (left / "half.png").touch()
    assert len(load(tmp_path).train) < 12
    split_folder(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"train", "train_new", "val_new"}


def test_the_readers_import_neither_tensorflow_nor_pandas():
    code = f"import sys, {readers.__name__}; print(*{{'tensorflow', 'keras', 'pandas'}} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"
