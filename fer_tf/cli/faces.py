"""Commands that find faces and name their emotions: in pictures, a clip or camera, many clips."""

import io
from contextlib import nullcontext, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from fer_tf import tables, terminal
from fer_tf.cli.options import AsJson, Backend, Detector, Model, check_requests, find_engine
from fer_tf.terminal import bar, show


def image(
    files: Annotated[list[Path], typer.Argument(help="Pictures.")],
    model: Model = "mobilenet_v2",
    detector: Detector = "haar",
    backend: Backend = None,
    output: Annotated[Path | None, typer.Option(help="A folder for annotated copies (PNG).")] = None,
    as_json: AsJson = False,
) -> None:
    """Print every face of every picture with its emotions, the most probable first.

    A picture that cannot be read is named at the end, with a failing exit; the others are not lost.
    """
    from fer_tf.data.images import write_image
    from fer_tf.files import make_folder
    from fer_tf.inference.annotate import draw
    from fer_tf.inference.detect import load_detector
    from fer_tf.inference.video import infer_image

    targets = {path: output / f"{path.stem}.png" for path in files} if output else {}
    if len(set(targets.values())) < len(targets) or any(p.resolve() == t.resolve() for p, t in targets.items()):
        raise ValueError("two pictures, or a picture and its copy, would have one name: give another --output folder")
    if output:
        make_folder(output)
    engine, found, failures = find_engine(model, backend), {}, {}
    finder = load_detector(detector)
    for path in files:
        try:
            faces = infer_image(path, engine=engine, detector=finder)
            if output:
                write_image(targets[path], draw(faces, engine.card.emotions))
        except (ValueError, OSError) as error:
            failures[str(path)] = error
            continue
        found[str(path)] = ranked = [_face(faces, i, engine.card.emotions) for i in range(len(faces))]
        if not as_json:
            title = f"{path}: {len(ranked)} face{'' if len(ranked) == 1 else 's'}"
            show({}, title, *([tables.faces(ranked)] if ranked else []), as_json=False)
    if as_json:
        told = {path: str(error) for path, error in failures.items()}
        about = {"model": engine.card.name, "provider": engine.provider, "detector": finder.name}
        show(about | {"images": found, "errors": told}, as_json=True)
    _hint(finder.name, nothing=bool(found) and not any(found.values()))
    for error in failures.values():
        terminal.complain(error)
    if failures:
        raise typer.Exit(1)


def video(
    source: Annotated[str, typer.Argument(help="A clip (mp4, mkv, gif ...), a camera's number or a stream's rtsp://.")],
    output: Annotated[Path | None, typer.Option(help="The annotated clip, .mp4.")] = None,
    table: Annotated[Path | None, typer.Option(help="Every face of every frame: .csv, .parquet or .jsonl.")] = None,
    timeline: Annotated[Path | None, typer.Option(help="A picture of each person's emotions over time, .png.")] = None,
    summary_file: Annotated[Path | None, typer.Option("--summary", help="What --json prints, as a file.")] = None,
    model: Model = "mobilenet_v2",
    detector: Detector = "haar",
    backend: Backend = None,
    batch: Annotated[int, typer.Option(help="Faces in a model call, at most.")] = 8,
    detect_every: Annotated[int, typer.Option(help="Look for faces on every n-th frame, follow them between.")] = 1,
    classify_every: Annotated[int, typer.Option(help="Classify a face that is followed on every n-th frame.")] = 1,
    half_life: Annotated[float, typer.Option(help="Seconds after which the past of a face counts half; 0: not.")] = 0.3,
    requests: Annotated[int | None, typer.Option(help="Detectors and model calls at once; cores, live 1.")] = None,
    workers: Annotated[int | None, typer.Option(help="Threads that carry frames; what fills the cores.")] = None,
    max_age: Annotated[float, typer.Option(help="Live: seconds that a frame may wait before it is dropped.")] = 0.2,
    threads: Annotated[int | None, typer.Option(help="Cores the model may use.")] = None,
    watch: Annotated[bool, typer.Option("--show", help="Show the frames in a window; q closes it.")] = False,
    as_json: AsJson = False,
) -> None:
    """Annotate a clip or a camera: boxes, labels and probability bars; write the clip and a table."""
    from fer_tf.files import check_writable
    from fer_tf.inference.clips import probe
    from fer_tf.inference.detect import load_detector
    from fer_tf.inference.live import live_window
    from fer_tf.inference.pipeline import cores
    from fer_tf.inference.sources import is_live, open_live
    from fer_tf.inference.video import VideoError, VideoInterrupted, annotate_video

    if not (output or table or watch or summary_file or as_json):
        raise ValueError("nothing to do: give --output, --table, --summary, --show or --json")
    if timeline and not table:
        raise ValueError("--timeline is drawn from the table: give --table, too")
    if timeline and not find_spec("matplotlib"):
        raise ValueError("--timeline draws with matplotlib, which is not here: pip install matplotlib, or leave it out")
    if timeline and timeline.suffix.lower() != ".png":
        raise ValueError(f"a timeline is written as .png, got {timeline.name}")
    for path in filter(None, (timeline, summary_file)):
        check_writable(path)
        others = [source, output, table, summary_file if path is timeline else timeline]
        if path.resolve() in {Path(other).resolve() for other in others if other}:
            raise ValueError(f"{path} is named twice: give every file a name of its own")
    check_requests(requests)
    requests = requests or (1 if is_live(source) else cores())
    engine = find_engine(model, backend, threads, requests)
    choices = {"engine": engine, "detector": [load_detector(detector) for _ in range(requests)]}
    choices |= {"output": output, "table": table, "detect_every": detect_every, "classify_every": classify_every}
    choices |= {"half_life_s": half_life, "workers": workers}
    live, window = is_live(source), engine.card.window
    info = None if live else probe(source)
    if not max_age > 0:
        raise ValueError(f"--max-age must be above 0 seconds, got {max_age}")
    given = open_live(source, max_age_s=max_age) if live else source
    if info and window > 1:
        span = f"{window} frames, here {window / float(info.rate):.1f} s"
        terminal.say(f"{engine.card.name} judges the last {span}: right for clips of the pace that it was trained on")
    with (
        bar("video", unit="frames", total=info and info.frames) as advance,
        live_window() if watch else nullcontext() as on_frame,
    ):
        try:
            summary = annotate_video(given, **choices, batch=batch, on_frame=on_frame, progress=advance)
        except (VideoError, VideoInterrupted) as stopped:
            with suppress(OSError):  # what stopped it matters more
                _beside(stopped.summary, timeline=timeline, summary_file=summary_file)
            if as_json:
                show(stopped.summary.to_dict(), as_json=True)
            raise
    written = [summary.output, summary.table, *_beside(summary, timeline=timeline, summary_file=summary_file)]
    line = (
        f"{summary.frames:,} frames, {summary.faces:,} faces, {summary.seconds:.1f} s, "
        f"{summary.frames_per_s:.1f} frames/s ({engine.card.name} on {summary.provider}, {summary.detector})"
    )
    if live:
        line += f"; {summary.dropped} frames dropped, {summary.damaged} damaged, reconnected {summary.reconnects} times"
    show(summary.to_dict(), line, *map(str, filter(None, written)), as_json=as_json)
    _hint(summary.detector, nothing=not summary.faces)


