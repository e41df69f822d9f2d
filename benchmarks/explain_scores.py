"""How good are saliency maps on real faces? Every method's scores on FER2013's valid rows, for several networks.

    python benchmarks/explain_scores.py models/lenet models/mobilenet_v2 runs/vgg_s0 --output reports/explain.json

Half of the faces are named rightly, half wrongly, as far as there are so many; every method explains what the network
answered. Nothing here looks at test rows. Figures are means over the faces: `deletion` should lie below that of the
random maps, `insertion` above, `like_forgotten` near 0 where all is forgotten; `pointing` is over the faces that YuNet
found. Answers to covered faces come from the ONNX file where the network has one. Seconds are those of all cores' CPUs
together, so that other work on the machine counts little.
"""

import argparse
import json
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np

from fer_tf.card import ModelCard
from fer_tf.data.readers import load
from fer_tf.files import write_atomically
from fer_tf.inference.benchmark import host
from fer_tf.inference.engine import load_engine
from fer_tf.training.evaluate import predict
from fer_tf.training.explain import METHODS, saliency
from fer_tf.training.explain_scores import (
    area,
    deletion,
    forgetting,
    insertion,
    pointing,
    random_maps,
    rank_correlation,
)
from fer_tf.training.keras_engine import load_keras
from fer_tf.training.occlusion import occlusion
from fer_tf.training.regions import landmark_regions

RANDOM = {"random pixels": None, "random blobs": 6}  # cells along a side, about as many as the layers have


def rows_to_explain(named: np.ndarray, labels: np.ndarray, rows: int, seed: int) -> np.ndarray:
    """Return so many rows by lot: half rightly named, half wrongly, or more of the one where the other runs out."""
    order = np.random.default_rng(seed).permutation(len(labels))
    right, wrong = (order[(named == labels)[order] == is_right] for is_right in (True, False))
    few = min(rows // 2, len(right), len(wrong))
    return np.sort(np.concatenate([right[: max(few, rows - len(wrong))], wrong[: max(few, rows - len(right))]])[:rows])


def judge(folder: Path, valid, given) -> dict:
    """Return one network's figures, by method."""
    engine = load_keras(folder)
    quick = load_engine(folder) if (folder / "model.onnx").is_file() else engine
    said = predict(quick, valid).argmax(axis=1)
    rows = rows_to_explain(said, valid.labels, given.rows, given.seed)
    crops, named, right = valid.crops(engine.card.image_size, rows), said[rows], (said == valid.labels)[rows]
    seen, regions = landmark_regions(crops)
    regions["any of them"] = np.logical_or.reduce(list(regions.values()))
    regions = {name: mask[seen] for name, mask in regions.items()}
    about = {
        "model": engine.card.name,
        "architecture": engine.card.architecture,
        "image_size": engine.card.image_size,
        "provider_of_covered_faces": quick.provider,
        "n": len(crops),
        "n_right": int(right.sum()),
        "n_forgotten": len(crops[:: given.every]),
        "n_landmarks": int(seen.sum()),
        "pointing_by_chance": {name: mask.mean() for name, mask in regions.items()},
    }
    choices = {"channels": given.channels, "steps": given.path_steps}
    methods = {name: partial(saliency, method=name, **choices) for name in METHODS} | {"occlusion": occlusion}
    few = {"crops": crops[:: given.every], "emotion": named[:: given.every]}
    forgotten = forgetting(engine, {name: partial(method, **few) for name, method in methods.items()}, seed=given.seed)
    found = {}
    for name in [*methods, *RANDOM]:
        start, row = time.process_time(), {}
        if name in methods:
            maps = methods[name](quick if name == "occlusion" else engine, crops, emotion=named)
            row["cpu_seconds_a_face"] = (time.process_time() - start) / len(crops)
        else:
            maps = random_maps(crops.shape[:-1], cells=RANDOM[name], seed=given.seed)
        row["empty"] = np.mean(~maps.any(axis=(1, 2)))
        for score in (deletion, insertion):
            areas = area(score(quick, crops, maps, emotion=named, steps=given.steps))
            row[score.__name__] = {"all": areas.mean(), "right": areas[right].mean(), "wrong": areas[~right].mean()}
            row[score.__name__]["standard_error"] = areas.std(ddof=1) / len(areas) ** 0.5
        row["pointing"] = {region: hits.mean() for region, hits in pointing(maps[seen], regions).items()}
        row["like_another_face"] = rank_correlation(maps, np.roll(maps, 1, axis=0)).mean()
        if name in methods:
            row["like_forgotten"] = forgotten.loc[name].to_dict()
        found[name] = row
        print(engine.card.name, name, json.dumps(rounded(row)), flush=True)
    return rounded(about | {"date": datetime.now(UTC).date().isoformat(), "host": host(), "methods": found})


def rounded(value):
    """Return JSON values, shares to three decimals."""
    if isinstance(value, dict):
        return {name: rounded(inner) for name, inner in value.items()}
    return round(float(value), 3) if isinstance(value, float | np.floating) else value


def main() -> None:
    """Judge network after network and write what is known so far; what was judged with the same choices stays."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+", help="with model.keras and card.json")
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--every", type=int, default=5, help="every so many-th face is asked of what has forgotten")
    parser.add_argument("--steps", type=int, default=10, help="of deletion and insertion")
    parser.add_argument("--channels", type=int, default=64, help="feature maps of Score-CAM")
    parser.add_argument("--path-steps", type=int, default=32, help="of integrated gradients")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    names = ("rows", "every", "steps", "channels", "path_steps", "seed")
    choices = {"data": "fer2013 valid"} | {name: getattr(given, name) for name in names}
    known = json.loads(given.output.read_text(encoding="utf-8")) if given.output.is_file() else {}
    same = {name: known.get(name) for name in choices} == choices
    models = {model["model"]: model for model in known.get("models", [])} if same else {}
    valid = load("fer2013").valid
    for folder in given.folders:
        name = ModelCard.load(folder / "card.json").name
        if name not in models:
            models[name] = judge(folder, valid, given)
            result = choices | {"models": list(models.values())}
            write_atomically(given.output, (json.dumps(result, indent=2) + "\n").encode())


if __name__ == "__main__":
    main()
