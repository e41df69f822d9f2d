"""`create_app`: emotions over HTTP. Pictures that arrive together share calls of the model.

    app = create_app(engine=load_engine("mobilenet_v2", requests=2), detectors=[load_detector() for _ in range(2)])
    uvicorn.run(app)

What a client sends is a picture's bytes and nothing else: no address that is fetched, no path that is opened. Nothing
of it is kept, neither on disk nor in logs. Inference runs in threads of its own, one per detector, so that the event
loop only moves bytes.
"""

import asyncio
import hmac
import io
import json
import logging
import re
import time
import traceback
import uuid
import warnings
from collections.abc import Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files
from typing import Annotated

import numpy as np
from fastapi import FastAPI, HTTPException, Query, Request, Security
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.security import APIKeyHeader
from PIL import Image
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from pydantic import BaseModel
from starlette.datastructures import Headers, MutableHeaders, UploadFile
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.formparsers import MultiPartParser
from starlette.requests import ClientDisconnect

import fer_tf
from fer_tf.card import describe_file
from fer_tf.data.images import decode_image
from fer_tf.faces import softmax
from fer_tf.inference.detect import RATIOS, Detector, crop_faces
from fer_tf.inference.kserve import BackendError, is_remote
from fer_tf.inference.microbatch import MicroBatches, Overloaded
from fer_tf.labels import COLOURS

