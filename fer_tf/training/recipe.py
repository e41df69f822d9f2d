"""`Recipe`: every choice of a training run, validated once, to and from TOML and JSON."""

import json
import math
import tomllib
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from fer_tf import zoo

RECIPES = Path(__file__).parent / "recipes"


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Random changes of train images only. 0 or False switches one off.

    shift       largest move, as a share of the side, both axes, by whole pixels
    rotate      largest turn in degrees
    zoom        largest change of scale, as a share
    brightness  largest change, as a share of the value range
    contrast    largest change, as a share
    erase       largest erased area, as a share of the image (Zhong et al. 2020)
    """

    flip: bool = True
    shift: float = 0.08
    rotate: float = 10.0
    zoom: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    erase: float = 0.0

    def __post_init__(self):
        for f in fields(self):
            _check_type(f"augmentation.{f.name}", f.type, getattr(self, f.name))
        for name in ("shift", "zoom", "brightness", "contrast", "erase"):
            _check(0 <= getattr(self, name) < 1, f"augmentation.{name}", "0 or more and below 1", getattr(self, name))
        _check(0 <= self.rotate <= 180, "augmentation.rotate", "0 to 180 degrees", self.rotate)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The choices of a run: a head phase with the backbone frozen, then a fine phase with everything trained.

    Between them an ensemble may grow branch by branch.

    dataset, labels,   what `fer_tf.data.readers.load` takes; dataset is empty where the caller brings the data. The
    data_seed          seed of the data is not that of the training: runs of several seeds share their faces
    architecture       a name of `fer_tf.zoo.ARCHITECTURES`; `options` are its own, such as dropout
    weights            what the backbone starts from: None, "imagenet", a file, or a trained network of this
                       architecture, as `zoo.build` has it
    notice             origin and licence of these weights; it goes into the card
    unfreeze           which backbone layers the fine phase trains, by how their names begin, such as ["conv4", "conv5"]
                       of resnet50; empty is all
    branch_epochs      of an ensemble: epochs for each branch before the next one joins; the fine phase trains all
    targets            "labels" (one-hot), "distribution", "probability", "multi_target" or "blend" (annotators' votes,
                       in the ways that `batches` describes), or "auto": "distribution" where train carries votes, else
                       "labels"; a run's recipe.json and card say which it was
    vote_share         of "blend": what the votes weigh beside the label
    teachers           shipped models by name, or folders and .onnx files relative to the project. Each train face is
                       shown to them once, without augmentation; softmax of their mean calibrated logits takes the place
                       of votes, and "auto" then means "blend" (Hinton, Vinyals and Dean, "Distilling the knowledge in a
                       neural network", 2015)
    mixup              alpha of the Beta distribution by which train images and targets are mixed in pairs; 0: not
    ema                decay, per step, of the moving average of the weights that is judged and kept; 0: no average
    precision          "float32", or "mixed_bfloat16": training computes in bfloat16, weights stay float32; what is
                       judged and saved computes in float32
    class_weight       "none", or "balanced" (inverse frequency on train)
    schedule           of the fine phase: "constant", "step" (x gamma every step_size epochs), "plateau" (x gamma after
                       plateau_patience epochs without progress) or "cosine" (to zero, after warmup_epochs)
    monitor            what selects the weights: "accuracy", "macro_f1" or "nll", always on valid
    patience           epochs without progress before the fine phase stops; None never stops early
    extra_epochs       run after patience ran out, to confirm that it was right
    gradient_clip      largest global norm, None for no limit
    """

    dataset: str = ""
    labels: str = "auto"
    data_seed: int = 0
    architecture: str = "lenet"
    options: dict = field(default_factory=dict)
    image_size: int | None = None
    weights: str | None = None
    notice: str = ""
    unfreeze: list = field(default_factory=list)
    batch_size: int = 64
    head_epochs: int = 0
    head_learning_rate: float = 1e-3
    branch_epochs: int = 0
    epochs: int = 20
    learning_rate: float = 1e-3
    optimizer: str = "adamw"
    weight_decay: float = 1e-4
    momentum: float = 0.9
    gradient_clip: float | None = None
    schedule: str = "cosine"
    warmup_epochs: float = 0.0
    step_size: int = 10
    gamma: float = 0.5
    plateau_patience: int = 3
    targets: str = "auto"
    class_weight: str = "none"
    vote_share: float = 0.5
    teachers: list = field(default_factory=list)
    label_smoothing: float = 0.0
    mixup: float = 0.0
    ema: float = 0.0
    precision: str = "float32"
    monitor: str = "accuracy"
    patience: int | None = None
    extra_epochs: int = 0
    augmentation: Augmentation = field(default_factory=Augmentation)
    seed: int = 0

    def __post_init__(self):
        for f in fields(self):
            _check_type(f.name, f.type, getattr(self, f.name))
        for name in ("batch_size", "step_size", "plateau_patience"):
            _check(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))
        counts = "head_epochs", "branch_epochs", "epochs", "extra_epochs", "seed", "data_seed"
        for name in (*counts, "weight_decay", "warmup_epochs"):
            _check(getattr(self, name) >= 0, name, "0 or more", getattr(self, name))
        _check(self.head_epochs + self.epochs >= 1, "epochs", "at least 1 with head_epochs", self.epochs)
        _check(self.epochs >= min(self.branch_epochs, 1), "epochs", "at least 1 after branch_epochs", self.epochs)
        for name in ("learning_rate", "head_learning_rate"):
            _check(getattr(self, name) > 0, name, "above 0", getattr(self, name))
        _check(0 < self.gamma <= 1, "gamma", "above 0 and at most 1", self.gamma)
        for name in ("momentum", "label_smoothing", "ema"):
            _check(0 <= getattr(self, name) < 1, name, "0 or more and below 1", getattr(self, name))
        _check(0 <= self.vote_share <= 1, "vote_share", "0 to 1", self.vote_share)
        _check(0 <= self.mixup <= 10, "mixup", "0 to 10", self.mixup)
        _check(not (self.mixup and self.targets == "multi_target"), "mixup", "0 with targets multi_target", self.mixup)
        _check(self.patience is None or self.patience >= 1, "patience", "at least 1, or none", self.patience)
        _check(self.gradient_clip is None or self.gradient_clip > 0, "gradient_clip", "above 0", self.gradient_clip)
        lists = {"unfreeze": "a list of how layer names begin", "teachers": "a list of models"}
        for name, expected in lists.items():
            value = getattr(self, name)
            _check(all(isinstance(one, str) and one for one in value), name, expected, value)
        heard = not self.teachers or self.targets != "labels"
        _check(heard, "targets", "auto, blend or another that looks at votes, where there are teachers", self.targets)
        _check(self.vote_share > 0 or not self.teachers, "vote_share", "above 0 with teachers", self.vote_share)
        _check(self.window == 1 or not self.teachers, "teachers", "none for a network of clips", self.teachers)
        zoo.architecture(self.architecture)
        taken = {"emotions", *(f.name for f in fields(self))} & set(self.options)
        _check(not taken, "options", "the architecture's own, set the recipe's choices beside them", self.options)
        smooth = self.targets == "multi_target" and self.label_smoothing > 0
        _check(not smooth, "label_smoothing", "0 with targets multi_target, whose loss has none", self.label_smoothing)
        still = "window" not in self.options or zoo.architecture(self.architecture).window > 1
        _check(still, "options", f"without a window, for {self.architecture} takes single pictures", self.options)
        for name, known in CHOICES.items():
            _check(getattr(self, name) in known, name, " or ".join(known), getattr(self, name))

    @property
    def window(self) -> int:
        """Frames that the network takes at once: what `readers.load` must be told."""
        return self.options.get("window", zoo.architecture(self.architecture).window)

    def with_(self, **changes) -> "Recipe":
        """Return a copy with these choices replaced, validated again; an unknown name raises ValueError."""
        return type(self).from_dict(asdict(self) | changes)

    def to_dict(self) -> dict:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> "Recipe":
        """Build a recipe; an unknown name raises ValueError and lists the known ones."""
        if not isinstance(values, dict):
            raise ValueError(f"a recipe is a table of choices, got {values!r}")
        _check_names("recipe", set(values), cls)
        values = dict(values)
        if isinstance(values.get("augmentation"), dict):
            _check_names("augmentation", set(values["augmentation"]), Augmentation)
            values["augmentation"] = Augmentation(**values["augmentation"])
        return cls(**values)

    @classmethod
    def load(cls, path: Path) -> "Recipe":
        """Read a `.toml` or `.json` recipe; raises ValueError that names the file."""
        try:
            read = {".toml": tomllib.loads, ".json": json.loads}[path.suffix]
        except KeyError:
            raise ValueError(f"{path}: a recipe is a .toml or .json file") from None
        try:
            return cls.from_dict(read(path.read_text(encoding="utf-8")))
        except ValueError as error:  # JSONDecodeError and TOMLDecodeError are ValueErrors
            raise ValueError(f"{path}: {error}") from error

    def save(self, path: Path) -> None:
        """Write a `.toml` or `.json` recipe that `load` reads back as an equal one."""
        values = self.to_dict()
        text = _toml(values) if path.suffix == ".toml" else json.dumps(values, indent=2, ensure_ascii=False) + "\n"
        path.write_text(text, encoding="utf-8")


