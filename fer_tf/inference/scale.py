"""`annotate_many`: the clips of a list, annotated by several workers of a Ray cluster, or of this machine.

Each worker is one process with one engine, on one core, and takes clip after clip. What is done stays done: the same
call goes on where another was stopped. A clip that cannot be annotated is listed; the others go on.
"""

import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fer_tf.card import describe_file
from fer_tf.files import make_folder, write_atomically
from fer_tf.inference.engine import resolve_model
from fer_tf.inference.pipeline import cores
from fer_tf.inference.sources import is_live

ATTEMPTS = 3
"""Workers that a clip may take along, such as one too large for the memory, before it is given up."""


@dataclass(frozen=True, kw_only=True)
class Clip:
    """What became of one clip: "done", "there already" or "failed", and then why."""

    source: str
    status: str
    frames: int = 0
    faces: int = 0
    seconds: float = 0.0
    error: str = ""


def read_manifest(path: Path) -> list[Path]:
    """Return the clips that a text file names, one in a line, relative to it; lines may be empty or begin with #.

    Raises FileNotFoundError, or ValueError for a file that names none, one twice, or something else than a file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no list of clips at {path}: write one path in a line")
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text: write one path of a clip in a line") from error
    named = [line for line in lines if line and not line.startswith("#")]
    if live := [line for line in named if is_live(line)]:
        raise ValueError(f"{path} names {live[0]}, which never ends: list files")
    clips = [(path.parent / line).resolve() for line in named]
    if not clips:
        raise ValueError(f"{path} names no clip: write one path in a line")
    if twice := [clip for k, clip in enumerate(clips) if clip in clips[:k]]:
        raise ValueError(f"{path} names {twice[0]} twice")
    return clips


def annotate_many(
    clips: Sequence[Path],
    out: Path,
    *,
    model: str = "mobilenet_v2",
    detector: str = "haar",
    backend: str = "openvino",
    workers: int | None = None,
    address: str | None = None,
    video: bool = True,
    detect_every: int = 1,
    classify_every: int = 1,
    progress: Callable[[Clip, int, int], None] | None = None,
) -> list[Clip]:
    """Annotate clips into `out`, in the folders that they have below the one that they share; in the order given.

    <clip>.csv   the table of faces
    <clip>.mp4   the annotated clip, if `video`
    <clip>.json  the summary, written last: a clip with one that fits it, and these choices, is not done again

    workers   processes with a core each; cores of this machine, or of the cluster
    address   a Ray cluster's, such as ray://head:10001 or auto; None starts one here. All its machines need this
              package and the same paths
    progress  is called with every clip that is through, their number and the number of all
    """
    weights = describe_file(resolve_model(model))["sha256"]
    about = {"model": str(model), "weights": weights, "detector": str(detector), "backend": backend, "video": video}
    about |= {"detect_every": detect_every, "classify_every": classify_every}
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    out = Path(out).resolve()
    make_folder(out)
    shared = os.path.commonpath([clip.parent for clip in clips])
    jobs = [{"source": str(clip), "target": str(out / clip.relative_to(shared))} for clip in clips]
    found: dict[str, Clip] = {}

    def tell(clip: Clip) -> None:
        found[clip.source] = clip
        if progress:
            progress(clip, len(found), len(jobs))

    left = []
    for job in jobs:
        if _is_done(job, about):
            tell(Clip(source=job["source"], status="there already"))
        else:
            left.append(job)
    for job in left:  # marks of a run that was stopped, not of workers that died
        _tries(Path(job["target"])).unlink(missing_ok=True)
    for row in _spread(left, about, workers, address) if left else ():
        tell(Clip(**row))
    return [found[job["source"]] for job in jobs]


def _spread(jobs: list[dict], about: dict, workers: int | None, address: str | None) -> Iterator[dict]:
    """Yield a row per clip as Ray's workers give them."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to a server
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    try:
        import ray
    except ImportError as error:
        raise ValueError(
            "many clips need Ray: pip install -e '.[scale]' in the project's folder, or annotate them one by one"
        ) from error
    quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
    where = {"address": address} if address else {"address": "local", "num_cpus": workers or cores(), **quiet}
    ray.init(**where)
    try:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars, context.enable_operator_progress_bars = False, False
        logging.getLogger("ray.data").setLevel("ERROR")  # set anew by the line above; its plans are no news here
        count = min(workers or int(ray.cluster_resources().get("CPU", 1)), len(jobs))
        rows = ray.data.from_items(jobs, override_num_blocks=len(jobs))
        pool = ray.data.ActorPoolStrategy(size=count, max_tasks_in_flight_per_actor=2)
        rows = rows.map(_Annotator, fn_constructor_args=(about,), compute=pool, num_cpus=1)
        yield from rows.iter_rows()
    finally:
        ray.shutdown()


class _Annotator:
    """One worker: an engine and a detector, for clip after clip."""

    def __init__(self, about: dict):
        from fer_tf.inference.detect import load_detector
        from fer_tf.inference.engine import load_engine

        self.about = about
        self.engine = load_engine(about["model"], backend=about["backend"], threads=1)
        self.detector = load_detector(about["detector"])

    def __call__(self, job: dict) -> dict:
        from fer_tf.inference.video import annotate_video

        target, row = Path(job["target"]), {"source": job["source"], "frames": 0, "faces": 0, "seconds": 0.0}
        tries = _tries(target)
        try:
            make_folder(target.parent)
            before = len(tries.read_text().split()) if tries.is_file() else 0
            if before >= ATTEMPTS:  # whoever begins leaves a mark, whoever ends takes the marks away
                tries.unlink()
                raise RuntimeError(f"{before} workers died over it: it may be too large for the memory here")
            with tries.open("a") as file:
                file.write(f"{os.getpid()}\n")
            files = {"table": target.with_name(f"{target.name}.csv")}
            if self.about["video"]:
                files["output"] = target.with_name(f"{target.name}.mp4")
            choices = {name: self.about[name] for name in ("detect_every", "classify_every")}
            source = Path(job["source"])
            done = annotate_video(source, engine=self.engine, detector=self.detector, workers=0, **files, **choices)
            told = {"clip": _identity(source), "choices": self.about, "summary": done.to_dict()}
            write_atomically(_summary(target), (json.dumps(told, indent=2) + "\n").encode())
            tries.unlink()
        except Exception as error:  # whatever it is, the other clips go on
            tries.unlink(missing_ok=True)
            return row | {"status": "failed", "error": str(error) or type(error).__name__}
        figures = {"frames": done.frames, "faces": done.faces, "seconds": done.seconds}
        return row | figures | {"status": "done", "error": ""}


def _tries(target: Path) -> Path:
    return target.with_name(f"{target.name}.tries")


def _summary(target: Path) -> Path:
    return target.with_name(f"{target.name}.json")


def _identity(source: Path) -> dict:
    """Return what changes when a file does."""
    about = source.stat()
    return {"path": str(source), "bytes": about.st_size, "modified_ns": about.st_mtime_ns}


def _is_done(job: dict, about: dict) -> bool:
    try:
        told = json.loads(_summary(Path(job["target"])).read_text(encoding="utf-8"))
        target = Path(job["target"])
        kept = [target.with_name(f"{target.name}.{end}") for end in ("csv", *(["mp4"] if about["video"] else []))]
        same = told["clip"] == _identity(Path(job["source"])) and told["choices"] == about
        return same and all(path.is_file() for path in kept)
    except (OSError, ValueError, KeyError, TypeError):
        return False
