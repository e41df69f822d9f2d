"""Commands that time: the video pipeline, untrained architectures."""

from pathlib import Path
from typing import Annotated

import typer

from fer_tf import tables, terminal
from fer_tf.cli.options import AsJson, Detector, check_requests
from fer_tf.terminal import bar, busy, show


def bench(
    clip: Annotated[
        Path | None, typer.Argument(help="A clip; a drawn one of 640x480 with one face if left out.")
    ] = None,
    model: Annotated[
        str, typer.Option(help="A shipped model, a folder with model.onnx or an .onnx file.")
    ] = "mobilenet_v2",
    detector: Detector = "haar",
    backend: Annotated[list[str], typer.Option(help="Only this backend. Repeatable.")] = (),
    batch: Annotated[int, typer.Option(help="Faces per batch on the batched rungs.")] = 8,
    requests: Annotated[int | None, typer.Option(help="Detectors and model calls at once; cores.")] = None,
    limit: Annotated[int, typer.Option(help="Frames of the clip to use.")] = 300,
    runs: Annotated[int, typer.Option(help="Go up the ladder so often; each rung's middle run counts.")] = 1,
    live: Annotated[float, typer.Option(help="Then play the clip as a camera would for so many seconds; 0: not.")] = 5,
    output: Annotated[Path | None, typer.Option(help="Write the result here as JSON.")] = None,
    as_json: AsJson = False,
) -> None:
    """Time the video pipeline on every backend: naive loop, batched, threaded, several requests, tracked, INT8."""
    from tempfile import TemporaryDirectory

    from fer_tf.data.drawn import draw_clip
    from fer_tf.files import check_writable
    from fer_tf.inference.benchmark import ladder
    from fer_tf.inference.clips import write_video
    from fer_tf.inference.detect import load_detector
    from fer_tf.inference.pipeline import cores

    if limit < 1:
        raise ValueError(f"--limit must be at least 1 frame, got {limit}")
    if runs < 1:
        raise ValueError(f"--runs must be at least 1, got {runs}")
    if not 0 <= live <= 3600:
        raise ValueError(f"--live must be 0 to 3600 seconds, got {live}")
    check_requests(requests)
    if output:
        check_writable(output)
        if clip and output.resolve() == clip.resolve():
            raise ValueError(f"{output} is the clip itself: name another file for the result")
    choices = {"backends": backend} if backend else {}
    detectors = [load_detector(detector) for _ in range(requests or cores())]
    choices |= {"detectors": detectors, "batch": batch, "limit": limit, "runs": runs, "live_s": live, "output": output}
    with TemporaryDirectory() as folder, busy("bench") as status:
        if clip is None:
            clip = write_video(Path(folder) / "drawn.mp4", draw_clip(frames=limit).frames, fps=30)
        result = ladder(model, clip, **choices, progress=status.update)
    show(result, *tables.ladder(result), *tables.model_alone(result), *tables.live(result), as_json=as_json)


def measure(
    architecture: Annotated[list[str], typer.Option(help="Only this one; all if left out. Repeatable.")] = (),
    runs: Annotated[int, typer.Option(help="Calls to time, per backend and batch.")] = 100,
    threads: Annotated[int | None, typer.Option(help="Cores the model may use.")] = None,
    output: Annotated[Path | None, typer.Option(help="Write the figures here as JSON, after every one.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure architectures, untrained: size, multiply-adds, then speed and memory on every backend.

    Figures of other architectures in --output stay if they were measured here, under the same conditions. Ctrl-C keeps
    what is measured.
    """
    from fer_tf import zoo
    from fer_tf.files import check_writable

    for name in architecture:
        zoo.architecture(name)
    if output:
        check_writable(output)
    with busy("starting Keras"), terminal.quiet():
        from fer_tf.inference.benchmark import save
        from fer_tf.training.measure import conditions, measure, others

    names, about, found = architecture or list(zoo.ARCHITECTURES), conditions(runs=runs, threads=threads), {}
    kept = others(output, names, about) if output else {}
    try:
        with bar("measure", unit="steps") as advance, terminal.quiet():
            for name, figures in measure(names, runs=runs, threads=threads, progress=advance):
                found[name] = figures
                if output:
                    save(about | {"architectures": kept | found}, output)
    finally:
        if found:
            lines = tables.beside_published(found)
            show(about | {"architectures": found}, tables.measured(found, about), *lines, as_json=as_json)
