"""Where things lie. Everything resolves from the package, never from the working directory."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
MODELS = ROOT / "models"  # shipped models, committed
DATA = ROOT / "data"  # downloads and caches, never committed
YUNET = DATA / "yunet" / "face_detection_yunet_2023mar.onnx"
RUNS = ROOT / "runs"  # what training and the suite write, never committed
