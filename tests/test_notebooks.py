"""Every notebook is clean, follows the house's form, and runs on drawn faces from a foreign working directory."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from fer_tf import paths
from fer_tf.labels import FER2013
from fer_tf.suite import find_notebooks, read_notebook, run_suite
from fer_tf.training.compare import summary
from fer_tf.training.evaluate import report

NOTEBOOKS = sorted(paths.NOTEBOOKS.glob("*.ipynb"))
EXTRA = sorted((paths.NOTEBOOKS / "extra").glob("*.ipynb"))
VIDEO = "12_export_and_video_benchmark"
HEADINGS = ["Claim", "Parameters", "Setup", "Data", "Model", "Train", "Evaluate", "Look at mistakes", "Keep"]


def cells(path):
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


@pytest.mark.parametrize("path", NOTEBOOKS + EXTRA, ids=lambda p: p.stem)
def test_committed_without_outputs_and_well_formed(path):
    assert re.fullmatch(r"[a-z0-9_]+" if path in EXTRA else r"\d\d_[a-z0-9_]+", path.stem)
    assert cells(path)[0]["cell_type"] == "markdown" and "".join(cells(path)[0]["source"]).startswith("# ")
    read_notebook(path)  # raises on a parameters cell that is not literals with comments
    assert len({cell["id"] for cell in cells(path)}) == len(cells(path))
    for cell in cells(path):
        source = "".join(cell["source"])
        if cell["cell_type"] == "code":
            assert not cell["outputs"] and cell["execution_count"] is None
            assert len(source.splitlines()) <= 20, f"one thought a cell:\n{source}"
            assert not re.search(r"sys\.path|^\s*[!%](pip|conda|wget)", source, re.MULTILINE)
        assert "/home/" not in source and "/root/" not in source
        assert not re.search(r"\bTODO\b|@\w+@", source), "something is still to be filled in"


@pytest.mark.parametrize("path", [p for p in NOTEBOOKS if "02" <= p.stem[:2] <= "09"], ids=lambda p: p.stem)
def test_training_notebooks_share_their_headings(path):
    prose = "\n".join("".join(cell["source"]) for cell in cells(path) if cell["cell_type"] == "markdown")
    found = re.findall(r"^## (.+)$", prose, re.MULTILINE)
    assert [heading for heading in found if heading in HEADINGS] == HEADINGS


@pytest.mark.parametrize("path", NOTEBOOKS + EXTRA, ids=lambda p: p.stem)
def test_links_between_notebooks_resolve(path):
    prose = "\n".join("".join(cell["source"]) for cell in cells(path) if cell["cell_type"] == "markdown")
    for name in re.findall(r"\]\(([^)]+\.ipynb)\)", prose):
        assert (path.parent / name).is_file(), f"{path.name} links to {name}"


@pytest.mark.parametrize("path", [p for p in NOTEBOOKS if p.stem[:2] in ("02", "03", "11")], ids=lambda p: p.stem)
def test_a_run_without_clean_rows_is_reported(path, tmp_path):
    """The cell that makes the table of figures, given a metrics.json as a test split of copies leaves it."""
    judged = report(np.eye(7, dtype=np.float32), np.arange(7), FER2013).to_dict()
    run = SimpleNamespace(name="lenet", metrics={"test": judged})
    given = {"finished": run, "runs": [run], "split": "test", "number": "02", "report": tmp_path}
    given |= {"summary": summary, "pd": pd}
    source = next(s for s in ("".join(cell["source"]) for cell in cells(path)) if "_clean" in s and "summary(" in s)
    exec(source, given)
    assert len(given["table"]) == 1 and list(given["table"]["n"]) == ["7"]


def test_the_suite_runs_on_drawn_faces(tmp_path, monkeypatch):
    """The main job, as `make suite` runs it but for shorter trainings and clips, from another working directory."""
    monkeypatch.chdir(tmp_path)
    quick = {"dataset": "drawn", "limit": "350", "epochs": "1", "frames": "15"}
    result = run_suite(parameters=quick, run_dir=tmp_path / "a run")
    assert [n.path for n in result.notebooks] == [n.path for n in find_notebooks()]
    assert all(n.status == "done" for n in result.notebooks)
    page = result.index.read_text(encoding="utf-8")
    for path in NOTEBOOKS:
        assert f"html/{path.stem}.html" in page and (result.run_dir / "html" / f"{path.stem}.html").is_file()
    assert "<video" in page and "<table" in page
    assert "data:image/jpeg" in (result.run_dir / "html" / f"{VIDEO}.html").read_text(encoding="utf-8")  # the preview
    for rung in json.loads((result.run_dir / "benchmark.json").read_text(encoding="utf-8"))["rungs"]:
        assert rung["faces"] > 2 * rung["frames"]  # a batch has something to gather
    assert not re.search(r"""(src|href)=["']https?://""", re.sub(r"<a [^>]*>", "", page))


@pytest.mark.parametrize("path", EXTRA, ids=lambda p: p.stem)
def test_an_extra_notebook_runs_by_itself(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run_suite(notebooks=[path], parameters={"clients": "12", "many": "no"}, run_dir=tmp_path / "a run")
    assert [n.status for n in result.notebooks] == ["done"]
    assert path not in [n.path for n in find_notebooks()]  # `make suite` leaves it out


def test_the_suite_runs_on_real_fer2013(fer2013_csv, tmp_path):
    """The notebooks that do something else on real faces, and what compares them; the others differ in the network."""
    given = {"dataset": "fer2013", "limit": "210", "epochs": "1"}
    result = run_suite(notebooks=["01", "02", "03", "11"], parameters=given, run_dir=tmp_path / "real")
    assert [n.status for n in result.notebooks] == ["done"] * 4
