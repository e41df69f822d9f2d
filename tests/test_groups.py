"""Groups of faces are compared with intervals, small ones are not judged, and bad tables are one sentence."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.stats import fisher_exact
from typer.testing import CliRunner

from fer_tf.cli import app
from fer_tf.data.drawn import draw_faces
from fer_tf.data.images import write_image
from fer_tf.inference.detect import load_detector
from fer_tf.training.compare import holm
from fer_tf.training.evaluate import wilson_interval
from fer_tf.training.groups import MAY_NOT, classify, group_report, read_rows


def rows(**groups: tuple[int, int]) -> pd.DataFrame:
    """So many faces of each group, so many of them right; half happy, half sad, errors in the happy ones first."""
    parts = []
    for name, (right, n) in groups.items():
        label = np.array(["happy"] * (n // 2) + ["sad"] * (n - n // 2))
        wrong = np.arange(n) < n - right
        predicted = np.where(wrong, np.where(label == "happy", "sad", "happy"), label)
        parts.append(pd.DataFrame({"label": label, "predicted": predicted, "team": name}))
    return pd.concat(parts, ignore_index=True)


def test_a_published_example_of_two_shares():
    """Newcombe 1998, "Interval estimation for the difference", table II, example (a), method 10."""
    (found,) = group_report(rows(red=(56, 70), blue=(48, 80)), by=["team"])
    blue, red = found.groups  # the larger first
    assert (blue.n, red.n) == (80, 70) and red.lead == pytest.approx(0.2) == -blue.lead
    assert red.lead_interval == pytest.approx((0.0524, 0.3339), abs=1e-4)
    assert blue.lead_interval == pytest.approx((-0.3339, -0.0524), abs=1e-4)
    assert red.accuracy_interval == wilson_interval(56, 70)
    assert [red.p_holm, blue.p_holm] == pytest.approx([0.01252113] * 2)  # one test of two groups: not corrected
    assert red.recall == {"happy": pytest.approx(21 / 35), "sad": 1.0}
    assert found.shared == ("happy", "sad")
    f1 = [2 * 21 / (21 + 35), 2 * 35 / (49 + 35)]
    assert red.macro_f1 == pytest.approx(np.mean(f1)) and red.macro_f1_interval[0] < red.macro_f1
    assert "red: +20.0 points against all other faces (+5.2 to +33.4): more than chance would" in found.sentences[1]


def test_small_groups_have_no_figure_and_p_stands_for_all_tests():
    (found,) = group_report(rows(red=(56, 70), blue=(48, 80), grey=(29, 29), gold=(70, 100)), by=["team"])
    grey = found.groups[-1]
    assert (grey.name, grey.n, grey.accuracy, grey.recall, grey.lead) == ("grey", 29, None, None, None)
    assert found.sentences[-1] == "grey: 29 faces are too few, 30 are needed."
    alone = [
        fisher_exact([[a, n - a], [203 - a, 279 - n - 203 + a]]).pvalue for a, n in ((70, 100), (48, 80), (56, 70))
    ]
    assert [group.p_holm for group in found.groups[:-1]] == pytest.approx(holm(alone))
    page = found.to_markdown()
    assert "| grey | 29 | 0 | – | – | – | – |" in page and all(sentence in page for sentence in MAY_NOT)


def test_one_large_group_alone_is_compared_with_nobody():
    (found,) = group_report(rows(red=(30, 40), blue=(3, 5)), by=["team"])
    assert found.groups[0].accuracy == 0.75 and found.groups[0].lead is None
    assert found.sentences[0] == "red: those of all other groups together are too few, 30 are needed."


def test_an_emotion_that_one_group_lacks_is_in_nobodys_macro_f1():
    table = rows(red=(35, 40), blue=(35, 40))
    table.loc[(table["team"] == "red") & (table["label"] == "happy"), ["label", "predicted"]] = "sad"
    (found,) = group_report(table, by=["team"], minimum=15)
    assert found.shared == ("sad",) and "macro-F1 over sad." in found.to_markdown()
    red = next(group for group in found.groups if group.name == "red")
    assert red.recall["happy"] is None and red.macro_f1 == pytest.approx(2 * 40 / 80)


def test_an_empty_answer_is_a_face_that_was_not_found(tmp_path):
    table = rows(red=(30, 40), blue=(30, 40)).assign(team=["a|b"] * 40 + ["blue"] * 40)
    table.loc[:4, "predicted"] = ["", " ", "", "  ", ""]
    table.to_csv(tmp_path / "a.csv", index=False)
    (found,) = group_report(read_rows(tmp_path / "a.csv", by=["team"]), by=["team"])
    odd = next(group for group in found.groups if group.name == "a|b")
    assert (odd.n, odd.not_found) == (35, 5) and r"| a\|b | 35 | 5 |" in found.to_markdown()


def test_rows_without_a_group_count_for_nobody():
    table = rows(red=(30, 40), blue=(30, 40)).assign(team=["red"] * 40 + ["blue"] * 35 + [""] * 5)
    (found,) = group_report(table, by=["team"])
    assert [(group.name, group.n) for group in found.groups] == [("red", 40), ("blue", 35)]


@pytest.fixture
def pictures(tmp_path):
    """A CSV beside 14 drawn faces, and one picture of nothing."""
    faces = draw_faces(14, size=64, seed=1)
    lines = ["path,label,team"]
    for k, (image, label) in enumerate(zip(faces.images, faces.labels, strict=True)):
        write_image(tmp_path / f"{k}.png", image)
        lines.append(f"{k}.png,{faces.emotions[label].title()},{'red' if k % 2 else 'blue'}")
    write_image(tmp_path / "none.png", np.zeros((64, 64, 3), np.uint8))
    (tmp_path / "faces.csv").write_text("\n".join([*lines, "none.png,sad,red"]))
    return tmp_path / "faces.csv"


def test_pictures_are_classified_and_missing_faces_counted(pictures, engine):
    told = []
    table = read_rows(pictures, by=["team"])
    whole = classify(table, engine=engine, detector=load_detector("full"), progress=lambda *now: told.append(now))
    assert told[-1] == (15, 15) and set(whole["predicted"]) <= set(engine.card.emotions)
    found = classify(table, engine=engine, detector=load_detector("haar"))
    assert found["predicted"].iloc[-1] == ""
    (report,) = group_report(found, by=["team"], minimum=2)
    red = next(group for group in report.groups if group.name == "red")
    assert red.not_found >= 1 and red.n + red.not_found == 8


def test_the_command_writes_the_report_and_prints_json(pictures, tmp_path):
    choices = ["groups", str(pictures), "--by", "team", "--model", "lenet", "--minimum", "5"]
    done = CliRunner().invoke(app, [*choices, "--output", str(tmp_path / "report.md"), "--json"])
    assert done.exit_code == 0, done.output
    (column,) = json.loads(done.stdout)["columns"]
    assert [group["n"] for group in column["groups"]] == [8, 7]
    assert (tmp_path / "report.md").read_text(encoding="utf-8").startswith("# By team")
    done = CliRunner().invoke(app, choices)
    assert done.exit_code == 0 and "points against all other faces" in done.output.replace("\n", " ")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("label,team\nhappy,a\n", "no column 'path', only label, team"),
        ("label,predicted,age\nhappy,sad,1\n", "no column 'team'"),
        ("label,predicted,team\nhappy,glee,a\nsad,sad,b\n", "row 2, predicted: unknown emotion 'glee'"),
        ("label,predicted,team\nhappy,sad,a\nsad,sad,a\n", "'team' has 1 different values, expected 2 to 20 groups"),
        ("label,predicted,team\n" + "".join(f"happy,sad,{k}\n" for k in range(21)), "has 21 .*cut numbers into ranges"),
        ("label,predicted,team\n", "has no rows"),
        ("", "no CSV with a header"),
    ],
    ids=["no path", "no group", "emotion", "one group", "numbers", "no rows", "empty"],
)
def test_a_table_that_cannot_be_judged_is_one_sentence(text, words, tmp_path):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(ValueError, match=words):
        read_rows(tmp_path / "a.csv", by=["team"])


def test_an_emotion_that_the_model_lacks_is_refused(pictures, engine):
    table = read_rows(pictures, by=["team"]).assign(label="contempt")
    with pytest.raises(ValueError, match="does not know contempt: leave these rows out"):
        classify(table, engine=engine, detector=load_detector("full"))
    with pytest.raises(ValueError, match="minimum must be at least 2 faces, got 1"):
        group_report(table, by=["team"], minimum=1)
