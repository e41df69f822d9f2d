"""Small things that several rooms' tests share."""

import os
import signal
import threading
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pytest

from fer_tf import labels, paths
from fer_tf.data.labelled import LabelledFaces, Splits

signal.signal(signal.SIGINT, signal.default_int_handler)  # what is started in the background ignores Ctrl-C

SHARED = paths.ROOT.parent / "shared" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the runs of whole suites: of two processes neither is to wait for them at the end."""
    items.sort(key=lambda item: not item.name.startswith("test_the_suite_runs"))


def patterns(n: int, *, seed: int, size: int = 32) -> LabelledFaces:
    """Return noisy images that a small network learns in seconds: emotion k is a bright bar in row k."""
    rng = np.random.default_rng(seed)
    targets = np.arange(n) % 7
    images = rng.integers(0, 120, (n, size, size, 1), dtype=np.uint8)
    for image, k in zip(images, targets, strict=True):
        image[4 * k : 4 * k + 4] += 120
    votes = np.full((n, 7), 0.05, np.float32) + 0.65 * np.eye(7, dtype=np.float32)[targets]
    return LabelledFaces(
        images=images, labels=targets, emotions=labels.FER2013, ids=np.arange(n) + 1000 * seed, distributions=votes
    )


def small_size(architecture: str) -> int:
    """Return a side in pixels at which an architecture is quick to build and run."""
    return {"esr": 54}.get(architecture, 48)


def small_options(architecture: str) -> dict:
    """Return options with which an architecture is quick to build and run; its layers keep their names and kinds."""
    return {
        "esr": {"branches": 2, "width": 8, "diversified": True},
        "ferplus_vgg13": {"width": 8, "dense": 32},
        "resnet50": {"width": 16},
        "swin": {"size": "nano", "patch_size": 2},
        "vgg": {"width": 16},
        "vit": {"size": "nano"},
    }.get(architecture, {})


@pytest.fixture(scope="session")
def tiny() -> Splits:
    """70 train, 35 valid and 35 test images of bars, 32 px grey."""
    parts = {"train": patterns(70, seed=1), "valid": patterns(35, seed=2), "test": patterns(35, seed=3)}
    return Splits(**parts, name="patterns", terms="made by the tests")


@pytest.fixture(scope="session")
def engine(tmp_path_factory):
    """A model that sees red faces as happy and blue ones as sad."""
    from tiny_onnx import write_onnx

    from fer_tf.inference.engine import load_engine

    return load_engine(write_onnx(tmp_path_factory.mktemp("model") / "model.onnx"))


@pytest.fixture
def clip(tmp_path) -> Path:
    """30 frames of `squares` at 25 frames/s, alone in its folder."""
    from squares import squares

    from fer_tf.inference.clips import write_video

    return write_video(tmp_path / "clip.mp4", squares(30), fps=25)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A tab of a headless Chromium, or a skip that says so."""
    from browser import CHROMIUM, Browser

    if not CHROMIUM:
        pytest.skip("no Chromium is installed: pages are only read as text")
    pytest.importorskip("websocket", reason="websocket-client, which JupyterLab brings, is not installed")
    tab = Browser(tmp_path_factory.mktemp("profile"))
    yield tab
    tab.close()


@pytest.fixture(params=[3, 0], ids=["three workers", "one thread"])
def workers(request) -> int:
    """Runs a test with the threads of a pipeline, and again in the one of the caller."""
    return request.param


@pytest.fixture
def no_thread_is_left():
    """Fails a test that leaves a thread alive."""
    before = set(threading.enumerate())
    yield
    assert not set(threading.enumerate()) - before


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real material beside the repository, or a skip that says so."""
    if not SHARED.is_dir():
        pytest.skip("real clips and models are not here (no ../shared/data beside the repository)")
    return SHARED


@pytest.fixture(scope="session")
def fer2013_csv() -> Path:
    """The real fer2013.csv, or a skip that says so."""
    path = paths.DATA / "fer2013" / "fer2013.csv"
    if not path.is_file():
        pytest.skip("real FER2013 is not here (no data/fer2013/fer2013.csv)")
    return path
