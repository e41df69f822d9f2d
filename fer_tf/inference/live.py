"""Where annotated frames can be watched while they come: a window, or a notebook's cell."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import cv2
import numpy as np

from fer_tf.faces import Faces

OnFrame = Callable[[Faces, np.ndarray], bool | None]
"""Takes a frame's faces and the annotated frame, uint8 RGB; returns False to stop."""


@contextmanager
def live_window(title: str = "fer-tf") -> Iterator[OnFrame]:
    """Open a window and yield what shows a frame in it; Q, Esc or closing the window stops.

    Raises RuntimeError where this OpenCV has no windows.
    """
    if not cv2.currentUIFramework():
        raise RuntimeError(
            "this OpenCV cannot open a window: uninstall opencv-python-headless and install opencv-python<5, or write "
            "a file and watch that, or use notebook_display() in JupyterLab"
        )
    cv2.namedWindow(title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)

    def show(faces: Faces, image: np.ndarray) -> bool:
        cv2.imshow(title, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        key = cv2.waitKey(1) & 0xFF
        return key not in (ord("q"), 27) and cv2.getWindowProperty(title, cv2.WND_PROP_VISIBLE) > 0

    try:
        yield show
    finally:
        cv2.destroyWindow(title)


@contextmanager
def notebook_display(*, width: int = 640, frames_per_s: float = 10.0) -> Iterator[OnFrame]:
    """Yield what shows a frame in the running notebook cell, as a JPEG that replaces the one before.

    Frames that come faster than `frames_per_s` are not shown, except the last. Raises RuntimeError without IPython.
    """
    try:
        from IPython.display import Image, display
    except ImportError as error:
        raise RuntimeError("notebook_display() needs IPython: run it in a notebook, or use live_window()") from error
    handle, shown_at, skipped = None, -np.inf, None

    def show(faces: Faces, image: np.ndarray) -> None:
        nonlocal handle, shown_at, skipped
        skipped = image
        if time.monotonic() - shown_at < 1 / frames_per_s:
            return
        shown_at, skipped = time.monotonic(), None
        picture = Image(data=to_jpeg(image, width=width), format="jpeg")
        if handle is None:
            handle = display(picture, display_id=True)
        else:
            handle.update(picture)

    yield show
    if skipped is not None and handle is not None:
        handle.update(Image(data=to_jpeg(skipped, width=width), format="jpeg"))


def to_jpeg(image: np.ndarray, *, width: int | None = None, quality: int = 85) -> bytes:
    """Return an RGB image, uint8 (height, width, 3), as JPEG; scaled down to `width` if it is wider."""
    if width and image.shape[1] > width:
        height = max(1, round(image.shape[0] * width / image.shape[1]))
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return data.tobytes()
