"""The suite runner: strict parameters, order, failures that name themselves, and pages that ask the network nothing."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pytest
from rich.console import Console

from fer_tf import pages, paths, session
from fer_tf.suite import SuiteError, find_notebooks, match_parameters, read_notebook, run_suite

PARAMETERS = """dataset: str = "drawn"  # what to load
run_dir: str = ""  # where results go
epochs: int = 3  # passes over the train split
"""
WRITES = """import os, sys
from pathlib import Path
report = Path(run_dir) / "report"
Path(run_dir, "order.txt").open("a").write(f"NAME {dataset} {epochs} {sys.executable}\\n")
"""
SHOWS = """(report / "02_all_models.csv").write_text("model,accuracy %\\nlenet,55.1\\na <b> & c,63.2\\n")
(report / "02_the_ladder.png").write_bytes(b"no real picture")
(report / "02_annotated.mp4").write_bytes(b"no real clip")
(report / "notes.json").write_text("{}")
os.write(2, b"noise of " + b"compiled code")
import matplotlib.pyplot as plt
plt.plot([1, 2]);"""


def write(folder: Path, name: str, *cells: str, parameters: str | None = PARAMETERS, prose: str = "") -> Path:
    """Write a notebook `name` with a heading, a parameters cell and code cells."""
    notebook = nbformat.v4.new_notebook()
    notebook.cells.append(nbformat.v4.new_markdown_cell(f"Some words.\n\n# Title of {name}\n{prose}"))
    if parameters is not None:
        notebook.cells.append(nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    notebook.cells += [nbformat.v4.new_code_cell(cell.replace("NAME", name)) for cell in cells]
    path = folder / f"{name}.ipynb"
    nbformat.write(notebook, path)
    return path


class Links(HTMLParser):
    """What a page refers to: `loads` are fetched with the page, `leads` when a reader follows them."""

    def __init__(self, path: Path):
        super().__init__()
        self.loads, self.leads = [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name in ("src", "href", "poster", "data", "srcset"):
                (self.leads if tag == "a" else self.loads).append(value)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Two notebooks run to the end, on a machine whose `python3` kernel is a wrong one."""
    folder = tmp_path_factory.mktemp("with {braces} and spaces")
    elsewhere = folder / "jupyter" / "kernels" / "python3"
    elsewhere.mkdir(parents=True)
    (elsewhere / "kernel.json").write_text(json.dumps({"argv": ["nothing"], "display_name": "x", "language": "python"}))
    write(folder, "02_second", WRITES, SHOWS, parameters=PARAMETERS + "limit: int = 0  # at most so many faces\n")
    write(folder, "01_first", WRITES, prose="Then comes [the second](02_second.ipynb).")
    with pytest.MonkeyPatch.context() as patch, (folder / "console.txt").open("w") as terminal:
        patch.setenv("JUPYTER_PATH", str(folder / "jupyter"))
        patch.setenv("MPLBACKEND", "agg")
        yield run_suite(
            notebooks=[folder / "02_second.ipynb", folder / "01_first.ipynb"],
            parameters={"epochs": "5", "limit": 7},
            run_dir=folder / "a run",
            progress=Console(file=terminal),
        )


def test_notebooks_run_in_name_order_with_the_parameters_they_declare(finished):
    assert (finished.run_dir / "order.txt").read_text().splitlines() == [
        f"01_first drawn 5 {sys.executable}",
        f"02_second drawn 5 {sys.executable}",
    ]
    assert [notebook.status for notebook in finished.notebooks] == ["done", "done"]
    second = nbformat.read(finished.run_dir / "notebooks" / "02_second.ipynb", as_version=4)
    assert second.metadata.papermill.parameters == {"run_dir": str(finished.run_dir), "epochs": 5, "limit": 7}


def test_progress_is_plain_lines_off_a_terminal(finished):
    lines = (finished.run_dir.parent / "console.txt").read_text().splitlines()
    assert [re.sub(r"\d+ s$", "N s", line) for line in lines] == [
        "1/2 01_first: 4 cells",
        "1/2 01_first: done in N s",
        "2/2 02_second: 5 cells",
        "2/2 02_second: done in N s",
    ]


def test_every_link_resolves_and_no_page_asks_the_network(finished):
    pages = [finished.index, *sorted((finished.run_dir / "html").iterdir())]
    assert [page.name for page in pages] == ["index.html", "01_first.html", "02_second.html"]
    for page in pages:
        links = Links(page)
        outside = [link for link in links.loads if not link.startswith(("data:", "report/"))]
        assert not outside and "@import" not in page.read_text() and "url(http" not in page.read_text()
        for link in [*links.loads, *links.leads]:
            if not link.startswith(("data:", "#")):
                assert (page.parent / unquote(link)).is_file(), f"{page.name} leads to {link}"
    assert "02_second.html" in Links(pages[1]).leads