CHOICES = {
    "optimizer": ("adam", "adamw", "sgd"),
    "schedule": ("constant", "step", "plateau", "cosine"),
    "targets": ("auto", "labels", "distribution", "probability", "multi_target", "blend"),
    "class_weight": ("none", "balanced"),
    "precision": ("float32", "mixed_bfloat16"),
    "monitor": ("accuracy", "macro_f1", "nll"),
}


def find_recipe(name: str) -> Recipe:
    """Return a recipe of the package by its name, or the one in a `.toml` or `.json` file."""
    if Path(name).suffix:
        return Recipe.load(Path(name))
    path = RECIPES / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(sorted(found.stem for found in RECIPES.glob("*.toml")))
        raise FileNotFoundError(f"no recipe {name!r}: give a .toml or .json file, or one of {known}")
    return Recipe.load(path)


def with_texts(recipe: Recipe, changes: list[str]) -> Recipe:
    """Return the recipe with changes such as "epochs=3", "augmentation.flip=false" or "schedule=step".

    A notice is of the weights that it came with: other ones are without, unless the changes give one.
    """
    values = recipe.to_dict()
    for change in changes:
        name, equals, text = change.partition("=")
        if not equals:
            raise ValueError(f"expected NAME=VALUE, such as epochs=3, got {change!r}")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = None if text.lower() == "none" else text
        table, dot, key = name.strip().partition(".")
        if dot and isinstance(values.get(table), dict):
            values[table] = values[table] | {key: value}
        else:
            values[name.strip()] = value
    if values["weights"] != recipe.weights and values["notice"] == recipe.notice:
        values["notice"] = ""
    return Recipe.from_dict(values)


