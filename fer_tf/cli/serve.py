"""The command that serves a model over HTTP."""

import logging
import socket
from contextlib import suppress
from importlib.util import find_spec
from typing import Annotated

import typer

from fer_tf import terminal
from fer_tf.cli.options import Backend, Detector, Model, check_requests
from fer_tf.terminal import busy


def serve(
    model: Model = "mobilenet_v2",
    detector: Detector = "haar",
    backend: Backend = None,
    host: Annotated[
        str, typer.Option(help="Where to listen; 0.0.0.0 for all that can reach this machine.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 8000,
    workers: Annotated[int | None, typer.Option(help="Threads that work on pictures; cores.")] = None,
    batch: Annotated[int, typer.Option(help="Pictures that one of them takes together, at most.")] = 8,
    max_wait: Annotated[float, typer.Option(help="Milliseconds that the first of them waits for others.")] = 2.0,
    max_bytes: Annotated[int, typer.Option(help="Of a request.")] = 10_000_000,
    max_pixels: Annotated[int, typer.Option(help="Of a picture.")] = 40_000_000,
    deadline: Annotated[float, typer.Option(help="Seconds until an answer, or a refusal.")] = 10.0,
    api_key: Annotated[
        str | None, typer.Option(envvar="FER_TF_API_KEY", help="What clients must send; better as this variable.")
    ] = None,
) -> None:
    """Serve POST /v1/detect, a page at /, health checks and metrics until Ctrl-C; what was accepted is finished."""
    if not find_spec("fastapi") or not find_spec("uvicorn"):
        raise ValueError("serving needs FastAPI and Uvicorn: pip install -e '.[serve]' in the project's folder")
    import uvicorn

    from fer_tf.inference.detect import load_detector
    from fer_tf.inference.engine import load_engine
    from fer_tf.inference.pipeline import cores
    from fer_tf.inference.serve import Limits, create_app

    check_requests(workers, option="--workers")
    if not 0 <= port <= 65535:
        raise ValueError(f"--port must be 0 to 65535, got {port}")
    try:
        listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise OSError(
            f"{host}:{port} cannot be listened on ({error.strerror or error}): give another --port"
        ) from error
    workers = workers or cores()
    limits = {
        "bytes": max_bytes,
        "pixels": max_pixels,
        "deadline_s": deadline,
        "batch": batch,
        "wait_s": max_wait / 1000,
    }
    with busy("loading the model"):
        engine = load_engine(model, backend=backend or "openvino-provider", requests=workers)
        detectors = [load_detector(detector, any_size=True) for _ in range(workers)]
        service = create_app(engine=engine, detectors=detectors, limits=Limits(**limits), api_key=api_key)
    logging.getLogger("fer_tf.serve").setLevel("INFO")
    config = uvicorn.Config(service, access_log=False, server_header=False, log_level="warning")
    config.timeout_graceful_shutdown, config.limit_concurrency = 30, 1000
    address = f"http://{host}:{listening.getsockname()[1]}"
    terminal.say(f"{engine.card.name} on {engine.provider}, {detector}: {address} (Ctrl-C stops)")
    with suppress(KeyboardInterrupt):  # which comes again, once everything is finished
        uvicorn.Server(config).run(sockets=[listening])
