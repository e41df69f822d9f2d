"""The site of a run folder, looked at in a browser where there is one, and read as text where there is none."""

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from fer_tf import pages
from fer_tf.notebook import Notebook

WIDE = "x" * 400
FIRST = f"""# 01 · First
[The next](02_second.ipynb), [its end](02_second.ipynb#The-end), [one that was not run](03_third.ipynb).

| {" | ".join(f"column {i}" for i in range(40))} |
|{"---|" * 40}
| {" | ".join("0123456789" for _ in range(40))} |

## A picture
Words.

## A & B"""
TABLE = (
    "<div><style scoped>.dataframe thead th { text-align: right; }</style><table class='dataframe'><tr>"
    f"{''.join('<td>0.123456789</td>' for _ in range(60))}</tr></table></div>"
)


def png(width: int = 2000) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((40, width, 3), 200, np.uint8)).save(file, "png")
    return file.getvalue()


def shown(**data) -> dict:
    return new_output("display_data", data={name.replace("_", "/"): value for name, value in data.items()})


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A small site with all that is hard to lay out: wide pictures, tables, code, outputs, a failure."""
    folder = tmp_path_factory.mktemp("a run, with ümlauts")
    for name in ("html", "report"):
        (folder / name).mkdir()
    outputs = [shown(image_png=base64.b64encode(png()).decode()), shown(text_html=TABLE)]
    outputs += [new_output("stream", name="stdout", text=f"{WIDE}\n\x1b[31mred\x1b[0m"), shown(text_plain="1")]
    failed = new_output("error", ename="ValueError", evalue="no", traceback=[f"\x1b[31mValueError\x1b[0m: {WIDE}"])
    notebooks = {
        "01_first": [new_markdown_cell(FIRST), new_code_cell(f"value = '{WIDE}'  # why", outputs=outputs)],
        "02_second": [new_markdown_cell("# 02 · Second\n\n## The end"), new_code_cell("1", outputs=[failed])],
    }
    (folder / "report" / "01_wide picture.png").write_bytes(png())
    (folder / "report" / "01_table.csv").write_text(",".join("abc") + "\n" + ",".join([WIDE] * 3) + "\n")
    suite, made = [], {}
    for name, cells in notebooks.items():
        nbformat.write(new_notebook(cells=cells), folder / f"{name}.ipynb")
        made[name] = pages.read_notebook_page(folder / f"{name}.ipynb", title=f"Title <of> {name}")
        suite.append(Notebook(path=Path(name), title=f"Title <of> {name}", cells=2, parameters={}, status="done"))
    made["card_x"] = pages.read_markdown_page(f"# Card\n\n`{WIDE}`\n\n```json\n{{}}\n```", title="Card")
    suite.append(Notebook(path=Path("03_third"), title="Third", cells=1, parameters={}))
    papers = {"Card": "html/card_x.html"}
    facts = {"Host": WIDE, "Data set": "drawn"}
    pages.write_site(folder, facts=facts, notebooks=suite, pages=made, papers=papers)
    return folder


def written(site: Path) -> list[Path]:
    return [site / "index.html", *sorted((site / "html").iterdir())]


class Read(HTMLParser):
    """What a page has: its anchors, its links, what it loads, and the alternative texts of its pictures."""

    def __init__(self, path: Path):
        super().__init__()
        self.anchors, self.links, self.loads, self.alts, self.scripts = [], [], [], [], 0
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        told = dict(attrs)
        self.scripts += tag in ("script", "iframe", "object")
        if "id" in told:
            self.anchors.append(told["id"])
        if tag == "a" and "href" in told:
            self.links.append(told["href"])
        elif "href" in told or "src" in told:
            self.loads.append(told.get("href") or told["src"])
        if tag == "img":
            self.alts.append(told.get("alt", ""))


def test_every_link_and_anchor_resolves_and_nothing_is_asked_of_the_network(site):
    for path in written(site):
        page = Read(path)
        assert not page.scripts
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"@import|url\(|https?://", re.sub(r"http://www\.w3\.org/\S+", "", text))
        assert all(load.startswith("data:") or (path.parent / unquote(load)).is_file() for load in page.loads)
        for link in page.links:
            file, _, anchor = link.partition("#")
            target = path.parent / unquote(file) if file else path
            assert target.is_file(), f"{path.name} leads to {link}"
            assert not anchor or {anchor, unquote(anchor)} & set(Read(target).anchors), f"{path.name} leads to {link}"


def test_every_page_has_the_contents_and_its_own_headings(site):
    first, second = (Read(site / "html" / f"{name}.html") for name in ("01_first", "02_second"))
    assert {"../index.html", "02_second.html", "#A-picture", "#A-&-B"} <= set(first.links)
    assert {"../index.html", "01_first.html", "#The-end"} <= set(second.links)
    text = (site / "html" / "01_first.html").read_text(encoding="utf-8")
    assert "<span>Third</span>" in text and ">A &amp; B</a>" in text and "Title &lt;of&gt; 02_second →</a>" in text
    assert 'rel="prev"' not in text and "one that was not run" in text and "03_third" not in text
    assert {"html/01_first.html", "html/02_second.html", "html/card_x.html"} <= set(Read(site / "index.html").links)


def test_pictures_that_nobody_described_are_named_by_their_heading(site):
    assert Read(site / "html" / "01_first.html").alts == ["Figure under: A & B"]


def luminance(colour: str) -> float:
    """Return the relative luminance of #rrggbb (WCAG 2.2)."""
    shares = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return float(np.dot((0.2126, 0.7152, 0.0722), linear))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_code_can_be_read(scheme):
    """Every kind of word that Python code has stands out from what is behind it by 4 to 1 at least."""
    from pygments.styles import get_style_by_name
    from pygments.token import Comment, Keyword, Name, Number, Operator, String

    style = (pages.SITE / "style.css").read_text(encoding="utf-8")
    behind = re.findall(r"--code: (#\w{6})", style)[["light", "dark"].index(scheme)]
    known = get_style_by_name(pages.CODE[scheme])
    for token in (Comment, Keyword, Keyword.Constant, Name.Function, Name.Namespace, Number, Operator, String):
        colour = known.style_for_token(token)["color"]
        lighter, darker = sorted(map(luminance, (f"#{colour}" if colour else "#1f2328", behind)), reverse=True)
        assert not colour or (lighter + 0.05) / (darker + 0.05) >= 4, f"{token} #{colour} on {behind}"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_shows_every_page(browser, site, width, dark):
    for path in written(site):
        seen = browser.open(path, width=width, dark=dark)
        assert not seen["missing"] and not browser.errors, f"{path.name}: {seen['missing']} {browser.errors}"
        assert seen["images"] == {"index": 1, "01_first": 1}.get(path.stem, 0)
        assert seen["scroll"] <= 0, f"{path.name} is {seen['scroll']} px wider than {width} px"
        assert (seen["background"] == "rgb(20, 22, 26)") == dark
        root = site.resolve().as_uri()
        assert all(url.startswith((root, "data:")) for url in browser.asked), browser.asked


def test_the_browser_finds_what_is_wrong(browser, tmp_path):
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<img src='none.png'><div style='width: 3000px'>wide</div><script>console.error('bad'); fail()</script>"
        "<img src='http://127.0.0.1:9/elsewhere.png'>"
    )
    seen = browser.open(bad)
    assert len(seen["missing"]) == 2 and seen["scroll"] > 1000
    assert any("'bad'" in error for error in browser.errors) and any("fail is not" in e for e in browser.errors)
    assert "http://127.0.0.1:9/elsewhere.png" in browser.asked


def test_the_contents_of_a_narrow_page_unfold(browser, site):
    browser.open(site / "html" / "01_first.html", width=390)
    shown = "getComputedStyle(document.querySelector('nav ul')).display"
    assert browser.run(shown) == "none"
    browser.run("document.querySelector('nav label').click()")
    assert browser.run(shown) != "none"
