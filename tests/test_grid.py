"""The grid of trainings: what its file may say, what is skipped, resumed and listed, and the table over the seeds."""

import builtins
import json
import re
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import pytest
from test_cards import make_run
from typer.testing import CliRunner

from fer_tf import grid, paths, session
from fer_tf.cli import app
from fer_tf.data.drawn import draw_faces
from fer_tf.data.images import write_image
from fer_tf.notebook import read_notebook
from fer_tf.session import SuiteError
from fer_tf.training.compare import read_run
from fer_tf.training.recipe import find_recipe

SMALL = """
seeds = [0, 1]
dataset = "FACES"
limit = 70

[every]
epochs = 1
image_size = 32
augmentation.rotate = 5.0

[recipes.lenet_drawn]

[recipes.slow]
recipe = "lenet_drawn"
learning_rate = 1e-4
"""
RUNS = ["lenet_drawn_s0", "lenet_drawn_s1", "slow_s0", "slow_s1"]


@pytest.fixture(scope="module")
def faces(tmp_path_factory) -> Path:
    """A folder of drawn faces, few enough to be read at once."""
    folder = tmp_path_factory.mktemp("data") / "few drawn faces"
    drawn = draw_faces(140, size=48, seed=0)
    for i, (image, k) in enumerate(zip(drawn.images, drawn.labels, strict=True)):
        place = folder / ("train" if i % 2 else "test") / drawn.emotions[k]
        place.mkdir(parents=True, exist_ok=True)
        write_image(place / f"{i}.png", image)
    return folder


def write(folder: Path, text: str, faces: Path | str = "drawn") -> Path:
    path = folder / "small.toml"
    path.write_text(text.replace("FACES", str(faces)))
    return path