KINDS = {b"\xff\xd8\xff": "JPEG", b"\x89PNG\r\n\x1a\n": "PNG", b"GIF8": "GIF", b"BM": "BMP"}
"""How files of pictures begin; WebP is told by two words. No TIFF: of one, two readers may see different sizes."""
FIELDS = "file", "image"
"""Names that the picture's part of the form may have."""
FACES_PER_CALL = 64
SHAPES = [(480, round(480 * ratio)) for ratio in RATIOS] + [(round(480 * ratio), 480) for ratio in RATIOS[1:]]
SECURITY = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' blob: data:; media-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
PAGE = {"/": ("index.html", "text/html"), "/app.js": ("app.js", "text/javascript"), "/app.css": ("app.css", "text/css")}
OPEN = {*PAGE, "/healthz", "/readyz", "/openapi.json"}
"""Paths that need no key."""
_log = logging.getLogger("fer_tf.serve")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a request may take.

    bytes       of a request's body, counted as it arrives
    pixels      of a picture, read from its header before it is decoded
    upload_s    seconds for the whole body
    deadline_s  seconds from then until the answer
    batch       pictures that one worker takes together
    wait_s      seconds that the first of them waits for others
    line        requests that may wait, beside those that are worked on; further ones are refused
    """

    bytes: int = 10_000_000
    pixels: int = 40_000_000
    upload_s: float = 20.0
    deadline_s: float = 10.0
    batch: int = 8
    wait_s: float = 0.002
    line: int = 128

    def __post_init__(self):
        for name in self.__dataclass_fields__:
            if not getattr(self, name) > 0 and name != "wait_s":
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")


class Refused(ValueError):
    """A picture that is not judged, with the status that says why."""

    def __init__(self, status: int, why: str):
        super().__init__(why)
        self.status = status


class ImageSize(BaseModel):
    width: int
    height: int


class Face(BaseModel):
    """box is left, top, right, bottom in pixels of the upright picture; probabilities sum to 1."""

    box: tuple[float, float, float, float]
    score: float
    label: str
    probabilities: dict[str, float]
    embedding: list[float] | None = None


class Detected(BaseModel):
    """All faces of a picture, the surest first; timing_ms are milliseconds of waiting in line, of work, and in all."""

    model: str
    version: str
    image: ImageSize
    faces: list[Face]
    timing_ms: dict[str, float]


class Problem(BaseModel):
    detail: str
    request_id: str


EXAMPLE = {
    "model": "mobilenet_v2",
    "version": "3f1c9a7be210",
    "image": {"width": 640, "height": 480},
    "faces": [
        {
            "box": [212.0, 96.5, 371.0, 255.5],
            "score": 0.93,
            "label": "happy",
            "probabilities": {"happy": 0.91, "neutral": 0.05, "surprise": 0.04},
        }
    ],
    "timing_ms": {"waiting": 0.4, "work": 6.2, "total": 7.1},
}
UPLOAD = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": [FIELDS[0]],
                    "properties": {
                        FIELDS[0]: {
                            "type": "string",
                            "format": "binary",
                            "minLength": 1,
                            "description": "JPEG, PNG, WebP, GIF, BMP",
                        }
                    },
                },
                "encoding": {FIELDS[0]: {"contentType": "image/jpeg, image/png, image/webp, image/gif, image/bmp"}},
            }
        },
    }
}
PROBLEMS = {
    400: "The file is empty, cut short or damaged, or the form is",
    401: "The key is missing or wrong",
    408: "The body did not arrive in time",
    413: "Too many bytes or pixels",
    415: "No picture, by its content",
    422: "The form has no picture",
    502: "The server that runs the model failed",
    503: "Too busy: ask again after Retry-After seconds",
}


def create_app(
    *, engine, detectors: Sequence[Detector], limits: Limits | None = None, api_key: str | None = None
) -> FastAPI:
    """Return the service; its threads run from start-up to shutdown, which finishes what was accepted.

    engine     may be called from as many threads as there are detectors
    detectors  one per worker; of YuNet with `any_size`, or it is compiled anew for pictures of a new shape
    api_key    what clients must send as X-API-Key, or as a bearer token; None asks for none

    Raises ValueError for a model that takes clips.
    """
    limits, card = limits or Limits(), engine.card
    if card.window > 1:
        raise ValueError(f"{card.name} takes clips of {card.window} frames, the service pictures: take another model")
    if api_key and not api_key.isascii():
        raise ValueError("a key has letters, digits and signs of ASCII alone: others do not travel in a header")
    version = "remote" if is_remote(engine.backend) else describe_file(engine.path)["sha256"][:12]
    MultiPartParser.spool_max_size = limits.bytes + 1  # parts stay in memory
    warnings.filterwarnings("ignore", module=r"PIL\.")  # of a header that is odd; of size, `limits.pixels` is the rule
    numbers = _Numbers()
    room = limits.line + limits.batch * len(detectors)
    workers = [_Worker(engine, detector, limits, numbers) for detector in detectors]

    @asynccontextmanager
    async def lifespan(app: FastAPI):
        app.state.batches = MicroBatches(workers, most=limits.batch, wait_s=limits.wait_s, line=limits.line)
        numbers.line.set_function(lambda: len(app.state.batches))
        await asyncio.to_thread(lambda: [worker.warm() for worker in workers])
        app.state.ready = True
        yield
        app.state.ready = False
        await asyncio.to_thread(app.state.batches.close)

    app = FastAPI(
        title="fer-tf",
        version=fer_tf.__version__,
        description="Faces of a picture and their emotions. Labels are what annotators saw, not what a person felt.",
        docs_url=None,  # these pages would load scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
        responses={status: {"model": Problem, "description": why} for status, why in PROBLEMS.items()},
    )
    app.state.ready, app.state.bodies = False, 0
    app.add_middleware(_Guard, limits=limits, api_key=api_key, numbers=numbers)

    @app.exception_handler(StarletteHTTPException)
    async def _problem(request: Request, error: StarletteHTTPException) -> JSONResponse:
        body = {"detail": str(error.detail), "request_id": request.scope["request_id"]}
        return JSONResponse(body, error.status_code, headers=error.headers)

    @app.exception_handler(RequestValidationError)
    async def _misunderstood(request: Request, error: RequestValidationError) -> JSONResponse:
        why = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        return await _problem(request, HTTPException(422, why))

    offered = Query(json_schema_extra={} if "embedding" in engine.outputs else {"enum": [False]})

    async def answer(request: Request, embedding: Annotated[bool, offered] = False) -> Detected:
        """Find every face of a picture and judge its emotion. `embedding` adds the vector, of models that have one."""
        if embedding and "embedding" not in engine.outputs:
            raise HTTPException(422, f"{card.name} has no embedding: leave `embedding` out")
        if app.state.bodies >= room:  # each is held in memory
            raise HTTPException(503, f"{room} pictures are waiting already: ask again later", {"Retry-After": "1"})
        app.state.bodies += 1
        try:
            return await judged(request, embedding)
        finally:
            app.state.bodies -= 1

    async def judged(request: Request, embedding: bool) -> Detected:
        data, began = await _picture(request), time.perf_counter()
        try:
            future = asyncio.wrap_future(app.state.batches.submit((data, time.perf_counter())))
            found = await asyncio.wait_for(future, limits.deadline_s)
        except Refused as error:
            raise HTTPException(error.status, str(error)) from error
        except Overloaded as error:
            raise HTTPException(503, f"{error}: ask again later", {"Retry-After": "1"}) from error
        except BackendError as error:
            _log.error(json.dumps({"request_id": request.scope["request_id"], "backend": str(error)}))
            raise HTTPException(502, "the server that runs the model failed", {"Retry-After": "1"}) from error
        except TimeoutError as error:
            why = f"no answer within {limits.deadline_s:g} seconds: ask again later"
            raise HTTPException(503, why, {"Retry-After": "1"}) from error
        request.scope["faces"] = len(found.faces)
        faces = [face if embedding else {**face, "embedding": None} for face in found.faces]
        timing = found.timing_ms | {"total": _ms(time.perf_counter() - began)}
        return Detected(model=card.name, version=version, image=found.image, faces=faces, timing_ms=timing)

    keyed = [Security(APIKeyHeader(name="X-API-Key", auto_error=False))] if api_key else []  # described; _Guard asks it
    about = {"response_model": Detected, "response_model_exclude_none": True, "openapi_extra": UPLOAD}
    about |= {"dependencies": keyed, "responses": {200: {"content": {"application/json": {"example": EXAMPLE}}}}}
    app.post("/v1/detect", **about)(answer)
    app.post("/detect", summary="The short name of /v1/detect", **about)(answer)

    @app.get("/v1/models", dependencies=keyed)
    async def models() -> dict:
        """Return the one model that is served: its card, in short."""
        told = {"name": card.name, "version": version, "architecture": card.architecture, "provider": engine.provider}
        told |= {"emotions": card.emotions, "colours": {e: COLOURS.get(e, "#8C8C8C") for e in card.emotions}}
        told |= {"image_size": card.image_size, "outputs": list(engine.outputs), "detector": detectors[0].name}
        return {"models": [told | {"data": card.data, "metrics": card.metrics, "notices": card.notices}]}

    @app.get("/healthz")
    async def alive() -> dict:
        """Say that the process answers."""
        return {"status": "alive"}

    @app.get("/readyz")
    async def ready() -> dict:
        """Say that the model is loaded and warm; 503 before and while it shuts down."""
        if not app.state.ready:
            raise HTTPException(503, "not ready yet, or shutting down", {"Retry-After": "1"})
        return {"status": "ready"}

    @app.get("/metrics", dependencies=keyed, response_class=Response)
    async def metrics() -> Response:
        """Return counters and histograms in Prometheus' text format."""
        return Response(generate_latest(numbers.registry), media_type="text/plain; version=0.0.4")

    for path, (name, kind) in PAGE.items():
        content = (files("fer_tf.inference") / "page" / name).read_bytes()
        app.get(path, include_in_schema=False)(lambda content=content, kind=kind: Response(content, media_type=kind))
    return app


