"""Faces whose paths and identities are known, and a detector for them that errs as it is told."""

import numpy as np

from fer_tf.data.drawn_clip import draw_clip
from fer_tf.faces import Faces
from fer_tf.inference.track_metrics import Identified

FPS, WIDTH, HEIGHT = 30, 640, 480
IMAGE = np.zeros((HEIGHT, WIDTH, 3), np.uint8)


def boxes(x, y, side) -> np.ndarray:
    """float32 (n, 4) around centres x, y."""
    x, y, half = np.broadcast_arrays(x, y, np.asarray(side) / 2)
    return np.stack([x - half, y - half, x + half, y + half], axis=-1).astype(np.float32)


def scene(paths: dict[int, np.ndarray]) -> list[Identified]:
    """Identity -> boxes (frames, 4), not a number where it is not there. Cut at the frame as a detector's are."""
    frames = []
    for rows in zip(*paths.values(), strict=True):
        inside = [not np.isnan(row).any() and 0 < row[[0, 2]].mean() < WIDTH for row in rows]
        ids = np.array(list(paths))[inside]
        frames.append((ids, np.clip(np.array(rows)[inside], 0, (WIDTH, HEIGHT) * 2).reshape(-1, 4)))
    return frames


def drawn(faces: int, seed: int, frames: int = 300) -> list[Identified]:
    clip = draw_clip(faces=faces, frames=frames, width=WIDTH, height=HEIGHT, fps=FPS, seed=seed)
    return [(np.flatnonzero(there), xyxy[there]) for xyxy, there in zip(clip.xyxy, clip.visible, strict=True)]


def crossing(speed: float = 160, side: float = 80, rise: float = 0, frames: int = 90) -> list[Identified]:
    """Two people pass each other in the middle at so many pixels/s; while one hides the other, only one is there."""
    t = (np.arange(frames) - frames / 2) / FPS
    one, two = boxes(320 + speed * t, 240 + rise / 2, side), boxes(320 - speed * t, 240 - rise / 2, side * 1.1)
    one[np.abs(2 * speed * t) < 0.3 * side] = np.nan
    return scene({0: one, 1: two})


def leaving(away_s: float, frames: int = 120) -> list[Identified]:
    """One walks out of the picture to the left, is away, and walks in again where it left; another one stays."""
    t = np.arange(frames) / FPS
    out_s = 1.0
    x = 150 * np.where(t < out_s + away_s / 2, out_s - t, t - out_s - away_s)
    return scene({0: boxes(x, 240, 90), 1: boxes(450 + 0 * x, 240, 90)})


def jumping(sizes: float, frames: int = 60) -> list[Identified]:
    """One face stands, and is that many face sizes farther from one frame to the next."""
    x = np.where(np.arange(frames) < frames // 2, 200, 200 + 80 * sizes)
    return scene({0: boxes(x, 240, 80)})


def rushing(speed: float, frames: int = 40) -> list[Identified]:
    """One face moves at so many face sizes/s."""
    t = np.arange(frames) / FPS
    return scene({0: boxes(60 + 80 * speed * t, 240, 80)})


def detected(frames: list[Identified], seed: int, *, jitter=0.05, misses=0.1, false=0.05) -> list[np.ndarray]:
    """What a detector finds of it, in any order: places off by `jitter` sizes, shares of faces missed, of frames with
    a box too many."""
    rng, found = np.random.default_rng(seed), []
    for _, xyxy in frames:
        xyxy = xyxy[rng.random(len(xyxy)) >= misses]
        side = (xyxy[:, 2:] - xyxy[:, :2]).mean(axis=1, keepdims=True)
        xyxy = xyxy + jitter * side * rng.normal(size=xyxy.shape)
        if rng.random() < false:
            xyxy = np.vstack([xyxy, boxes(rng.uniform(0, WIDTH, 1), rng.uniform(0, HEIGHT, 1), rng.uniform(40, 120))])
        found.append(np.clip(rng.permutation(xyxy), 0, (WIDTH, HEIGHT) * 2).astype(np.float32))
    return found


def frame(index: int, xyxy: np.ndarray | None = None) -> Faces:
    xyxy = np.empty((0, 4), np.float32) if xyxy is None else xyxy
    score = np.ones(len(xyxy), np.float32)
    return Faces(frame_index=index, time_s=index / FPS, image=IMAGE, xyxy=xyxy, score=score)


def tracked(found: list[np.ndarray], tracker, *, every: int = 1) -> list[Identified]:
    """Follow what was found on every n-th frame, and predict the others."""
    faces = (
        tracker.predict(frame(index)) if index % every else tracker.follow(frame(index, xyxy))
        for index, xyxy in enumerate(found)
    )
    return [(found.track_id, found.xyxy) for found in faces]
