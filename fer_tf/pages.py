"""The suite's HTML site: executed notebooks as pages, and the index over a run folder. Nothing asks the network.

Every page has all it needs inside, its style and its figures, and no script; it follows the reader's light or dark
scheme. Templates and style lie in `site/`.
"""

import csv
import html
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from urllib.parse import quote

SITE = Path(__file__).parent / "site"
TITLE = "Facial emotion recognition: the suite"
SHOWN = ["text/html", "text/markdown", "image/svg+xml", "image/png", "image/jpeg", "text/plain"]  # no script, no widget
CODE = {"light": "default", "dark": "github-dark"}  # Pygments' styles
MORE = "More"  # the heading of files that belong to no notebook of the run
ROWS = 100  # of a table that the index page shows
NUMBER = re.compile(r"[-+±%.,\d\s–]*|nan")
LARGE = re.compile(r"-?[1-9]\d{3,}(\.\d+)?")
NAMES = re.compile(r"\b(year|id|seed|date)s?\b", re.IGNORECASE)  # columns whose numbers are no amounts
HALF = {"pixels": 1100, "letters": 56}  # what shares its row: figures as wide as this, tables with rows as long
KINDS = {".csv": "table", ".png": "figure", ".svg": "figure", ".mp4": "clip", ".webm": "clip"}
MARKS = re.compile(
    r'<h(?P<level>[12]) id="(?P<anchor>[^"]*)">(?P<text>.*?)<a class="anchor-link"|'
    r'alt="No description has been provided for this image"',
    re.DOTALL,
)
STYLES = re.compile(r"<style(?: scoped)?>[^<]*(?:\.dataframe|\.output_html)[^<]*</style>")  # made for light pages alone
TO_NOTEBOOK = re.compile(r'<a href="([^":/#]+)\.ipynb(#[^"]*)?">(.*?)</a>', re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Page:
    """A page without what surrounds it: its HTML, and (text, anchor) of every heading below the title."""

    title: str
    body: str
    headings: tuple[tuple[str, str], ...]


def read_notebook_page(executed: Path, *, title: str) -> Page:
    """Return the executed notebook at `executed` as a page."""
    from nbconvert import HTMLExporter
    from traitlets.config import Config

    exporter = HTMLExporter(
        config=Config({"NbConvertBase": {"display_data_priority": SHOWN}}), template_file="lab/base.html.j2"
    )
    exporter.log.setLevel("ERROR")  # it warns that figures lack alternative text
    return _page(STYLES.sub("", exporter.from_filename(str(executed))[0]), title)


def read_markdown_page(text: str, *, title: str) -> Page:
    """Return Markdown as a page."""
    from nbconvert.filters import markdown2html

    return _page(f'<div class="jp-MarkdownCell">{markdown2html(text)}</div>', title)


def write_site(
    run_dir: Path,
    *,
    facts: Mapping[str, str],
    notebooks: Iterable,
    pages: Mapping[str, Page],
    papers: Mapping[str, str] | None = None,
) -> None:
    """Write `run_dir/index.html` and every page as `run_dir/html/<name>.html`, with the contents on each.

    facts      caption -> text, at the head of the index
    notebooks  `Notebook`s in order; those of which there is a page are linked
    pages      name -> page; one named like a notebook is that notebook's
    papers     text -> link, below the facts
    Below stands every file of `run_dir/report`, grouped by the notebook whose number its name begins with, in the order
    in which they were written; two small ones in a row stand side by side.
    """
    suite = [(run.title, run.name) for run in notebooks]
    written = [stem for _, stem in suite if stem in pages]
    after = dict(pairwise(written))
    before = {later: earlier for earlier, later in after.items()}
    for name, page in pages.items():
        text = _render(
            "base.html.j2",
            title=page.title,
            body=_follow(page.body, pages),
            headings=page.headings,
            contents=_contents(suite, pages, name, up="../", down=""),
            before=_link(pages, before.get(name)),
            after=_link(pages, after.get(name)),
        )
        (run_dir / "html" / f"{name}.html").write_text(text, encoding="utf-8")
    sections, anchors = _sections(run_dir / "report", notebooks)
    text = _render(
        "index.html.j2",
        title=TITLE,
        contents=_contents(suite, pages, None, up="", down="html/"),
        headings=[],
        facts=facts,
        papers=list((papers or {}).items()),
        notebooks=notebooks,
        pages=pages,
        sections=sections,
        anchors=anchors,
    )
    (run_dir / "index.html").write_text(text, encoding="utf-8")


def _page(body: str, title: str) -> Page:
    """Gather the headings, and name every figure that nobody described by the one that it stands under."""
    headings, current = [], title

    def mark(match: re.Match) -> str:
        nonlocal current
        if match["level"] is None:
            return f'alt="Figure under: {html.escape(current)}"'
        current = html.unescape(re.sub(r"<[^>]+>", "", match["text"])).strip()
        if match["level"] == "2":
            headings.append((current, html.unescape(match["anchor"])))
        return match[0]

    return Page(title=title, body=MARKS.sub(mark, body), headings=tuple(headings))


def _contents(suite: list[tuple[str, str]], pages: Mapping, current: str | None, *, up: str, down: str) -> list[dict]:
    """Return the entries of the contents: the index, then every notebook, with a link where it has a page."""
    entries = [{"title": "The suite", "href": f"{up}index.html", "current": current is None}]
    for title, stem in suite:
        href = f"{down}{_file(stem)}" if stem in pages else ""
        entries.append({"title": title, "href": href, "current": stem == current})
    return entries


def _follow(body: str, pages: Mapping[str, Page]) -> str:
    """Lead links from notebook to notebook to their pages; one to a notebook that was not run stays as text."""

    def link(match: re.Match) -> str:
        stem, anchor, text = match.groups()
        return f'<a href="{stem}.html{anchor or ""}">{text}</a>' if stem in pages else text

    return TO_NOTEBOOK.sub(link, body)


def _file(stem: str) -> str:
    return quote(f"{stem}.html")


def _link(pages: Mapping[str, Page], stem: str | None) -> dict | None:
    return stem and {"title": pages[stem].title, "href": _file(stem)}


@cache
def _environment():
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(loader=FileSystemLoader(SITE), autoescape=True)
    environment.globals["style"] = _style()
    return environment


def _render(template: str, **values) -> str:
    return _environment().get_template(template).render(**values)


def _style():
    """Return the site's style, with the colours of code in the light and in the dark."""
    from markupsafe import Markup
    from pygments.formatters import HtmlFormatter

    rules = {scheme: HtmlFormatter(style=name).get_style_defs(".highlight") for scheme, name in CODE.items()}
    rules = {scheme: re.sub(r"background(-color)?: [^;}]+;?", "", text) for scheme, text in rules.items()}
    dark = f"@media (prefers-color-scheme: dark) {{ {rules['dark']} }}"
    return Markup("\n".join([rules["light"], dark, (SITE / "style.css").read_text(encoding="utf-8")]))


def _sections(report: Path, notebooks: Iterable) -> tuple[list[dict], dict[str, str]]:
    """Return the index page's sections of results, and for every notebook the anchor of its own, or ""."""
    numbers = {run.name: run.name.partition("_")[0] for run in notebooks}
    files: dict[str, list[dict]] = {number: [] for number in [*numbers.values(), MORE]}
    for path in sorted(report.iterdir(), key=lambda path: (path.stat().st_mtime_ns, path.name)):
        number, _, rest = path.stem.partition("_")
        number, caption = (number, rest) if number in numbers.values() and rest else (MORE, path.stem)
        files[number].append(_item(path, caption.replace("_", " ").capitalize()))
    headings = {numbers[run.name]: run.title for run in notebooks} | {MORE: MORE}
    sections = [
        {"id": _anchor(number), "heading": headings[number], "files": _in_rows(items)}
        for number, items in files.items()
        if items
    ]
    return sections, {stem: _anchor(number) if files[number] else "" for stem, number in numbers.items()}


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
