"""`fit`: trains a model by a recipe into a run folder. Keras 3 only, so any backend; a killed run resumes.

An ensemble (`zoo.branches`) is judged by the mean of its branches' logits, and its loss is the sum of theirs. It may
grow branch by branch (Siqueira et al. 2020): every branch is trained for `Recipe.branch_epochs` together with those
before it, then the next joins them. The choice of the best epoch starts anew with every branch, so that only the whole
ensemble can be kept. In the published code the new branch learns ten times as fast as what was there before it, and
joins the best epoch's weights; here all train at one rate, and growth goes on from the last epoch.

The folder holds recipe.json, data.json, model.keras (the selected weights), history.csv, history.png, log.txt,
tensorboard/, predictions.npz, card.json and metrics.json; while training also checkpoint.npz, the whole state after the
last epoch, and lock.
"""

import logging
import re
import time
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from fer_tf import zoo
from fer_tf.card import ModelCard
from fer_tf.data.labelled import LabelledFaces, Splits
from fer_tf.training import evaluate, folder, parallel, run, teachers
from fer_tf.training.augment import Mix, Rows, augmentation_layers
from fer_tf.training.batches import Batches, Crops, balanced_weights, resident
from fer_tf.training.recipe import Recipe
from fer_tf.training.run import Progress
from fer_tf.training.torch_speed import quick_torch, without_gradients

logger = logging.getLogger(__name__)

NORM_BATCHES = 50  # that give averaged weights their batch norm statistics: as good as all of train


def build_model(recipe: Recipe, *, emotions: int) -> keras.Model:
    """Return the recipe's model, freshly initialised from its seed."""
    keras.utils.set_random_seed(recipe.seed)
    return zoo.build(
        recipe.architecture, emotions=emotions, image_size=recipe.image_size, weights=recipe.weights, **recipe.options
    )


def fit(
    model: keras.Model,
    data: Splits,
    recipe: Recipe,
    run_dir: Path,
    *,
    devices: int | None = None,
    report=logger.info,
    on_step=None,
) -> ModelCard:
    """Train `model`, select on valid, report test once, leave everything in `run_dir`; returns the card.

    At the end `model` has the weights that were selected, as model.keras has them. A run of the same recipe and data in
    `run_dir` is resumed, and one that is finished is not trained again; the
    folder of another run raises ValueError, and so does a training that diverges or a teacher of other emotions;
    FileNotFoundError for a teacher that is not there. RuntimeError if another process trains in `run_dir`. `devices`
    share every batch, on JAX; None takes all accelerators that there are. A run may be resumed on another number of
    them. `report` receives each line of the log, `on_step(done, steps)` each train batch of the whole run.
    """
    taken = parallel.choose(devices)
    recipe = with_settled_targets(recipe, data.train)

    def log(line: str, *, once: bool = False) -> None:
        folder.write_log(run_dir, line, once=once)
        report(line)

    if recipe.branch_epochs and len(zoo.branches(model)) < 2:
        raise ValueError(
            f"branch_epochs trains one branch after another, but this {recipe.architecture} has "
            f"{len(zoo.branches(model)) or 'none'}: leave it 0"
        )
    given = data.train.crops(model.input_shape[-2], slice(1)).shape[1:]
    if given != model.input_shape[1:]:
        raise ValueError(
            f"{recipe.architecture} takes {model.input_shape[1:]}, but a row of {data.name} is {given}: "
            f"load the data with window={recipe.window}"
        )
    names = [layer.name for layer in zoo.backbone_layers(model) if layer.weights]
    for prefix in recipe.unfreeze:
        if not any(_begins(name, prefix) for name in names):
            begin = ", ".join(dict.fromkeys(re.match(r"[^_]+(_\d+(?=_))?", name)[0] for name in names))
            raise ValueError(f"unfreeze: no layer of {recipe.architecture} begins with {prefix!r}; they begin {begin}")
    heard = teachers.find_teachers(recipe.teachers, data.emotions)
    with folder.claim(run_dir, recipe, data, models=teachers.described(recipe, heard)) as finished:
        if finished:
            model.load_weights(run_dir / "model.keras")
            report(f"{run_dir} holds this very run, finished: it is not trained again")
            return ModelCard.load(run_dir / "card.json")
        if heard:
            log(f"{' and '.join(recipe.teachers)}: a look at {len(data.train):,} train faces", once=True)
            data = replace(data, train=teachers.taught(data.train, heard))
        if len(taken) > 1:
            log(f"{len(taken)} devices share every batch: {', '.join(taken)}")
        with parallel.spread(model, taken):
            progress = _train(model, data, recipe, run_dir, log=log, on_step=on_step)
        log(verdict(progress, recipe), once=True)
        run.write_history(run_dir, progress.history)  # again: a kill may have come between checkpoint and history
        run.draw_history(run_dir, progress.history)
        card = run.finish(run_dir, data, recipe)
        (run_dir / "checkpoint.npz").unlink()
        model.load_weights(run_dir / "model.keras")
    return card