def test_index_shows_facts_notebooks_and_what_they_reported(finished):
    page = finished.index.read_text(encoding="utf-8")
    for words in ("Title of 01_first", "All models", "a &lt;b&gt; &amp; c", "The ladder", "drawn", "epochs = 5"):
        assert words in page
    assert page.index("Title of 02_second</h2>") < page.index("All models") < page.index("notes.json")
    links = Links(finished.index)
    assert {"report/02_the_ladder.png", "report/02_annotated.mp4"} <= set(links.loads)


def test_figures_are_in_the_page_and_the_noise_of_compiled_code_is_not(finished):
    page = (finished.run_dir / "html" / "02_second.html").read_text(encoding="utf-8")
    assert "data:image/png;base64" in page
    assert "noise of compiled code" not in page
    assert "noise of compiled code" in (finished.run_dir / "kernel.log").read_text()


def reported(tmp_path, files: dict[str, bytes | str], **facts) -> str:
    """Write these files as a report, one after the other, and return the index over it."""
    for name in ("report", "html"):
        (tmp_path / name).mkdir()
    for second, (name, content) in enumerate(files.items()):
        path = tmp_path / "report" / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        os.utime(path, (second, second))
    notebooks = [read_notebook(write(tmp_path, name)) for name in ("01_first", "02_second", "03_silent")]
    pages.write_site(tmp_path, facts=facts, notebooks=notebooks, pages={})
    return (tmp_path / "index.html").read_text(encoding="utf-8")


def test_results_stand_in_the_order_of_writing_under_their_notebook(tmp_path):
    names = ("notes.json", "02_zebra.json", "01_b.json", "02_antelope.json", "01_a.json")
    page = reported(tmp_path, dict.fromkeys(names, "{}"))
    places = [page.index(name) for name in ("01_b", "01_a", "02_zebra", "02_antelope", "notes.json")]
    assert places == sorted(places)


def test_every_notebook_with_results_leads_to_them(tmp_path):
    page = reported(tmp_path, {"01_a.json": "", "02_b.json": ""})
    inside = [link[1:] for link in Links(tmp_path / "index.html").leads if link.startswith("#results")]
    assert inside == ["results-01", "results-02"] and all(f'id="{name}"' in page for name in inside)


def test_two_small_results_share_a_row_and_a_lone_or_wide_one_has_its_own(tmp_path):
    small, wide = (b"\x89PNG\r\n\x1a\n" + bytes(8) + width.to_bytes(4, "big") + bytes(4) for width in (600, 1400))
    files = {"01_a.png": small, "01_b.csv": "a,b\n1,2\n", "01_c.png": small, "01_d.png": wide, "01_e.png": small}
    page = reported(tmp_path, files | {"01_f.png": b"no picture", "01_g.csv": f"a,b\n1,{'long ' * 40}\n"})
    halves = [
        part.split("report/")[1][:8] for part in page.split("<figure")[1:] if part.startswith(' class="card half"')
    ]
    assert halves == ["01_a.png", "01_b.csv"]


def test_tables_group_thousands_but_not_years_ids_or_words(tmp_path):
    head = "rows,loss,year,run id,images_per_s,file\n"
    page = reported(tmp_path, {"01_a.csv": head + "5600,12345.67,2026,1234567,999,4321\n-1000,0.5,2025,0042,1000,x\n"})
    for text in ("5,600", "12,345.67", "2026", "1234567", "999", "4321", "-1,000", "0042", "1,000", "images/s"):
        assert f">{text}</t" in page


def test_time_is_so_far_while_a_notebook_runs(tmp_path, monkeypatch):
    seen = []

    def execute(*_, **__):
        seen.append((tmp_path / "run" / "index.html").read_text())

    monkeypatch.setattr(session, "_execute", execute)
    done = run_suite(notebooks=[write(tmp_path, "01_a")], parameters={}, run_dir=tmp_path / "run")
    assert "0 min 0 s so far<" in seen[0] and "so far" not in done.index.read_text()


def test_a_failing_notebook_is_named_with_cell_and_cause_and_stops_the_suite(tmp_path):
    bad = write(tmp_path, "01_bad", "fine = 1", "# shapes\nraise ValueError('expected 48, got 64')")
    late = write(tmp_path, "02_late", "1")
    terminal = Console(file=io.StringIO(), force_terminal=True, width=100)
    with pytest.raises(SuiteError, match=r"^01_bad.ipynb, In \[4\] `# shapes`: ValueError: expected 48, got 64$"):
        run_suite(notebooks=[bad, late], parameters={}, run_dir=tmp_path / "run", progress=terminal)
    assert "cell 5/5" in terminal.file.getvalue()
    page = (tmp_path / "run" / "index.html").read_text()
    assert "expected 48, got 64" in page and 'class="status failed"' in page and 'class="status waiting"' in page
    assert "ValueError" in (tmp_path / "run" / "html" / "01_bad.html").read_text()
    assert not (tmp_path / "run" / "notebooks" / "02_late.ipynb").exists()


