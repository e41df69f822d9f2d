"""What there is: every architecture with its measured figures, every shipped model, every trained run. No Keras."""

import json
from pathlib import Path

from fer_tf import labels, paths, zoo
from fer_tf.card import ModelCard
from fer_tf.training.folder import is_finished

HEADLINE = ("n", "accuracy", "macro_f1")


def catalogue(runs: Path = paths.RUNS) -> dict:
    """Return JSON values: "architectures", "models" (the shipped ones), "runs" below a folder, and "unusable" ones.

    architectures  name -> image size, source and, where `fer-tf measure` has been there, the figures of it
    models, runs   name -> the card, and "folder", "label_set", "input_shape", "parameters", "multiply_adds", "file" and
                   "test" (its headline); None for what the card does not tell
    unusable       folder of an unfinished or damaged run, or name of a damaged model -> what is wrong with it
    """
    measured = zoo.measured()["architectures"]
    architectures = {
        name: {"image_size": known.image_size, "source": known.source, **measured.get(name, {})}
        for name, known in zoo.ARCHITECTURES.items()
    }
    shipped, trained, unusable = {}, {}, {}

    def describe(folder: Path, name: str, found: dict) -> None:
        try:
            found[name] = _entry(folder, measured)
        except (ValueError, OSError) as error:
            unusable[name] = str(error)
        except (KeyError, TypeError, AttributeError) as error:  # a card that somebody wrote by hand
            unusable[name] = f"its card is damaged ({error!r})"

    for path in sorted(paths.MODELS.glob("*/card.json")):
        describe(path.parent, path.parent.name, shipped)
    for folder in sorted({path.parent for name in ("card.json", "recipe.json") for path in runs.rglob(name)}):
        name = folder.relative_to(runs).as_posix()
        if (folder / "recipe.json").is_file() and not is_finished(folder):
            unusable[name] = "not finished; what trained it resumes it"
        else:
            describe(folder, name, trained)
    return {"architectures": architectures, "models": shipped, "runs": trained, "unusable": unusable}


def _entry(folder: Path, measured: dict) -> dict:
    """Return a model's line; raises ValueError or OSError if its folder does not hold what its card says."""
    card = ModelCard.load(folder / "card.json")
    there = {name: about for name, about in card.files.items() if (folder / name).is_file()}
    if not there:
        raise FileNotFoundError(f"its card names {', '.join(card.files) or 'no files'}, and none of them is there")
    for name, about in there.items():
        if (size := (folder / name).stat().st_size) != about["bytes"]:
            raise ValueError(f"{name} has {size:,} bytes, its card says {about['bytes']:,}: copy or export it again")
    file = next((name for name in there if name.endswith(".onnx")), next(iter(there)))
    shape, like = list(card.input_shape), measured.get(card.architecture, {})
    parameters, multiply_adds = _told(there, "parameters"), _told(there, "multiply_adds")
    if multiply_adds is None and (shape, parameters) == (like.get("input_shape"), like.get("parameters")):
        multiply_adds = like["multiply_adds"]  # it is the network that was measured
    return json.loads(card.to_json()) | {
        "folder": str(folder),
        "label_set": labels.set_name(card.emotions),
        "input_shape": shape,
        "parameters": parameters,
        "multiply_adds": multiply_adds,
        "file": {"name": file, "bytes": there[file]["bytes"]},
        "test": {key: card.metrics["test"][key] for key in HEADLINE} if "test" in card.metrics else None,
    }


def _told(files: dict, key: str) -> int | None:
    return next((about[key] for about in files.values() if key in about), None)
