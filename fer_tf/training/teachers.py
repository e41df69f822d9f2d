"""Trained networks that others learn from: as a start, or as teachers, whose words take the place of votes.

Hinton, Vinyals and Dean, "Distilling the knowledge in a neural network", 2015. Each face is judged once, unchanged.
"""

from dataclasses import replace
from pathlib import Path

from fer_tf import paths, zoo
from fer_tf.card import ModelCard, describe_file
from fer_tf.data.labelled import LabelledFaces
from fer_tf.faces import softmax
from fer_tf.inference.engine import load_engine, shipped_model
from fer_tf.training import evaluate
from fer_tf.training.recipe import Recipe


def find_teachers(names: list[str], emotions: tuple[str, ...]) -> list:
    """Return the engines of teachers by their names, as `Recipe` has them.

    Raises FileNotFoundError for one that is not there, ValueError for one of other emotions or of clips.
    """
    engines = []
    for name in names:
        plain = len(Path(name).parts) == 1 and not Path(name).suffix
        engine = load_engine(shipped_model(name) or name if plain else paths.ROOT / name)
        if set(engine.card.emotions) != set(emotions) or engine.card.window > 1:
            raise ValueError(
                f"the teacher {name} names {', '.join(engine.card.emotions)} of {engine.card.window} frame(s); the "
                f"faces are single pictures labelled {', '.join(emotions)}"
            )
        engines.append(engine)
    return engines


def taught(train: LabelledFaces, engines: list) -> LabelledFaces:
    """Return train with softmax of the engines' mean calibrated logits as distributions; as it is without engines."""
    return replace(train, distributions=softmax(evaluate.predict(engines, train))) if engines else train


def described(recipe: Recipe, engines: list) -> dict:
    """Return what tells a recipe's trained networks from others: checksums, and the data that they learned from.

    "teachers", by their names, are those of `engines`, "start" is the file that `weights` names; both only if given.
    """
    taught_by = {
        name: {"sha256": describe_file(engine.path)["sha256"], "data": engine.card.data}
        for name, engine in zip(recipe.teachers, engines, strict=True)
    }
    found = {"teachers": taught_by} if taught_by else {}
    if path := zoo.weights_file(recipe.weights):
        card = path.with_name("card.json")
        about = {"data": ModelCard.load(card).data} if card.is_file() else {}
        found["start"] = {"sha256": describe_file(path)["sha256"]} | about
    return found