def test_a_dead_kernel_says_that_memory_is_the_usual_cause(tmp_path):
    dies = write(tmp_path, "01_dies", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(SuiteError, match=r"^01_dies.ipynb, cell 4: .*memory"):
        run_suite(notebooks=[dies], parameters={}, run_dir=tmp_path / "run")


def test_an_interrupted_suite_leaves_its_index(tmp_path, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(session, "_execute", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_suite(notebooks=[write(tmp_path, "01_a")], parameters={}, run_dir=tmp_path / "run")
    assert 'class="status interrupted"' in (tmp_path / "run" / "index.html").read_text()


def test_a_stopped_suite_goes_on_where_it_stopped(tmp_path, monkeypatch):
    ran = []

    def execute(source, target, values, **_):
        ran.append((source.stem, values.get("epochs")))
        if (source.stem, len(ran)) == ("02_b", 2):
            raise KeyboardInterrupt
        target.write_bytes(source.read_bytes())

    monkeypatch.setattr(session, "_execute", execute)

    def interrupt(*_):
        raise KeyboardInterrupt

    suite = [write(tmp_path, name) for name in ("01_a", "02_b", "03_c")]
    folder, terminal = tmp_path / "run", Console(file=io.StringIO(), width=100)
    with pytest.raises(KeyboardInterrupt):
        run_suite(notebooks=suite, parameters={"epochs": "5"}, run_dir=folder, progress=terminal)
    assert f"to go on here: fer-tf suite --run-dir {folder}\n" in terminal.file.getvalue()
    for wrong in ({"notebooks": suite, "parameters": {}}, {"notebooks": suite[:2], "parameters": {"epochs": "5"}}):
        with pytest.raises(ValueError, match="begun with other notebooks or parameters"):
            run_suite(run_dir=folder, **wrong)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(session.Session, "skip", interrupt)  # stopped again, before it is where it was
        run_suite(parameters={}, run_dir=folder)
    ran.clear()
    done = run_suite(notebooks=suite, parameters={"epochs": 5}, run_dir=folder, progress=terminal)
    assert ran == [("02_b", 5), ("03_c", 5)] and "1/3 01_a: was done before" in terminal.file.getvalue()
    assert [notebook.status for notebook in done.notebooks] == [
        "done"
    ] * 3 and "html/01_a.html" in done.index.read_text()
    ran.clear()
    write(tmp_path, "02_b", "1 + 1")  # it changed, and 03 may read what it wrote
    run_suite(parameters={}, run_dir=folder)
    assert ran == [("02_b", 5), ("03_c", 5)]
    (folder / "suite.json").write_text("{}")
    with pytest.raises(ValueError, match=r"suite.json cannot be read \('notebooks'\)"):
        run_suite(parameters={}, run_dir=folder)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"epoch": 3}, r"no notebook has a parameter 'epoch' \(did you mean epochs\?\); known are dataset, epochs$"),
        ({"zzz": 3}, "no notebook has a parameter 'zzz'; known are dataset, epochs$"),
        ({"run_dir": "x"}, "no notebook has a parameter 'run_dir'"),
        ({"epochs": "abc"}, "parameter epochs must be int, such as 3; got 'abc'"),
    ],
)
def test_wrong_parameters_are_refused_before_anything_runs(tmp_path, given, message):
    with pytest.raises(ValueError, match=message):
        run_suite(notebooks=[write(tmp_path, "01_a")], parameters=given, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("line", "value", "expected"),
    [
        ("epochs: int = 3", "5", 5),
        ("epochs: int = 3", "-1", -1),
        ("epochs: int = 3", "2.5", ValueError),
        ("epochs: int = 3", 2.5, ValueError),
        ("epochs: int = 3", True, ValueError),
        ("rate: float = 0.1", "1e-3", 0.001),
        ("rate: float = 0.1", 1, 1.0),
        ("rate: float = 0.1", "fast", ValueError),
        ("draft: bool = True", "False", False),
        ("draft: bool = False", "yes", True),
        ("draft: bool = True", "maybe", ValueError),
        ("draft: bool = True", 1, ValueError),
        ('dataset: str = "a=b # c"', "False", "False"),
        ('dataset: str = "drawn"', 3, ValueError),
    ],
)
def test_values_take_the_declared_type(tmp_path, line, value, expected):
    (parameter,) = read_notebook(write(tmp_path, "01_a", parameters=f"{line}  # é: a comment")).parameters.values()
    assert parameter.help == "é: a comment"
    if expected is ValueError:
        with pytest.raises(ValueError, match=f"parameter {parameter.name} must be {parameter.kind.__name__}"):
            parameter.coerce(value)
    else:
        coerced = parameter.coerce(value)
        assert coerced == expected and type(coerced) is type(expected)


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (None, "01_a.ipynb has 0 cells tagged `parameters`"),
        ("epochs = 3  # not annotated", "got `epochs = 3"),
        ("epochs: int = 3", "got `epochs: int = 3`"),
        ("epochs: int = 1 + 2  # derived", "parameters cell"),
        ("epochs: int = 0.5  # of another type", "got `epochs: int = 0.5"),
        ("names: list = []  # of no known type", "got `names: list"),
        ("epochs: int  # without a value", "got `epochs: int "),
        ("import os  # no parameter", "got `import os"),
        ("%matplotlib inline", "parameters cell: invalid syntax"),
    ],
)
def test_a_parameters_cell_holds_annotated_literals_with_comments(tmp_path, cell, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        read_notebook(write(tmp_path, "01_a", parameters=cell))


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"cells": [{"source": ""}]}', '{"cells": [3]}', '{"cells": [{"cell_type": 1}]}']
)
def test_a_file_that_is_no_notebook_is_named(tmp_path, text):
    (tmp_path / "01_a.ipynb").write_text(text)
    with pytest.raises(ValueError, match="is not a notebook"):
        read_notebook(tmp_path / "01_a.ipynb")


