"""A headless Chromium, driven over its DevTools protocol with what JupyterLab already brings (websocket-client)."""

import base64
import json
import shutil
import subprocess
import time
from pathlib import Path
from urllib.request import urlopen

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)

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
    """One tab. `errors` are what the console and the page complain of, `asked` every address it fetched."""

    def __init__(self, profile: Path):
        import websocket

        flags = "--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run --hide-scrollbars"
        places = f"--user-data-dir={profile}", "--remote-debugging-port=0", "--remote-allow-origins=*", "about:blank"
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen([CHROMIUM, *flags.split(), *places], **quiet)
        self._answers, self._number = {}, 0
        self.errors, self.asked, self._loaded = [], [], False
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

    def open(self, page: Path, *, width: int = 1280, dark: bool = False) -> dict:
        """Load a file at this width and return what `LOOK` finds, once every picture is there or has failed."""
        self.errors, self.asked, self._loaded = [], [], False
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self._call("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])
        self._call("Page.navigate", url=page.resolve().as_uri())
        while not self._loaded:
            self._receive()
        return self.run(LOOK)

    def run(self, script: str):
        """Return what a script, or its promise, gives as a JSON value."""
        return self._call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)["result"].get(
            "value"
        )

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
            case {"method": "Runtime.consoleAPICalled", "params": {"type": "error" | "assert", "args": said}}:
                self.errors.append(str(said))
            case {"method": "Log.entryAdded", "params": {"entry": {"level": "error", "text": text} as entry}}:
                self.errors.append(f"{text} {entry.get('url', '')}")
            case {"method": "Network.requestWillBeSent", "params": {"request": {"url": url}}}:
                self.asked.append(url)
