import json
import os
import shutil
import socket
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from tiny_onnx import write_model_zoo

from fer_tf import paths
from fer_tf.card import describe_file
from fer_tf.data.download import SOURCES
from fer_tf.data.drawn import draw_clip, draw_faces
from fer_tf.data.images import write_image
from fer_tf.labels import FERPLUS

LENET = str(paths.MODELS / "lenet" / "model.onnx")
KERAS = str(paths.MODELS / "lenet" / "model.keras")
FER_TF = Path(sys.executable).with_name("fer-tf")


def run(*arguments, cwd=None):
    return subprocess.run([FER_TF, *map(str, arguments)], capture_output=True, text=True, cwd=cwd)


@pytest.fixture(scope="module")
def picture(tmp_path_factory) -> Path:
    """One frame of a drawn clip with one face."""
    path = tmp_path_factory.mktemp("a picture") / "gesicht für test.png"
    write_image(path, next(iter(draw_clip(faces=1, frames=1, width=320, height=240, seed=3).frames)))
    return path


def test_help_lists_every_command():
    done = run("--help")
    assert done.returncode == 0
    for command in ("download", "split", "train", "evaluate", "export", "image", "video", "bench", "measure", "suite"):
        assert command in done.stdout
    assert "models" in done.stdout and "robustness" in done.stdout


def test_version_is_the_packages():
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"fer-tf {version('fer-tf')}\n")