def annotate_many(
    manifest: Annotated[Path, typer.Argument(help="A text file with the path of a clip in every line.")],
    out: Annotated[Path, typer.Option(help="The folder for tables, annotated clips and summaries.")],
    model: Model = "mobilenet_v2",
    detector: Detector = "haar",
    backend: Backend = None,
    workers: Annotated[int | None, typer.Option(help="Processes with a core each; cores.")] = None,
    address: Annotated[str | None, typer.Option(help="A Ray cluster: auto, or ray://head:10001; none: here.")] = None,
    video: Annotated[bool, typer.Option(help="Write annotated clips, not tables alone.")] = True,
    detect_every: Annotated[int, typer.Option(help="Look for faces on every n-th frame, follow them between.")] = 1,
    classify_every: Annotated[int, typer.Option(help="Classify a face that is followed on every n-th frame.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Annotate many clips on Ray, one worker per core; the same command goes on where it was stopped."""
    from dataclasses import asdict

    from fer_tf.inference.scale import annotate_many, read_manifest

    clips = read_manifest(manifest)
    choices = {"detector": detector, "backend": backend or "openvino-provider", "workers": workers, "address": address}
    choices |= {"video": video, "detect_every": detect_every, "classify_every": classify_every}

    def tell(clip, done: int, count: int) -> None:
        told = f"{clip.frames:,} frames, {clip.faces:,} faces, {clip.seconds:.1f} s" if clip.status == "done" else ""
        terminal.say(f"{done}/{count} {clip.source}: {clip.status} {clip.error or told}".rstrip())

    found = annotate_many(clips, out, model=model, progress=tell, **choices)
    failed = [clip for clip in found if clip.status == "failed"]
    lines = [f"{len(found) - len(failed)} of {len(found)} clips are in {out}"]
    lines += [f"failed: {clip.source} ({clip.error})" for clip in failed]
    show({"clips": [asdict(clip) for clip in found]}, *lines, as_json=as_json)
    if failed:
        raise typer.Exit(1)


def _beside(summary, *, timeline: Path | None, summary_file: Path | None) -> list[Path]:
    """Write what belongs beside a clip's table, of a run that was stopped as well; return the files written."""
    written = []
    if summary_file:
        from fer_tf.inference.benchmark import save

        save(summary.to_dict(), summary_file)
        written.append(summary_file)
    if timeline and summary.table:
        from fer_tf import plots
        from fer_tf.files import write_atomically
        from fer_tf.inference.table import read_table

        plots.use_style()
        picture = io.BytesIO()
        plots.timeline(read_table(Path(summary.table)))[0].figure.savefig(picture, dpi=120)
        write_atomically(timeline, picture.getvalue())
        written.append(timeline)
    return written


def _hint(detector: str, *, nothing: bool) -> None:
    if nothing:
        other = "--detector yunet (after `fer-tf download yunet`)" if detector == "haar" else "--detector haar"
        terminal.say(f"no face was found: try {other}, or --detector full where the picture already is one face")


def _face(faces, i: int, emotions: tuple[str, ...]) -> dict:
    shares = faces.probabilities[i]
    ranked = {emotions[k]: round(float(shares[k]), 4) for k in shares.argsort()[::-1]}
    box = [round(float(value), 1) for value in faces.xyxy[i]]
    return {"box": box, "score": round(float(faces.score[i]), 4), "label": next(iter(ranked)), "probabilities": ranked}
