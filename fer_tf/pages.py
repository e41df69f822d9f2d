"""The suite's HTML: an executed notebook as a page, and the index page over a run folder. Nothing asks the network."""

import csv
import re
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

OFFLINE = """{% extends "lab/index.html.j2" %}
{% block html_head_js %}{% endblock %}
{% block html_head_js_mathjax %}{% endblock %}
{% block html_head_js_mermaidjs %}{% endblock %}
{% block jupyter_widgets %}{% endblock %}
{% block extra_css %}<style>
  main { max-width: 70rem; margin: auto } body { overflow-x: hidden } /* wide enough for 120 characters of code */
  .jp-OutputArea-output.jp-RenderedHTML pre {
    font-family: var(--jp-code-font-family); font-size: var(--jp-code-font-size)
  }
</style>{% endblock %}
"""

INDEX = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Facial emotion recognition: the suite</title>
<style>
  :root { color-scheme: light dark; --page: #f7f6f3; --card: #fff; --text: #1f2328; --quiet: #62676e; --line: #e2e0da;
          --link: #0b63b5; --done: #1a7f4b; --failed: #c0341d; --waiting: #8a8f96 }
  @media (prefers-color-scheme: dark) {
    :root { --page: #14161a; --card: #1d2026; --text: #e8e6e3; --quiet: #9aa0a8; --line: #31353d;
            --link: #6cb6ff; --done: #4cc38a; --failed: #ff7b66; --waiting: #8a8f96 } }
  * { box-sizing: border-box }
  body { margin: 0; padding: 2.5rem 1rem 4rem; background: var(--page); color: var(--text);
         font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", sans-serif }
  main { max-width: 76rem; margin: auto }
  h1 { font-size: clamp(1.5rem, 5vw, 2.2rem); line-height: 1.2; margin: 0 0 1.5rem; letter-spacing: -.02em }
  h2 { font-size: 1.15rem; margin: 2.5rem 0 .75rem; scroll-margin-top: 1rem }
  .up { float: right; padding: 0 .5rem }
  a { color: var(--link); text-decoration: none } a:hover { text-decoration: underline }
  .card { background: var(--card); border: 1px solid var(--line); border-radius: .75rem; margin: 0 0 1rem;
          overflow-x: auto }
  dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: 1rem; padding: 1rem 1.25rem }
  dt, figcaption, .quiet { color: var(--quiet); font-size: .85rem } dd { margin: 0; overflow-wrap: anywhere }
  table { border-collapse: collapse; width: 100%; font-size: .9rem; line-height: 1.35 }
  th, td { padding: .4rem .6rem; text-align: left; border-top: 1px solid var(--line) }
  th:first-child, td:first-child { padding-left: 1.25rem } th:last-child, td:last-child { padding-right: 1.25rem }
  .notebooks { font-size: 1rem; line-height: 1.5 }
  thead th, .notebooks tr:first-child td { border-top: 0 }
  th { color: var(--quiet); font-size: .85rem; font-weight: 600; vertical-align: bottom }
  .notebooks td:first-child { width: 100% }
  .number { text-align: right; font-variant-numeric: tabular-nums } td.number { white-space: nowrap }
  .status { font-weight: 600; white-space: nowrap } .done { color: var(--done) }
  .failed, .interrupted { color: var(--failed) } .waiting, .running { color: var(--waiting) }
  .error { color: var(--failed); font: .85rem/1.4 ui-monospace, monospace; overflow-wrap: anywhere }
  .results { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 1rem }
  .results .card { margin: 0 } figure { grid-column: 1 / -1; display: flex; flex-direction: column }
  .half { grid-column: auto; align-self: start } figcaption { padding: .6rem 1.25rem }
  img, video { display: block; max-width: 100%; max-height: 36rem; margin: auto } .figure { background: #fff }
  @media (max-width: 60rem) { .half { grid-column: 1 / -1 } }
  @media (max-width: 40rem) { body { padding-top: 1.25rem } }
</style>
<main>
<h1>Facial emotion recognition: the suite</h1>
<dl class="card">{% for name, text in facts.items() %}<div><dt>{{ name }}</dt><dd>{{ text }}</dd></div>{% endfor %}</dl>
<div class="card"><table class="notebooks">
{% for run in notebooks %}<tr>
  <td>{% if run.path.stem in pages %}<a href="html/{{ run.path.stem | urlencode }}.html">{{ run.title }}</a>
    {% else %}{{ run.title }}{% endif %}
    <div class="quiet">{{ run.path.stem }}</div>{% if run.error %}
    <div class="error">{{ run.error }}</div>{% endif %}</td>
  <td>{% if anchors[run.path.stem] %}<a href="#{{ anchors[run.path.stem] }}">results</a>{% endif %}</td>
  <td class="number">{% if run.seconds %}{{ "%.0f" | format(run.seconds) }} s{% endif %}</td>
  <td class="status {{ run.status }}">{{ run.status }}</td></tr>
{% endfor %}</table></div>
{% macro cells(tag, row, numeric) %}<tr>{% for text in row %}
  <{{ tag }}{% if loop.index0 in numeric %} class="number"{% endif %}>{{ text }}</{{ tag }}>{% endfor %}</tr>
{% endmacro %}
{% for section in sections %}<h2 id="{{ section.id }}">
<a class="up" href="#top" title="to the top">↑</a>{{ section.heading }}</h2>
<div class="results">
{% for item in section.files %}<figure class="card{% if item.half %} half{% endif %}">
<figcaption>{{ item.caption }} · <a href="{{ item.link }}">{{ item.file }}</a></figcaption>
{% if item.kind == "table" %}<table><thead>{{ cells("th", item.head, item.numeric) }}</thead>
{% for row in item.rows %}{{ cells("td", row, item.numeric) }}{% endfor %}</table>
{% if item.left_out %}<figcaption>and {{ item.left_out }} more rows in the file</figcaption>{% endif %}
{% elif item.kind == "figure" %}<a class="figure" href="{{ item.link }}">
<img src="{{ item.link }}" alt="{{ item.caption }}"></a>
{% elif item.kind == "clip" %}<video controls preload="metadata" src="{{ item.link }}"></video>{% endif %}</figure>
{% endfor %}</div>
{% endfor %}</main>
</html>
"""

MORE = "More"  # the heading of files that belong to no notebook of the run
ROWS = 100  # of a table that the index page shows
NUMBER = re.compile(r"[-+±%.,\d\s–]*|nan")
LARGE = re.compile(r"-?[1-9]\d{3,}(\.\d+)?")
NAMES = re.compile(r"\b(year|id|seed|date)s?\b", re.IGNORECASE)  # columns whose numbers are no amounts
HALF = {"pixels": 1100, "letters": 56}  # what shares its row: figures as wide as this, tables with rows as long
KINDS = {".csv": "table", ".png": "figure", ".svg": "figure", ".mp4": "clip", ".webm": "clip"}


def write_notebook(executed: Path, target: Path) -> None:
    """Write the notebook at `executed` as HTML to `target`; links to other notebooks lead to their HTML."""
    from jinja2 import DictLoader
    from nbconvert import HTMLExporter
    from traitlets.config import Config

    shown = [
        "text/html",
        "text/markdown",
        "image/svg+xml",
        "image/png",
        "image/jpeg",
        "text/plain",
    ]  # no script, no widget
    exporter = HTMLExporter(
        config=Config({"NbConvertBase": {"display_data_priority": shown}}),
        extra_loaders=[DictLoader({"offline.html.j2": OFFLINE})],
        template_file="offline.html.j2",
    )
    exporter.log.setLevel("ERROR")  # it warns that figures lack alternative text
    html, _ = exporter.from_filename(str(executed))
    target.write_text(re.sub(r'href="([^":/]+)\.ipynb(?=["#])', r'href="\1.html', html), encoding="utf-8")


def write_index(run_dir: Path, *, facts: dict[str, str], notebooks: Iterable) -> None:
    """Write `run_dir/index.html`.

    facts      caption -> text, at the head of the page
    notebooks  `suite.Notebook`s in order; a name links to `html/<name>.html` where that exists
    Below stands every file of `run_dir/report`, grouped by the notebook whose number its name begins with, in the order
    in which they were written; two small ones in a row stand side by side.
    """
    from jinja2 import Environment

    numbers = {run.path.stem: run.path.stem.partition("_")[0] for run in notebooks}
    files: dict[str, list[dict]] = {number: [] for number in [*numbers.values(), MORE]}
    for path in sorted((run_dir / "report").iterdir(), key=lambda path: (path.stat().st_mtime_ns, path.name)):
        number, _, rest = path.stem.partition("_")
        number, caption = (number, rest) if number in numbers.values() and rest else (MORE, path.stem)
        files[number].append(_item(path, caption.replace("_", " ").capitalize()))
    headings = {numbers[run.path.stem]: run.title for run in notebooks} | {MORE: MORE}
    sections = [
        {"id": _anchor(number), "heading": headings[number], "files": _in_rows(items)}
        for number, items in files.items()
        if items
    ]
    page = Environment(autoescape=True).from_string(INDEX)
    html = page.render(
        facts=facts,
        notebooks=notebooks,
        sections=sections,
        anchors={stem: _anchor(number) if files[number] else "" for stem, number in numbers.items()},
        pages={path.stem for path in (run_dir / "html").iterdir()},
    )
    (run_dir / "index.html").write_text(html, encoding="utf-8")


def _anchor(number: str) -> str:
    return "results-" + re.sub(r"\W+", "-", number)


def _in_rows(items: list[dict]) -> list[dict]:
    """Return the items in their order; of those that would fit into half a row, one without a neighbour gets it all."""
    rows = []
    while items:
        pair = items[:2] if len(items) > 1 and items[0]["half"] and items[1]["half"] else items[:1]
        rows += [item | {"half": len(pair) == 2} for item in pair]
        items = items[len(pair) :]
    return rows


def _item(path: Path, caption: str) -> dict:
    """Return what the template needs to show one file of the report."""
    item = {"file": path.name, "link": f"report/{quote(path.name)}", "caption": caption, "kind": KINDS.get(path.suffix)}
    item["half"] = path.suffix == ".png" and 0 < _width(path) <= HALF["pixels"]
    if item["kind"] == "table":
        with path.open(newline="", encoding="utf-8") as file:
            head, *rows = list(csv.reader(file)) or [[]]
        columns = enumerate(zip(*rows, strict=False))
        numeric = {index for index, cells in columns if all(NUMBER.fullmatch(cell) for cell in cells)}
        amounts = numeric - {index for index, name in enumerate(head) if NAMES.search(name)}
        shown = [[_grouped(cell) if i in amounts else cell for i, cell in enumerate(row)] for row in rows[:ROWS]]
        letters = sum(max(map(len, column)) for column in zip(head, *shown, strict=False))
        item |= {"head": [name.replace("_per_", "/") for name in head], "rows": shown, "left_out": len(rows[ROWS:])}
        item |= {"numeric": numeric, "half": letters <= HALF["letters"]}
    return item


def _grouped(cell: str) -> str:
    """Return a plain number from 1000 on with separators: 5600 as 5,600."""
    whole, point, rest = cell.partition(".")
    return f"{int(whole):,}{point}{rest}" if LARGE.fullmatch(cell) else cell


def _width(path: Path) -> int:
    """Return a PNG's width in pixels, 0 where the file is none."""
    with path.open("rb") as file:
        start = file.read(24)
    return int.from_bytes(start[16:20], "big") if start.startswith(b"\x89PNG") else 0
