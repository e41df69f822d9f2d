"""A model that runs elsewhere: crops go to a server that speaks the KServe v2 protocol, such as Triton, OpenVINO Model
Server or MLServer, over HTTP.

The card stays here: of the server only the tensors are asked, https://github.com/kserve/open-inference-protocol.
"""

import http.client
import json
import math
import re
import threading
from pathlib import Path
from urllib.parse import quote

import numpy as np

SCHEME = "kserve://"
TYPES = {"UINT8": "uint8", "FP32": "float32"}
BINARY = "binary_tensor_data"
"""The protocol's extension by which tensors travel as bytes; a server without it gets and sends JSON."""
TIMEOUT_S = 10.0


class BackendError(RuntimeError):
    """The server does not answer, or not as it should."""


class Remote:
    """One model of a server; `infer` may be called from several threads, each has a connection of its own.

    address    kserve://host:port, with /name behind it for a model that has another name there
    name       the model's name there, unless the address says
    inputs     (dtype, shape) of each, sides that are free None
    outputs    name -> (dtype, shape)

    Raises ValueError for an address that is none, `BackendError` where nobody answers or there is no such model.
    """

    def __init__(self, address: str, *, name: str):
        found = re.fullmatch(r"kserve://([^/:\s]+|\[[0-9a-f:]+\])(?::(\d+))?(?:/([^/\s]+))?/?", address)
        if not found:
            raise ValueError(f"expected kserve://host:port, or kserve://host:port/model, got {address}")
        self.host, self.port = found[1].strip("[]"), int(found[2] or 8000)
        self.address, self.name = address, found[3] or name
        self._own = threading.local()
        self.server, about = self._json("GET", "/v2"), self._json("GET", f"/v2/models/{quote(self.name)}")
        try:
            self.binary = BINARY in self.server.get("extensions", ())
            self.inputs = [self._port(one) for one in about["inputs"]]
            self.outputs = {one["name"]: self._port(one) for one in about["outputs"]}
        except (KeyError, TypeError, AttributeError) as error:
            raise BackendError(f"{address} answers, but not as the KServe v2 protocol has it: {error!r}") from error
        if len(self.inputs) != 1:
            raise BackendError(f"{self.name} at {address} has {len(self.inputs)} inputs, a model of faces has one")
        self.input = about["inputs"][0]["name"]

    @property
    def provider(self) -> str:
        """The server's name and version."""
        return f"{self.server.get('name', 'KServe v2')} {self.server.get('version', '')}".strip()

    def infer(self, crops: np.ndarray) -> list[np.ndarray]:
        """Return the outputs, in their order, for crops of the input's type."""
        kind = next(kind for kind, dtype in TYPES.items() if dtype == crops.dtype.name)
        tensor = {"name": self.input, "shape": list(crops.shape), "datatype": kind}
        asked, body = [{"name": name} for name in self.outputs], b""
        if self.binary:
            body = np.ascontiguousarray(crops).tobytes()
            tensor["parameters"] = {"binary_data_size": len(body)}
            asked = [one | {"parameters": {"binary_data": True}} for one in asked]
        else:
            tensor["data"] = crops.ravel().tolist()
        head = json.dumps({"inputs": [tensor], "outputs": asked}).encode()
        length = {"Inference-Header-Content-Length": str(len(head))} if self.binary else {}
        headers, answer = self._ask("POST", f"/v2/models/{quote(self.name)}/infer", head + body, length)
        try:
            cut = int(headers.get("Inference-Header-Content-Length") or len(answer))
            found = self._tensors(json.loads(answer[:cut]), answer[cut:])
            if any(len(tensor) != len(crops) for tensor in found):
                raise ValueError(f"{[len(tensor) for tensor in found]} rows for {len(crops)} faces")
            return found
        except (ValueError, KeyError, TypeError) as error:
            raise BackendError(
                f"{self.address} answers, but not as the KServe v2 protocol has it: {error!r}"
            ) from error

    def _tensors(self, told: dict, rest: bytes) -> list[np.ndarray]:
        found = {}
        for one in told["outputs"]:
            dtype, shape = TYPES[one["datatype"]], tuple(one["shape"])
            size = (one.get("parameters") or {}).get("binary_data_size")
            if size is None:
                found[one["name"]] = np.array(one["data"], dtype).reshape(shape)
            else:
                found[one["name"]] = np.frombuffer(rest, dtype, math.prod(shape)).reshape(shape)
                rest = rest[size:]
        return [found[name] for name in self.outputs]

    @staticmethod
    def _port(about: dict) -> tuple[str, tuple]:
        return TYPES.get(about["datatype"], about["datatype"]), tuple(n if n > 0 else None for n in about["shape"])

    def _json(self, method: str, path: str) -> dict:
        answer = self._ask(method, path)[1]
        try:
            return json.loads(answer)
        except ValueError as error:
            raise BackendError(f"{self.address}{path} answers with something else than JSON") from error

    def _ask(self, method: str, path: str, body: bytes | None = None, headers: dict | None = None):
        for again in (True, False):
            connection = getattr(self._own, "connection", None)
            fresh = connection is None
            if fresh:
                connection = http.client.HTTPConnection(self.host, self.port, timeout=TIMEOUT_S)
                self._own.connection = connection
            try:
                connection.request(method, path, body, headers or {})
                answer = connection.getresponse()
                data = answer.read()
                break
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                self._own.connection = None
                if (
                    fresh or not again or isinstance(error, TimeoutError)
                ):  # one that was kept may have been closed meanwhile
                    raise BackendError(f"{self.address} does not answer ({error or type(error).__name__})") from error
        if answer.status != 200:
            why = data[:300].decode(errors="replace").strip()
            raise BackendError(f"{self.address} answers {path} with status {answer.status}: {why}")
        return answer.headers, data


def is_remote(backend: str) -> bool:
    """Tell whether a backend is a server's address."""
    return backend.startswith(SCHEME)


def card_text(path: Path) -> str | None:
    """Return the card inside an ONNX file, without loading its model."""
    import onnx

    from fer_tf.card import METADATA_KEY

    found = onnx.load(path, load_external_data=False).metadata_props
    return next((entry.value for entry in found if entry.key == METADATA_KEY), None)
