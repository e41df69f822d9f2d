"""The README says what the cards and the files say. Run as a script, this writes its tables of figures anew."""

import ast
import json
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
from fer_tf.training import results
from fer_tf.training.compare import count_parameters
from fer_tf.training.folder import same_recipe
from fer_tf.training.recipe import RECIPES, Recipe

README = (paths.ROOT / "README.md").read_text(encoding="utf-8")
CARDS = sorted(paths.MODELS.glob("*/card.json"))


RESULTS = r"(?s)(?<=<!-- results -->\n).*?(?=<!-- end -->)"
RESULT_HEAD = (
    "model",
    "parameters",
    "ONNX",
    "accuracy (95 % interval)",
    "clean rows",
    "ten views",
    "macro-F1",
    "ECE, before",
    "one face",
    "seeds",
    "recipe",
    "date",
)


def recipe_name(row: dict) -> str:
    """Return the name of the package's recipe that a model was trained by; nothing for an ensemble."""
    if row["recipe"] is None:
        return ""
    known = {path.stem: Recipe.load(path) for path in RECIPES.glob("*.toml")}
    asked = {name: {"targets": "auto"} if recipe.targets == "auto" else {} for name, recipe in known.items()}
    (name,) = [name for name, recipe in known.items() if same_recipe(row["recipe"] | asked[name], recipe)]
    return f"`{name}`"


def seeds(row: dict) -> str:
    """Say how far accuracy on test goes apart with the seed: mean and standard deviation."""
    if not row.get("seeds"):
        return "" if row["seed"] is None else f"{row['seed']} alone"
    found = [100 * one["test"]["accuracy"] for one in row["seeds"]]
    numbers = ", ".join(str(one["seed"]) for one in row["seeds"])
    return f"{numbers}: {np.mean(found):.2f} ± {np.std(found, ddof=1):.2f} %"


TITLES = {
    "fer2013": "FER2013's labels",
    "ferplus-distribution": "FER+: trained on the shares of the votes, judged on majority rows",
    "ferplus-argmax": "FER+, doubtful faces included (argmax rows)",
}


def found_table(rows: list[dict]) -> list[str]:
    """Return how many of every emotion's test faces each model of a data set names rightly."""
    emotions = {emotion: one["n"] for emotion, one in rows[0]["found"].items()}
    lines = ["Recall, the share of each emotion's test faces (their number in the heading) that is named rightly:", ""]
    lines += [f"| model | {' | '.join(f'{emotion}, {n:,}' for emotion, n in emotions.items())} |"]
    lines += ["|---|" + "---:|" * len(emotions)]
    for row in rows:
        shares = (f"{100 * row['found'][emotion]['right'] / n:.0f} %" for emotion, n in emotions.items())
        lines.append(f"| `{row['model']}` | {' | '.join(shares)} |")
    return lines


PEER = ("accuracy", "accuracy_clean", "macro_f1")


