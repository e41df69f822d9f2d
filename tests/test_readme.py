"""The README says what the cards and the files say."""

import re

import pytest

from fer_tf import paths
from fer_tf.card import ModelCard, describe_file
from fer_tf.training.compare import count_parameters

README = (paths.ROOT / "README.md").read_text(encoding="utf-8")
CARDS = sorted(paths.MODELS.glob("*/card.json"))


@pytest.mark.parametrize("path", CARDS, ids=lambda p: p.parent.name)
def test_the_model_table_is_the_cards(path):
    card = ModelCard.load(path)
    (row,) = re.findall(rf"^\| `{card.name}` \|.*$", README, re.MULTILINE)
    test, clean = card.metrics["test"], card.metrics["test_clean"]
    for share in (test["accuracy"], clean["accuracy"], test["macro_f1"]):
        assert f"{100 * share:.2f} %" in row
    assert "({:.1f} to {:.1f})".format(*(100 * bound for bound in test["accuracy_interval"])) in row
    parameters = count_parameters(path.with_name("model.keras"))
    megabytes = card.files["model.onnx"]["bytes"] / 1e6
    assert f"| {card.image_size} px | {parameters / 1e6:.2f} M | {megabytes:.1f} MB |" in row


@pytest.mark.parametrize("path", CARDS, ids=lambda p: p.parent.name)
def test_the_cards_checksums_are_the_files(path):
    card = ModelCard.load(path)
    assert set(card.files) == {"model.keras", "model.onnx"}
    for name, about in card.files.items():
        assert describe_file(path.with_name(name)).items() <= about.items()


def test_shipped_files_stay_small():
    sizes = [path.stat().st_size for path in paths.MODELS.rglob("*") if path.is_file()]
    assert sum(sizes) <= 60e6


def test_links_resolve():
    for name in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (paths.ROOT / name).exists(), name
