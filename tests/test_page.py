"""The service's page in a real browser: a picture goes in, its result is read from the page, nobody else is asked."""

import threading
import time

import pytest
import uvicorn
from skimage.data import astronaut

from fer_tf.data.images import write_image
from fer_tf.inference.clips import write_video
from fer_tf.inference.detect import load_detector
from fer_tf.inference.engine import load_engine
from fer_tf.inference.serve import create_app


@pytest.fixture(scope="module")
def address():
    app = create_app(engine=load_engine("mobilenet_v2"), detectors=[load_detector("haar")])
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    server.should_exit = True
    thread.join(30)


@pytest.fixture
def page(browser, address):
    """The page, opened; afterwards: no error in the console, nobody else asked."""
    seen = browser.open(address)
    assert not seen["missing"] and seen["scroll"] <= 0
    yield browser
    assert not [error for error in browser.errors if "415" not in error]  # a browser notes what one test brings about
    assert browser.asked and all(url.startswith((address, "blob:", "data:")) for url in browser.asked)


def text(page, selector: str) -> str:
    return page.run(f"document.querySelector('{selector}').innerText")


def visible(page, selector: str) -> bool:
    return page.run(f"document.querySelector('{selector}').checkVisibility()")


def judged(page) -> list[int]:
    """The statuses of all pictures that were sent."""
    return [status for url, status in page.answered if url.endswith("/v1/detect")]


def listed(page) -> bool:
    return page.run("document.querySelectorAll('#faces li').length > 0")


def test_a_picture_is_judged_and_shown(page, tmp_path):
    page.until(lambda: text(page, "#model").startswith("mobilenet_v2 "))
    assert visible(page, "#drop") and not visible(page, "#view")
    write_image(tmp_path / "portrait.jpg", astronaut())
    page.choose("#file", tmp_path / "portrait.jpg")
    page.until(lambda: listed(page))
    assert judged(page) == [200] and text(page, "#status").startswith("1 face, ")
    rows = page.run("[...document.querySelectorAll('#faces .row')].map(row => row.innerText)")
    assert text(page, "#faces h2") == "1: happy" and rows[0].startswith("happy") and len(rows) == 7
    assert page.run("document.getElementById('canvas').width") == 512
    page.resize(390)  # a phone
    assert page.run("document.documentElement.scrollWidth") <= 390
    page.click("#again")
    page.until(lambda: visible(page, "#drop"))
    assert not visible(page, "#view") and text(page, "#faces") == ""


def test_what_is_no_picture_is_said_on_the_page(page, tmp_path):
    (tmp_path / "text.jpg").write_text("no picture")
    page.choose("#file", tmp_path / "text.jpg")
    page.until(lambda: "no picture" in text(page, "#status"))
    assert judged(page) == [415] and visible(page, "#drop")


@pytest.mark.parametrize("source", ["a clip", "the webcam"])
def test_moving_pictures_are_judged_frame_by_frame(source, page, tmp_path):
    if source == "a clip":
        page.choose("#file", write_video(tmp_path / "a.mp4", [astronaut()] * 30, fps=10))
        page.until(lambda: listed(page))
    else:
        page.click("#camera")
    page.until(lambda: len(judged(page)) >= 3)
    assert set(judged(page)) == {200} and visible(page, "#view")
    page.click("#again")
    page.until(lambda: visible(page, "#drop"))
    sent = len(judged(page))
    page.run("new Promise(done => setTimeout(done, 400))")  # more than two frames' time
    assert visible(page, "#drop") and len(judged(page)) <= sent + 1  # but the one that was under way
