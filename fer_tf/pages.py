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
  main { max-width: 64rem; margin: auto }
  h1 { font-size: clamp(1.5rem, 5vw, 2.2rem); line-height: 1.2; margin: 0 0 1.5rem; letter-spacing: -.02em }
  h2 { font-size: 1.15rem; margin: 2.5rem 0 .75rem }
  a { color: var(--link); text-decoration: none } a:hover { text-decoration: underline }
  .card { background: var(--card); border: 1px solid var(--line); border-radius: .75rem; margin: 0 0 1rem;
          overflow-x: auto }
  dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: 1rem; padding: 1rem 1.25rem }
  dt, figcaption, .quiet { color: var(--quiet); font-size: .85rem } dd { margin: 0; overflow-wrap: anywhere }
  table { border-collapse: collapse; width: 100% }
  th, td { padding: .55rem 1.25rem; text-align: left; border-top: 1px solid var(--line) }
  thead th, .notebooks tr:first-child td { border-top: 0 }
  th { color: var(--quiet); font-size: .85rem; font-weight: 600 }
  .notebooks td:first-child { width: 100% }
  .number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
  .status { font-weight: 600; white-space: nowrap } .done { color: var(--done) }
  .failed, .interrupted { color: var(--failed) } .waiting, .running { color: var(--waiting) }
  .error { color: var(--failed); font: .85rem/1.4 ui-monospace, monospace; overflow-wrap: anywhere }
  figure { margin: 0 0 1rem } figcaption { padding: .75rem 1.25rem }
  img, video { display: block; max-width: 100%; margin: auto } .figure { background: #fff }
  @media (max-width: 40rem) { th, td { padding: .5rem .75rem } body { padding-top: 1.25rem } }
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
  <td class="number">{% if run.seconds %}{{ "%.0f" | format(run.seconds) }} s{% endif %}</td>
  <td class="status {{ run.status }}">{{ run.status }}</td></tr>
{% endfor %}</table></div>
{% macro cells(tag, row, numeric) %}<tr>{% for text in row %}
  <{{ tag }}{% if loop.index0 in numeric %} class="number"{% endif %}>{{ text }}</{{ tag }}>{% endfor %}</tr>
{% endmacro %}
{% for heading, items in sections.items() %}<h2>{{ heading }}</h2>
{% for item in items %}<figure class="card">
<figcaption>{{ item.caption }} · <a href="{{ item.link }}">{{ item.file }}</a></figcaption>
{% if item.kind == "table" %}<table><thead>{{ cells("th", item.head, item.numeric) }}</thead>
{% for row in item.rows %}{{ cells("td", row, item.numeric) }}{% endfor %}</table>
{% if item.left_out %}<figcaption>and {{ item.left_out }} more rows in the file</figcaption>{% endif %}
{% elif item.kind == "figure" %}<div class="figure"><img src="{{ item.link }}" alt="{{ item.caption }}"></div>
{% elif item.kind == "clip" %}<video controls preload="metadata" src="{{ item.link }}"></video>{% endif %}</figure>
{% endfor %}{% endfor %}
</main>
</html>
"""

ROWS = 100  # of a table that the index page shows
NUMBER = re.compile(r"[-+±%.,\d\s–]*|nan")
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
    Below stands every file of `run_dir/report`, grouped by the notebook whose number its name begins with.
    """
    from jinja2 import Environment

    titles = {run.path.stem.partition("_")[0]: run.title for run in notebooks}
    sections: dict[str, list[dict]] = {}
    for path in sorted((run_dir / "report").iterdir()):
        number, _, rest = path.stem.partition("_")
        heading, caption = (titles[number], rest) if number in titles and rest else ("More", path.stem)
        sections.setdefault(heading, []).append(_item(path, caption.replace("_", " ").capitalize()))
    page = Environment(autoescape=True).from_string(INDEX)
    html = page.render(
        facts=facts, notebooks=notebooks, sections=sections, pages={path.stem for path in (run_dir / "html").iterdir()}
    )
    (run_dir / "index.html").write_text(html, encoding="utf-8")


def _item(path: Path, caption: str) -> dict:
    """Return what the template needs to show one file of the report."""
    item = {"file": path.name, "link": f"report/{quote(path.name)}", "caption": caption, "kind": KINDS.get(path.suffix)}
    if item["kind"] == "table":
        with path.open(newline="", encoding="utf-8") as file:
            head, *rows = list(csv.reader(file)) or [[]]
        columns = enumerate(zip(*rows, strict=False))
        numeric = {index for index, cells in columns if all(NUMBER.fullmatch(cell) for cell in cells)}
        item |= {"head": head, "rows": rows[:ROWS], "left_out": len(rows[ROWS:]), "numeric": numeric}
    return item
