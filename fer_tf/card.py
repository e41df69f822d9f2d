"""`ModelCard`: what a model says about itself. It stands beside the `.keras` file and inside the ONNX metadata."""

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

from fer_tf.files import write_atomically

METADATA_KEY = "fer_tf.card"
PIXELS = (("RGB", "NHWC"), ("GREY", "NCHW"))

INTENDED_USE = (
    "Labels are what annotators saw in a picture, not what a person felt. Not for decisions about people. In the EU, "
    "inferring emotions at work or in education is prohibited since 2 February 2025 (AI Act, Article 5(1)(f); medical "
    "and safety uses excepted), and other emotion recognition is high-risk with transparency duties."
)


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """Everything a runtime or a reader must know of a model; nothing is guessed from a file name.

    emotions     labels in the order of the logits
    image_size   side of the square input in pixels
    window       frames that the model sees at once; 1 is a picture
    colour,      how pixels lie in the file's input: RGB NHWC uint8, or GREY NCHW float32, as the ONNX Model Zoo has it;
    layout       callers hand RGB NHWC uint8 to every engine, which does the rest
    temperature  what engines divide the logits by, so that probabilities are calibrated (Guo et al. 2017)
    recipe       the choices of the training run, as JSON values
    data         name, fingerprint, terms of the training data
    metrics      split name -> {n, accuracy, accuracy_interval, macro_f1, ...}
    files        file name -> {sha256, bytes, parameters}, and of an .onnx file {multiply_adds, opset, parity}
    """

    name: str
    architecture: str
    emotions: tuple[str, ...]
    image_size: int
    window: int = 1
    colour: str = "RGB"
    value_range: tuple[int, int] = (0, 255)
    layout: str = "NHWC"
    output: str = "logits"
    temperature: float = 1.0
    recipe: dict = field(default_factory=dict)
    data: dict = field(default_factory=dict)
    metrics: dict = field(default_factory=dict)
    versions: dict = field(default_factory=dict)
    files: dict = field(default_factory=dict)
    notices: tuple[str, ...] = ()
    intended_use: str = INTENDED_USE

    def __post_init__(self):
        for name in ("emotions", "value_range", "notices"):  # JSON knows lists only
            if not isinstance(getattr(self, name), (list, tuple)):
                raise ValueError(f"{name} must be a list, got {getattr(self, name)!r}")
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in ("recipe", "data", "metrics", "versions", "files"):
            if not isinstance(getattr(self, name), dict):
                raise ValueError(f"{name} must be a table, got {getattr(self, name)!r}")
        for name, value in [("name", self.name), ("architecture", self.architecture)]:
            if not isinstance(value, str):
                raise ValueError(f"{name} must be a text, got {value!r}")
        for name, values in (self.files | self.metrics).items():
            if not isinstance(values, dict):
                raise ValueError(f"what the card says of {name} must be a table, got {values!r}")
        named = all(isinstance(emotion, str) and emotion for emotion in self.emotions)
        if not named or len(self.emotions) < 2 or len(set(self.emotions)) != len(self.emotions):
            raise ValueError(f"a card needs at least two different emotions by name, got {self.emotions}")
        if type(self.image_size) is not int or self.image_size < 1:
            raise ValueError(f"image_size must be a positive number of pixels, got {self.image_size!r}")
        if type(self.window) is not int or self.window < 1:
            raise ValueError(f"window must be a positive number of frames, got {self.window!r}")
        if isinstance(self.temperature, bool) or not isinstance(self.temperature, int | float) or self.temperature <= 0:
            raise ValueError(f"temperature must be a number above 0, got {self.temperature!r}")
        pixels, found = (self.colour, self.layout), (self.value_range, self.output)
        if pixels not in PIXELS or found != ((0, 255), "logits") or (self.window > 1 and pixels != PIXELS[0]):
            raise ValueError(
                "this package runs models that map RGB NHWC, or one GREY NCHW picture, of 0..255 to logits; the card "
                f"says {' '.join(pixels)}, window {self.window}, {found[0]}, {found[1]}"
            )

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of what callers hand over for one face, uint8: (s, s, 3), or (window, s, s, 3)."""
        picture = (self.image_size, self.image_size, 3)
        return picture if self.window == 1 else (self.window, *picture)

    def with_(self, **changes) -> "ModelCard":
        """Return a copy with these fields replaced, validated again."""
        return replace(self, **changes)

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "ModelCard":
        """Read a card; raises ValueError if the text is no card or names a field that this version does not know."""
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"a model card is JSON, but this is not: {error}") from error
        if not isinstance(values, dict):
            raise ValueError("a model card is a JSON object")
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ValueError(f"the model card has unknown fields {unknown}; known are {sorted(known)}")
        if missing := sorted({"name", "architecture", "emotions", "image_size"} - set(values)):
            raise ValueError(f"the model card lacks {missing}")
        return cls(**values)

    def save(self, path: Path) -> None:
        """Write JSON, whole or not at all."""
        write_atomically(path, (self.to_json() + "\n").encode())

    @classmethod
    def load(cls, path: Path) -> "ModelCard":
        """Read the card at `path`; raises FileNotFoundError or ValueError that name the file."""
        try:
            return cls.from_json(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


def describe_file(path: Path) -> dict:
    """Return ``{"sha256": hex, "bytes": size}`` of a file."""
    with path.open("rb") as file:
        return {"sha256": hashlib.file_digest(file, "sha256").hexdigest(), "bytes": path.stat().st_size}
