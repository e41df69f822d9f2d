"""`fit_affect`: teaches a trained ensemble valence and arousal, its shared layers frozen. Keras 3 only.

After Siqueira et al. (AAAI 2020), who train affect after emotions. There only the layers that turn emotions into
affect are trained, branch by branch. Here whole branches are, all at once, and go on learning emotions at the same
time: affect is computed from their logits, and would else bend these to its own use.
"""

import logging
import time
from pathlib import Path

import keras
import numpy as np

from fer_tf import zoo
from fer_tf.card import ModelCard
from fer_tf.data.labelled import Splits
from fer_tf.training import evaluate, folder, run
from fer_tf.training.augment import augmentation_layers
from fer_tf.training.batches import Batches, Crops
from fer_tf.training.fit import label_metrics, target_loss, with_augmentation
from fer_tf.training.keras_engine import load_keras
from fer_tf.training.recipe import Recipe
from fer_tf.training.torch_speed import quick_torch

logger = logging.getLogger(__name__)


def fit_affect(
    source: Path,
    data: Splits,
    run_dir: Path,
    *,
    epochs: int = 5,
    learning_rate: float = 1e-3,
    seed: int = 0,
    report=logger.info,
) -> ModelCard:
    """Train the finished run `source` of an ensemble on `data`'s affect, leave a run of its own in `run_dir`.

    The base (layers `base_...`) stays as it is. The loss is the sum over all branches of the emotions' cross-entropy
    and of the squared error of valence and arousal, by AdamW with a learning rate that falls to zero along a cosine;
    augmentation, batch size, targets and smoothing are those of the source; nothing is mixed or averaged. Kept is the
    epoch with the highest mean CCC on valid. metrics.json has "affect" beside the usual reports. A killed run starts
    anew; one that was finished is not trained again.

    Raises ValueError for a source without branches, for data without affect or with other emotions, for a folder that
    holds another finished run; FileNotFoundError for a source that is none.
    """
    engine = load_keras(source)
    model, card = engine.model, engine.card
    if not zoo.branches(model, "affect"):
        raise ValueError(f"{source} is a {card.architecture}, which has no outputs for affect: train an esr first")
    if any(faces.affect is None for _, faces in data.items()):
        raise ValueError(f"{data.name} tells no valence and arousal: take drawn faces or AffectNet")
    if card.emotions != data.emotions:
        raise ValueError(f"{card.name} names {card.emotions}, but the faces are labelled {data.emotions}")
    before = Recipe.load(source / "recipe.json")
    about = f"Fine-tuned on valence and arousal from the run {card.name}."
    if card.data:
        about = f"{about[:-1]}, trained on {card.data['name']}: {card.data['terms']}."
    recipe = before.with_(
        dataset="",
        labels="auto",
        data_seed=0,
        targets="labels" if before.teachers or data.train.distributions is None else before.targets,
        teachers=[],
        head_epochs=0,
        branch_epochs=0,
        epochs=epochs,
        learning_rate=learning_rate,
        optimizer="adamw",
        schedule="cosine",
        warmup_epochs=0.0,
        mixup=0.0,
        ema=0.0,
        precision="float32",
        class_weight="none",
        patience=None,
        seed=seed,
        notice=" ".join([*card.notices, about]),
    )
    with folder.claim(run_dir, recipe, data) as finished:
        if finished:
            report(f"{run_dir} holds this very run, finished: it is not trained again")
            return ModelCard.load(run_dir / "card.json")
        history = _train(model, data, recipe, run_dir, report=report)
        run.write_history(run_dir, history)
        return run.finish(run_dir, data, recipe, affect=True)


