"""`Engine`: uint8 face crops in, logits out, on ONNX Runtime or OpenVINO. The model card comes out of the ONNX file."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

import numpy as np

from fer_tf import paths
from fer_tf.card import METADATA_KEY, ModelCard, describe_file
from fer_tf.faces import LUMA, check_crops
from fer_tf.inference.kserve import Remote, card_text, is_remote

PROVIDERS = {"openvino-provider": "OpenVINOExecutionProvider", "cpu": "CPUExecutionProvider"}
PRECISIONS = ("-int8", "-fp16")  # what stands behind the name of a model's file of another precision
MOST = 1024
"""Threads or requests at most: no machine has use for more, and a runtime would try."""
BACKENDS = (*PROVIDERS, "openvino")
"""What `load_engine` takes as backend, beside any other ONNX Runtime provider's own name."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Engine:
    """A loaded model. Call it from one thread at a time, or from `requests` threads.

    card      what the model says about itself
    backend   what was asked for
    provider  what runs it
    outputs   name -> shape without n: "logits" and, where the model has them, others such as "embedding"
    infer     uint8 (n, *card.input_shape), n > 0 -> the outputs in their order
    requests  threads that may call at the same time; the runtime serves each on a stream of its own
    """

    path: Path
    card: ModelCard
    backend: str
    provider: str
    outputs: dict[str, tuple[int, ...]]
    infer: Callable[[np.ndarray], list[np.ndarray]]
    requests: int = 1

    def run(self, crops: np.ndarray) -> dict[str, np.ndarray]:
        """Return every output as the file gives it, float32 (n, ...), for RGB crops uint8 (n, *card.input_shape).

        n may be 0.
        """
        check_crops(crops, self.card.input_shape)
        if not len(crops):
            return {name: np.empty((0, *shape), np.float32) for name, shape in self.outputs.items()}
        return dict(zip(self.outputs, self.infer(np.ascontiguousarray(crops)), strict=True))

    def logits(self, crops: np.ndarray) -> np.ndarray:
        """Return float32 (n, emotions) over the card's temperature for RGB crops uint8 (n, *card.input_shape)."""
        return self.calibrated(self.run(crops)["logits"])

    def calibrated(self, logits: np.ndarray) -> np.ndarray:
        """Return what `run` gave as logits over the temperature; raises ValueError where they are not finite."""
        logits = logits / np.float32(self.card.temperature)
        if not np.isfinite(logits).all():
            raise ValueError(
                f"{self.card.name} gives logits that are not finite: its weights are damaged, export it anew"
            )
        return logits


class _Loaded(NamedTuple):
    """What a runtime says of a model: ports as (dtype, shape), None where a side is free, and how to run it."""

    provider: str
    inputs: list[tuple[str, tuple]]
    outputs: dict[str, tuple[str, tuple]]
    card_json: str | None
    infer: Callable[[np.ndarray], list[np.ndarray]]


def load_engine(
    path_or_name: Path | str,
    *,
    backend: str = "openvino-provider",
    threads: int | None = None,
    requests: int = 1,
    card: ModelCard | None = None,
) -> Engine:
    """Load a model on one backend, or raise: there is no silent change to another.

    path_or_name  a shipped model's name, a folder that holds model.onnx, or an ONNX file
    backend       "openvino-provider" (ONNX Runtime with OpenVINO inside), "cpu" (ONNX Runtime alone), "openvino"
                  (OpenVINO alone), another ONNX Runtime provider by its name, such as "CUDAExecutionProvider", or
                  "kserve://host:port", a server that runs the model under the name of its card, see `kserve.Remote`
    threads       cores that the model may use; None leaves the choice to the runtime
    requests      calls that may be in flight at the same time; several share the threads, one each if None
    card          for a model that carries none and has none beside it: a card.json that names the file and its sha256

    Raises FileNotFoundError for an unknown model, ValueError for a file that is no such model, RuntimeError for a
    backend that is not there or does not run the whole model.
    """
    path = resolve_model(path_or_name)
    if threads is not None and not 1 <= threads <= MOST:
        raise ValueError(f"threads must be at least 1 and at most {MOST}, got {threads}: None has the runtime choose")
    if not 1 <= requests <= MOST:
        raise ValueError(f"requests must be at least 1 and at most {MOST}, got {requests}")
    start = _remote if is_remote(backend) else _openvino if backend == "openvino" else _onnxruntime
    loaded = start(path, backend, threads, requests)
    if card is None:
        card = _card_beside(path) if loaded.card_json is None else _card_inside(path, loaded.card_json)
    grey = card.layout == "NCHW"
    pixels = ("float32", (1, card.image_size, card.image_size)) if grey else ("uint8", card.input_shape)
    ports = [(dtype, shape[1:]) for dtype, shape in (*loaded.inputs, next(iter(loaded.outputs.values())))]
    if ports != [pixels, ("float32", (len(card.emotions),))]:
        raise ValueError(
            f"{path} does not fit its card: expected input {pixels[0]} (n, {', '.join(map(str, pixels[1]))}) and "
            f"output float32 (n, {len(card.emotions)}), but they are {loaded.inputs} and {loaded.outputs}: "
            "export it anew"
        )
    batch, infer = loaded.inputs[0][1][0], loaded.infer
    if batch not in (None, 1):
        raise ValueError(f"{path} takes exactly {batch} faces at a time: export it with a free batch, or with one of 1")
    if batch == 1:
        infer = _one_by_one(infer)
    if grey:
        infer = _in_grey(infer)
    outputs = {name: shape[1:] for name, (_, shape) in loaded.outputs.items()}
    outputs = {"logits": outputs.pop(next(iter(outputs))), **outputs}  # others may call their first output as they like
    return Engine(
        path=path,
        card=card,
        backend=backend,
        provider=loaded.provider,
        outputs=outputs,
        infer=infer,
        requests=requests,
    )


