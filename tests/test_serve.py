"""The service answers pictures, refuses what is none with the right status, and keeps nothing."""

import io
import json
import logging
import re
import runpy
import socket
import threading
import time
import zlib
from collections import Counter

import numpy as np
import pytest
import uvicorn
from fastapi.testclient import TestClient
from PIL import Image
from skimage.data import astronaut
from squares import BLUE, FINDER, RED, squares

from fer_tf import paths
from fer_tf.inference.detect import Detector, load_detector
from fer_tf.inference.serve import OPEN, Limits, create_app

MUTANTS = 468
"""Four of every kind of picture, each with every mutation."""
PICTURE = list(squares(3))[2]  # a red face, happy, and a blue one, sad


def encoded(image: np.ndarray = PICTURE, kind: str = "PNG", **choices) -> bytes:
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, kind, **choices)
    return file.getvalue()


@pytest.fixture
def service(engine):
    """Build a client for a service with these choices."""
    opened = []

    def build(**choices) -> TestClient:
        choices = {"engine": engine, "detectors": [FINDER, FINDER]} | choices
        client = TestClient(create_app(**choices), raise_server_exceptions=False)
        client.__enter__()
        opened.append(client)
        return client

    yield build
    for client in opened:
        client.__exit__(None, None, None)


def ask(client, data: bytes, *, path: str = "/v1/detect", name: str = "file", **choices):
    return client.post(path, files={name: ("x", data)}, **choices)


@pytest.mark.parametrize(("path", "name"), [("/v1/detect", "file"), ("/detect", "file"), ("/detect", "image")])
def test_answers_every_face_of_a_picture(path, name, service, engine):
    answer = ask(service(), encoded(), path=path, name=name)
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert (told["model"], told["image"]) == (engine.card.name, {"width": 160, "height": 120})
    assert re.fullmatch("[0-9a-f]{12}", told["version"])
    assert [face["label"] for face in told["faces"]] == ["happy", "sad"]
    for face in told["faces"]:
        shares = list(face["probabilities"].values())
        assert sum(shares) == pytest.approx(1, abs=1e-3) and shares == sorted(shares, reverse=True)
        assert set(face) == {"box", "score", "label", "probabilities"} and len(face["box"]) == 4
    assert set(told["timing_ms"]) == {"waiting", "work", "total"}


def test_no_face_is_an_empty_list(service):
    assert ask(service(), encoded(np.full((120, 160, 3), 128, np.uint8))).json()["faces"] == []


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1", "I;16", "LA"])
def test_every_colour_mode_is_read(mode, service):
    image = Image.fromarray(PICTURE)
    image = Image.fromarray(np.full((120, 160), 40_000, np.uint16)) if mode == "I;16" else image.convert(mode)
    answer = ask(service(), encoded(image, "JPEG" if mode == "CMYK" else "PNG"))
    assert answer.status_code == 200, answer.text
    if mode in ("P", "RGBA"):
        assert len(answer.json()["faces"]) == 2


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "WEBP"])
def test_a_picture_is_told_by_its_content(kind, service):
    assert (
        len(ask(service(), encoded(kind=kind, **({"lossless": True} if kind == "WEBP" else {}))).json()["faces"]) == 2
    )


def test_a_picture_that_was_held_upright_is_turned(service):
    lying = Image.fromarray(np.rot90(PICTURE))
    tags = lying.getexif()
    tags[0x0112] = 6  # turn it clockwise
    told = ask(service(), encoded(lying, "JPEG", exif=tags, quality=95)).json()
    assert told["image"] == {"width": 160, "height": 120} and len(told["faces"]) == 2