def _train(model: keras.Model, data: Splits, recipe: Recipe, run_dir: Path, *, report) -> list[dict]:
    """Run all epochs, save the best one; return the history."""
    for layer in model.layers:
        layer.trainable = not layer.name.startswith("base_")
    size, batch_size = model.input_shape[-2], recipe.batch_size
    stage = keras.Model(
        model.input,
        {
            "branches": keras.ops.stack(zoo.branches(model), axis=1),
            "affect": keras.ops.stack(zoo.branches(model, "affect"), axis=1),
        },
    )
    keras.utils.set_random_seed(recipe.seed)
    trainer = with_augmentation(stage, augmentation_layers(recipe.augmentation))
    steps = recipe.epochs * -(-len(data.train) // recipe.batch_size)
    trainer.compile(
        optimizer=keras.optimizers.AdamW(
            keras.optimizers.schedules.CosineDecay(recipe.learning_rate, steps),
            weight_decay=recipe.weight_decay,
            global_clipnorm=recipe.gradient_clip,
        ),
        loss={"branches": target_loss(recipe), "affect": squared_errors},
        metrics={"branches": label_metrics()},
    )
    history, best = [], -np.inf
    for epoch in range(1, recipe.epochs + 1):
        order = np.random.default_rng((recipe.seed, epoch)).permutation(len(data.train))
        start = time.perf_counter()
        drawing = {"targets": recipe.targets, "vote_share": recipe.vote_share, "seed": (recipe.seed, epoch, 1)}
        batches = AffectBatches(data.train, size, batch_size=batch_size, order=order, **drawing)
        with quick_torch(stage):
            fitted = trainer.fit(batches, shuffle=False, verbose=0).history
        trained = time.perf_counter()
        told = stage.predict(Crops(data.valid, size, batch_size=batch_size), verbose=0)
        if not (np.isfinite(fitted["loss"][-1]) and all(np.isfinite(values).all() for values in told.values())):
            raise ValueError(f"training diverged in epoch {epoch}: try the learning rate {recipe.learning_rate / 10:g}")
        judged = evaluate.report(told["branches"].mean(axis=1), data.valid.labels, data.emotions)
        affect = evaluate.affect_report(told["affect"].mean(axis=1), data.valid.affect)
        improved = affect["mean_ccc"] > best
        row = {"epoch": epoch, "phase": "affect", "loss": fitted["loss"][-1]}
        row |= {name: fitted[f"branches_{name}"][-1] for name in ("nll", "accuracy", "macro_f1")}
        row |= {f"valid_{name}": getattr(judged, name) for name in ("nll", "accuracy", "macro_f1")}
        row |= {f"valid_ccc_{name}": affect[name]["ccc"] for name in ("valence", "arousal")}
        row |= {
            "seconds": round(time.perf_counter() - start, 2),
            "images_per_s": round(len(order) / (trained - start), 1),
            "improved": improved,
        }
        history.append(row)
        if improved:
            best = affect["mean_ccc"]
            run.save_model(model, run_dir / "model.keras")
        line = (
            f"epoch {epoch:>3}/{recipe.epochs} affect  valid CCC valence {row['valid_ccc_valence']:.3f} "
            f"arousal {row['valid_ccc_arousal']:.3f}  acc {judged.accuracy:.1%}  {row['seconds']:.0f} s"
        )
        line += "  improved" if improved else ""
        folder.write_log(run_dir, line)
        report(line)
    return history


class AffectBatches(Batches):
    """Batches of (inputs, targets): targets "branches" (n, 2, emotions) as in `Batches`, "affect" float32 (n, 2)."""

    def __getitem__(self, number: int):
        inputs, targets, _ = super().__getitem__(number)
        rows = self.order[number * self.batch_size : (number + 1) * self.batch_size]
        return inputs, {"branches": targets, "affect": self.faces.affect[rows]}


def squared_errors(y_true, y_pred):
    """Return (n,): the squared error of valence and arousal (n, 2), summed over the branches (n, branches, 2)."""
    return keras.ops.sum(keras.ops.mean((y_pred - y_true[:, None]) ** 2, axis=-1), axis=1)
