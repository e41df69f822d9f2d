"""`Faces`: the one thing that flows through the video pipeline."""

from dataclasses import dataclass, replace

import numpy as np

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""What red, green and blue weigh in grey (ITU-R BT.601)."""


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return probabilities over the last axis, same shape, float32."""
    shifted = logits - logits.max(axis=-1, keepdims=True, initial=-np.inf)
    weights = np.exp(shifted, dtype=np.float32)
    return weights / weights.sum(axis=-1, keepdims=True)


def check_crops(crops: np.ndarray, shape: tuple[int, ...]) -> None:
    """Raise ValueError if crops are not uint8 (n, *shape); n may be 0."""
    if crops.dtype != np.uint8 or crops.shape[1:] != shape:
        raise ValueError(f"crops must be uint8 (n, {', '.join(map(str, shape))}), got {crops.dtype} {crops.shape}")


@dataclass(frozen=True, kw_only=True, eq=False)
class Faces:
    """The n faces of one frame, as parallel arrays. `None` means not computed yet.

    A stage never changes a `Faces`; it returns a richer copy (`with_`).

    frame_index  position in the clip, from 0
    time_s       presentation time in seconds
    read_at      when the frame was decoded, by `time.perf_counter`
    image        uint8 (height, width, 3), RGB
    xyxy         float32 (n, 4): left, top, right, bottom in pixels of `image`
    score        float32 (n,): the detector's confidence, 0..1
    roll         float32 (n,): degrees by which the line through the eyes is tilted, clockwise; 0 where nobody knows
    track_id     int64 (n,)
    logits       float32 (n, emotions)
    embedding    float32 (n, dimensions)
    smoothed     float32 (n, emotions): probabilities, each track's smoothed over time
    label        int64 (n,): the emotion to show, which may lag behind the most probable one
    """

    frame_index: int
    time_s: float
    image: np.ndarray
    xyxy: np.ndarray
    score: np.ndarray
    roll: np.ndarray | None = None
    track_id: np.ndarray | None = None
    logits: np.ndarray | None = None
    embedding: np.ndarray | None = None
    smoothed: np.ndarray | None = None
    label: np.ndarray | None = None
    read_at: float = 0.0

    def __post_init__(self):
        if self.image.dtype != np.uint8 or self.image.ndim != 3 or self.image.shape[2] != 3:
            raise ValueError(f"image must be uint8 (height, width, 3) RGB, got {self.image.dtype} {self.image.shape}")
        if self.xyxy.ndim != 2 or self.xyxy.shape[1] != 4:
            raise ValueError(f"xyxy must be (n, 4), got {self.xyxy.shape}")
        for name in ("score", "roll", "track_id", "logits", "embedding", "smoothed", "label"):
            value = getattr(self, name)
            if value is not None and len(value) != len(self.xyxy):
                raise ValueError(f"{name} {value.shape} must have one row per box, xyxy is {self.xyxy.shape}")

    def __len__(self) -> int:
        return len(self.xyxy)

    def with_(self, **changes) -> "Faces":
        """Return a copy with these fields replaced, validated again."""
        return replace(self, **changes)

    @property
    def probabilities(self) -> np.ndarray:
        """float32 (n, emotions), rows sum to 1."""
        if self.logits is None:
            raise ValueError("these faces have no logits yet: run them through a classifier first")
        return softmax(self.logits)
