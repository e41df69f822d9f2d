"""What a run leaves in its folder: the checkpoint that a killed run resumes from, the history, the final papers."""

import csv
import io
import json
import shutil
import sys
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from zipfile import BadZipFile

import keras
import numpy as np

from fer_tf import zoo
from fer_tf.calibration import fit_temperature
from fer_tf.card import ModelCard, describe_file
from fer_tf.data.labelled import Splits
from fer_tf.files import partial_path, settled, write_atomically
from fer_tf.training.compare import count_parameters
from fer_tf.training.evaluate import headline, judge, judge_affect, reports
from fer_tf.training.keras_engine import KerasEngine
from fer_tf.training.recipe import Recipe

BOARDS = {"train": "", "valid": "valid_"}  # TensorBoard run -> prefix of its columns in the history


@dataclass(frozen=True)
class Progress:
    """Where a run stands after an epoch: all that a resumed run must know beside the variables.

    wait        epochs since the best one, fine phase only
    stopped_at  epoch at which patience ran out; extra epochs count from there
    rate_drops  how often the plateau schedule lowered the learning rate; rate_wait counts towards the next time
    history     one row per epoch, as in history.csv
    """

    epoch: int = 0
    best: float | None = None
    best_epoch: int = 0
    wait: int = 0
    stopped_at: int | None = None
    rate_drops: int = 0
    rate_wait: int = 0
    history: list = field(default_factory=list)


def save_checkpoint(run_dir: Path, state: dict[str, list[np.ndarray]], progress: Progress) -> None:
    """Write the values of "model", "optimizer" and, with `Recipe.ema`, "averaged", and progress as one file."""
    arrays = {f"{part}_{i}": value for part, values in state.items() for i, value in enumerate(values)}
    buffer = io.BytesIO()
    np.savez(buffer, progress=json.dumps(asdict(progress)), **arrays)
    write_atomically(run_dir / "checkpoint.npz", buffer.getvalue())


def load_progress(run_dir: Path) -> Progress:
    """Return the checkpoint's progress, or that of a run not begun."""
    path = run_dir / "checkpoint.npz"
    if not path.exists():
        return Progress()
    try:
        with np.load(path) as saved:
            return Progress(**json.loads(str(saved["progress"])))
    except (ValueError, KeyError, EOFError, BadZipFile) as error:
        raise ValueError(f"{path} is damaged ({error}): delete {run_dir} and train again") from error


def restore(run_dir: Path, variables: list, part: str) -> None:
    """Put the checkpoint's values of this part of its state into these variables."""
    with np.load(run_dir / "checkpoint.npz") as saved:
        for i, variable in enumerate(variables):
            variable.assign(saved[f"{part}_{i}"])


def save_model(model: keras.Model, path: Path) -> None:
    """Save a `.keras` file atomically."""
    partial = partial_path(path).with_suffix(".partial.keras")  # Keras goes by the suffix
    with settled(partial, path, keep=True):
        model.save(partial)


def write_history(run_dir: Path, history: list[dict]) -> None:
    """Write history.csv, one row per epoch; the last one has every column."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=list(history[-1]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    write_atomically(run_dir / "history.csv", buffer.getvalue().encode())


def draw_history(run_dir: Path, history: list[dict]) -> None:
    """Draw history.png, the curves of train and valid."""
    import matplotlib.pyplot as plt
    import pandas as pd

    from fer_tf import plots

    with plt.rc_context():
        plots.use_style()
        figure = plots.history(pd.DataFrame(history))[0].figure
        buffer = io.BytesIO()
        figure.savefig(buffer, dpi=100)
        plt.close(figure)
        shows = plt.isinteractive()  # what a notebook's backend sets when it draws for the first time
    plt.ion() if shows else plt.ioff()
    write_atomically(run_dir / "history.png", buffer.getvalue())


class Board:
    """TensorBoard scalars in `run_dir`/tensorboard, train and valid side by side, flushed after every epoch."""

    def __init__(self, run_dir: Path, history: list[dict]):
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        shutil.rmtree(run_dir / "tensorboard", ignore_errors=True)  # a resumed run writes its first epochs again
        self._writers = {p: EventFileWriter(str(run_dir / "tensorboard" / s)) for s, p in BOARDS.items()}
        for row in history:
            self.add(row)

    def add(self, row: dict) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        for prefix, writer in self._writers.items():
            tags = [tag for tag in ("loss", "nll", "accuracy", "macro_f1") if prefix + tag in row]
            values = [Summary.Value(tag=tag, simple_value=row[prefix + tag]) for tag in tags]
            writer.add_event(Event(step=row["epoch"], summary=Summary(value=values)))
            writer.flush()

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()


def finish(run_dir: Path, data: Splits, recipe: Recipe, *, affect: bool = False) -> ModelCard:
    """Judge the selected weights on valid and test; write predictions.npz, card.json and, last, metrics.json.

    The temperature that fits valid best goes into the card; logits, figures and probabilities are those after it, but
    "ece_uncalibrated".

    With `affect`, valence and arousal are judged, too: "affect" in metrics.json, split by split.
    """
    model = zoo.load_model(run_dir / "model.keras")
    described = describe_file(run_dir / "model.keras") | {"parameters": count_parameters(run_dir / "model.keras")}
    card = ModelCard(
        name=run_dir.resolve().name,
        architecture=recipe.architecture,
        emotions=data.emotions,
        image_size=model.input_shape[-2],
        window=1 if len(model.input_shape) == 4 else model.input_shape[1],
        recipe=recipe.to_dict(),
        data=json.loads((run_dir / "data.json").read_text(encoding="utf-8")),
        versions=_versions(),
        notices=notices(recipe),
        files={"model.keras": described},
    )
    engine = KerasEngine(model, card)
    before, predictions = judge(engine, data)
    card = card.with_(temperature=fit_temperature(predictions["valid_logits"], data.valid.labels))
    for name in ("valid_logits", "test_logits"):
        predictions[name] = predictions[name] / np.float32(card.temperature)
    after = reports(predictions, data.emotions)
    metrics = {name: after[name].to_dict() | {"ece_uncalibrated": before[name].ece} for name in after}
    card = card.with_(metrics={split: headline(judged) for split, judged in metrics.items()})
    if affect:
        metrics["affect"], told = judge_affect(engine, data)
        predictions |= told
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **predictions)
    write_atomically(run_dir / "predictions.npz", buffer.getvalue())
    card.save(run_dir / "card.json")
    write_atomically(run_dir / "metrics.json", (json.dumps(metrics, indent=2) + "\n").encode())
    return card


def notices(recipe: Recipe) -> tuple[str, ...]:
    """Return the recipe's notice and those of the trained network that it starts from, each once."""
    start = zoo.weights_file(recipe.weights)
    card = start and start.with_name("card.json")
    inherited = ModelCard.load(card).notices if card and card.is_file() else ()
    return tuple(dict.fromkeys(notice for notice in (recipe.notice, *inherited) if notice))


def _versions() -> dict:
    found = {"python": ".".join(map(str, sys.version_info[:3])), "keras_backend": keras.backend.backend()}
    for package in ("fer-tf", "keras", "tensorflow", "torch", "jax", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