def result_tables() -> str:
    """Return the README's tables of results, from reports/results.json: the test rows of each data set."""
    lines, found = [], results.read(paths.ROOT / "reports" / "results.json")
    for dataset, title in TITLES.items():
        rows = [row for row in found if row["dataset"] == dataset]
        n, clean_n = (rows[0]["plain"][split]["n"] for split in ("test", "test_clean"))
        shared = {(row["plain"]["test"]["n"], row["host"]["cpu"], row["backend"]) for row in rows}
        assert shared == {(n, rows[0]["host"]["cpu"], "openvino-provider")}, "rows of one table share these"
        lines += [f"**{title}**, {n:,} test rows, {clean_n:,} of them clean, on {rows[0]['host']['cpu']}:", ""]
        lines += [f"| {' | '.join(RESULT_HEAD)} |", "|---|" + "---:|" * (len(RESULT_HEAD) - 1)]
        for row in rows:
            test, clean, ten = row["plain"]["test"], row["plain"]["test_clean"], row["ten_views"]["test"]
            low, high = (100 * bound for bound in test["accuracy_interval"])
            before = test["ece_uncalibrated"]
            cells = [
                f"`{row['model']}`",
                f"{row['parameters'] / 1e6:.2f} M",
                f"{row['bytes'] / 1e6:.1f} MB",
                f"{100 * test['accuracy']:.2f} % ({low:.1f} to {high:.1f})",
                f"{100 * clean['accuracy']:.2f} %",
                f"{100 * ten['accuracy']:.2f} %",
                f"{100 * test['macro_f1']:.2f} %",
                f"{100 * test['ece']:.1f} %" + (f", {100 * before:.1f} %" if before is not None else ""),
                f"{row['cpu_ms']:.1f} ms" if row["cpu_ms"] is not None else "",
                seeds(row),
                recipe_name(row),
                row["date"],
            ]
            lines.append(f"| {' | '.join(cells)} |")
        lines += ["", *found_table(rows), ""]
    peers = json.loads((paths.ROOT / "reports" / "peers.json").read_text(encoding="utf-8"))
    lines += ["Networks that come inside other packages, on FER2013's test rows (`benchmarks/peers`):", ""]
    lines += ["| package | network | accuracy | clean rows | macro-F1 |", "|---|---|---:|---:|---:|"]
    for package, peer in peers.items():
        assert (peer["n"], peer["n_clean"]) == (3589, 3275)
        for network, judged in peer.items():
            if isinstance(judged, dict):
                shares = (f"{100 * judged[name]:.2f} %" for name in PEER)
                lines.append(f"| `{package}` {peer['version']} | {network} | {' | '.join(shares)} |")
    return "\n".join(lines) + "\n"


def test_the_tables_of_results_are_those_that_evaluate_wrote():
    """`fer-tf evaluate MODEL --dataset fer2013 --results reports/results.json`, then `python tests/test_readme.py`."""
    assert {row["dataset"] for row in results.read(paths.ROOT / "reports" / "results.json")} == set(TITLES)
    assert re.search(RESULTS, README).group() == result_tables()


@pytest.mark.parametrize("path", CARDS, ids=lambda p: p.parent.name)
def test_the_results_of_shipped_models_are_their_cards(path):
    card, saved = ModelCard.load(path), path.with_name("model.keras")
    found = results.read(paths.ROOT / "reports" / "results.json")
    (row,) = [row for row in found if (row["model"], row["dataset"]) == (card.name, card.data["name"])]
    assert {row["parameters"]} == {about["parameters"] for about in card.files.values()}
    assert not saved.is_file() or row["parameters"] == count_parameters(saved)
    for split, judged in row["plain"].items():
        assert judged["accuracy"] == pytest.approx(card.metrics[split]["accuracy"], abs=6e-4)  # two faces of 3,275


@pytest.mark.parametrize("path", CARDS, ids=lambda p: p.parent.name)
def test_the_cards_checksums_are_the_files(path):
    card = ModelCard.load(path)
    assert set(card.files) == {p.name for p in path.parent.iterdir()} - {"card.json", "history.png"}
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
BACKEND_NAMES = {"openvino": "OpenVINO", "openvino-provider": "its provider", "cpu": "ONNX Runtime"}
DETECTOR_NAMES = {"yunet": "YuNet", "haar": "Haar"}
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


VIDEO = r"(?s)(?<=<!-- video -->\n).*?(?=<!-- end -->)"


