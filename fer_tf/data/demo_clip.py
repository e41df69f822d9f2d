"""The default clip of the suite: a pan over a real portrait, then drawn faces that change their expression."""

from collections.abc import Iterator

import cv2
import numpy as np

from fer_tf.data.drawn_clip import draw_clip

WINDOW = 400, 300  # pixels of the portrait in view
PATH = (0, 0), (100, 60)  # left and top of the window at the first and the last frame; the face stays inside


def demo_frames(*, portrait: int = 60, drawn: int = 120, faces: int = 2, seed: int = 0) -> Iterator[np.ndarray]:
    """Yield uint8 (480, 640, 3) RGB: so many frames over the portrait, then so many of a drawn clip.

    The portrait is NASA's of the astronaut Eileen Collins: public domain, inside scikit-image, no download.
    """
    from skimage.data import astronaut

    picture, (width, height) = astronaut(), WINDOW
    for share in (1 - np.cos(np.linspace(0, np.pi, portrait))) / 2:  # starts and ends slowly
        left, top = (round(start + share * (end - start)) for start, end in zip(*PATH, strict=True))
        view = picture[top : top + height, left : left + width]
        yield cv2.resize(view, (640, 480), interpolation=cv2.INTER_CUBIC)
    yield from draw_clip(faces=faces, frames=drawn, width=640, height=480, seed=seed).frames
