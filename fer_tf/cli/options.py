"""What several commands share: their options, and how they find a model."""

from pathlib import Path
from typing import Annotated

import typer

from fer_tf import terminal

Model = Annotated[str, typer.Option(help="A shipped model's name, a run folder, an .onnx or a .keras file.")]
Backend = Annotated[
    str | None,
    typer.Option(help="openvino-provider (default), cpu, openvino, an ONNX Runtime provider, or kserve://host:port."),
]
Detector = Annotated[
    str,
    typer.Option(help="haar; yunet (after `fer-tf download yunet`), or the path of its .onnx; full: it is one face."),
]
Dataset = Annotated[str, typer.Option(help="drawn, fer2013, ferplus, or the path of a CSV or a folder.")]
Limit = Annotated[int | None, typer.Option(help="At most so many images per split.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs to read.")]
LABELS = "auto, fer2013, fer2013-votes, ferplus-majority, ferplus-argmax or ferplus-distribution"
MOST_REQUESTS = 64  # each has a detector of its own


def find_engine(model: str, backend: str | None, threads: int | None = None, requests: int = 1):
    """Load whatever the user named: a `.keras` file or a run without ONNX through Keras, all else as ONNX."""
    path = Path(model)
    if path.suffix.lower() == ".keras" or ((path / "model.keras").is_file() and not (path / "model.onnx").is_file()):
        if backend or threads:
            raise ValueError(f"{model} runs in Keras, which takes no --backend or --threads: `fer-tf export` it first")
        from fer_tf.training.folder import keras_file

        keras_file(path)
        with terminal.quiet():
            from fer_tf.training.keras_engine import load_keras

            return load_keras(path)
    from fer_tf.inference.engine import load_engine

    return load_engine(model, backend=backend or "openvino-provider", threads=threads, requests=requests)


def check_requests(requests: int | None, *, option: str = "--requests") -> None:
    """Refuse a number of requests at once that no machine serves; None leaves the choice open."""
    if requests is not None and not 1 <= requests <= MOST_REQUESTS:
        raise ValueError(f"{option} must be at least 1 and at most {MOST_REQUESTS}, got {requests}")
