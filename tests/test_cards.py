"""Cards as Markdown, and the summary on one page: what they say is what the files say."""

import json
import re
import shutil
from dataclasses import replace

import matplotlib
import numpy as np
import pytest
from typer.testing import CliRunner

from fer_tf import cards, paths, plots
from fer_tf.card import INTENDED_USE, ModelCard
from fer_tf.cli import app
from fer_tf.data.readers import LABELS
from fer_tf.labels import FER2013
from fer_tf.summary import MOST, SMALL, draw_summary, write_summary
from fer_tf.training.evaluate import headline, report
from fer_tf.training.recipe import Recipe

FACTS = {"Started": "2026-01-02 03:04", "Data set": "drawn", "Host": "a machine, 2 cores"}


def make_run(folder, *, data="drawn", right: float = 0.8, seed: int = 0, n: int = 140) -> ModelCard:
    """Write what a finished run leaves, of a network that is right on this share of n rows."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 7
    logits = rng.normal(0, 0.1, (n, 7)).astype(np.float32)
    logits[np.arange(n), np.where(rng.random(n) < right, labels, (labels + 1) % 7)] += 3
    judged = report(logits, labels, FER2013).to_dict()
    metrics = dict.fromkeys(("valid", "test"), judged)
    predictions = {"test_logits": logits, "test_labels": labels, "test_clean": np.ones(n, bool)}
    predictions |= {name.replace("test", "valid"): values for name, values in predictions.items()}
    np.savez(folder / "predictions.npz", **predictions)
    about = {"name": data, "fingerprint": "0123456789abcdef", "terms": "anyone's"}
    card = ModelCard(
        name=folder.name,
        architecture="lenet",
        emotions=FER2013,
        image_size=48,
        data=about,
        recipe={"seed": seed, "epochs": 2, "weights": None},
        metrics={split: headline(found) for split, found in metrics.items()},
    )
    card.save(folder / "card.json")
    (folder / "data.json").write_text(json.dumps(about))
    (folder / "metrics.json").write_text(json.dumps(metrics))
    rows = [f"{epoch},fine,1.0,0.5,0.6,{30 * epoch}" for epoch in (1, 2)]
    (folder / "history.csv").write_text("\n".join(["epoch,phase,nll,accuracy,valid_accuracy,seconds", *rows]) + "\n")
    return card


def headings(text: str) -> list[str]:
    return re.findall(r"^## (.+)$", text, re.MULTILINE)


def test_a_model_card_says_what_the_json_says():
    path = cards.find_card("mobilenet_v2")
    card, text = ModelCard.load(path), cards.read_model_card(path)
    assert headings(text) == [
        "Intended use",
        "What it must not be used for",
        "Data and terms",
        "How it was trained",
        "Results",
        "Calibration",
        "Files",
        "Versions",
    ]
    judged = card.metrics["test"]
    low, high = (f"{100 * bound:.1f}" for bound in judged["accuracy_interval"])
    for told in (
        f"| test | {judged['n']:,} | {100 * judged['accuracy']:.2f} % ({low} to {high})",
        INTENDED_USE,
        card.data["terms"],
        *card.notices,
        *(about["sha256"] for about in card.files.values()),
        f"divided by {card.temperature:g}",
        f"{100 * judged['ece']:.1f} %, {100 * judged['ece_uncalibrated']:.1f} % before",
        f"| keras | {card.versions['keras']} |",
    ):
        assert told in text
    (recipe,) = re.findall(r"```json\n(.+?)```", text, re.DOTALL)
    assert json.loads(recipe).items() <= card.recipe.items()
    assert Recipe.from_dict(json.loads(recipe)) == Recipe.from_dict(card.recipe) and "--recipe recipe.json" in text


@pytest.mark.parametrize("name", [rule for rule in LABELS if rule.startswith("ferplus")])
def test_cards_say_which_rows_of_ferplus_judge(tiny, tmp_path, name):
    for text in (cards.model_card(make_run(tmp_path / "a", data=name)), cards.data_card(replace(tiny, name=name))):
        assert f"| which rows | {cards.ROWS_OF[name]} |" in text
    assert "| which rows |" not in cards.model_card(make_run(tmp_path / "b")) + cards.data_card(tiny)


def test_a_card_says_what_start_and_teachers_learned_from(tmp_path):
    card = make_run(tmp_path / "a")
    model = {"sha256": "0", "data": {"name": "faces", "terms": "not for sale"}}
    told = cards.model_card(card.with_(data=card.data | {"start": model, "teachers": {"vgg": model, "old": {}}}))
    for who in ("its start", "its teacher vgg"):
        assert f"| {who} learned from | faces: not for sale |" in told
    assert "teacher old" not in told and "learned from" not in cards.model_card(card)


@pytest.mark.parametrize("given", ["mobilenet_v2-int8", paths.MODELS / "mobilenet_v2" / "model-int8.onnx"])
def test_the_card_of_an_int8_file_has_its_own_figures(given):
    text, beside = CliRunner().invoke(app, ["card", str(given)]).output, ModelCard.load(cards.find_card("mobilenet_v2"))
    assert "# Model card: mobilenet_v2-int8" in text and beside.files["model-int8.onnx"]["sha256"] in text
    assert f"{100 * beside.metrics['test']['accuracy']:.2f} %" not in text and "`model.onnx`" not in text


def test_damaged_papers_are_named(tmp_path):
    make_run(tmp_path / "a")
    for metrics in ("[]", "{"):
        (tmp_path / "a" / "metrics.json").write_text(metrics)
        with pytest.raises(ValueError, match=r"card\.json, or a metrics\.json beside it, is damaged"):
            cards.read_model_card(tmp_path / "a" / "card.json")


def test_a_bare_card_claims_nothing():
    text = cards.model_card(ModelCard(name="bare", architecture="lenet", emotions=("a", "b"), image_size=48))
    for told in ("reports none", "was not measured", "names none", "does not say", "does not name them"):
        assert told in text


def test_a_data_card_counts_what_the_data_hold(tiny):
    broken = tiny.train.labels.copy()
    broken[:30] = 3
    leaky = replace(tiny, train=replace(tiny.train, labels=broken, distributions=None), test=tiny.train)
    text = cards.data_card(leaky)
    most, least = (int((broken == k).sum()) for k in (3, 0))
    assert f"| happy | {most} ({most / 70:.1%})" in text
    assert f"{most / least:.1f} times as many happy as angry faces" in text
    assert "70 test rows show an image of train or valid" in text and "| test rows in train | 70 |" in text
    assert tiny.terms in text and leaky.fingerprint in text and "knows nothing of their origin" in text
    assert "| train | 70 |" not in text and "| valid | 35 | 70.0% | 100.0% |" in text  # votes


def test_a_run_folder_gets_a_card_for_every_model_and_for_the_data_they_saw(tiny, tmp_path):
    make_run(tmp_path / "lenet")
    make_run(tmp_path / "deep" / "er")
    assert [path.name for path in cards.write_cards(tmp_path, data=tiny)] == ["deep-er.md", "lenet.md"]
    (tmp_path / "lenet" / "data.json").write_text(json.dumps({"fingerprint": tiny.fingerprint}))
    first = cards.write_cards(tmp_path, data=tiny)[0]
    assert first.name == "data.md" and first.read_text().startswith("# Data card: patterns")
    assert "### Test, per emotion" in (tmp_path / "cards" / "lenet.md").read_text()


def test_the_command_prints_or_writes_a_card(tmp_path):
    printed = CliRunner().invoke(app, ["card", "lenet"])
    assert printed.exit_code == 0 and printed.stdout.startswith("# Model card: lenet")
    target = tmp_path / "card.md"
    assert CliRunner().invoke(app, ["card", str(paths.MODELS / "lenet"), "--output", str(target)]).exit_code == 0
    assert target.read_text() == cards.read_model_card(paths.MODELS / "lenet" / "card.json")


@pytest.mark.parametrize("given", [["card"], ["card", "lenet", "--dataset", "drawn"], ["card", "nothing"]])
def test_the_command_refuses_what_is_no_card(given):
    assert CliRunner().invoke(app, given).exit_code == 1


@pytest.mark.parametrize("runs", [0, 1, 3, MOST + 6])
def test_the_summary_is_one_page_that_nothing_leaves(tmp_path, runs):
    for seed in range(runs):
        make_run(tmp_path / f"a_rather_long_name_of_a_run_{seed}", right=0.5 + 0.02 * seed, seed=seed)
    facts = FACTS | {"Parameters": ", ".join(f"parameter_{i} = {i}" for i in range(20))}
    content = write_summary(tmp_path, facts=facts).read_bytes()
    assert content.startswith(b"%PDF") and b"/Count 1" in content
    with matplotlib.rc_context(plots.STYLE | SMALL):
        figure = draw_summary(tmp_path, facts=facts)
        figure.canvas.draw()
        told = "\n".join(text.get_text() for text in figure.texts)
        for text in figure.texts:
            box = text.get_window_extent().transformed(figure.transFigure.inverted())
            assert box.x0 > 0 and box.x1 < 0.99 and box.y0 > 0 and box.y1 < 1, text.get_text()
    assert "not be concluded" in told and "a machine, 2 cores" in told
    assert ("No finished run" in told) == (runs == 0)
    assert ("row by row" in told) == (runs > 1)
    assert ("6 more, less accurate" in told) == (runs > MOST)
    assert len(figure.axes) == (2 if runs else 0)


def test_the_summary_names_a_run_that_it_cannot_read(tmp_path):
    make_run(tmp_path / "good")
    make_run(tmp_path / "bad")
    (tmp_path / "bad" / "predictions.npz").write_bytes(b"damaged")
    shutil.copytree(tmp_path / "good", tmp_path / "other")
    told = "\n".join(text.get_text() for text in draw_summary(tmp_path, facts=FACTS).texts)
    assert "Left out" in told and "bad" in told and "good" in told and "other" in told
