"""`write_repository`: shipped or exported models laid out as OpenVINO Model Server, Triton and KServe read them."""

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from fer_tf.card import describe_file
from fer_tf.files import make_folder, write_atomically
from fer_tf.inference.engine import load_engine

MAX_BATCH = 64
PBTXT = """name: "{name}"
backend: "onnxruntime"
max_batch_size: {batch}
input [ {{ name: "{input}", data_type: TYPE_UINT8, dims: [ {dims} ] }} ]
output [ {outputs} ]
dynamic_batching {{ max_queue_delay_microseconds: 2000 }}
instance_group [ {{ kind: KIND_CPU, count: 1 }} ]
"""
SERVICE = """apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: {resource}
spec:
  predictor:
    model:
      modelFormat:
        name: onnx
      runtime: kserve-tritonserver
      protocolVersion: v2
      storageUri: {storage}  # where this folder lies
"""


def write_repository(
    models: Sequence[Path | str], target: Path, *, version: int = 1, storage_uri: str = "pvc://models"
) -> list[Path]:
    """Write models into `target` and return the files; a version that is there already is not touched.

    <name>/<version>/model.onnx   the model, uint8 (n, s, s, 3) RGB to logits, any n
    <name>/config.pbtxt           for Triton, with dynamic batching
    <name>/labels.txt, card.json  the emotions in the order of the logits; the card, with the temperature to divide by
    config.json                   for OpenVINO Model Server, all models
    <name>/inference-service.yaml for KServe
    SHA256SUMS                    of all, for `sha256sum -c`

    models  as `load_engine` takes them; of a model that is there already, another version is added

    Raises ValueError for a model that these servers cannot batch, FileExistsError for a version that is there.
    """
    if version < 1:
        raise ValueError(f"version must be 1 or more, got {version}")
    engines = [load_engine(model, backend="cpu") for model in models]
    names = [engine.card.name for engine in engines]
    if len(set(names)) < len(names):
        raise ValueError(f"each model needs a name of its own, got {', '.join(names)}")
    for engine, name in zip(engines, names, strict=True):
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name, re.ASCII):
            raise ValueError(f"{name!r} names no folder: a model's name has letters, digits, - and _ alone")
        if engine.card.layout != "NHWC":
            raise ValueError(f"{name} takes grey NCHW pictures, one at a time: export it as it was trained")
        if (target / name / str(version)).exists():
            raise FileExistsError(f"{target / name / str(version)} is there: give another version")
    texts = [_pbtxt(engine, name) for engine, name in zip(engines, names, strict=True)]
    make_folder(target)
    for engine, name, text in zip(engines, names, texts, strict=True):
        folder = target / name
        (folder / str(version)).mkdir(parents=True)
        shutil.copyfile(engine.path, folder / str(version) / "model.onnx")
        _text(folder / "config.pbtxt", text)
        _text(folder / "labels.txt", "\n".join(engine.card.emotions) + "\n")
        engine.card.save(folder / "card.json")
        service = {"resource": re.sub(r"[^a-z0-9-]+", "-", name.lower()).strip("-"), "storage": storage_uri}
        _text(folder / "inference-service.yaml", SERVICE.format(**service))
    known = sorted(path.parent.name for path in target.glob("*/config.pbtxt"))
    served = [{"config": {"name": name, "base_path": f"/models/{name}"}} for name in known]
    _text(target / "config.json", json.dumps({"model_config_list": served}, indent=2) + "\n")
    written = sorted(path for path in target.rglob("*") if path.is_file() and path.name != "SHA256SUMS")
    sums = [f"{describe_file(path)['sha256']}  {path.relative_to(target).as_posix()}" for path in written]
    _text(target / "SHA256SUMS", "\n".join(sums) + "\n")
    return [*written, target / "SHA256SUMS"]


def _pbtxt(engine, name: str) -> str:
    import onnx

    graph = onnx.load(engine.path, load_external_data=False).graph
    weights = {tensor.name for tensor in graph.initializer}
    (source,) = (port for port in graph.input if port.name not in weights)
    if source.type.tensor_type.shape.dim[0].HasField("dim_value"):
        raise ValueError(f"{name} takes one face at a time, such servers several: export it with a free batch")
    shapes = zip((port.name for port in graph.output), engine.outputs.values(), strict=True)
    outputs = [
        f'{{ name: "{port}", data_type: TYPE_FP32, dims: [ {", ".join(map(str, shape))} ] }}' for port, shape in shapes
    ]
    dims = ", ".join(map(str, engine.card.input_shape))
    return PBTXT.format(name=name, batch=MAX_BATCH, input=source.name, dims=dims, outputs=", ".join(outputs))


def _text(path: Path, text: str) -> None:
    write_atomically(path, text.encode())