def resolve_model(name_or_path: Path | str) -> Path:
    """Return the ONNX file of a shipped model's name, a folder or a path; raises FileNotFoundError or ValueError.

    What lies at the path comes first, as everywhere. A folder without model.onnx is its one file of another precision,
    if it holds one alone.
    """
    given = Path(name_or_path)
    if len(given.parts) == 1 and not given.exists() and (shipped := shipped_model(given.name)):
        return shipped
    if given.is_dir():
        return _file_in(given)
    if not given.is_file():
        known = ", ".join(sorted({path.parent.name for path in paths.MODELS.glob("*/model*.onnx")})) or "none"
        raise FileNotFoundError(f"there is no model {str(given)!r}: give an .onnx file, or a shipped model ({known})")
    if given.suffix.lower() != ".onnx":
        raise ValueError(f"expected an .onnx file, got {given}: a .keras file becomes one with `fer-tf export`")
    return given


def shipped_model(name: str) -> Path | None:
    """Return the ONNX file of a shipped model, whatever lies in the working directory; None if none has this name.

    The name with "-int8" or "-fp16" behind it is the model's file of that precision.
    """
    precision = next((end for end in PRECISIONS if name.endswith(end)), "")
    exact = paths.MODELS / name.removesuffix(precision) / f"model{precision}.onnx"
    if exact.is_file():
        return exact
    return _file_in(paths.MODELS / name) if (paths.MODELS / name).is_dir() else None


def _file_in(folder: Path) -> Path:
    found = [folder / "model.onnx"] if (folder / "model.onnx").is_file() else list(folder.glob("model-*.onnx"))
    if len(found) != 1:
        raise FileNotFoundError(f"{folder} holds no model.onnx: a run gets one from `fer-tf export {folder}`")
    return found[0]


def _card_inside(path: Path, text: str) -> ModelCard:
    try:
        return ModelCard.from_json(text)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _card_beside(path: Path) -> ModelCard:
    """Return the card.json beside a file that carries none; ValueError unless it names this very file."""
    beside = path.with_name("card.json")
    card = ModelCard.load(beside) if beside.is_file() else None
    if card is None or path.name not in card.files:
        raise ValueError(
            f"{path} carries no model card, and no card.json beside it names it, so its emotions are unknown: export "
            "it with `fer-tf export`, or hand its card to load_engine(card=...)"
        )
    found, expected = describe_file(path)["sha256"], card.files[path.name].get("sha256")
    if found != expected:
        raise ValueError(
            f"{beside} is the card of another {path.name}: it says sha256 {expected}, the file has {found}; fetch or "
            "export them anew"
        )
    return card


def _one_by_one(infer: Callable) -> Callable:
    """For a model that takes exactly one face at a time."""

    def each(crops: np.ndarray) -> list[np.ndarray]:
        found = [[np.array(output) for output in infer(crop[None])] for crop in crops]  # a runtime may reuse its own
        return [np.concatenate(output) for output in zip(*found, strict=True)]

    return each


def _in_grey(infer: Callable) -> Callable:
    """For a model that takes float32 (n, 1, s, s): luma 0..255 of the RGB crops, unscaled (ITU-R BT.601)."""
    return lambda crops: infer((crops @ LUMA)[:, None])