def _toml(values: dict) -> str:
    """Write plain values and one level of tables; None, which TOML lacks, is left out: `load` puts the default."""

    def line(name: str, value) -> str:
        return f"{name} = {json.dumps(value, ensure_ascii=False)}"

    lines = [line(name, value) for name, value in values.items() if value is not None and not isinstance(value, dict)]
    for name, table in values.items():
        if isinstance(table, dict):
            lines += ["", f"[{name}]", *(line(key, value) for key, value in table.items())]
    return "\n".join(lines) + "\n"


def _check(good: bool, name: str, expected: str, value) -> None:
    if not good:
        raise ValueError(f"{name} must be {expected}, got {value!r}")


def _check_type(name: str, expected, value) -> None:
    """Refuse a wrong type; whole numbers pass as float, True never passes as a number, inf and nan nowhere."""
    good = isinstance(value, expected) or (isinstance(value, int) and isinstance(0.0, expected))
    if not good or (isinstance(value, bool) and expected is not bool):
        raise ValueError(f"{name} must be {getattr(expected, '__name__', expected)}, got {value!r}")
    _check(not isinstance(value, float) or math.isfinite(value), name, "a finite number", value)


def _check_names(what: str, names: set, cls) -> None:
    known = [f.name for f in fields(cls)]
    if unknown := sorted(names - set(known)):
        raise ValueError(f"{what} has no {', '.join(map(repr, unknown))}; known are {', '.join(known)}")