class _Numbers:
    """What /metrics tells."""

    def __init__(self):
        self.registry = CollectorRegistry()
        about = {"registry": self.registry, "namespace": "fer"}
        self.requests = Counter("requests", "Requests by path and status", ["path", "code"], **about)
        self.seconds = Histogram("request_seconds", "From the first byte to the last", ["path"], **about)
        self.pictures = Histogram(
            "batch_pictures", "Pictures worked on together", buckets=(1, 2, 4, 8, 16, 32, 64), **about
        )
        self.faces = Histogram("call_faces", "Faces in a model call", buckets=(1, 2, 4, 8, 16, 32, 64), **about)
        self.line = Gauge("waiting", "Requests in line", **about)


@dataclass(frozen=True)
class _Found:
    image: dict
    faces: list[dict]
    timing_ms: dict[str, float]


class _Worker:
    """Decodes, detects and classifies some pictures; one thread's own."""

    def __init__(self, engine, detector: Detector, limits: Limits, numbers: _Numbers):
        self.engine, self.detector, self.limits, self.numbers = engine, detector, limits, numbers

    def warm(self) -> None:
        """Run once on pictures for every canvas: YuNet is compiled for each, on first use."""
        for height, width in SHAPES:
            self.detector(np.zeros((height, width, 3), np.uint8))
        self.engine.run(np.zeros((1, *self.engine.card.input_shape), np.uint8))

    def __call__(self, pictures: list[tuple[bytes, float]]) -> list[_Found | Exception]:
        begun, card = time.perf_counter(), self.engine.card
        self.numbers.pictures.observe(len(pictures))
        results, crops = [], []
        for data, _ in pictures:
            try:
                image = self._decode(data)
                found = self.detector(image)
                how = {"image_size": card.image_size, "scale": self.detector.scale, "roll": found.roll}
                crops.append(crop_faces(image, found.xyxy, **how))
                results.append((image.shape, found))
            except Exception as error:  # of this picture alone
                results.append(error)
        outputs = self._run(np.concatenate(crops)) if crops else {}
        answers, first = [], 0
        for result, (_, arrived) in zip(results, pictures, strict=True):
            if isinstance(result, Exception):
                answers.append(result)
                continue
            shape, found = result
            rows = slice(first, first := first + len(found.score))
            timing = {"waiting": _ms(begun - arrived), "work": _ms(time.perf_counter() - begun)}
            size = {"width": shape[1], "height": shape[0]}
            answers.append(_Found(size, _faces(found, {k: v[rows] for k, v in outputs.items()}, card.emotions), timing))
        return answers

    def _run(self, crops: np.ndarray) -> dict[str, np.ndarray]:
        parts = []
        for start in range(0, max(len(crops), 1), FACES_PER_CALL):
            part = crops[start : start + FACES_PER_CALL]
            if len(part):
                self.numbers.faces.observe(len(part))
            parts.append(self.engine.run(part))
        outputs = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return outputs | {"logits": self.engine.calibrated(outputs["logits"])}

    def _decode(self, data: bytes) -> np.ndarray:
        if not data:
            raise Refused(400, "the file is empty (0 bytes)")
        if _kind(data) is None:
            raise Refused(415, "the file is no picture: expected JPEG, PNG, WebP, GIF or BMP")
        try:
            with Image.open(io.BytesIO(data)) as header:  # reads no pixel
                width, height = header.size
        except Image.DecompressionBombError as error:
            raise Refused(413, f"the picture has more than {self.limits.pixels:,} pixels") from error
        except Exception as error:  # whatever a damaged header brings about
            raise Refused(400, "the picture's header is damaged, or the file cut short") from error
        if width * height > self.limits.pixels:
            raise Refused(413, f"{width} x {height} are more than {self.limits.pixels:,} pixels: scale it down")
        try:
            return decode_image(np.frombuffer(data, np.uint8), name="the file")
        except ValueError as error:
            raise Refused(400, str(error)) from error


