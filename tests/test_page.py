"""The service's page in a real browser: a picture goes in, its result is read from the page, nobody else is asked."""

import shutil
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

api = pytest.importorskip("playwright.sync_api", reason="playwright is not here: pip install 'fer-tf[dev]'")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no Chromium is installed here")
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync"]
CAMERA = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]


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
def page(address):
    """The page, opened; afterwards: no error in the console, nobody else asked."""
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET + CAMERA)
        tab = browser.new_page(viewport={"width": 1280, "height": 800})
        errors, asked = [], []
        tab.on("console", lambda message: message.type in ("error", "warning") and errors.append(message.text))
        tab.on("pageerror", lambda error: errors.append(str(error)))
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(address)
        yield tab
        browser.close()
    assert not [error for error in errors if "415" not in error]  # a browser notes what one test brings about
    assert all(url.startswith((address, "blob:", "data:")) for url in asked)


def test_a_picture_is_judged_and_shown(page, tmp_path):
    write_image(tmp_path / "portrait.jpg", astronaut())
    page.set_input_files("#file", tmp_path / "portrait.jpg")
    page.wait_for_selector("#faces li", timeout=60_000)
    assert page.inner_text("#status").startswith("1 face, ")
    rows = page.locator("#faces .row").all_inner_texts()
    assert page.inner_text("#faces h2") == "1: happy" and rows[0].startswith("happy") and len(rows) == 7
    assert page.evaluate("document.getElementById('canvas').width") == 512
    page.set_viewport_size({"width": 390, "height": 800})  # a phone
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.click("#again")
    assert page.is_visible("#drop") and not page.is_visible("#view") and page.inner_text("#faces") == ""


def test_what_is_no_picture_is_said_on_the_page(page, tmp_path):
    (tmp_path / "text.jpg").write_text("no picture")
    with page.expect_response("**/v1/detect") as answer:
        page.set_input_files("#file", tmp_path / "text.jpg")
    assert answer.value.status == 415
    page.wait_for_function("document.getElementById('status').textContent.includes('no picture')")
    assert page.is_visible("#drop")


@pytest.mark.parametrize("source", ["a clip", "the webcam"])
def test_moving_pictures_are_judged_frame_by_frame(source, page, tmp_path):
    with page.expect_response("**/v1/detect", timeout=60_000):
        if source == "a clip":
            page.set_input_files("#file", write_video(tmp_path / "a.mp4", [astronaut()] * 30, fps=10))
        else:
            page.click("#camera")
    if source == "a clip":
        page.wait_for_selector("#faces li", timeout=60_000)
    for _ in range(2):
        with page.expect_response("**/v1/detect", timeout=60_000) as answer:
            pass
        assert answer.value.status == 200
    page.click("#again")
    page.wait_for_timeout(300)
    assert page.is_visible("#drop")
