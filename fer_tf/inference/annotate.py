"""Draws `Faces` on their frame: a box in the label's colour, and a panel with the most probable emotions."""

from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np

from fer_tf.faces import LUMA, Faces
from fer_tf.labels import COLOURS

SHOWN = 3
"""Emotions on a panel."""
PAPER, INK, TRACK = (18, 20, 26), (255, 255, 255), (46, 49, 56)  # the darkest emotions stand out from all but INK
PAPER_OPACITY = 0.84
ON_FACE = 0.15
"""The share of its own face that a panel may hide."""
QUARTER = np.linspace(0, np.pi / 2, 6)
ROUND = np.concatenate([np.stack([np.cos(a), np.sin(a)], axis=1) for a in (QUARTER + k * np.pi / 2 for k in range(4))])
"""A circle of radius 1, (24, 2), a quarter at a time, beginning at the lower right."""


def draw(faces: Faces, emotions: tuple[str, ...]) -> np.ndarray:
    """Return a copy of the frame, uint8 RGB, with box, label and bars of every face; `faces` must be classified.

    Smoothed probabilities and their label are shown where there are any, else the raw ones. The label's bar comes
    first; beside the label stands the number of the face's track, if there are several on the frame.
    """
    image = faces.image.copy()
    if not len(faces):
        return image
    height, width = image.shape[:2]
    line = int(np.clip(min(height, width) / 30, 11, 56))  # pixels of a line of text
    small = max(9, line * 3 // 4)
    styles = [_Style(line, True), _Style(small, True), _Style(small, False), _Style(9, False)]
    boxes = np.round(faces.xyxy).astype(int)
    shares = faces.probabilities if faces.smoothed is None else faces.smoothed
    label = shares.argmax(axis=1) if faces.label is None else faces.label
    ranked = np.argsort(-shares, axis=1, kind="stable")
    ranked = np.take_along_axis(ranked, np.argsort(ranked != label[:, None], axis=1, kind="stable"), axis=1)  # it leads
    shown = [[(emotions[k], float(p[k])) for k in best[:SHOWN]] for p, best in zip(shares, ranked, strict=True)]
    several = faces.track_id is not None and len(faces) > 1
    marks = [str(track) for track in faces.track_id.tolist()] if several else [""] * len(faces)
    for box, top in zip(boxes, shown, strict=True):
        _draw_box(image, np.minimum(box, np.tile((width - 1, height - 1), 2)), _colour(top[0][0]), round(line / 8))
    placed = place_panels(boxes, (width, height), [style.size(emotions) for style in styles])
    for panel, top, mark in zip(placed, shown, marks, strict=True):
        if panel:
            _draw_panel(image[panel.top : panel.bottom, panel.left : panel.right], top, styles[panel.size], mark=mark)
    return image


def with_age(image: np.ndarray, age_s: float) -> np.ndarray:
    """Return a copy of an annotated frame that says how old it is."""
    image = image.copy()
    line = int(np.clip(min(image.shape[:2]) / 24, 11, 56))
    note = f"no new frame for {age_s:.0f} s"
    width = _text(note, line).shape[1] + line
    view = image[-2 * line :, :width]
    _blend(view, PAPER, np.full(view.shape, int(128 * PAPER_OPACITY), np.int16))
    _write(view, note, "", INK, line, line // 2)
    return image


class Panel(NamedTuple):
    """A panel's place in pixels; `size` is the index of the size that it got."""

    size: int
    left: int
    top: int
    right: int
    bottom: int


def place_panels(boxes: np.ndarray, frame_size: tuple[int, int], sizes: list[tuple[int, int]]) -> list[Panel | None]:
    """Return one panel per box, each inside the frame and none over another; None where no room is left.

    boxes       (n, 4) left, top, right, bottom in pixels
    frame_size  width, height
    sizes       width, height of the panels to choose from, the most wanted first

    Large faces choose first. A panel goes beside its face and over no other; if that fails, on its own face, as long as
    it hides little of it. What is left gets the last size wherever it hides least.
    """
    boxes = np.asarray(boxes, int).reshape(-1, 4)
    placed: list[Panel | None] = [None] * len(boxes)
    taken = np.empty((0, 4), int)
    areas = _overlap(boxes, boxes).diagonal()
    for i in np.argsort(-areas, kind="stable"):
        box, others = boxes[i], np.delete(boxes, i, axis=0)
        for size in sizes:
            found = _first(_beside(box, size, frame_size), frame_size, np.vstack([taken, boxes]))
            if found is None and size[0] * size[1] <= ON_FACE * areas[i]:
                found = _first(_within(box, size), frame_size, np.vstack([taken, others]))
            if found is not None:
                break
        else:
            spots = np.vstack([_beside(box, size, frame_size), _within(box, size)])
            least = np.argsort(_overlap(spots, others).sum(axis=1), kind="stable")
            found = _first(spots[least], frame_size, taken)
        if found is not None:
            placed[i] = Panel(sizes.index(size), *found.tolist())
            taken = np.vstack([taken, found])
    return placed


def _beside(box: np.ndarray, size: tuple[int, int], frame_size: tuple[int, int]) -> np.ndarray:
    """Return places (m, 4) around a box: tall panels go right or left first, flat ones above or below."""
    (left, top, right, bottom), (width, height) = box, size
    gap = max(2, height // 16)
    rows = np.clip((top, (top + bottom - height) // 2, bottom - height), 0, max(0, frame_size[1] - height))
    columns = np.clip((left, (left + right - width) // 2, right - width), 0, max(0, frame_size[0] - width))
    sides = [(x, y) for x in (right + gap, left - gap - width) for y in rows]
    ends = [(x, y) for y in (top - gap - height, bottom + gap) for x in columns]
    corners = np.array(ends + sides if width > 2 * height else sides + ends)
    return np.hstack([corners, corners + size])


def _within(box: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return places (4, 4) in the corners of a box, the lower ones first."""
    (left, top, right, bottom), (width, height) = box, size
    gap = max(2, height // 16)
    rows, columns = (bottom - gap - height, top + gap), (left + gap, right - gap - width)
    corners = np.array([(x, y) for y in rows for x in columns])
    return np.hstack([corners, corners + size])


def _first(spots: np.ndarray, frame_size: tuple[int, int], avoided: np.ndarray) -> np.ndarray | None:
    """Return the first of the rectangles (m, 4) that lies in the frame and overlaps none to be avoided (k, 4)."""
    free = (spots[:, :2] >= 0).all(axis=1) & (spots[:, 2:] <= frame_size).all(axis=1)
    free &= ~_overlap(spots, avoided).any(axis=1)
    return spots[free.argmax()] if free.any() else None


def _overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the shared area of rectangles (m, 4) and (k, 4): (m, k) pixels."""
    upper = np.minimum(a[:, None, 2:], b[None, :, 2:])
    lower = np.maximum(a[:, None, :2], b[None, :, :2])
    return np.clip(upper - lower, 0, None).prod(axis=2)


class _Style(NamedTuple):
    """How a panel looks: lines of `line` pixels, with bars or with the label alone."""

    line: int
    bars: bool

    @property
    def title(self) -> int:
        return round(1.5 * self.line)

    @property
    def row(self) -> int:
        return round(1.45 * self.line)

    def size(self, emotions: tuple[str, ...]) -> tuple[int, int]:
        name = max(_text(emotion, self.line).shape[1] for emotion in emotions)
        width = name + _text("100%", self.line).shape[1] + round(2.2 * self.line)
        return width, self.title + self.bars * (SHOWN * self.row + self.line // 2)


def _draw_box(image: np.ndarray, box: np.ndarray, colour: tuple, thickness: int) -> None:
    """A rounded frame in the emotion's colour, with a dark edge to stand out unless the face is too small for one."""
    left, top, right, bottom = box.tolist()
    side = min(right - left, bottom - top)
    radius, thickness = max(1, side // 12), max(1, min(thickness, side // 14))
    x, y = (right - radius, left + radius), (bottom - radius, top + radius)
    centres = np.repeat([(x[0], y[0]), (x[1], y[0]), (x[1], y[1]), (x[0], y[1])], len(QUARTER), axis=0)
    outline = np.round(16 * (centres + radius * ROUND)).astype(np.int32)  # sixteenths of a pixel
    for ink, width in ((PAPER, thickness + 2), (colour, thickness)) if side >= 40 else ((colour, thickness),):
        cv2.polylines(image, [outline], True, ink, width, cv2.LINE_AA, shift=4)


def _draw_panel(view: np.ndarray, top: list[tuple[str, float]], style: _Style, *, mark: str) -> None:
    """Fill a view of the frame: label and mark on the label's colour, below them a bar for each emotion in `top`."""
    height, width = view.shape[:2]
    line, margin = style.line, style.line // 2
    (label, p), colour = top[0], _colour(top[0][0])
    corner, title = max(2, line // 3), view[: style.title]
    _blend(view, PAPER, _rounded(width, height, corner, PAPER_OPACITY))
    _blend(title, colour, _rounded(width, height, corner))
    ink = PAPER if np.dot(colour, LUMA) > 110 else INK
    _write(title, label, "" if style.bars else f"{p:.0%}", ink, line, margin)
    if style.bars:
        _write(title, "", mark, ink, max(9, line * 3 // 4), margin)
    for k, (name, p) in enumerate(top if style.bars else []):
        y = style.title + line // 4 + k * style.row
        _write(view[y : y + line], name, f"{p:.0%}", INK, line, margin)
        bar = view[y + line + max(1, line // 16) :][: max(2, line // 5), margin : width - margin]
        for part, ink in ((bar, TRACK), (bar[:, : round(p * bar.shape[1])], _colour(name))):
            _blend(part, ink, _rounded(part.shape[1], part.shape[0], part.shape[0] // 2))


def _write(view: np.ndarray, left: str, right: str, ink: tuple, line: int, margin: int) -> None:
    """Set two words on one line, in the vertical middle of the view."""
    y = (view.shape[0] - line) // 2
    for mask, x in ((_text(left, line), margin), (_text(right, line), -margin - _text(right, line).shape[1])):
        _blend(view[y : y + line, x:], ink, mask)


def _blend(view: np.ndarray, colour: tuple, alpha: np.ndarray) -> None:
    """Lay a colour over a view of the frame; alpha int16 (height, width, 3) 0..128 and view are cut to each other."""
    alpha = alpha[: view.shape[0], : view.shape[1]]
    view = view[: alpha.shape[0], : alpha.shape[1]]
    if alpha.size:
        change = cv2.multiply(cv2.subtract((*colour, 0), view, dtype=cv2.CV_16S), alpha, scale=1 / 128)
        cv2.add(view, change, dst=view, dtype=cv2.CV_8U)


@lru_cache(maxsize=2048)
def _text(text: str, line: int) -> np.ndarray:
    """Return a text's coverage, int16 (line, width, 3) 0..128, in the typeface that Pillow carries."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(size=0.86 * line)
    image = Image.new("L", (int(np.ceil(font.getlength(text))), line))
    ImageDraw.Draw(image).text((0, round(0.76 * line)), text, fill=128, font=font, anchor="ls")
    return np.stack([np.asarray(image, np.int16)] * 3, axis=2)


@lru_cache(maxsize=512)
def _rounded(width: int, height: int, radius: int, opacity: float = 1.0) -> np.ndarray:
    """Return the coverage of a rectangle with round corners, int16 (height, width, 3) 0..128."""
    x = np.abs(np.arange(width) + 0.5 - width / 2)[None] - (width / 2 - radius)
    y = np.abs(np.arange(height) + 0.5 - height / 2)[:, None] - (height / 2 - radius)
    outside = np.hypot(np.maximum(x, 0), np.maximum(y, 0)) + np.minimum(np.maximum(x, y), 0) - radius
    return np.stack([(np.clip(0.5 - outside, 0, 1) * 128 * opacity).astype(np.int16)] * 3, axis=2)


def _colour(emotion: str) -> tuple[int, int, int]:
    code = COLOURS.get(emotion, "#8C8C8C")
    return int(code[1:3], 16), int(code[3:5], 16), int(code[5:7], 16)
