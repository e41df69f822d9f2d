"""YuNet on OpenVINO: one compiled model per input size, shared by all who look for faces; boxes come out of NumPy."""

import io
import os
import threading
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np

from fer_tf import paths
from fer_tf.inference.engine import openvino_core
from fer_tf.inference.track import overlap

STRIDES = (8, 16, 32)
STEP = STRIDES[-1]
"""Pixels: the sides of what YuNet looks at are multiples of it."""
HEADS = {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}
"""What is used of each stride's outputs, and values per cell."""
MAX_IOU = 0.3
TOP_K = 5000
SIZES = 16
"""Compiled models to keep, the last used ones; a clip needs one."""
STREAMS = 8
"""Calls at a time that one compiled model serves at most: each stream holds memory, and 8 outrun any decoder."""

_compiling = threading.Lock()


def yunet(
    file: Path | None = None, *, min_score: float = 0.6, threads: int = 1
) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Return a function: uint8 RGB (height, width, 3), sides multiples of STEP -> boxes, scores and rolls, as `decode`.

    Call it from one thread at a time; take another one for another thread, they share weights and compiled models.

    file       face_detection_yunet_2023mar.onnx of OpenCV Zoo; by default the downloaded one
    min_score  the least confidence of a face
    threads    cores that one call may use

    Raises FileNotFoundError or ValueError for a file that is missing or something else.
    """
    file = Path(file or paths.YUNET)
    if not file.is_file():
        raise FileNotFoundError(f"YuNet's model is not at {file}: run `fer-tf download yunet`, or name the file")
    if threads < 1:
        raise ValueError(f"threads must be at least 1, got {threads}: one core is enough for a small image")
    openvino_core()
    onnx = file.read_bytes()  # the key of what is shared: a file that was replaced is read anew
    try:
        _network(onnx)
    except Exception as error:  # OpenVINO's errors share no narrower base
        raise ValueError(f"{file} is not YuNet's model: run `fer-tf download yunet` again") from error

    @lru_cache(SIZES)
    def request(height: int, width: int):
        with _compiling:  # or threads that start together would compile the same model each
            return _compiled(onnx, height, width, threads).create_infer_request()

    def find(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        height, width = image.shape[:2]
        asked = request(height, width)
        asked.infer([np.ascontiguousarray(image)[None]], share_inputs=True)
        cls, obj, bbox, kps = (asked.get_output_tensor(i).data[0] for i in range(len(HEADS)))
        xyxy, score, roll = decode(cls[:, 0], obj[:, 0], bbox, kps, cells(height, width), min_score=min_score)
        kept = suppress(xyxy, score)
        return xyxy[kept], score[kept], roll[kept]

    return find


def decode(
    cls: np.ndarray, obj: np.ndarray, bbox: np.ndarray, kps: np.ndarray, cells: np.ndarray, *, min_score: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return boxes (n, 4), left, top, right, bottom in pixels, scores (n,) and rolls (n,) of the cells that see a face.

    A roll is the angle of the line through the eyes, in degrees, positive where the eye on the right is the lower one.

    cls, obj  float32 (cells,): class and objectness; the score is the root of their product, each clipped to 0..1
    bbox      float32 (cells, 4): the centre's offset from the cell in strides, and the logarithm of the size in strides
    kps       float32 (cells, 10): x and y of five landmarks from the cell, in strides; the first two are the eyes
    cells     float32 (cells, 3), of `cells`

    Decodes as OpenCV's FaceDetectorYN does (modules/objdetect/src/face_detect.cpp).
    """
    score = np.sqrt(np.clip(cls, 0, 1) * np.clip(obj, 0, 1))
    seen = np.flatnonzero(score >= min_score)  # a few of thousands: all else is done for these alone
    corner, stride = cells[seen, :2], cells[seen, 2:]
    centre = (corner + bbox[seen, :2]) * stride
    half = np.exp(bbox[seen, 2:]) * stride / 2
    right, down = (kps[seen, 2:4] - kps[seen, :2]).T  # from the person's right eye, which is on the left, to the other
    return np.hstack([centre - half, centre + half]), score[seen], np.degrees(np.arctan2(down, right))


@lru_cache(SIZES)
def cells(height: int, width: int) -> np.ndarray:
    """Return float32 (cells, 3), column, row and stride of every cell, in the order of YuNet's outputs."""
    grids = []
    for stride in STRIDES:
        rows, columns = np.indices((height // stride, width // stride)).reshape(2, -1)
        grids.append(np.stack([columns, rows, np.full_like(rows, stride)], axis=1))
    return np.concatenate(grids).astype(np.float32)


def suppress(xyxy: np.ndarray, score: np.ndarray, *, max_iou: float = MAX_IOU, top_k: int = TOP_K) -> np.ndarray:
    """Return the rows to keep, best first: of boxes that share more than `max_iou` of their union, the best one.

    Only the best `top_k` are looked at. The defaults are those of OpenCV's FaceDetectorYN.
    """
    order, kept = np.argsort(-score, kind="stable")[:top_k], []
    while len(order):
        kept.append(order[0])
        order = order[1:][overlap(xyxy[order[:1]], xyxy[order[1:]])[0] <= max_iou]
    return np.array(kept, int)


@lru_cache(2)
def _network(onnx: bytes):
    """Return YuNet with one output per head, each (1, cells, values): the strides one after the other."""
    import openvino
    from openvino import opset13
    from openvino.frontend import FrontEndManager

    frontend = FrontEndManager().load_by_framework("onnx")  # read_model would try every format, loudly
    model = frontend.convert(frontend.load(io.BytesIO(onnx)))
    ends = {name: [model.output(f"{name}_{stride}").node.input_value(0) for stride in STRIDES] for name in HEADS}
    model = openvino.Model([opset13.concat(ends[name], axis=1) for name in HEADS], model.get_parameters())
    model.reshape([1, 3, STEP, 2 * STEP])
    found = [tuple(port.shape) for port in model.outputs]
    expected = [(1, len(cells(STEP, 2 * STEP)), values) for values in HEADS.values()]
    if found != expected:
        raise ValueError(f"expected outputs {expected}, got {found}")
    return model


@lru_cache(SIZES)
def _compiled(onnx: bytes, height: int, width: int, threads: int):
    """Return the model for RGB uint8 (1, height, width, 3): the way from there to YuNet's BGR planes is inside."""
    import openvino
    from openvino.preprocess import ColorFormat, PrePostProcessor

    model = _network(onnx).clone()
    model.reshape([1, 3, height, width])
    steps = PrePostProcessor(model)
    given = steps.input().tensor()
    given.set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC")).set_color_format(ColorFormat.RGB)
    steps.input().preprocess().convert_element_type(openvino.Type.f32).convert_color(ColorFormat.BGR)
    steps.input().model().set_layout(openvino.Layout("NCHW"))
    # Requests on one stream wait for each other, so there are as many streams as can run side by side.
    streams = max(1, min((os.cpu_count() or 1) // threads, STREAMS))
    config = {
        "NUM_STREAMS": str(streams),
        "INFERENCE_NUM_THREADS": str(streams * threads),
        "INFERENCE_PRECISION_HINT": "f32",  # as the engine: where a CPU has bfloat16 the default is that
        "ENABLE_CPU_PINNING": "NO",
    }
    return openvino_core().compile_model(steps.build(), "CPU", config)
