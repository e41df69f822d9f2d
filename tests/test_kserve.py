"""Models run on a server that speaks KServe v2, and repositories are what such servers read."""

import hashlib
import http.server
import json
import threading
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from fer_tf import paths
from fer_tf.card import METADATA_KEY
from fer_tf.cli import app
from fer_tf.data.drawn import draw_faces
from fer_tf.inference.engine import load_engine
from fer_tf.inference.kserve import BackendError, Remote
from fer_tf.inference.repository import write_repository

CROPS = draw_faces(5, size=48, seed=3).crops(48)


@contextmanager
def served(engine, *, binary: bool, answer=None, rude: bool = False):
    """A small KServe v2 server of one model; `answer` replaces what it says, `rude` closes after every answer."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def send(self, value, rest=b"", status=200):
            body = value if isinstance(value, bytes) else json.dumps(value).encode()
            self.send_response(status)
            if rest:
                self.send_header("Inference-Header-Content-Length", str(len(body)))
            self.send_header("Content-Length", str(len(body + rest)))
            self.end_headers()
            self.wfile.write(body + rest)
            self.close_connection = rude

        def do_GET(self):
            ports = {"inputs": [{"name": "crops", "datatype": "UINT8", "shape": [-1, *engine.card.input_shape]}]}
            ports["outputs"] = [{"name": "logits", "datatype": "FP32", "shape": [-1, 7]}]
            if self.path == "/v2":
                self.send({"name": "small", "version": "1", "extensions": ["binary_tensor_data"] if binary else []})
            elif self.path == f"/v2/models/{engine.card.name}":
                self.send({"name": engine.card.name} | ports)
            else:
                self.send({"error": "no such model"}, status=404)

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            cut = int(self.headers.get("Inference-Header-Content-Length", len(body)))
            asked = json.loads(body[:cut])
            (tensor,) = asked["inputs"]
            assert binary == ("data" not in tensor) and tensor["datatype"] == "UINT8"
            data = body[cut:] if binary else bytes(tensor["data"])
            crops = np.frombuffer(data, np.uint8).reshape(tensor["shape"])
            logits = engine.run(crops)["logits"]
            told = {"name": "logits", "datatype": "FP32", "shape": list(logits.shape)}
            if answer is not None:
                self.send(*answer)
            elif binary:
                told["parameters"] = {"binary_data_size": logits.nbytes}
                self.send({"outputs": [told]}, logits.tobytes())
            else:
                self.send({"outputs": [told | {"data": logits.ravel().tolist()}]})

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"kserve://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def lenet():
    return load_engine("lenet", backend="cpu")


@pytest.mark.parametrize("rude", [False, True], ids=["kept", "closed"])
@pytest.mark.parametrize("binary", [True, False], ids=["bytes", "JSON"])
def test_a_server_gives_the_logits_that_the_model_gives_here(binary, rude, lenet):
    with served(lenet, binary=binary, rude=rude) as address:
        remote = load_engine("lenet", backend=address, requests=3)
        assert (remote.provider, remote.card) == ("small 1", lenet.card)
        for crops in (CROPS, CROPS[:1], CROPS[:0]):
            np.testing.assert_allclose(remote.logits(crops), lenet.logits(crops), atol=1e-5)
        found = [None] * 3
        threads = [
            threading.Thread(target=lambda k=k: found.__setitem__(k, remote.logits(CROPS[k : k + 2]))) for k in range(3)
        ]
        for thread in threads:
            thread.start()
        for k, thread in enumerate(threads):
            thread.join(20)
            np.testing.assert_allclose(found[k], lenet.logits(CROPS[k : k + 2]), atol=1e-5)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (({"error": "out of memory"}, b"", 500), "status 500: .*out of memory"),
        ((b"<html>",), "not as the KServe v2 protocol"),
        (({"outputs": []},), "not as the KServe v2 protocol"),
        (
            ({"outputs": [{"name": "logits", "datatype": "FP32", "shape": [1, 7], "data": [0] * 7}]},),
            "1. rows for 5 faces",
        ),
        (({"outputs": [{"name": "logits", "datatype": "FP32", "shape": [9, 9], "data": [1.0]}]},), "not as the KServe"),
    ],
    ids=["failure", "no JSON", "no output", "too few rows", "shape"],
)
def test_what_a_server_says_wrongly_is_one_sentence(answer, words, lenet):
    with served(lenet, binary=False, answer=answer) as address:
        remote = load_engine("lenet", backend=address)
        with pytest.raises(BackendError, match=words):
            remote.logits(CROPS)


def test_nobody_there_no_such_model_and_no_address(lenet):
    with pytest.raises(BackendError, match=r"127\.0\.0\.1:9 does not answer"):
        load_engine("lenet", backend="kserve://127.0.0.1:9")
    with served(lenet, binary=True) as address:
        with pytest.raises(BackendError, match=r"status 404: .*no such model"):
            Remote(f"{address}/other", name="lenet")
        assert Remote(f"{address}/lenet", name="another").name == "lenet"
        with pytest.raises(ValueError, match="does not fit its card"):
            load_engine("mobilenet_v2", backend=f"{address}/lenet")
    for address in ("kserve://", "kserve://a:b", "kserve://host/a/b"):
        with pytest.raises(ValueError, match="expected kserve://host:port"):
            Remote(address, name="lenet")


def test_the_service_says_that_its_server_failed(lenet):
    import io

    from fastapi.testclient import TestClient
    from PIL import Image

    from fer_tf.inference.detect import load_detector
    from fer_tf.inference.serve import create_app

    picture = io.BytesIO()
    Image.fromarray(CROPS[0]).save(picture, "PNG")
    with served(lenet, binary=True) as address:
        remote = load_engine("lenet", backend=address)
        with TestClient(create_app(engine=remote, detectors=[load_detector("full")])) as client:
            assert client.post("/detect", files={"file": picture.getvalue()}).status_code == 200
            assert client.get("/v1/models").json()["models"][0]["provider"] == "small 1"
            remote.infer.__self__.port = 9  # gone
            remote.infer.__self__._own = threading.local()
            answer = client.post("/detect", files={"file": picture.getvalue()})
    assert answer.status_code == 502 and address not in answer.text  # which is in the log alone


def renamed(path, card):
    """Write the shipped LeNet with another card inside."""
    import onnx

    model = onnx.load(paths.MODELS / "lenet" / "model.onnx")
    entry = next(entry for entry in model.metadata_props if entry.key == METADATA_KEY)
    entry.value = card.to_json()
    onnx.save(model, path)
    return path


def test_a_repository_holds_what_servers_read(tmp_path):
    written = write_repository(["lenet", "mobilenet_v2-int8"], tmp_path / "models")
    write_repository(["lenet"], tmp_path / "models", version=2)
    root = tmp_path / "models"
    assert {path.relative_to(root).as_posix() for path in written} >= {
        "config.json",
        "lenet/1/model.onnx",
        "SHA256SUMS",
    }
    assert (root / "lenet/2/model.onnx").read_bytes() == (paths.MODELS / "lenet/model.onnx").read_bytes()
    listed = json.loads((root / "config.json").read_text())["model_config_list"]
    assert [one["config"]["name"] for one in listed] == ["lenet", "mobilenet_v2-int8"]
    text = (root / "mobilenet_v2-int8/config.pbtxt").read_text()
    assert 'name: "mobilenet_v2-int8"' in text and "TYPE_UINT8, dims: [ 96, 96, 3 ]" in text
    assert 'name: "logits", data_type: TYPE_FP32, dims: [ 7 ]' in text
    assert "name: mobilenet-v2-int8" in (root / "mobilenet_v2-int8/inference-service.yaml").read_text()
    assert (root / "lenet/labels.txt").read_text().split()[3] == "happy"
    sums = dict(line.split("  ")[::-1] for line in (root / "SHA256SUMS").read_text().splitlines())
    assert "lenet/2/model.onnx" in sums
    assert all(hashlib.sha256((root / name).read_bytes()).hexdigest() == digest for name, digest in sums.items())
    with pytest.raises(FileExistsError, match="give another version"):
        write_repository(["lenet"], root)
    with pytest.raises(ValueError, match="a name of its own"):
        write_repository(["lenet", "lenet"], tmp_path / "b")
    evil = replace(load_engine("lenet").card, name="../x")
    with pytest.raises(ValueError, match=r"'\.\./x' names no folder"):
        write_repository([renamed(tmp_path / "evil.onnx", evil)], tmp_path / "d")
    assert not (tmp_path / "d").exists()
    done = CliRunner().invoke(app, ["export", "lenet", "--repository", str(tmp_path / "c")])
    assert done.exit_code == 0 and (tmp_path / "c/lenet/1/model.onnx").is_file()
