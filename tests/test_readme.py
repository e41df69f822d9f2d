"""The README says what the cards and the files say. Run as a script, this writes its table of measured figures anew."""

import ast
import re
import shlex
from pkgutil import resolve_name

import numpy as np
import pytest
import typer

from fer_tf import cli, paths, tables, zoo
from fer_tf.card import ModelCard, describe_file
from fer_tf.data.drawn import draw_faces
from fer_tf.data.images import write_image
from fer_tf.inference.detect import load_detector
from fer_tf.inference.engine import load_engine
from fer_tf.inference.video import infer_image
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


HEAD = (
    "architecture",
    "input",
    "parameters",
    "multiply-adds",
    "ONNX",
    "one face",
    "latency",
    "eight",
    "latency",
    "memory",
)
MEASURED = r"(?s)(?<=<!-- measured -->\n).*?(?=<!-- end -->)"


def measured() -> str:
    """Return the README's table of architectures, from fer_tf/zoo/measured.json."""
    found, backend = zoo.measured(), "openvino-provider"
    host, runs = found["host"], found["runs"]
    lines = [
        f"Untrained networks with 7 logits, `{backend}`, on {host['cpu']} with {host['cores']} cores, "
        f"{found['date'][:10]}: {runs} runs,",
        "latency as p50 / p95. The other backends, versions and parity are in",
        "[measured.json](fer_tf/zoo/measured.json).",
        "",
        f"| {' | '.join(HEAD)} |",
        "|---|" + "---:|" * (len(HEAD) - 1),
    ]
    for name in zoo.ARCHITECTURES:
        about = found["architectures"][name]
        *frames, size, _, _ = about["input_shape"]
        timed = about["backends"][backend]
        cells = [
            name,
            f"{frames[0]} x {size} px" if frames else f"{size} px",
            f"{about['parameters'] / 1e6:.2f} M",
            f"{about['multiply_adds'] / 1e6:,.0f} M",
            f"{about['onnx_bytes'] / 1e6:.1f} MB",
        ]
        for batch in timed["batches"].values():
            latency = batch["latency_ms"]
            cells += [f"{batch['images_per_s']:,.0f}/s", f"{latency['p50']:.1f} / {latency['p95']:.1f} ms"]
        lines.append(f"| {' | '.join(cells)} | {timed['memory_mb']['peak']:,.0f} MB |")
    beside = tables.beside_published(found["architectures"])
    return "\n".join([*lines, *([""] if beside else []), *beside]) + "\n"


def test_the_table_of_architectures_is_the_measured_one():
    """`fer-tf measure --output fer_tf/zoo/measured.json` makes the figures, `python tests/test_readme.py` the table."""
    assert re.search(MEASURED, README).group() == measured()


COMING_FROM = README[README.index("## Coming from") : README.index("## More")]
HERE = re.findall(r"`(.+?)`", "\n".join(re.findall(r"^\|.*\| (.*) \|$", COMING_FROM, re.MULTILINE)))


def test_every_command_of_the_readme_is_one():
    """Each parses: its name, its options, its arguments."""
    commands = typer.main.get_command(cli.app).commands
    given = re.findall(r"^\.venv/bin/fer-tf (.+?)(?: +#.*)?$", README, re.MULTILINE)
    given += [piece.removeprefix("fer-tf ") for piece in HERE if piece.startswith("fer-tf ")]
    assert len(given) >= 20
    for line in given:
        name, *arguments = shlex.split(line)
        commands[name].make_context(name, arguments)


def test_every_name_that_others_come_to_is_there_and_every_call_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    detector = load_detector("full")
    picture = np.ascontiguousarray(np.broadcast_to(draw_faces(1, size=96).images[0], (96, 96, 3)))
    write_image(tmp_path / "portrait.jpg", picture)
    engine = load_engine("lenet")
    crops = np.zeros((2, *engine.card.input_shape), np.uint8)
    known = {"picture": picture, "pictures": [picture] * 2, "engine": engine, "crops": crops}
    known |= {"detector": detector, "faces": infer_image(picture, engine=engine, detector=detector)}
    calls = 0
    for piece in HERE:
        if piece.startswith(("fer_tf.", "engine.", "faces.", "[")):
            for name in {ast.unparse(part) for part in ast.walk(ast.parse(piece)) if isinstance(part, ast.Attribute)}:
                if name.startswith("fer_tf.") and "(" not in name:
                    resolve_name(name)
            found = eval(piece, {"fer_tf": resolve_name("fer_tf"), **known})
            calls += not callable(found)
    assert calls >= 8


if __name__ == "__main__":
    text = re.sub(MEASURED, lambda _: measured(), README)
    (paths.ROOT / "README.md").write_text(text, encoding="utf-8")