def _kind(data: bytes) -> str | None:
    """Return what a file is by its first bytes."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    return next((kind for start, kind in KINDS.items() if data.startswith(start)), None)


def _faces(found, outputs: dict[str, np.ndarray], emotions: tuple[str, ...]) -> list[dict]:
    faces = []
    shares = softmax(outputs["logits"]) if len(found.score) else ()
    for i, p in enumerate(shares):
        ranked = {emotions[k]: round(float(p[k]), 4) for k in p.argsort()[::-1]}
        face = {"box": [round(float(side), 1) for side in found.xyxy[i]], "score": round(float(found.score[i]), 4)}
        face |= {"label": next(iter(ranked)), "probabilities": ranked}
        if "embedding" in outputs:
            face["embedding"] = [round(float(value), 6) for value in outputs["embedding"][i]]
        faces.append(face)
    return faces


async def _picture(request: Request) -> bytes:
    """Return the bytes of the form's one file."""
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise HTTPException(415, "expected multipart/form-data with the picture as `file`")
    try:
        async with request.form(max_files=1, max_fields=8) as form:
            upload = next((form[name] for name in FIELDS if name in form), None)
            if not isinstance(upload, UploadFile):
                raise HTTPException(422, f"the form has no file named {' or '.join(FIELDS)}")
            return await upload.read()
    except ClientDisconnect as error:
        raise HTTPException(400, "the client went away") from error


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 2)