def test_a_hundred_clients_get_their_own_answers(service):
    client, wrong = service(limits=Limits(batch=4, line=1000)), []

    def one(k: int) -> None:
        image = np.full((100 + k, 120, 3), 128, np.uint8)
        image[40:80, 20:60] = RED if k % 2 else BLUE
        told = ask(client, encoded(image)).json()
        right = told["image"]["height"] == 100 + k and [f["label"] for f in told["faces"]] == [
            "happy" if k % 2 else "sad"
        ]
        if not right:
            wrong.append((k, told))

    threads = [threading.Thread(target=one, args=(k,)) for k in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong
    text = client.get("/metrics").text
    assert 'fer_requests_total{code="200",path="/v1/detect"} 100.0' in text
    assert "fer_batch_pictures_sum 100.0" in text and "fer_waiting 0.0" in text


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header claims more than it holds."""
    data = bytearray(encoded(np.zeros((2, 2, 3), np.uint8)))
    data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "status", "words"),
    [
        (b"", 400, "empty"),
        (encoded()[:200], 400, "cut short"),
        (encoded(kind="JPEG")[:-400], 400, "cut short"),
        (b"\x89PNG\r\n\x1a\n", 400, "damaged"),
        (b"<svg onload=alert(1)>", 415, "no picture"),
        (b"%PDF-1.7", 415, "no picture"),
        (encoded(kind="TIFF"), 415, "no picture"),
        (bomb(30_000, 30_000), 413, "pixels"),
        (bomb(7_000, 7_000), 413, "49000000|7000 x 7000"),
        (bomb(2**31 - 1, 2**31 - 1), 413, "pixels"),
        (bomb(600, 600), 400, "cut short|damaged"),
    ],
    ids=["empty", "cut PNG", "cut JPEG", "header", "svg", "pdf", "tiff", "bomb", "large", "huge", "claims"],
)
def test_what_is_no_whole_picture_is_refused(data, status, words, service):
    answer = ask(service(), data)
    assert answer.status_code == status and re.search(words, answer.json()["detail"]), answer.text
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


def test_damaged_pictures_are_answered_and_none_fails(service):
    """Headers, tables and pixels changed, files cut and joined; benchmarks/fuzz.py sends many more."""
    client = service(detectors=[load_detector("haar", pixels=96 * 120)] * 2)
    mutant, seen = runpy.run_path(str(paths.ROOT / "benchmarks" / "mutants.py"))["mutant"], Counter()
    for n in range(MUTANTS):
        kind, done, data = mutant(n)
        answer = ask(client, data)
        told, seen[answer.status_code] = answer.json(), seen[answer.status_code] + 1
        right = set(told) == {"detail", "request_id"} if answer.status_code != 200 else "faces" in told
        assert answer.status_code in (200, 400, 413, 415) and right, f"{n}, {kind}, {done}: {answer.text}"
    assert all(seen[status] > MUTANTS / 100 for status in (200, 400, 413, 415)), seen
    assert len(ask(client, encoded(astronaut()[40:200, 160:288])).json()["faces"]) == 1  # they still work


def test_other_forms_and_paths_are_refused(service):
    client = service()
    assert client.post("/v1/detect", files={"photo": b"x"}).status_code == 422
    assert client.post("/v1/detect", data={"file": "http://169.254.169.254/"}).status_code == 415  # never an address
    both = client.post("/v1/detect", files=[("file", encoded()), ("image", encoded())])
    assert both.status_code == 400
    assert client.post("/v1/detect", content=b"--x", headers={"content-type": "multipart/form-data"}).status_code == 400
    assert client.get("/v1/detect").status_code == 405
    assert client.get("/../../etc/passwd").status_code == client.get("/docs").status_code == 404
    assert client.post("/v1/detect?embedding=true", files={"file": encoded()}).status_code == 422
    answer = client.post("/v1/detect?embedding=maybe", files={"file": encoded()})
    assert answer.status_code == 422 and "query.embedding" in answer.json()["detail"] and answer.json()["request_id"]


def test_a_body_is_counted_as_it_arrives(service):
    client = service(limits=Limits(bytes=5000))
    assert ask(client, encoded(kind="BMP")).status_code == 413  # by its stated length

    def unstated():
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(10):
            yield bytes(1000)

    answer = client.post("/detect", content=unstated(), headers={"content-type": "multipart/form-data; boundary=x"})
    assert answer.status_code == 413 and "5,000 bytes" in answer.json()["detail"]


def test_bodies_in_memory_are_bounded(engine, service):
    client = service(limits=Limits(batch=1, line=1), detectors=[FINDER])  # room for two
    client.app.state.bodies = 2
    answer = ask(client, encoded())
    assert answer.status_code == 503 and "2 pictures are waiting" in answer.json()["detail"]
    client.app.state.bodies = 1
    assert ask(client, encoded()).status_code == 200 and client.app.state.bodies == 1
    assert ask(client, b"").status_code == 400 and client.app.state.bodies == 1  # given back whatever comes


def test_without_its_key_nothing_is_told(service):
    client = service(api_key="geheim")
    for headers in ({}, {"X-API-Key": "falsch"}, {"Authorization": "Bearer x"}, {"X-API-Key": "geheim2"}):
        for path in ("/v1/models", "/metrics"):
            assert client.get(path, headers=headers).status_code == 401
        refused = ask(client, encoded(), headers=headers)
        assert refused.status_code == 401 and refused.headers["connection"] == "close"
    for headers in ({"X-API-Key": "geheim"}, {"Authorization": "Bearer geheim"}):
        assert ask(client, encoded(), headers=headers).status_code == 200
    assert client.get("/healthz").status_code == client.get("/").status_code == 200
    with pytest.raises(ValueError, match="ASCII"):
        service(api_key="schlüssel")


def test_overload_and_a_late_answer_say_when_to_come_back(engine, service):
    go, begun = threading.Event(), threading.Event()

    def slow(image):
        if image.shape == PICTURE.shape:  # not those of the warm-up
            begun.set()
            go.wait(30)
        return FINDER.find(image)

    detector = Detector(name="slow", find=slow, pixels=None, scale=1.0)
    client = service(detectors=[detector], limits=Limits(batch=1, line=1, wait_s=0.0, deadline_s=0.3))
    answers = []
    try:
        first = threading.Thread(target=lambda: answers.append(ask(client, encoded())))
        first.start()
        assert begun.wait(20)
        second = threading.Thread(target=lambda: answers.append(ask(client, encoded())))
        second.start()
        while not len(client.app.state.batches):
            time.sleep(0.001)
        third = ask(client, encoded())
        assert third.status_code == 503 and third.headers["retry-after"] == "1" and "waiting" in third.json()["detail"]
        first.join(20)
        second.join(20)
        assert [answer.status_code for answer in answers] == [503, 503]
        assert all("within 0.3 seconds" in answer.json()["detail"] for answer in answers)
    finally:
        go.set()


def test_headers_ids_and_logs_hold_no_picture(service, caplog):
    caplog.set_level(logging.INFO, "fer_tf.serve")
    client = service()
    answer = ask(client, encoded(), headers={"X-Request-ID": "abc-1"})
    assert answer.headers["x-request-id"] == "abc-1" and answer.headers["x-content-type-options"] == "nosniff"
    assert ask(client, encoded(), headers={"X-Request-ID": "a\tb"}).headers["x-request-id"] != "a\tb"
    lines = [json.loads(record.message) for record in caplog.records if record.name == "fer_tf.serve"]
    assert set(lines[0]) == {"request_id", "method", "path", "status", "bytes", "ms", "faces"}
    assert lines[0]["faces"] == 2 and lines[0]["status"] == 200


def test_a_failure_is_one_sentence_and_in_the_log(engine, service, caplog):
    def broken(image):
        if image.shape == PICTURE.shape:
            raise RuntimeError("secret of the house")
        return FINDER.find(image)

    client = service(detectors=[Detector(name="broken", find=broken, pixels=None, scale=1.0)])
    answer = ask(client, encoded())
    assert answer.status_code == 500 and "secret" not in answer.text and answer.json()["request_id"] in caplog.text
    assert "secret of the house" in caplog.text
    assert ask(client, encoded(np.full((100, 160, 3), 128, np.uint8))).status_code == 200  # the thread lives on


def test_it_says_what_it_is_and_when_it_is_ready(service, engine):
    client = service()
    assert client.get("/healthz").json() == {"status": "alive"} and client.get("/readyz").json() == {"status": "ready"}
    (model,) = client.get("/v1/models").json()["models"]
    assert model["emotions"] == list(engine.card.emotions) and model["provider"] == engine.provider
    api = client.get("/openapi.json").json()
    form = api["paths"]["/v1/detect"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert form["required"] == ["file"]
    (embedding,) = api["paths"]["/v1/detect"]["post"]["parameters"]
    assert embedding["schema"]["enum"] == [False]  # this model has none
    assert "securitySchemes" not in api["components"]
    keyed = service(api_key="geheim").get("/openapi.json").json()["paths"]
    assert all(("security" in keyed[path][way]) == (path not in OPEN) for path in keyed for way in keyed[path])
    example = api["paths"]["/v1/detect"]["post"]["responses"]["200"]["content"]["application/json"]["example"]
    assert example["faces"][0]["label"] == "happy"


def test_the_page_asks_nobody_else(service):
    client = service()
    for path, kind in (("/", "text/html"), ("/app.js", "text/javascript"), ("/app.css", "text/css")):
        answer = client.get(path)
        assert answer.status_code == 200 and answer.headers["content-type"].startswith(kind)
        assert not re.search(
            r"(https?:)?//[a-z]", re.sub(r"^\s*//.*$", "", answer.text, flags=re.M).replace("https://", "")
        )


@pytest.fixture
def address(engine):
    """Start a real server with some limits; yields a function that returns its port and the server."""
    running = []

    def start(**choices):
        app = create_app(**{"engine": engine, "detectors": [FINDER]} | choices)
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", timeout_graceful_shutdown=20))
        thread = threading.Thread(target=server.run)
        thread.start()
        running.append((server, thread))
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        return server.servers[0].sockets[0].getsockname()[1], server, thread

    yield start
    for server, thread in running:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


def request(data: bytes) -> bytes:
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    body = head + data + b"\r\n--x--\r\n"
    lines = "POST /v1/detect HTTP/1.1", "Host: x", "Content-Type: multipart/form-data; boundary=x", "Connection: close"
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


def answer(connection: socket.socket) -> bytes:
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)


def test_a_slow_client_is_timed_out(address):
    port, _, _ = address(limits=Limits(upload_s=0.3))
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(request(encoded())[:-50])
        assert answer(connection).startswith(b"HTTP/1.1 408")


def test_a_shutdown_finishes_what_was_accepted(address):
    begun, go = threading.Event(), threading.Event()

    def slow(image):
        if image.shape == PICTURE.shape:
            begun.set()
            go.wait(20)
        return FINDER.find(image)

    port, server, thread = address(detectors=[Detector(name="slow", find=slow, pixels=None, scale=1.0)])
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(request(encoded()))
        assert begun.wait(20)
        server.should_exit = True
        time.sleep(0.2)
        go.set()
        told = answer(connection)
    assert told.startswith(b"HTTP/1.1 200") and b'"label":"happy"' in told
    thread.join(20)
    assert not thread.is_alive()


@pytest.mark.parametrize("choice", ["bytes", "pixels", "batch", "line", "deadline_s", "upload_s"])
def test_limits_must_leave_room(choice):
    with pytest.raises(ValueError, match=choice):
        Limits(**{choice: 0})