def video() -> str:
    """Return the README's table of video throughput, from files in reports/."""
    found, soak, many = (
        json.loads((paths.ROOT / "reports" / f"{name}.json").read_text("utf-8"))
        for name in ("video", "soak", "many_faces")
    )
    host, clip, live, peer = found["host"], found["clip"], found["live"], found["peers"]["fer"]
    lines = [
        f"`{found['model']}` and {DETECTOR_NAMES[found['detector']]} on a filmed clip of one face (Intel's sample "
        f"videos, CC BY 4.0), {clip['width']} x {clip['height']}, {clip['frames']} frames, on {host['cores']} cores of "
        f"{host['cpu']}, {found['date'][:10]}, "
        f"the middle one of {found['runs']} runs:",
        "",
        f"| | {' | '.join(BACKEND_NAMES.values())} | of the bound | CPU a frame | latency p50 / p95 | its accuracy |",
        "|---|" + "---:|" * (len(BACKEND_NAMES) + 4),
    ]
    speeds = {(rung["backend"], rung["name"]): f"{rung['frames_per_s']:,.0f}" for rung in found["rungs"]}
    for rung in found["rungs"]:
        if rung["backend"] == "openvino":
            cells = [
                rung["name"],
                *(speeds[backend, rung["name"]] for backend in BACKEND_NAMES),
                f"{100 * rung['share_of_bound']:.0f} %",
                f"{rung['cpu_ms_per_frame']:.1f} ms",
                f"{rung['latency_ms']['p50']:.0f} / {rung['latency_ms']['p95']:.0f} ms",
                f"{100 * rung['accuracy']:.2f} %",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    (first, *_, last), (early, *_, late) = (
        soak[f"{what}_first_middle_last_third"] for what in ("ms_per_frame", "memory_mb")
    )
    return "\n".join(
        [
            *lines,
            "",
            f"The package `fer` {peer['version']} goes through that clip at {peer['frames_per_s']:.0f} frames/s, and "
            "writes nothing. Played live at",
            f"{live['arriving_per_s']:g} frames/s, {live['dropped']} of {live['frames']} were dropped; from "
            f"arrival to drawn p50 {live['latency_ms']['p50']:.0f} ms, p95 {live['latency_ms']['p95']:.0f} ms.",
            f"Over {soak['minutes']:g} minutes of video ({soak['frames']:,} frames) a frame took {first:.2f} ms in the "
            f"first third and {last:.2f} ms in the last,",
            f"and {early:.0f} and {late:.0f} MB of memory; any two samples lie within "
            f"{soak['memory_mb_largest_minus_smallest']:.0f} MB.",
            f"A frame of {many['frame'][0]} x {many['frame'][1]} takes {many['ms_a_frame_without_faces']:.1f} ms and "
            f"{many['ms_a_face']:.2f} ms a face, from 0 to {many['rows'][-1]['faces_shown']} faces (R² "
            f"{many['r_squared']:.3f}; detected and classified on every frame, clip written).",
            "",
        ]
    )


def test_the_table_of_video_is_the_measured_one():
    """`fer-tf bench`, benchmarks/{peers/fer_video,soak,many_faces}.py, then `python tests/test_readme.py`."""
    assert re.search(VIDEO, README).group() == video()


def test_the_rates_of_service_and_many_clips_are_the_measured_ones():
    found = {
        name: json.loads((paths.ROOT / "reports" / f"{name}.json").read_text()) for name in ("service", "many_clips")
    }
    batched, alone = (round(found["service"][way]["requests_per_s"]) for way in ("micro-batches", "picture by picture"))
    runs = found["many_clips"]["runs"][:2]
    (one, two), (all_one, all_two) = (
        [run[rate] for run in runs] for rate in ("frames_per_s_after_start", "frames_per_s")
    )
    text = " ".join(README.split())
    assert f"answers {batched} pictures a second, and {alone} one by one" in text
    assert (
        f"`annotate-many` do {two} frames a second and one {one} once they have started, {all_two} and {all_one} over"
        in text
    )


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
    text = re.sub(RESULTS, lambda _: result_tables(), README, count=1)
    text = re.sub(VIDEO, lambda _: video(), text, count=1)
    text = re.sub(MEASURED, lambda _: measured(), text, count=1)
    (paths.ROOT / "README.md").write_text(text, encoding="utf-8")
