"""Frames can be watched in a window or in a notebook's cell."""

import cv2
import numpy as np
import pytest
from squares import RED, squares

from fer_tf.inference.live import live_window, notebook_display, to_jpeg


def test_a_build_without_windows_says_what_to_install():
    if cv2.currentUIFramework():
        pytest.skip("this OpenCV has windows")
    with pytest.raises(RuntimeError, match="opencv-python-headless"), live_window():
        pass


def test_a_notebook_shows_one_picture_that_changes(monkeypatch):
    display = pytest.importorskip("IPython.display")
    shown = []

    class Handle:
        def update(self, picture):
            shown.append(picture)

    monkeypatch.setattr(display, "display", lambda picture, display_id: shown.append(picture) or Handle())
    with notebook_display(width=80, frames_per_s=1e-3) as show:
        for image in squares(5):
            assert show(None, image) is not False
    assert len(shown) == 2  # the first at once, the last at the end
    picture = cv2.imdecode(np.frombuffer(shown[-1].data, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert picture.shape == (60, 80, 3) and picture[30, 20, 0] > 150  # the red square of the last frame


def test_jpeg_is_small_and_upright():
    data = to_jpeg(np.full((100, 200, 3), RED, np.uint8), width=50)
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert image.shape == (25, 50, 3) and np.abs(image.astype(int) - RED).max() < 10