def test_a_grid_is_every_recipe_with_every_seed(tmp_path):
    (tmp_path / "mine.toml").write_text('architecture = "vgg"\n[augmentation]\nshift = 0.5\n')
    read = grid.read_grid(write(tmp_path, SMALL + '[recipes.own]\nrecipe = "mine.toml"\nepochs = 7\n'))
    assert list(read.recipes) == [*RUNS, "own_s0", "own_s1"] and read.limit == 70
    shipped, own = find_recipe("lenet_drawn"), read.recipes["own_s1"]
    turned = shipped.to_dict()["augmentation"] | {"rotate": 5.0}
    assert read.recipes["slow_s1"] == shipped.with_(
        dataset="drawn", seed=1, epochs=1, image_size=32, learning_rate=1e-4, augmentation=turned
    )
    assert (own.architecture, own.epochs, own.dataset, own.augmentation.shift) == ("vgg", 7, "drawn", 0.5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seeds = [", "small.toml: "),
        ("seeds = [0]", "needs tables such as"),
        ("[recipes]\nlenet_drawn = 1", "needs tables such as"),
        ("seeds = [0, 0]\n[recipes.lenet_drawn]", r"different whole numbers.*got \[0, 0\]"),
        ("seeds = [true]\n[recipes.lenet_drawn]", "different whole numbers"),
        ("seeds = 3\n[recipes.lenet_drawn]", "seeds must be a list such as"),
        ("seed = 3\n[recipes.lenet_drawn]", "a grid has no 'seed'; known are seeds, recipes"),
        ("limit = -1\n[recipes.lenet_drawn]", "limit must be 0"),
        ("[recipes.nothing]", r"\[recipes.nothing\]: no recipe 'nothing'"),
        ("[recipes.a]\nrecipe = 'b.toml'", r"\[recipes.a\]: .*b.toml"),
        ("[recipes.a]\nrecipe = 3", r"\[recipes.a\]: no recipe '3'"),
        ("[recipes.'../a']\nrecipe = 'lenet_drawn'", "names a folder"),
        ("[recipes.lenet_drawn]\nepoch = 3", r"\[recipes.lenet_drawn\]: recipe has no 'epoch'"),
        ("[recipes.lenet_drawn]\nseed = 3", "give `seeds`"),
        ("dataset = 'none here'\n[recipes.lenet_drawn]", "no data set"),
    ],
)
def test_a_wrong_grid_is_refused_before_anything_runs(tmp_path, text, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        grid.run_grid(write(tmp_path, text), run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_table_has_mean_and_standard_deviation_over_the_seeds(tmp_path):
    for name, right in (("deep_s0", 0.9), ("deep_s1", 0.8), ("flat_s0", 0.5)):
        make_run(tmp_path / name, right=right)
    runs = [read_run(path) for path in sorted(tmp_path.iterdir())]
    a, b, c = (100 * run.metrics["test"]["accuracy"] for run in runs)
    deep, flat = grid.over_seeds(runs)
    assert deep["model"] == "deep" and deep["seeds"] == 2 and deep["n"] == 140 and deep["training s"] == "90"
    assert deep["accuracy %"] == f"{(a + b) / 2:.2f} ± {abs(a - b) / 2**0.5:.2f}"
    assert flat["accuracy %"] == f"{c:.2f}"


class InThisProcess:
    """Runs a notebook's cells here, without a kernel's start; `stop` says after which printed line to be killed."""

    def __init__(self):
        self.ran, self.stop = [], None

    def __call__(self, source, target, values, *, log, on_cell):
        def tell(*said):
            if self.stop and re.search(self.stop, " ".join(map(str, said))):
                self.stop = None
                raise KeyboardInterrupt

        names = {"__builtins__": vars(builtins) | {"print": tell}}
        self.ran.append(values.get("name", source.stem))
        notebook = nbformat.read(source, as_version=4)
        try:
            for cell in (cell for cell in notebook.cells if cell.cell_type == "code"):
                exec(cell.source, names)
                if "parameters" in cell.metadata.get("tags", []):
                    names |= values
        except (ValueError, FileNotFoundError) as error:
            raise SuiteError(f"{source.name}, `{cell.source.splitlines()[0]}`: {error}") from error
        finally:
            plt.close("all")
            nbformat.write(notebook, target)


@pytest.fixture
def here(monkeypatch, tmp_path):
    """`InThisProcess` in the place of papermill."""
    runner = InThisProcess()
    monkeypatch.setattr(session, "_execute", runner)
    monkeypatch.chdir(tmp_path)  # the notebook goes elsewhere
    with plt.rc_context():
        plt.switch_backend("agg")
        yield runner


def test_a_killed_grid_goes_on_where_it_stopped(here, faces, tmp_path):
    asked, folder = write(tmp_path, SMALL.replace("epochs = 1", "epochs = 2"), faces), tmp_path / "run"
    here.stop = r"epoch   1/2"
    with pytest.raises(KeyboardInterrupt):
        grid.run_grid(asked, run_dir=folder)
    assert here.ran == RUNS[:1] and 'class="status interrupted"' in (folder / "index.html").read_text()
    here.stop = "^slow_s0"  # between the third's start and its first epoch
    with pytest.raises(KeyboardInterrupt):
        grid.run_grid(asked, run_dir=folder)
    assert here.ran[1:] == RUNS[:3]
    assert "resumed after epoch 1" in (folder / RUNS[0] / "log.txt").read_text()
    noted = json.loads((folder / "grid.json").read_text())
    del noted[RUNS[0]]["recipe"]["teachers"]  # as if made before recipes had them
    (folder / "grid.json").write_text(json.dumps(noted))
    result = grid.run_grid(asked, run_dir=folder)
    assert here.ran[4:] == ["slow_s0", "slow_s1", "11_compare"] and not result.failed
    assert sorted(row["model"] for row in result.table) == ["lenet_drawn", "slow"]
    assert all(row["seeds"] == 2 for row in result.table)
    page = result.index.read_text(encoding="utf-8")
    assert page.count('class="status done"') == 5 and "11_over_seeds.csv" in page and "11_paired_tests.csv" in page
    assert all((folder / "html" / f"{name}.html").is_file() for name in [*RUNS, "11_compare", "card_data"])
    assert all((folder / "cards" / f"{name}.md").is_file() for name in [*RUNS, "data"])
    with pytest.raises(ValueError, match=r"lenet_drawn_s0 was trained by other choices.*--run-dir"):
        grid.run_grid(write(tmp_path, SMALL, faces), run_dir=folder)


def test_a_run_that_fails_is_listed_and_the_others_are_done(faces, tmp_path):
    """As a user runs it: papermill, kernels, the command line."""
    broken = '[recipes.broken]\nrecipe = "lenet_drawn"\nweights = "none.h5"\n\n[recipes.lenet_drawn]'
    asked = write(tmp_path, SMALL.replace("[0, 1]", "[0]").partition("[recipes.slow]")[0], faces)
    asked.write_text(asked.read_text().replace("[recipes.lenet_drawn]", broken))
    told = CliRunner().invoke(app, ["suite", "--grid", str(asked), "--run-dir", str(tmp_path / "run")])
    assert told.exit_code == 1
    page = (tmp_path / "run" / "index.html").read_text(encoding="utf-8")
    cell = r"train_recipe.ipynb, In \[\d+\] `model = build_model\(.*?ValueError: lenet has no pretrained weights"
    assert re.search(cell, page) and page.count('class="status done"') == 2
    assert (tmp_path / "run" / "lenet_drawn_s0" / "metrics.json").is_file()
    assert json.loads((tmp_path / "run" / "grid.json").read_text()).keys() == {"broken_s0", "lenet_drawn_s0"}
    assert "data:image/png" in (tmp_path / "run" / "html" / "lenet_drawn_s0.html").read_text(encoding="utf-8")


def test_a_grid_takes_no_parameters_of_notebooks(tmp_path):
    asked = write(tmp_path, SMALL)
    assert CliRunner().invoke(app, ["suite", "--grid", str(asked), "-p", "epochs=3"]).exit_code == 1


def test_the_notebook_of_the_grid_is_clean():
    cells = nbformat.read(grid.NOTEBOOK, as_version=4).cells
    assert read_notebook(grid.NOTEBOOK).parameters.keys() == {"recipe", "name", "limit", "run_dir"}
    assert len({cell.id for cell in cells}) == len(cells)
    assert not any(cell.get("outputs") or len(cell.source.splitlines()) > 20 for cell in cells if "outputs" in cell)
    assert grid.NOTEBOOK not in paths.NOTEBOOKS.glob("*.ipynb")  # it is no part of the suite
