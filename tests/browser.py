"""A headless Chromium, driven over its DevTools protocol with what JupyterLab already brings (websocket-client)."""

import base64
import json
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from urllib.request import urlopen

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)

FLAGS = """--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run --hide-scrollbars
--disable-quic --disable-sync --disable-background-networking
--use-fake-device-for-media-stream --use-fake-ui-for-media-stream"""
"""The last two are a webcam that shows a test picture."""

SERIOUS = "error", "warning", "assert"

LOOK = """(async () => {
  const images = [...document.images];
  await Promise.all(images.map(image => image.complete || new Promise(done => image.onload = image.onerror = done)));
  const root = document.scrollingElement;
  return {
    missing: images.filter(image => !image.naturalWidth).map(image => image.src.slice(0, 200)),
    images: images.length,
    scroll: Math.max(root.scrollWidth, document.body.scrollWidth) - root.clientWidth,
    height: root.scrollHeight,
    background: getComputedStyle(document.body).backgroundColor,
  };
})()"""


class Browser:
    """One tab. Since it was opened, `errors` are what console and page complain of, `asked` every address that was
    fetched, `answered` the (address, status) of what came back."""

    def __init__(self, profile: Path):
        import websocket

        places = f"--user-data-dir={profile}", "--remote-debugging-port=0", "--remote-allow-origins=*", "about:blank"
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen([CHROMIUM, *FLAGS.split(), *places], **quiet)
        self._answers, self._number = {}, 0
        self._forget()
        try:
            port = self._port(profile / "DevToolsActivePort")
            with urlopen(f"http://127.0.0.1:{port}/json/list") as answer:
                tab = next(target for target in json.load(answer) if target["type"] == "page")
            self._socket = websocket.create_connection(tab["webSocketDebuggerUrl"], timeout=60)
            for domain in ("Page", "Runtime", "Log", "Network"):
                self._call(f"{domain}.enable")
        except BaseException:
            self._process.kill()
            raise

    def open(self, page: Path | str, *, width: int = 1280, dark: bool = False) -> dict:
        """Load a file or an address at this width and return what `LOOK` finds, with every picture there or failed."""
        self._forget()
        self.resize(width)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])
        self._call("Page.navigate", url=page.resolve().as_uri() if isinstance(page, Path) else page)
        while not self._loaded:
            self._receive()
        return self.run(LOOK)

    def resize(self, width: int) -> None:
        """Make the tab so wide; below 600 px it is a phone's, which heeds the page's `viewport`."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self._call("Emulation.setDeviceMetricsOverride", **size)

    def run(self, script: str):
        """Return what a script, or its promise, gives as a JSON value; raises RuntimeError for what it throws."""
        told = self._call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in told:
            raise RuntimeError(f"{script}: {told['result'].get('description', told['exceptionDetails']['text'])}")
        return told["result"].get("value")

    def until(self, condition: Callable[[], bool], *, seconds: float = 60) -> None:
        """Let the page run until the condition holds; raises TimeoutError."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(f"not so after {seconds:g} s; the page complains of {self.errors}")
            self.run("new Promise(done => setTimeout(done, 20))")  # what happens meanwhile is noted

    def click(self, selector: str) -> None:
        """Press the mouse where an element's middle is, whatever lies there."""
        middle = "box.x + box.width / 2, box.y + box.height / 2"
        found = f"element = document.querySelector({json.dumps(selector)}), box = element.getBoundingClientRect()"
        x, y = self.run(f"(() => {{ const {found}; return [{middle}]; }})()")
        for kind in ("mousePressed", "mouseReleased"):
            self._call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def choose(self, selector: str, *files: Path) -> None:
        """Give files to an input, as its dialog would."""
        found = self._call("Runtime.evaluate", expression=f"document.querySelector({json.dumps(selector)})")
        given = {"files": [str(file.resolve()) for file in files], "objectId": found["result"]["objectId"]}
        self._call("DOM.setFileInputFiles", **given)

    def picture(self, target: Path, *, height: int | None = None, top: int = 0) -> None:
        """Save the page as PNG, from `top` px down, to its end or `height` px of it."""
        size = self._call("Page.getLayoutMetrics")["cssContentSize"]
        tall = min(size["height"] - top, height or size["height"])
        clip = {"x": 0, "y": top, "width": self.run("innerWidth"), "height": tall, "scale": 1}
        shot = self._call("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
        target.write_bytes(base64.b64decode(shot["data"]))

    def close(self) -> None:
        self._socket.close()
        self._process.terminate()
        self._process.wait(timeout=20)

    def _forget(self) -> None:
        self.errors, self.asked, self.answered, self._loaded = [], [], [], False

    def _port(self, file: Path) -> int:
        end = time.monotonic() + 60
        while not (file.is_file() and file.read_text().strip()):
            if self._process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{CHROMIUM} did not start (exit {self._process.poll()})")
            time.sleep(0.05)
        return int(file.read_text().split()[0])

    def _call(self, method: str, **values) -> dict:
        self._number += 1
        number = self._number
        self._socket.send(json.dumps({"id": number, "method": method, "params": values}))
        while number not in self._answers:
            self._receive()
        answer = self._answers.pop(number)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def _receive(self) -> None:
        message = json.loads(self._socket.recv())
        match message:
            case {"id": number}:
                self._answers[number] = message
            case {"method": "Page.loadEventFired"}:
                self._loaded = True
            case {"method": "Runtime.exceptionThrown", "params": {"exceptionDetails": {"text": text} as told}}:
                self.errors.append(told.get("exception", {}).get("description", text))
            case {"method": "Runtime.consoleAPICalled", "params": {"type": kind, "args": said}} if kind in SERIOUS:
                self.errors.append(str(said))
            case {"method": "Log.entryAdded", "params": {"entry": {"level": kind, "text": text} as entry}} if (
                kind in SERIOUS
            ):
                self.errors.append(f"{text} {entry.get('url', '')}")
            case {"method": "Network.requestWillBeSent", "params": {"request": {"url": url}}}:
                self.asked.append(url)
            case {"method": "Network.responseReceived", "params": {"response": {"url": url, "status": status}}}:
                self.answered.append((url, status))