def test_each_notebook_gets_only_what_it_declares(tmp_path):
    small = write(tmp_path, "01_a", parameters="limit: int = 0  # faces")
    large = write(tmp_path, "02_b", parameters="limit: int = 0  # faces\nseed: int = 0  # of everything random")
    assert match_parameters(find_notebooks([large, small]), {"seed": "1", "limit": "9"}) == {
        small: {"limit": 9},
        large: {"limit": 9, "seed": 1},
    }


def test_notebooks_are_found_by_the_start_of_their_name(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path)
    with pytest.raises(FileNotFoundError, match="no notebook"):
        find_notebooks()
    for name in ("12_video", "01_data", "02_lenet"):
        write(tmp_path, name)
    assert [notebook.path.stem for notebook in find_notebooks()] == ["01_data", "02_lenet", "12_video"]
    assert [notebook.path.stem for notebook in find_notebooks(["12", "01"])] == ["01_data", "12_video"]
    for missing in ("03", tmp_path / "03_more.ipynb"):
        with pytest.raises(FileNotFoundError, match="03"):
            find_notebooks([missing])
    (tmp_path / "04_text.ipynb").write_text("no json")
    with pytest.raises(ValueError, match=r"04_text.ipynb is not a notebook"):
        find_notebooks()


def test_two_suites_never_share_a_folder(tmp_path, monkeypatch):
    def execute(*_, **__):
        with pytest.raises(RuntimeError, match="another suite is running in"):
            run_suite(parameters={}, run_dir=tmp_path / "one")

    monkeypatch.setattr(paths, "RUNS", tmp_path / "runs")
    notebook = write(tmp_path, "01_a")
    monkeypatch.setattr(session, "_execute", execute)
    run_suite(notebooks=[notebook], parameters={}, run_dir=tmp_path / "one")
    monkeypatch.setattr(session, "_execute", lambda *_, **__: None)
    first, second = (run_suite(notebooks=[notebook], parameters={}).run_dir for _ in range(2))
    assert first != second and first.parent == second.parent == tmp_path / "runs"
    (tmp_path / "mine" / "lenet").mkdir(parents=True)
    (tmp_path / "mine" / "lenet" / "recipe.json").touch()
    assert (run_suite(notebooks=[notebook], parameters={}, run_dir=tmp_path / "mine").run_dir / "lenet").is_dir()
    (tmp_path / "mine" / "suite.json").unlink()
    with pytest.raises(FileExistsError, match="is not empty"):
        run_suite(notebooks=[notebook], parameters={}, run_dir=tmp_path / "mine")


@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
def test_make_passes_its_variables_on_as_parameters():
    command = ["make", "-n", "suite", "PYTHON=python3", "DATASET=my faces", "EPOCHS=3", "ARGS=--quiet"]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    out = subprocess.run(command, cwd=paths.ROOT, env=clean, capture_output=True, text=True, check=True).stdout
    (call,) = [line for line in out.splitlines() if "fer-tf suite" in line]
    assert "-p 'dataset=my faces'" in call and "-p 'epochs=3'" in call and call.endswith("--quiet")
    assert "python3" not in call