class _Guard:
    """Around every request: its id, key, size and time, headers, the log's line and the counters."""

    def __init__(self, app, *, limits: Limits, api_key: str | None, numbers: _Numbers):
        self.app, self.limits, self.numbers = app, limits, numbers
        self.key = api_key.encode() if api_key else None

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers, begun = Headers(scope=scope), time.perf_counter()
        given = headers.get("x-request-id", "")
        scope["request_id"] = given if re.fullmatch(r"[\w.-]{1,64}", given, re.ASCII) else uuid.uuid4().hex
        told = {"status": 0, "bytes": 0}

        async def guarded_send(message) -> None:
            if message["type"] == "http.response.start":
                told["status"] = message["status"]
                MutableHeaders(scope=message).update(SECURITY | {"x-request-id": scope["request_id"]})
            await send(message)

        try:
            if self.key and scope["path"] not in OPEN and not self._known(headers):
                await self._refuse(401, "the key is missing or wrong: send it as X-API-Key", scope, guarded_send)
            elif int(headers.get("content-length", "0") or 0) > self.limits.bytes:
                await self._refuse(413, self._too_much, scope, guarded_send)
            else:
                await self.app(scope, self._limited(receive, told), guarded_send)
        except Exception:
            _log.error(json.dumps({"request_id": scope["request_id"], "traceback": traceback.format_exc()}))
            if told["status"]:  # too late for another answer
                raise
            await self._refuse(500, "this request failed here: its id is in the log", scope, guarded_send)
        finally:
            seconds = time.perf_counter() - begun
            path = getattr(scope.get("route"), "path", "other")
            self.numbers.requests.labels(path, told["status"]).inc()
            self.numbers.seconds.labels(path).observe(seconds)
            line = {
                "request_id": scope["request_id"],
                "method": scope["method"],
                "path": path,
                **told,
                "ms": _ms(seconds),
            }
            _log.info(json.dumps(line | ({"faces": scope["faces"]} if "faces" in scope else {})))

    @property
    def _too_much(self) -> str:
        return f"the body has more than {self.limits.bytes:,} bytes"

    def _known(self, headers: Headers) -> bool:
        bearer = headers.get("authorization", "")
        given = headers.get("x-api-key") or (bearer[7:] if bearer[:7].lower() == "bearer " else "")
        return hmac.compare_digest(given.encode(), self.key)

    def _limited(self, receive, told: dict):
        """Return a `receive` that counts bytes and seconds until the body is complete."""
        until, complete = time.monotonic() + self.limits.upload_s, False

        async def limited():
            nonlocal complete
            if complete:
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), max(until - time.monotonic(), 0))
            except TimeoutError as error:
                why = f"the body did not arrive within {self.limits.upload_s:g} seconds"
                raise HTTPException(408, why, {"Connection": "close"}) from error
            told["bytes"] += len(message.get("body", b""))
            if told["bytes"] > self.limits.bytes:
                raise HTTPException(413, self._too_much, {"Connection": "close"})
            complete = not message.get("more_body", False)
            return message

        return limited

    async def _refuse(self, status: int, why: str, scope, send) -> None:
        body = {"detail": why, "request_id": scope["request_id"]}
        response = JSONResponse(body, status, headers={"Connection": "close"})  # what is still coming is not read
        await response(scope, None, send)
