"""What moves accuracy: one plain recipe, one change at a time, several seeds; writes a table of results as JSON.

    python benchmarks/ablations.py vgg_small_fer2013 --seeds 0 --output reports/ablations.json

The recipe is first made plain and small (`BASE`); `--set` changes it further. Every change is then measured against it,
with the same seeds. Finished runs are not run again, a killed one goes on where it stopped. `--only` measures some
changes and leaves the table's other rows, of the same recipe and seeds, as they are; each row is counted against the
run "nothing" that lies in `paths.RUNS`, made where it is missing, and says that run's accuracy and time. Real FER2013
and FER+'s votes must be in data/fer2013; KERAS_BACKEND chooses the backend.
"""

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path

import keras

from fer_tf import paths
from fer_tf.data.readers import load
from fer_tf.files import write_atomically
from fer_tf.inference.benchmark import host
from fer_tf.training.compare import Run, read_run
from fer_tf.training.evaluate import judge
from fer_tf.training.fit import build_model, fit
from fer_tf.training.folder import is_finished, same_recipe
from fer_tf.training.keras_engine import load_keras
from fer_tf.training.recipe import Recipe, find_recipe, with_texts
from fer_tf.zoo import architecture

BASE = ["options.width=16", "epochs=10", "label_smoothing=0.0", "ema=0.0", "augmentation.rotate=0.0"]
CHANGES = {
    "nothing": [],
    "nothing, run again": [],  # the same seeds: what the machine alone changes
    "no flips": ["augmentation.flip=false"],
    "no random crops": ["augmentation.shift=0.0"],
    "rotation by 10 degrees": ["augmentation.rotate=10.0"],
    "random erasing": ["augmentation.erase=0.2"],
    "mixup": ["mixup=0.2"],
    "label smoothing": ["label_smoothing=0.1"],
    "moving average of the weights": ["ema=0.998"],
    "class weights": ["class_weight=balanced"],
    "SGD instead of AdamW": ["optimizer=sgd", "learning_rate=0.02", "weight_decay=5e-4"],
    "steps instead of a cosine": ["schedule=step", "step_size=2", "gamma=0.5"],
    "votes beside the labels": ["labels=fer2013-votes", "targets=blend", "vote_share=0.5"],
    "votes instead of the labels": ["labels=fer2013-votes", "targets=distribution"],
    "a teacher beside the labels": ['teachers=["vgg_small"]', "vote_share=0.5"],
    "float32 instead of bfloat16": ["precision=float32"],
    "half the width": ["options.width=8"],
    "twice the width": ["options.width=32"],
}
ABOUT = ("date", "host", "keras_backend")
FIGURES = ("valid", "valid_clean", "ten views")  # all of valid: who picks a recipe by this table must not see test


def measure(recipe: Recipe, folder: Path, data: dict) -> dict:
    """Train by a recipe unless that is done; return accuracies in per cent and the time of training."""
    if recipe.labels not in data:
        size = max(48, recipe.image_size or architecture(recipe.architecture).image_size)
        data[recipe.labels] = load(recipe.dataset, labels=recipe.labels, seed=recipe.data_seed, image_size=size)
    splits = data[recipe.labels]
    if not is_finished(folder):
        fit(build_model(recipe, emotions=len(splits.emotions)), splits, recipe, folder, report=print)
    run = finished_run(recipe, folder)
    if run.card.data["fingerprint"] != splits.fingerprint:
        raise ValueError(f"{folder} holds a run of other data: delete it")
    ten = judge(load_keras(folder), splits, views=10)[0]["valid"].accuracy
    found = {split: run.metrics[split]["accuracy"] for split in FIGURES[:2]} | {"ten views": ten}
    found["macro_f1"] = run.metrics["valid"]["macro_f1"]
    return {name: round(100 * share, 2) for name, share in found.items()} | spent(run)


def spent(run: Run) -> dict:
    """Return what a training took: seconds in all, images a second in the median epoch."""
    history = run.history
    return {"seconds": round(history["seconds"].sum(), 1), "images_per_s": round(history["images_per_s"].median(), 1)}


def finished_run(recipe: Recipe, folder: Path) -> Run:
    """Return the finished run in a folder; ValueError if it is by another recipe."""
    run = read_run(folder)
    if Recipe.from_dict(run.card.recipe).with_(targets=recipe.targets) != recipe:
        raise ValueError(f"{folder} holds a run of another recipe: delete it")
    return run


def known_rows(path: Path, base: Recipe, seeds: list[int]) -> dict:
    """Return the rows of the table at `path` by the change; ValueError if it is of another recipe or of other seeds."""
    if not path.is_file():
        return {}
    table = json.loads(path.read_text(encoding="utf-8"))
    if table["seeds"] != seeds or not same_recipe(table["recipe"], base):
        raise ValueError(f"{path} has rows of another recipe or of other seeds: give another --output, or delete it")
    shared = {name: table[name] for name in ABOUT if name in table}  # one that was written in one go says it but once
    return {row["change"]: shared | row for row in table["rows"]}


def main() -> None:
    """Run what is asked for; the table is written after every run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe")
    parser.add_argument("--set", action="append", default=[], dest="set_")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", nargs="+", choices=CHANGES, default=list(CHANGES))
    parser.add_argument("--output", type=Path, default=paths.ROOT / "reports" / "ablations.json")
    given = parser.parse_args()
    base = with_texts(find_recipe(given.recipe), [*BASE, *given.set_])
    about = {"date": datetime.now(UTC).date().isoformat(), "host": host(), "keras_backend": keras.backend.backend()}
    rows, data = known_rows(given.output, base, given.seeds), {}
    runs = paths.RUNS / "ablations" / Path(given.recipe).stem
    for name in given.only:
        folder, found = name.replace(",", "").replace(" ", "_"), []
        for seed in given.seeds:
            unchanged, begun = base.with_(seed=seed), runs / f"nothing_{seed}"
            if not is_finished(begun):
                measure(unchanged, begun, data)
            without = finished_run(unchanged, begun)
            plain = without.hits("valid")
            figures = measure(with_texts(unchanged, CHANGES[name]), runs / f"{folder}_{seed}", data)
            right = read_run(runs / f"{folder}_{seed}").hits("valid")
            counts = {"only_right_with": int((right & ~plain).sum()), "only_right_without": int((plain & ~right).sum())}
            against = {"valid": round(100 * without.metrics["valid"]["accuracy"], 2)} | spent(without)
            found.append({"seed": seed} | figures | {"n": len(right)} | counts | {"counted_against": against})
        rows[name] = {"change": name, "choices": CHANGES[name]} | about | {"runs": found}
        table = {"recipe": base.to_dict(), "seeds": given.seeds, "rows": list(rows.values())}
        given.output.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(given.output, (json.dumps(table, indent=2) + "\n").encode())


if __name__ == "__main__":
    main()