def with_settled_targets(recipe: Recipe, train: LabelledFaces) -> Recipe:
    """Return the recipe with what "auto" means for these faces."""
    if recipe.targets != "auto":
        return recipe
    if recipe.teachers:
        return recipe.with_(targets="blend")
    return recipe.with_(targets="labels" if train.distributions is None else "distribution")


class Phase(NamedTuple):
    """A part of a run: the epochs after `first` up to `last`, with so many branches; 0 in a model that has none."""

    name: str
    first: int
    last: int
    branches: int


def phases(recipe: Recipe, branches: int) -> list[Phase]:
    """Return head, branch_1, branch_2 and so on, fine; one may have no epochs. All `branches` are in head and fine."""
    growing = {f"branch_{k}": k for k in range(1, branches)}
    present = {"head": branches, **growing, "fine": branches}
    epochs = {"head": recipe.head_epochs, **dict.fromkeys(growing, recipe.branch_epochs), "fine": recipe.epochs}
    ends = accumulate(epochs.values())
    return [Phase(name, end - epochs[name], end, k) for (name, k), end in zip(present.items(), ends, strict=True)]


def _train(model: keras.Model, data: Splits, recipe: Recipe, run_dir: Path, *, log, on_step) -> Progress:
    """Run the epochs that are left. The checkpoint comes first: what a kill keeps from following it, a resume adds."""
    keras.utils.set_random_seed(recipe.seed)  # the augmentation's own seeds come from here
    augmentation, steps = augmentation_layers(recipe.augmentation), -(-len(data.train) // recipe.batch_size)
    images = resident(data.train, model.input_shape[-2])
    rows = None if images is None else Rows(images)  # one copy on the device, whatever the number of phases
    del images
    variables = [variable for layer in (*augmentation, model) for variable in layer.variables]
    plan, progress = phases(recipe, len(zoo.branches(model))), run.load_progress(run_dir)
    total = plan[-1].last
    if progress.epoch:
        run.restore(run_dir, variables, "model")
        if progress.best_epoch == progress.epoch:
            if recipe.ema:
                run.restore(run_dir, model.variables, "averaged")
            run.save_model(model, run_dir / "model.keras")
            run.restore(run_dir, variables, "model")
        log(epoch_line(progress.history[-1], total), once=True)
        log(f"resumed after epoch {progress.epoch}")
    with closing(run.Board(run_dir, progress.history)) as board:
        for phase in plan:
            if progress.epoch >= phase.last:
                continue
            stage = _stage(model, phase.branches)
            judged = parallel.sharing(stage)
            trainer = with_augmentation(stage, augmentation, rows=rows, mixup=recipe.mixup > 0)
            prepare(trainer, model, recipe, phase=phase.name, steps=steps)
            if progress.epoch > phase.first:
                run.restore(run_dir, trainer.optimizer.variables, "optimizer")
            while progress.epoch < phase.last and not finished_early(progress, recipe):
                if phase.name == "fine" and recipe.schedule == "plateau":
                    trainer.optimizer.learning_rate = recipe.learning_rate * recipe.gamma**progress.rate_drops
                about = {"epoch": progress.epoch + 1, "phase": phase.name}
                with quick_torch(model):
                    with computing_in(model, recipe.precision):
                        train, cost = _epoch(trainer, data, recipe, **about, total=total, on_step=on_step)
                    state = {"model": _values(variables), "optimizer": _values(trainer.optimizer.variables)}
                    with averaged(trainer, stage, data.train, recipe):
                        row = about | train | _judge(judged, data, recipe, **about) | cost
                        progress = advance(progress, row, recipe)
                        state |= {"averaged": _values(model.variables)} if recipe.ema else {}
                        run.save_checkpoint(run_dir, state, progress)
                        if progress.best_epoch == progress.epoch:
                            run.save_model(model, run_dir / "model.keras")
                run.write_history(run_dir, progress.history)
                board.add(progress.history[-1])
                log(epoch_line(progress.history[-1], total))
    return progress


def _epoch(trainer, data: Splits, recipe: Recipe, *, epoch: int, phase: str, total: int, on_step) -> tuple[dict, dict]:
    """Train one epoch, in an order that only seed and epoch decide; return the history's columns of train and cost.

    `loss` is what training minimises, with label smoothing, class weights, votes and mixup; `nll`, accuracy and
    macro-F1 are those of the labels, whatever the targets, on train as on valid; the learning rate is the higher one of
    start and end. Raises ValueError if the loss is not finite.
    """
    order = np.random.default_rng((recipe.seed, epoch)).permutation(len(data.train))
    weights = balanced_weights(data.train) if recipe.class_weight == "balanced" else None
    images = next(given for given in trainer.inputs if given.name == "images")
    batches = Batches(
        data.train,
        None if images.dtype == "int32" else images.shape[-2],
        batch_size=recipe.batch_size,
        targets=recipe.targets,
        vote_share=recipe.vote_share,
        weights=weights,
        order=order,
        mixup=recipe.mixup,
        seed=(recipe.seed, epoch, 1),  # 1: not the numbers of the order
    )
    done, steps = (epoch - 1) * len(batches), total * len(batches)
    tell = keras.callbacks.LambdaCallback(on_train_batch_end=lambda i, logs: on_step and on_step(done + i + 1, steps))
    rate, start = _rate(trainer), time.perf_counter()
    fitted = trainer.fit(batches, epochs=1, shuffle=False, verbose=0, callbacks=[tell])
    seconds = time.perf_counter() - start
    train = {name: fitted.history[name][-1] for name in ("loss", "nll", "accuracy", "macro_f1")}
    if not np.isfinite(train["loss"]):
        raise ValueError(_diverged(recipe, epoch=epoch, phase=phase))
    images_per_s = round(len(order) / seconds, 1)
    cost = {"learning_rate": max(rate, _rate(trainer)), "seconds": round(seconds, 2), "images_per_s": images_per_s}
    cost["devices"] = parallel.count()
    return train, cost


def _judge(stage: keras.Model, data: Splits, recipe: Recipe, *, epoch: int, phase: str) -> dict:
    """Return the history's columns of valid; raises ValueError if a logit is not finite."""
    crops = Crops(data.valid, stage.input_shape[-2], batch_size=recipe.batch_size)
    logits = keras.ops.convert_to_numpy(together(stage.predict(crops, verbose=0)))
    if not np.isfinite(logits).all():
        raise ValueError(_diverged(recipe, epoch=epoch, phase=phase))
    judged = evaluate.report(logits, data.valid.labels, data.emotions)
    return {f"valid_{name}": getattr(judged, name) for name in ("nll", "accuracy", "macro_f1")}


@contextmanager
def averaged(trainer: keras.Model, stage: keras.Model, train: LabelledFaces, recipe: Recipe):
    """Have the moving averages of the weights in place, where the optimizer keeps them (`Recipe.ema`).

    The statistics of batch norm belong to other weights, so up to `NORM_BATCHES` of train give them anew. Afterwards
    all is as it was.
    """
    if not recipe.ema:
        yield
        return
    norms = [layer for layer in zoo.every_layer(stage) if isinstance(layer, keras.layers.BatchNormalization)]
    momenta, before = [norm.momentum for norm in norms], _values(stage.variables)
    rows = np.random.default_rng(recipe.seed).permutation(len(train))[: NORM_BATCHES * recipe.batch_size]
    parts = np.array_split(rows, -(-len(rows) // recipe.batch_size)) if any(norm.trainable for norm in norms) else []
    try:
        type(trainer.optimizer).finalize_variable_values(trainer.optimizer, trainer.trainable_variables)
        for variable, value in zip(trainer.trainable_variables, _values(trainer.trainable_variables), strict=True):
            variable.assign(value)  # a copy: JAX frees what `predict` is given, and that was the average itself
        with without_gradients():
            for done, part in enumerate(parts):
                for norm in norms:
                    norm.momentum = done / (done + 1)  # so the statistics become the mean over all parts
                stage(train.crops(stage.input_shape[-2], part), training=True)
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for variable, value in zip(stage.variables, before, strict=True):
            variable.assign(value)


@contextmanager
def computing_in(model: keras.Model, precision: str):
    """Have every layer compute in this precision; its weights are float32 all the same."""
    changed = [layer for layer in zoo.every_layer(model) if precision != layer.dtype_policy.name == "float32"]
    for layer in changed:
        layer.dtype_policy = precision
    try:
        yield
    finally:
        for layer in changed:
            layer.dtype_policy = "float32"


def _values(variables: list) -> list[np.ndarray]:
    return [keras.ops.convert_to_numpy(variable).copy() for variable in variables]


def _rate(trainer: keras.Model) -> float:
    return float(keras.ops.convert_to_numpy(trainer.optimizer.learning_rate))


def _diverged(recipe: Recipe, *, epoch: int, phase: str) -> str:
    """Return what happened and what to do; the folder is free for another recipe as long as no epoch was finished."""
    name = "head_learning_rate" if phase == "head" else "learning_rate"
    rate = getattr(recipe, name)
    kept = "the folder keeps the epochs before: delete it, or give the corrected recipe another one"
    return (
        f"training diverged in epoch {epoch}: loss or logits are not finite, so {name} {rate:g} is too high. "
        f"Try {rate / 10:g}, or set gradient_clip to 1; {kept if epoch > 1 else 'the folder can be used again'}"
    )


def with_augmentation(
    stage: keras.Model, layers: list[keras.layers.Layer], *, rows: Rows | None = None, mixup: bool = False
) -> keras.Model:
    """Return what takes the inputs of `Batches`, changes them and gives them to `stage`, which itself stays free of it.

    A clip goes through as one picture whose channels are those of all its frames, so all of them change alike.

    rows  all train images; "images" of the input are then row numbers, else crops
    """
    shape, kind = (stage.input_shape[1:], "float32") if rows is None else ((), "int32")
    given = keras.Input(shape, dtype=kind, name="images")
    shared = parallel.share(given)
    crops = shared if rows is None else rows(shared)
    x = _as_channels(crops) if layers else crops
    for layer in layers:
        x = layer(x)
    x = _as_frames(x, stage.input_shape) if layers else x
    inputs = {"images": given}
    if mixup:
        inputs |= {
            "partners": keras.Input((), dtype="int32", name="partners"),
            "shares": keras.Input((), name="shares"),
        }
        x = Mix()(x, inputs["partners"], inputs["shares"])
    return keras.Model(inputs, stage(x), name="trainer")


def _stage(model: keras.Model, branches: int) -> keras.Model:
    """Return what a phase trains: crops -> the logits of the first `branches` (n, branches, emotions), or `model`."""
    if not branches:
        return model
    return keras.Model(model.input, keras.ops.stack(zoo.branches(model)[:branches], axis=1))


def _as_channels(clips):
    """Return clips (n, window, s, s, 3) as (n, s, s, window * 3); pictures stay as they are."""
    if len(clips.shape) == 4:
        return clips
    _, window, *side, channels = clips.shape
    return keras.ops.reshape(keras.ops.transpose(clips, (0, 2, 3, 1, 4)), (-1, *side, window * channels))


def _as_frames(pictures, shape: tuple):
    """Return what `_as_channels` made as clips of this shape (n, window, s, s, 3) again."""
    if len(shape) == 4:
        return pictures
    _, window, *side, channels = shape
    return keras.ops.transpose(keras.ops.reshape(pictures, (-1, *side, window, channels)), (0, 3, 1, 2, 4))


def prepare(trainer: keras.Model, model: keras.Model, recipe: Recipe, *, phase: str, steps: int) -> None:
    """Freeze or free the backbone, then compile with the phase's optimizer."""
    for layer in zoo.backbone_layers(model):
        named = not recipe.unfreeze or any(_begins(layer.name, prefix) for prefix in recipe.unfreeze)
        layer.trainable = phase != "head" and named
    trainer.compile(
        optimizer=_optimizer(recipe, phase=phase, steps=steps),
        loss=target_loss(recipe),
        metrics=label_metrics(),
    )
    trainer.optimizer.build(trainer.trainable_variables)
    trainer.optimizer.finalize_variable_values = lambda variables: None  # else `fit` would go on from the average
    shape = trainer.output_shape[1:]
    nothing = keras.ops.zeros((1, 2, shape[-1])), keras.ops.zeros((1, *shape))
    trainer.compute_metrics(None, *nothing)  # makes their variables: TensorFlow would trace a step twice for it
    trainer.reset_metrics()


def _begins(name: str, prefix: str) -> bool:
    """Tell whether a layer's name begins so; a number counts as a whole: block_1 is not the beginning of block_10."""
    return name.startswith(prefix) and not (prefix[-1].isdigit() and name[len(prefix) :][:1].isdigit())


def _optimizer(recipe: Recipe, *, phase: str, steps: int) -> keras.optimizers.Optimizer:
    schedules, rate = keras.optimizers.schedules, recipe.learning_rate
    schedule = recipe.schedule if phase == "fine" else "constant"
    if phase == "head":
        rate = recipe.head_learning_rate
    elif schedule == "step":
        rate = schedules.ExponentialDecay(rate, recipe.step_size * steps, recipe.gamma, staircase=True)
    elif schedule == "cosine":
        warmup = round(recipe.warmup_epochs * steps)
        decay = max(recipe.epochs * steps - warmup, 1)
        start, peak = (0.0, rate) if warmup else (rate, None)
        rate = schedules.CosineDecay(start, decay, warmup_target=peak, warmup_steps=warmup)
    shared = {
        "learning_rate": rate,
        "weight_decay": recipe.weight_decay,
        "global_clipnorm": recipe.gradient_clip,
        "use_ema": recipe.ema > 0,
        "ema_momentum": recipe.ema,
    }
    if recipe.optimizer == "sgd":
        return keras.optimizers.SGD(momentum=recipe.momentum, nesterov=recipe.momentum > 0, **shared)
    return {"adam": keras.optimizers.Adam, "adamw": keras.optimizers.AdamW}[recipe.optimizer](**shared)


def target_loss(recipe: Recipe):
    """Return what gives the losses (n,) from targets (n, 2, emotions), as `Batches` has them, and logits.

    Of the logits of branches (n, branches, emotions) each is judged by itself; their losses add up.
    """

    def cross_entropy(targets, logits):
        smoothing = {"from_logits": True, "label_smoothing": recipe.label_smoothing}
        return keras.losses.categorical_crossentropy(targets, logits, **smoothing)

    def nearest_right(targets, logits):
        wrong = keras.ops.where(targets > 0, 0.0, -np.inf)
        return -keras.ops.max(keras.ops.log_softmax(logits) + wrong, axis=-1)

    judge = nearest_right if recipe.targets == "multi_target" else cross_entropy

    def loss(targets, logits):
        if len(logits.shape) == 2:
            return judge(targets[:, 0], logits)
        shared = keras.ops.repeat(targets[:, :1], logits.shape[1], axis=1)  # (n, branches, emotions)
        return keras.ops.sum(judge(shared, logits), axis=1)

    return loss


def together(logits):
    """Return logits (n, emotions): as they are, or the mean of those of branches (n, branches, emotions)."""
    return logits if len(logits.shape) == 2 else keras.ops.mean(logits, axis=1)


def label_metrics() -> list[keras.metrics.Metric]:
    """Return what train shares with valid: nll, accuracy and macro_f1 of logits (n, emotions) as a `Report` has them.

    They take targets (n, 2, emotions) as `Batches` has them and look at the label alone; branches (n, branches,
    emotions) are taken together.
    """
    return [
        keras.metrics.MeanMetricWrapper(_nll, name="nll"),
        keras.metrics.MeanMetricWrapper(_hit, name="accuracy"),
        MacroF1(average="macro", name="macro_f1"),
    ]


class MacroF1(keras.metrics.F1Score):
    """F1 against the label."""

    def update_state(self, y_true, y_pred, sample_weight=None):
        super().update_state(y_true[:, 1], together(y_pred), sample_weight)


def _nll(targets, logits):
    """Return (n,): negative log-likelihood of the label in nats, without smoothing, class weights and votes."""
    return keras.losses.categorical_crossentropy(targets[:, 1], together(logits), from_logits=True)


def _hit(targets, logits):
    """Return (n,): 1 where the largest logit is the label's."""
    return keras.metrics.categorical_accuracy(targets[:, 1], together(logits))


def advance(progress: Progress, row: dict, recipe: Recipe) -> Progress:
    """Return the progress after an epoch: is it the best, has patience run out, does the plateau schedule drop?"""
    value = row[f"valid_{recipe.monitor}"] * (-1 if recipe.monitor == "nll" else 1)
    before = progress.history[-1]["phase"] if progress.history else row["phase"]
    another = before != row["phase"] and (before, row["phase"]) != ("head", "fine")  # a new branch is another network
    improved = another or progress.best is None or value > progress.best
    waiting = int(row["phase"] == "fine" and not improved)
    wait = (progress.wait + 1) * waiting
    rate_wait = (progress.rate_wait + 1) * waiting
    dropped = rate_wait >= recipe.plateau_patience
    out_of_patience = recipe.patience is not None and wait >= recipe.patience
    return Progress(
        epoch=row["epoch"],
        best=value if improved else progress.best,
        best_epoch=row["epoch"] if improved else progress.best_epoch,
        wait=wait,
        stopped_at=row["epoch"] if progress.stopped_at is None and out_of_patience else progress.stopped_at,
        rate_drops=progress.rate_drops + dropped,
        rate_wait=0 if dropped else rate_wait,
        history=[*progress.history, row | {"improved": improved}],
    )


def finished_early(progress: Progress, recipe: Recipe) -> bool:
    """Tell whether patience ran out and the extra epochs that confirm it are used up."""
    return progress.stopped_at is not None and progress.epoch >= progress.stopped_at + recipe.extra_epochs


def epoch_line(row: dict, total: int) -> str:
    """Return one epoch of `total` as a line of the log: what is alike on train and valid; `loss` is in history.csv."""
    shares = "  ".join(
        f"{split} nll {row[p + 'nll']:.3f} acc {row[p + 'accuracy']:.1%} F1 {row[p + 'macro_f1']:.1%}"
        for split, p in (("train", ""), ("valid", "valid_"))
    )
    return (
        f"epoch {row['epoch']:>3}/{total} {row['phase']}  {shares}  "
        f"rate {row['learning_rate']:.2g}  {row['seconds']:.0f} s{'  improved' if row['improved'] else ''}"
    )


def verdict(progress: Progress, recipe: Recipe) -> str:
    """Return how the run ended: stopped at, best at, extra epochs used, whether they helped."""
    best = (
        f"best at epoch {progress.best_epoch} (valid {recipe.monitor} {abs(progress.best):.4f}), its weights are kept"
    )
    if progress.stopped_at is None:
        return f"all {progress.epoch} epochs run; {best}"
    used = progress.epoch - progress.stopped_at
    helped = ", they helped" if progress.best_epoch > progress.stopped_at else ", they did not help"
    return f"stopped at epoch {progress.stopped_at}, {used} extra epochs used{helped if used else ''}; {best}"
