"""Does the input hold up training? Times a step of a recipe with its batches, and with one batch again and again.

    python benchmarks/step_time.py vgg_small_fer2013 --steps 20

Both do the same work on the device, augmentation included; what the first takes longer is the input. KERAS_BACKEND
chooses the backend.
"""

import argparse
import json
import time

import keras
import numpy as np

from fer_tf.data.readers import load
from fer_tf.inference.benchmark import host
from fer_tf.training.augment import Rows, augmentation_layers
from fer_tf.training.batches import Batches, resident
from fer_tf.training.fit import build_model, computing_in, prepare, with_augmentation, with_settled_targets
from fer_tf.training.recipe import find_recipe
from fer_tf.training.teachers import find_teachers, taught
from fer_tf.training.torch_speed import quick_torch


def main() -> None:
    """Print both times as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe")
    parser.add_argument("--steps", type=int, default=20)
    given = parser.parse_args()
    recipe = find_recipe(given.recipe)
    data = load(recipe.dataset, labels=recipe.labels)
    recipe = with_settled_targets(recipe, data.train)
    train = taught(data.train, find_teachers(recipe.teachers, data.emotions))
    model = build_model(recipe, emotions=len(data.emotions))
    images = resident(train, model.input_shape[-2])
    rows, layers = None if images is None else Rows(images), augmentation_layers(recipe.augmentation)
    trainer = with_augmentation(model, layers, rows=rows, mixup=recipe.mixup > 0)
    prepare(trainer, model, recipe, phase="fine", steps=given.steps)
    order = np.resize(np.random.default_rng(0).permutation(len(train)), given.steps * recipe.batch_size)
    size = None if rows else model.input_shape[-2]
    choices = {"targets": recipe.targets, "mixup": recipe.mixup}
    batches = Batches(train, size, batch_size=recipe.batch_size, order=order, **choices)
    again = [batches[0]] * given.steps
    found = {}
    with computing_in(model, recipe.precision), quick_torch(model):
        trainer.train_on_batch(*batches[0])  # the first step builds the graph
        for name, source in (("one batch again", again), ("every batch", batches)):
            start = time.perf_counter()
            for number in range(given.steps):
                trainer.train_on_batch(*source[number])
            found[name] = round(1000 * (time.perf_counter() - start) / given.steps, 2)
    share = 1 - found["one batch again"] / found["every batch"]
    about = {"recipe": given.recipe, "keras_backend": keras.backend.backend(), "host": host(), "steps": given.steps}
    print(json.dumps(about | {"ms_per_step": found, "share of the input": round(max(share, 0), 3)}, indent=2))


if __name__ == "__main__":
    main()