def test_image_prints_every_face_sorted(picture, tmp_path):
    done = run("image", picture, "--json", "--output", tmp_path / "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    ((face,),) = json.loads(done.stdout)["images"].values()
    shares = list(face["probabilities"].values())
    assert shares == sorted(shares, reverse=True) and sum(shares) == pytest.approx(1, abs=1e-3)
    assert face["label"] == next(iter(face["probabilities"]))
    assert (tmp_path / "out" / picture.name).is_file()


def test_image_takes_a_keras_file_and_a_ready_crop(tmp_path):
    crop = draw_faces(1, size=96).images[0]
    write_image(tmp_path / "crop.png", np.broadcast_to(crop, (96, 96, 3)))
    done = run("image", tmp_path / "crop.png", "--detector", "full", "--model", paths.MODELS / "lenet" / "model.keras")
    assert done.returncode == 0, done.stderr
    assert "1 face" in done.stdout and "happy" in done.stdout


def test_image_takes_a_file_of_the_model_zoo(tmp_path):
    path = tmp_path / "emotion-ferplus-8.onnx"
    write_model_zoo(path)
    SOURCES["emotion-ferplus"].card.with_(files={path.name: describe_file(path)}).save(tmp_path / "card.json")
    write_image(tmp_path / "crop.png", draw_faces(1, size=96).images[0])
    done = run("image", "crop.png", "--detector", "full", "--model", path.name, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    ((face,),) = json.loads(done.stdout)["images"].values()
    assert set(face["probabilities"]) == set(FERPLUS)


def test_video_writes_clip_and_table(tmp_path):
    from fer_tf.inference.video import write_video

    clip = write_video(tmp_path / "clip.mp4", draw_clip(faces=1, frames=12, width=320, height=240).frames, fps=12)
    files = ["--output", tmp_path / "out.mp4", "--table", tmp_path / "faces.csv"]
    files += ["--timeline", tmp_path / "people.png", "--summary", tmp_path / "summary.json"]
    done = run("video", clip, *files, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary == json.loads((tmp_path / "summary.json").read_text())
    assert (tmp_path / "people.png").read_bytes().startswith(b"\x89PNG")
    assert summary["frames"] == 12 and (tmp_path / "out.mp4").stat().st_size > 1000
    assert len((tmp_path / "faces.csv").read_text().splitlines()) == summary["faces"] + 1


def test_train_evaluate_export_are_one_chain(tmp_path):
    small = ["--set", "epochs=1", "--set", "options={filters=[4, 4, 4]}", "--limit", "70", "--run-dir", "a run"]
    done = run("train", "--recipe", "lenet_drawn", *small, cwd=tmp_path)
    assert done.returncode == 0 and "epoch   1/1" in done.stdout, done.stderr
    done = run("export", "a run", cwd=tmp_path)
    assert done.returncode == 0 and "saved (opset 18)" in done.stdout, done.stderr
    for model in ("a run", "a run/model.keras"):
        done = run("evaluate", model, "--limit", "70", "--json", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        reports = json.loads(done.stdout)["reports"]
        assert set(reports) == {"valid", "valid_clean", "test", "test_clean"} and reports["test"]["n"] == 70


def test_one_bad_picture_costs_only_itself(picture, tmp_path):
    damaged(tmp_path)
    done = run("image", "text.jpg", picture, "none.png", "--json", cwd=tmp_path)
    result = json.loads(done.stdout)
    assert done.returncode == 1 and set(result["images"]) == {str(picture)}
    assert set(result["errors"]) == {"text.jpg", "none.png"} and done.stderr.count("error:") == 2


def test_every_result_can_be_json(tmp_path):
    for emotion in ("happy", "sad"):
        (tmp_path / "faces" / emotion).mkdir(parents=True)
        for i, face in enumerate(draw_faces(4, size=48, seed=len(emotion)).images):
            write_image(tmp_path / "faces" / emotion / f"{i}.png", face)
    written = json.loads(run("split", "faces", "--json", cwd=tmp_path).stdout)
    assert list(written.values()) == [6, 2]
    small = ["--set", "epochs=1", "--set", "options={filters=[4, 4, 4]}", "--limit", "35", "--run-dir", "run"]
    done = run("train", *small, "--json", cwd=tmp_path)
    trained = json.loads(done.stdout)
    assert trained["run_dir"] == "run" and trained["card"]["metrics"]["test"]["n"] == 35
    assert "epoch   1/1" in done.stderr
    exported = json.loads(run("export", "run", "--json", cwd=tmp_path).stdout)
    assert exported["opset"] == 18 and max(exported["parity"].values()) < 1e-4


def test_a_terminal_without_unicode_gets_an_answer(picture):
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([FER_TF, "image", picture], capture_output=True, text=True, env=environment)
    assert done.returncode == 0 and "1 face" in done.stdout, done.stderr


def test_evaluate_cuts_the_splits_of_the_training(tmp_path):
    for emotion in ("happy", "sad"):
        (tmp_path / "faces" / emotion).mkdir(parents=True)
        for i, face in enumerate(draw_faces(20, size=48, seed=len(emotion)).images):
            write_image(tmp_path / "faces" / emotion / f"{i}.png", face)
    small = ["--set", "epochs=1", "--set", "options={filters=[4, 4, 4]}", "--set", "data_seed=1", "--run-dir", "run"]
    done = run("train", "--dataset", "faces", *small, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    trained = json.loads(done.stdout)["card"]
    done = run("evaluate", "run", "--dataset", "faces", "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["fingerprint"] == trained["data"]["fingerprint"]
    assert json.loads(done.stdout)["reports"]["test"]["accuracy"] == trained["metrics"]["test"]["accuracy"]
    many = ["evaluate", "run", "lenet", "--dataset", "faces", "--views", "2", "--results", "table.json", "--json"]
    done = run(*many, cwd=tmp_path)
    assert "trained on other splits" in done.stderr and done.returncode == 1
    done = run("evaluate", "run", "run", "--dataset", "faces", "--results", "table.json", "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["model"] == "run + run"
    (row,) = json.loads((tmp_path / "table.json").read_text())
    assert row["plain"]["test"]["accuracy"] == trained["metrics"]["test"]["accuracy"]
    assert row["ten_views"]["test"]["n"] == row["plain"]["test"]["n"] and row["cpu_ms"] is None
    (tmp_path / "faces" / "sad" / "0.png").unlink()
    assert "may have seen test rows" in run("evaluate", "run", "--dataset", "faces", cwd=tmp_path).stderr


def test_a_temporal_network_trains_on_a_folder_of_clips_and_judges_tracked_faces(tmp_path):
    for emotion in ("happy", "sad"):
        faces = draw_faces(16, size=48, seed=len(emotion)).images
        for k, clip in enumerate(faces.reshape(4, 4, 48, 48, 3)):
            (tmp_path / "clips" / emotion / str(k)).mkdir(parents=True)
            for frame, face in enumerate(clip):
                write_image(tmp_path / "clips" / emotion / str(k) / f"{frame}.png", face)
    small = ["--set", "weights=none", "--set", "head_epochs=1", "--set", "options={window=3, units=4}"]
    done = run("train", "--recipe", "cnn_lstm_drawn", "--dataset", "clips", *small, "--run-dir", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = run("evaluate", "run", "--dataset", "clips", "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["reports"]["test"]["n"] == 2, done.stderr
    from fer_tf.inference.video import write_video

    write_video(tmp_path / "clip.mp4", draw_clip(faces=2, frames=6, width=320, height=240, seed=3).frames, fps=12)
    done = run("video", "clip.mp4", "--model", "run", "--table", "faces.jsonl", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "faces.jsonl").read_text().splitlines()]
    assert json.loads(done.stdout)["faces"] == len(rows) > 6 and {row["track"] for row in rows} == {0, 1}


def test_models_lists_what_is_shipped():
    listed = json.loads(run("models", "--json").stdout)
    assert set(listed["models"]) == {path.parent.name for path in paths.MODELS.glob("*/card.json")}
    assert set(listed["architectures"]) >= {"lenet", "mobilenet_v2"}


def test_models_names_a_damaged_run_and_lists_the_others(tmp_path):
    for name in ("whole", "cut"):
        shutil.copytree(paths.MODELS / "lenet", tmp_path / "suite" / name)
    (tmp_path / "suite" / "cut" / "card.json").write_text("{}")
    done = run("models", "--runs", tmp_path)
    assert done.returncode == 0 and f"trainedin{tmp_path / 'suite'}" in "".join(done.stdout.split())  # however it wraps
    figure = json.loads((paths.MODELS / "lenet" / "card.json").read_text())["metrics"]["test"]["accuracy"]
    assert (
        done.stdout.count(f"{100 * figure:.2f}") == 2
        and "suite/cut: " in done.stdout
        and "the model card lacks" in done.stdout
    )


def test_measure_adds_to_a_file(tmp_path):
    once = ["measure", "--architecture", "lenet", "--runs", "1", "--output", tmp_path / "sizes.json", "--json"]
    done = run(*once)
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "sizes.json").read_text())
    assert written == json.loads(done.stdout) and set(written["architectures"]) == {"lenet"}
    assert written["runs"] == 1 and written["threads"] is None and written["versions"]["openvino"]


def damaged(tmp_path: Path) -> None:
    """Lay out what the table below names."""
    (tmp_path / "text.jpg").write_text("not a picture")
    (tmp_path / "empty").mkdir()
    (tmp_path / "cut.onnx").write_bytes((paths.MODELS / "lenet" / "model.onnx").read_bytes()[:2000])
    (tmp_path / "bad.csv").write_text("emotion,pixels,Usage\n0,1 2 3,Training\n")
    (tmp_path / "twice.csv").write_text("emotion,emotion,pixels,Usage\n0,0,1,Training\n")
    (tmp_path / "bad.toml").write_text("learning_rate = -1.0\n")
    write_image(tmp_path / "good.png", np.zeros((60, 60, 3), np.uint8))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["image", "none.png"], "no image at none.png"),
        (["image", "text.jpg"], "text.jpg is no picture"),
        (["image", "good.png", "--output", "."], "would have one name"),
        (["image", "good.png", "--output", "text.jpg"], "text.jpg must be a folder"),
        (["image", "good.png", "--output", "text.jpg/deeper"], "must be a folder"),
        (["image", "good.png", "--detector", LENET], "is not YuNet's model"),
        (["evaluate", "lenet", "--dataset", "twice.csv"], "once each"),
        (["suite", "--run-dir", "text.jpg", "--notebook", "00"], "must be a folder"),
        (["image", "good.png", "--model", "none"], "there is no model 'none'"),
        (["image", "good.png", "--model", "cut.onnx"], "no ONNX model that can be read"),
        (["image", "good.png", "--backend", "TensorrtExecutionProvider"], "is not available"),
        (["image", "good.png", "--model", KERAS, "--backend", "cpu"], "takes no --backend"),
        (["video", "none.mp4", "--output", "o.mp4"], "no clip at none.mp4"),
        (["video", "text.jpg", "--output", "o.mp4"], "text.jpg cannot be decoded"),
        (["video", "a.mp4", "--table", "t.csv", "--timeline", "b.png", "--summary", "b.png"], "b.png is named twice"),
        (
            ["video", "a.mp4", "--table", "t.csv", "--requests", "100000"],
            "--requests must be at least 1 and at most 64",
        ),
        (["bench", "text.jpg", "--output", "text.jpg"], "text.jpg is the clip itself"),
        (["serve", "--port", "99999"], "--port must be 0 to 65535, got 99999"),
        (["suite", "--grid", "none.toml"], "there is no grid at none.toml"),
        (["bench", "text.jpg", "--live", "inf"], "--live must be 0 to 3600 seconds, got inf"),
        (["evaluate", "lenet", "--dataset", "none"], "no data set 'none'"),
        (["evaluate", "lenet", "--dataset", "bad.csv"], "bad.csv"),
        (["evaluate", "lenet", "--dataset", "empty"], "empty"),
        (["train", "--recipe", "bad.toml"], "learning_rate must be above 0, got -1.0"),
        (["train", "--set", "epochs=-1"], "epochs"),
        (["train", "--recipe", "none"], "no recipe 'none'"),
        (["train", "--devices", "0", "--limit", "100", "--run-dir", "r"], "devices must be at least 1, got 0"),
        (["export", "empty"], "no Keras model"),
        (["export", KERAS, "--contract", "model-zoo"], "the 8 emotions of FER+, but lenet knows"),
        (["split", "empty"], "empty"),
        (["download", "mnist"], "known are"),
        (["suite", "-p", "epoch=3"], "epochs"),
        (["suite", "-p", "dataset"], "NAME=VALUE"),
        (["models", "extra"], "extra"),
        (["models", "--runs", "none"], "no folder none"),
        (["measure", "--architecture", "alexnet"], "unknown architecture 'alexnet'; known are lenet"),
        (["measure", "--output", "none/a.json"], "does not exist: make it first"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_sentence_and_a_failing_exit(arguments, says, tmp_path):
    damaged(tmp_path)
    before = {path.relative_to(tmp_path) for path in tmp_path.rglob("*")}
    done = run(*arguments, cwd=tmp_path)
    told = " ".join(done.stderr.split())
    assert done.returncode != 0 and says in told, done.stderr
    assert "Traceback" not in told
    assert {path.relative_to(tmp_path) for path in tmp_path.rglob("*")} == before, "nothing half-written"


def test_a_port_that_is_taken_is_one_sentence():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run("serve", "--port", taken.getsockname()[1])
    assert done.returncode == 1 and "cannot be listened on" in done.stderr and "Traceback" not in done.stderr


def test_debug_shows_the_traceback(tmp_path):
    done = run("--debug", "image", "none.png", cwd=tmp_path)
    assert done.returncode != 0 and "Traceback" in done.stderr


@pytest.mark.skipif(os.name != "posix", reason="POSIX shells close streams so")
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["train", "--recipe", "plain.toml"], "the recipe plain.toml names no data set: give --dataset"),
        (["export", "x.onnx", "--repository", "r", "--contract", "model-zoo"], "leave out --target and --contract"),
        (["export", "x.keras", "--version", "2"], "give --repository, too"),
    ],
)
def test_what_would_be_ignored_or_guessed_is_refused(arguments, says, tmp_path):
    (tmp_path / "plain.toml").write_text('architecture = "lenet"')
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 1 and says in done.stderr and {p.name for p in tmp_path.iterdir()} == {"plain.toml"}


@pytest.mark.parametrize("closed", ["2>&-", ">&-", ">&- 2>&-"])
def test_a_closed_stream_is_no_obstacle(closed):
    done = subprocess.run(f"{FER_TF} models --json {closed}", shell=True, capture_output=True, text=True)
    assert done.returncode == 0 and "Traceback" not in done.stderr
    assert ">&- " in f"{closed} " or json.loads(done.stdout)["models"]


LOST = """
import gc, signal, sys, time
from fer_tf import terminal
terminal.prepare()
def collected(phase, info):
    gc.callbacks.remove(collected)
    signal.raise_signal(signal.SIGTERM)
gc.callbacks.append(collected)
try:
    gc.collect()
    time.sleep(5)
except KeyboardInterrupt:
    sys.exit(130)
"""


def test_an_interrupt_that_python_loses_comes_again():
    assert subprocess.run([sys.executable, "-c", LOST]).returncode == 130
