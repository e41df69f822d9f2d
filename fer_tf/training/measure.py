"""The speed and size table: every architecture built untrained, exported, and timed on every backend."""

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory

import keras
import numpy as np

from fer_tf import labels, zoo
from fer_tf.card import ModelCard
from fer_tf.inference.alone import measure_alone
from fer_tf.inference.benchmark import PACKAGES, host
from fer_tf.inference.engine import BACKENDS
from fer_tf.training.export import export, golden_batch

PUBLISHED = {  # architecture -> what others measured, on their machine
    "esr": {
        "images_per_s": 22.23,
        "cpu": "Intel Xeon Gold 6230R",
        "method": "ESR-9 in PyTorch, mean of 100 runs of a single sample",
        "source": "OpenDR, FacialEmotionLearner",
    }
}

SAME = ("cpu", "cores", "versions", "threads", "runs")  # what figures in one table share


def conditions(*, runs: int, threads: int | None) -> dict:
    """Return what the figures must be read with: date, host, versions, threads (None: the runtime's choice), runs."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": host(),
        "versions": {name: version(name) for name in ("fer-tf", "keras", "tensorflow", "tf2onnx", *PACKAGES)},
        "threads": threads,
        "runs": runs,
    }


def others(path: Path, names: Sequence[str], about: dict) -> dict:
    """Return the figures in an earlier file of architectures that are not among `names`; none if there is no file.

    Raises ValueError for another kind of file, and if they were not measured under the conditions `about`: a table is
    one machine's.
    """
    if not path.is_file():
        return {}
    try:
        earlier = json.loads(path.read_text(encoding="utf-8"))
        figures = {name: known for name, known in earlier["architectures"].items() if name not in names}
        differing = [key for key in SAME if _of(earlier, key) != _of(about, key)]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} was not written by `fer-tf measure`: give another file") from error
    if figures and differing:
        raise ValueError(
            f"{path} has figures of other architectures, measured with another {' and '.join(differing)}: measure all "
            "of them anew, or give another file"
        )
    return figures


def _of(conditions: dict, key: str):
    return conditions["host"][key] if key in ("cpu", "cores") else conditions[key]


def measure(
    names: Sequence[str],
    *,
    runs: int = 100,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[tuple[str, dict]]:
    """Yield every architecture's name and its figures, as JSON values, as soon as they are measured.

    A network with 7 logits at its default image size, from random weights, which change nothing about size and speed,
    is exported (`parity`: largest logit difference from Keras on the golden batch) and timed as `measure_alone` does.

    runs      calls to time per backend and batch
    progress  is called with the steps done and their number: a conversion and the backends of each architecture

    Raises ValueError before work starts for an unknown architecture, RuntimeError for one that does not export or run.
    """
    if runs < 1:
        raise ValueError(f"runs must be at least 1, got {runs}")
    for name in names:
        zoo.architecture(name)
    steps = len(names) * (1 + len(BACKENDS))
    for i, name in enumerate(names):
        with TemporaryDirectory() as folder:
            figures, path = _exported(name, Path(folder))
            for j, backend in enumerate(BACKENDS, start=1):
                if progress:
                    progress(i * (1 + len(BACKENDS)) + j, steps)
                figures["backends"][backend] = measure_alone(path, backend=backend, runs=runs, threads=threads)
        if progress:
            progress((i + 1) * (1 + len(BACKENDS)), steps)
        yield name, figures


def _exported(name: str, folder: Path) -> tuple[dict, Path]:
    """Build and export an untrained network; return its figures so far and its ONNX file."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
    model = zoo.build(name, emotions=len(labels.FER2013))
    *window, size, _, _ = model.input_shape[1:]
    card = ModelCard(
        name=name, architecture=name, emotions=labels.FER2013, image_size=size, window=window[0] if window else 1
    )
    scale_logits(model, golden_batch(size, window=card.window))
    model.save(folder / "model.keras")
    card.save(folder / "card.json")
    exported = export(folder)
    about = ModelCard.load(folder / "card.json").files["model.onnx"]
    figures = {
        "input_shape": card.input_shape,
        "parameters": about["parameters"],
        "trainable_parameters": sum(prod(variable.shape) for variable in model.trainable_variables),
        "multiply_adds": about["multiply_adds"],
        "onnx_bytes": about["bytes"],
        "parity": exported.parity,
        "backends": {},
    }
    return figures | ({"published": PUBLISHED[name]} if name in PUBLISHED else {}), exported.path


def scale_logits(model: keras.Model, crops: np.ndarray) -> None:
    """Scale the dense layers that give logits until these deviate by 1 over some crops, about as a trained network's.

    In a new network signals may die on their way through a hundred layers, and parity of 1e-12 would say nothing.
    """
    spread = model.predict(crops, verbose=0).std()
    for layer in zoo.every_layer(model):
        if isinstance(layer, keras.layers.Dense) and layer.units == model.output_shape[-1]:
            layer.kernel.assign(layer.kernel / spread)