def _onnxruntime(path: Path, backend: str, threads: int | None, requests: int) -> _Loaded:
    import onnxruntime

    provider = PROVIDERS.get(backend, backend)
    available = onnxruntime.get_available_providers()
    if provider not in available:
        advice = f"take one of {', '.join(BACKENDS)}"
        if provider == PROVIDERS["openvino-provider"]:
            advice = "a plain onnxruntime hides the OpenVINO build: uninstall both, then install onnxruntime-openvino"
        raise RuntimeError(
            f"backend {backend!r} is not available, this ONNX Runtime has {', '.join(available)}: {advice}"
        )
    session_options = onnxruntime.SessionOptions()
    session_options.log_severity_level = 4  # what goes wrong is raised
    provider_options = {}
    if backend != "cpu" and provider != PROVIDERS["cpu"]:
        # ONNX Runtime hands nodes that a provider refuses to its CPU provider, and still lists the provider first.
        session_options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    if provider == PROVIDERS["openvino-provider"]:
        session_options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        provider_options = {
            "device_type": "CPU",
            "load_config": json.dumps({"CPU": _openvino_config(threads, requests)}),
        }
    elif threads or requests > 1:
        session_options.intra_op_num_threads = max(1, (threads or requests) // requests)
    try:
        session = onnxruntime.InferenceSession(path, session_options, providers=[(provider, provider_options)])
    except Exception as error:  # ONNX Runtime's errors share no narrower base
        if "Load model from" in str(error):
            raise ValueError(_unreadable(path)) from error
        raise RuntimeError(f"{provider} does not run all of {path}, take another backend: {error}") from error
    session.disable_fallback()
    if session.get_providers()[0] != provider:
        raise RuntimeError(f"{provider} did not start, ONNX Runtime offers {session.get_providers()} in its place")
    name = session.get_inputs()[0].name
    return _Loaded(
        provider=provider,
        inputs=[_onnxruntime_port(port) for port in session.get_inputs()],
        outputs={port.name: _onnxruntime_port(port) for port in session.get_outputs()},
        card_json=session.get_modelmeta().custom_metadata_map.get(METADATA_KEY),
        infer=lambda crops: session.run(None, {name: crops}),
    )


def _onnxruntime_port(port) -> tuple[str, tuple]:
    dtype = port.type.removeprefix("tensor(").removesuffix(")")
    return {"float": "float32"}.get(dtype, dtype), tuple(d if isinstance(d, int) else None for d in port.shape)


@cache
def openvino_core():
    """Return the process's one `openvino.Core`.

    Each one gives the main thread a stack for signals and puts the former back as it goes: of several that go in
    another order than they came, one stays that is gone, and the next signal ends the program.
    """
    import openvino

    openvino.Type.u8.to_dtype()  # sets up a table on first use, where two threads would wait for each other
    return openvino.Core()


def _openvino(path: Path, backend: str, threads: int | None, requests: int) -> _Loaded:
    from openvino.frontend import FrontEndManager

    frontend = FrontEndManager().load_by_framework("onnx")  # read_model would try every format, loudly
    try:
        model = frontend.convert(frontend.load(path))
    except Exception as error:  # OpenVINO's errors share no narrower base
        raise ValueError(_unreadable(path)) from error
    if not model.inputs:  # an empty file is read as an empty model
        raise ValueError(_unreadable(path))
    compiled = openvino_core().compile_model(model, "CPU", _openvino_config(threads, requests))
    idle: SimpleQueue = SimpleQueue()  # not AsyncInferQueue: there a call that failed fails those after it as well
    for _ in range(requests):
        idle.put(compiled.create_infer_request())

    def infer(crops: np.ndarray) -> list[np.ndarray]:
        request = idle.get()
        try:
            results = request.infer([crops], share_inputs=True)
            return [results[port] for port in compiled.outputs]
        finally:
            idle.put(request)

    key = ["framework", METADATA_KEY]
    return _Loaded(
        provider=f"OpenVINO {', '.join(compiled.get_property('EXECUTION_DEVICES'))}",
        inputs=[_openvino_port(port) for port in compiled.inputs],
        outputs={port.any_name: _openvino_port(port) for port in compiled.outputs},
        card_json=str(model.get_rt_info(key).value) if model.has_rt_info(key) else None,
        infer=infer,
    )


def _openvino_port(port) -> tuple[str, tuple]:
    shape = tuple(None if d.is_dynamic else d.get_length() for d in port.partial_shape)
    return np.dtype(port.element_type.to_dtype()).name, shape


def _openvino_config(threads: int | None, requests: int) -> dict[str, str]:
    """One batch at a time as fast as it goes, or several on a stream each. All text: the provider takes JSON text."""
    pace = {"PERFORMANCE_HINT": "LATENCY"}
    if requests > 1:
        pace, threads = {"NUM_STREAMS": str(requests)}, threads or requests
    config = pace | {
        "INFERENCE_PRECISION_HINT": "f32",  # where a CPU has bfloat16 the default is that, 1e-3 off
        "ENABLE_CPU_PINNING": "NO",  # a thread pinned to a core that others use waits up to a second for it
    }
    return config if threads is None else config | {"INFERENCE_NUM_THREADS": str(threads)}


def _remote(path: Path, backend: str, threads: int | None, requests: int) -> _Loaded:
    text = card_text(path)
    remote = Remote(backend, name=_card_inside(path, text).name if text else path.parent.name)
    return _Loaded(
        provider=remote.provider, inputs=remote.inputs, outputs=remote.outputs, card_json=text, infer=remote.infer
    )


def _unreadable(path: Path) -> str:
    size = path.stat().st_size
    return f"{path} ({size:,} bytes) is no ONNX model that can be read, perhaps cut short: fetch it or export it anew"
