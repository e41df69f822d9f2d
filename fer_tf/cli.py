"""The command line: one command per user's job, each a call or two into the package. Heavy imports wait in commands."""

import io
import json
import logging
import socket
import sys
from contextlib import nullcontext, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from fer_tf import tables, terminal
from fer_tf.terminal import bar, busy, show

app = typer.Typer(
    cls=terminal.Commands,
    help="Facial emotion recognition: data, training, judging, pictures, video, reports. Labels are what annotators "
    "saw in a picture, not what a person felt.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Model = Annotated[str, typer.Option(help="A shipped model's name, a run folder, an .onnx or a .keras file.")]
Backend = Annotated[
    str | None,
    typer.Option(help="openvino-provider (default), cpu, openvino, an ONNX Runtime provider, or kserve://host:port."),
]
Detector = Annotated[
    str,
    typer.Option(help="haar; yunet (after `fer-tf download yunet`), or the path of its .onnx; full: it is one face."),
]
Dataset = Annotated[str, typer.Option(help="drawn, fer2013, ferplus, or the path of a CSV or a folder.")]
Limit = Annotated[int | None, typer.Option(help="At most so many images per split.")]
MOST_REQUESTS = 64  # each has a detector of its own
LABELS = "auto, fer2013, fer2013-votes, ferplus-majority, ferplus-argmax or ferplus-distribution"
RECIPES = sorted(path.stem for path in (Path(__file__).parent / "training" / "recipes").glob("*.toml"))
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs to read.")]


def main() -> None:
    """Run the command line; `--debug` is taken anywhere."""
    terminal.prepare()
    app([argument for argument in sys.argv[1:] if argument != "--debug"])


@app.callback()
def _common(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what happens.")] = False,
) -> None:
    logging.basicConfig(level="INFO" if verbose else "WARNING", format="%(message)s")


@app.command()
def download(
    name: Annotated[str, typer.Argument(help="fer2013, ferplus, yunet, emotion-ferplus or emotion-ferplus-int8.")],
    target: Annotated[Path | None, typer.Option(help="Where the file goes; data/ if left out.")] = None,
    as_json: AsJson = False,
) -> None:
    """Fetch a data set or model from its public source, checksum verified, resumable."""
    from fer_tf.data.download import download

    with bar(name, unit="bytes") as advance:
        path = download(name, target=target, progress=advance)
    show({"path": str(path)}, f"verified: {path}", as_json=as_json)


@app.command()
def split(
    folder: Annotated[
        Path, typer.Argument(help="Holds train/ with a folder per emotion, or these folders themselves.")
    ],
    fraction: Annotated[float, typer.Option(help="Share that goes to val_new/.")] = 0.15,
    seed: Annotated[int, typer.Option(help="Of the random cut: the same seed cuts the same way.")] = 0,
    copy: Annotated[bool, typer.Option("--copy", help="Copy the files instead of linking them.")] = False,
    as_json: AsJson = False,
) -> None:
    """Cut a folder of images into train_new/ and val_new/, stratified, no duplicate on both sides."""
    from fer_tf.data.split import split_folder

    with bar("split", unit="images") as advance:
        written = split_folder(folder, fraction=fraction, seed=seed, copy=copy, progress=advance)
    lines = [f"{count:>8,} images  {path}" for path, count in written.items()]
    show({str(path): count for path, count in written.items()}, *lines, as_json=as_json)


@app.command()
def train(
    recipe: Annotated[str, typer.Option(help=f"{', '.join(RECIPES)}, or a .toml or .json file.")] = "lenet_drawn",
    dataset: Annotated[str | None, typer.Option(help="Another data set than the recipe's.")] = None,
    labels: Annotated[str | None, typer.Option(help=f"Instead of the recipe's: {LABELS}.")] = None,
    run_dir: Annotated[Path | None, typer.Option(help="Where the run goes; runs/<recipe> if left out.")] = None,
    change: Annotated[
        list[str], typer.Option("--set", help="Change a choice of the recipe: --set epochs=3. Repeatable.")
    ] = (),
    devices: Annotated[
        int | None, typer.Option(help="That share every batch; all accelerators if left out. Several on JAX alone.")
    ] = None,
    limit: Limit = None,
    as_json: AsJson = False,
) -> None:
    """Train by a recipe, select on valid, report test once. The same command resumes a run that was killed."""
    from fer_tf import paths
    from fer_tf.training.folder import refuse_finished
    from fer_tf.training.recipe import find_recipe, with_texts

    chosen = with_texts(find_recipe(recipe), change)
    given = {"dataset": dataset, "labels": labels}
    chosen = chosen.with_(**{name: value for name, value in given.items() if value})
    folder = run_dir or paths.RUNS / Path(recipe).stem
    refuse_finished(folder)
    from fer_tf.data.fer2013 import SIZE as FER2013_SIZE
    from fer_tf.data.readers import load
    from fer_tf.zoo import architecture

    size = max(chosen.image_size or architecture(chosen.architecture).image_size, FER2013_SIZE)
    with busy(f"reading {chosen.dataset}"):
        choices = {"seed": chosen.data_seed, "limit": limit, "window": chosen.window}
        data = load(chosen.dataset, labels=chosen.labels, image_size=size, **choices)
        tell = terminal.say if as_json else lambda line: show({}, line, as_json=False)
        tell(data.audit.summary())
    if not as_json:
        show({}, tables.balance(data.audit), as_json=False)
    with busy("starting Keras"), terminal.quiet():
        from fer_tf.training.fit import build_model, fit

        model = build_model(chosen, emotions=len(data.emotions))
    with bar("train", unit="batches") as advance:
        card = fit(model, data, chosen, folder, devices=devices, report=tell, on_step=advance)
    table = tables.metrics(card.metrics, title=f"{card.name} on {data.name}")
    values = {"run_dir": str(folder), "card": json.loads(card.to_json())}
    show(values, table, f"run folder: {folder}", as_json=as_json)


@app.command()
def evaluate(
    model: Annotated[
        list[str],
        typer.Argument(help="A shipped model's name, a run folder, an .onnx or a .keras file; several: an ensemble."),
    ],
    dataset: Dataset = "drawn",
    labels: Annotated[str, typer.Option(help=f"Whose labels a CSV gets: {LABELS}.")] = "auto",
    views: Annotated[int, typer.Option(help="Views of every face, averaged: 1, 2 (mirrored) or 10 (moved, too).")] = 1,
    results: Annotated[
        Path | None, typer.Option(help="Add a row, of one view and of ten, to this JSON table of results.")
    ] = None,
    seed_run: Annotated[
        list[Path], typer.Option(help="For --results: a run by the same recipe with another seed. Repeatable.")
    ] = (),
    backend: Backend = None,
    limit: Limit = None,
    as_json: AsJson = False,
) -> None:
    """Judge a model, or the mean of several, on valid, test and the rows of each that repeat nothing earlier."""
    from fer_tf.data.fer2013 import SIZE as FER2013_SIZE
    from fer_tf.data.readers import load
    from fer_tf.files import check_writable
    from fer_tf.training.compare import read_run
    from fer_tf.training.evaluate import VIEWS, judge

    if views not in VIEWS:
        raise ValueError(f"--views must be one of {', '.join(map(str, VIEWS))}, got {views}")
    if results and limit is not None:
        raise ValueError("--results takes whole data sets: leave --limit out")
    if seed_run and not results:
        raise ValueError("--seed-run adds to a row of results: give --results, too")
    others = [read_run(folder) for folder in seed_run]
    if results:
        check_writable(results)
    with busy("loading model and data"):
        engines = [_engine(name, backend) for name in model]
        if len({(engine.card.window, engine.card.recipe.get("data_seed", 0)) for engine in engines}) > 1:
            raise ValueError("these models see other windows or were trained on other splits: judge them one by one")
        first = engines[0].card
        size = max(FER2013_SIZE, *(engine.card.image_size for engine in engines))
        seed = first.recipe.get("data_seed", 0)  # the splits that it was trained on
        data = load(dataset, labels=labels, image_size=size, seed=seed, limit=limit, window=first.window)
    if limit is None:
        _say_if_cut_otherwise(engines, data)
    with bar("evaluate", unit="faces") as advance:
        reports, predictions = judge(engines, data, views=views, on_batch=advance)
    judged = {name: found.to_dict() for name, found in reports.items()}
    name = " + ".join(engine.card.name for engine in engines)
    provider = " + ".join(dict.fromkeys(engine.provider for engine in engines))
    about = {"model": name, "dataset": data.name, "fingerprint": data.fingerprint, "views": views}
    about |= {"backend": engines[0].backend, "provider": provider}
    title = f"{name} on {data.name}, {provider}{f', {views} views' if views > 1 else ''}"
    shares = tables.per_emotion(reports["test"].per_emotion, title="test, per emotion")
    show(about | {"reports": judged}, tables.metrics(judged, title=title), shares, as_json=as_json)
    if results:
        from fer_tf.training.results import add, row

        told = {views: (reports, predictions)}
        for count in (1, 10):
            with bar(f"{count} views", unit="faces") as advance:
                told[count] = told.get(count) or judge(engines, data, views=count, on_batch=advance)
        add(results, row(engines, data, plain=told[1], ten=told[10], others=others))


@app.command()
def groups(
    table: Annotated[
        Path, typer.Argument(help="A CSV: label, path of a picture (or predicted), and columns of groups.")
    ],
    by: Annotated[list[str], typer.Option(help="A column of groups, such as sex. Repeatable.")],
    model: Model = "mobilenet_v2",
    detector: Detector = "full",
    backend: Backend = None,
    minimum: Annotated[int, typer.Option(help="Faces that a group's figure needs.")] = 30,
    output: Annotated[Path | None, typer.Option(help="Write the report here, .md.")] = None,
    as_json: AsJson = False,
) -> None:
    """Report how well groups of faces are named, with intervals, and what may and may not be concluded."""
    from fer_tf.files import check_writable, write_atomically
    from fer_tf.inference.detect import load_detector
    from fer_tf.training.groups import classify, group_report, read_rows

    if output:
        check_writable(output)
        if output.resolve() == table.resolve():
            raise ValueError(f"{output} is the table itself: name another file for the report")
    rows = read_rows(table, by=by)
    if "predicted" not in rows:
        engine = _engine(model, backend)
        with bar("classify", unit="pictures") as advance:
            rows = classify(rows, engine=engine, detector=load_detector(detector), progress=advance)
    found = group_report(rows, by=by, minimum=minimum)
    pages = [report.to_markdown() for report in found]
    if output:
        write_atomically(output, "\n".join(pages).encode())
    lines = [line for report in found for line in (tables.groups(report), *report.sentences)]
    show(
        {"columns": [report.to_dict() for report in found]}, *lines, *([str(output)] if output else []), as_json=as_json
    )


@app.command()
def robustness(
    model: Annotated[
        list[str], typer.Argument(help="A shipped model's name, a run folder, an .onnx or a .keras file; or several.")
    ],
    dataset: Dataset = "drawn",
    labels: Annotated[str, typer.Option(help=f"Whose labels a CSV gets: {LABELS}.")] = "auto",
    split: Annotated[str, typer.Option(help="valid or test.")] = "valid",
    baseline: Annotated[str, typer.Option(help="The model by whose errors those of all are divided.")] = "lenet",
    corruption: Annotated[list[str], typer.Option(help="Only this one; all if left out. Repeatable.")] = (),
    seed: Annotated[int, typer.Option(help="Of the noise and the directions.")] = 0,
    output: Annotated[Path | None, typer.Option(help="Write the result here as JSON.")] = None,
    figure: Annotated[Path | None, typer.Option(help="A picture of the curves, .png.")] = None,
    backend: Backend = None,
    limit: Limit = None,
    as_json: AsJson = False,
) -> None:
    """Judge models on corrupted faces: noise, blur, light, blocks, covered eyes ... at five severities."""
    from datetime import UTC, datetime

    from fer_tf.data.corrupt import CORRUPTIONS
    from fer_tf.data.fer2013 import SIZE as FER2013_SIZE
    from fer_tf.data.readers import load
    from fer_tf.files import check_writable
    from fer_tf.inference.benchmark import host, save
    from fer_tf.training import robustness as room

    if split not in ("valid", "test"):
        raise ValueError(f"--split must be valid or test, got {split!r}")
    if unknown := [name for name in corruption if name not in CORRUPTIONS]:
        raise ValueError(f"unknown corruption {unknown[0]!r}; known are {', '.join(CORRUPTIONS)}")
    if figure and figure.suffix.lower() != ".png":
        raise ValueError(f"a figure is written as .png, got {figure.name}")
    for path in filter(None, (output, figure)):
        check_writable(path)
    with busy("loading models and data"):
        engines = {name: _engine(name, backend) for name in dict.fromkeys([baseline, *model])}
        cards = [engine.card for engine in engines.values()]
        if len({card.recipe.get("data_seed", 0) for card in cards}) > 1:
            raise ValueError("these models were trained on other splits: judge them one by one")
        size = max(FER2013_SIZE, *(card.image_size for card in cards))
        data = load(dataset, labels=labels, image_size=size, seed=cards[0].recipe.get("data_seed", 0), limit=limit)
    if limit is None:
        _say_if_cut_otherwise(engines.values(), data)
    faces = getattr(data, split)
    about = {"dataset": data.name, "split": split, "fingerprint": data.fingerprint, "limit": limit}
    about |= {"image_size": faces.size, "date": datetime.now(UTC).date().isoformat(), "host": host()}
    choices = {"corruptions": list(corruption) or list(CORRUPTIONS), "seed": seed}
    with bar("robustness", unit="faces") as advance:
        first = engines[baseline].card.name
        found = about | room.robustness(list(engines.values()), faces, baseline=first, **choices, progress=advance)
    if output:
        save(found, output)
    if figure:
        _save_robustness(found, figure)
    title = f"{data.name}, {found['n']:,} {split} rows"
    show(found, tables.robustness(found, title=title), tables.corrupted(found), as_json=as_json)


@app.command()
def export(
    source: Annotated[
        Path, typer.Argument(help="A run folder or a .keras file with its card.json; for --repository an ONNX model.")
    ],
    target: Annotated[
        Path | None,
        typer.Option(help="The .onnx file; if left out model.onnx beside the source, or in model-zoo/ there."),
    ] = None,
    contract: Annotated[
        str,
        typer.Option(help="fer-tf, or model-zoo: like the ONNX Model Zoo's emotion-ferplus (8 emotions, 64 px)."),
    ] = "fer-tf",
    repository: Annotated[
        Path | None,
        typer.Option(help="Add the model to this folder, laid out for OpenVINO Model Server, Triton and KServe."),
    ] = None,
    version: Annotated[int, typer.Option(help="Of the model there.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Write ONNX with the card inside; refused if ONNX Runtime or OpenVINO disagree with Keras."""
    if repository:
        from fer_tf.inference.repository import write_repository

        written = [str(path) for path in write_repository([source], repository, version=version)]
        show({"files": written}, *written, as_json=as_json)
        return
    from fer_tf.training.folder import keras_file

    keras_file(source)
    with busy("converting, then comparing the runtimes"), terminal.quiet():
        from fer_tf.training.export import export

        exported = export(source, target, contract=contract)
    lines = [f"  {name:<18} largest logit difference {value:.1e}" for name, value in exported.parity.items()]
    values = {"path": str(exported.path), "opset": exported.opset, "parity": exported.parity}
    show(values, *lines, f"saved (opset {exported.opset}): {exported.path}", as_json=as_json)


@app.command()
def quantise(
    source: Annotated[Path, typer.Argument(help="A folder with model.onnx and card.json.")],
    dataset: Annotated[str | None, typer.Option(help="If the card does not name what it was trained on.")] = None,
    precision: Annotated[str, typer.Option(help="int8, calibrated on train faces, or fp16, for the weights.")] = "int8",
    as_json: AsJson = False,
) -> None:
    """Write ONNX of a lower precision; refused if accuracy on valid falls by more than half a point."""
    from fer_tf.card import ModelCard
    from fer_tf.data.readers import load

    if not (source / "model.onnx").is_file():
        raise FileNotFoundError(f"{source} has no model.onnx: run `fer-tf export` first, or give another folder")
    card = ModelCard.load(source / "card.json")
    with busy("converting, then judging on valid"), terminal.quiet():
        from fer_tf.training.quantise import quantise

        labels, seed = card.recipe.get("labels", "auto"), card.recipe.get("data_seed", 0)
        choices = {"image_size": max(card.image_size, 48), "seed": seed, "window": card.window}
        splits = load(dataset or card.recipe.get("dataset") or "drawn", labels=labels, **choices)
        done = quantise(source, splits, precision=precision)
    (before, after), sizes = done.accuracy, [f"{size / 1e6:.1f} MB" for size in done.bytes]
    values = {"path": str(done.path), "accuracy": done.accuracy, "bytes": done.bytes}
    lines = f"  accuracy on valid {before:.2%} -> {after:.2%}", f"  {sizes[0]} -> {sizes[1]}", f"saved: {done.path}"
    show(values, *lines, as_json=as_json)


@app.command()
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
    engine, found, failures = _engine(model, backend), {}, {}
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


@app.command()
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
    _check_requests(requests)
    requests = requests or (1 if is_live(source) else cores())
    engine = _engine(model, backend, threads, requests)
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


@app.command()
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


@app.command()
def serve(
    model: Model = "mobilenet_v2",
    detector: Detector = "haar",
    backend: Backend = None,
    host: Annotated[
        str, typer.Option(help="Where to listen; 0.0.0.0 for all that can reach this machine.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 8000,
    workers: Annotated[int | None, typer.Option(help="Threads that work on pictures; cores.")] = None,
    batch: Annotated[int, typer.Option(help="Pictures that one of them takes together, at most.")] = 8,
    max_wait: Annotated[float, typer.Option(help="Milliseconds that the first of them waits for others.")] = 2.0,
    max_bytes: Annotated[int, typer.Option(help="Of a request.")] = 10_000_000,
    max_pixels: Annotated[int, typer.Option(help="Of a picture.")] = 40_000_000,
    deadline: Annotated[float, typer.Option(help="Seconds until an answer, or a refusal.")] = 10.0,
    api_key: Annotated[
        str | None, typer.Option(envvar="FER_TF_API_KEY", help="What clients must send; better as this variable.")
    ] = None,
) -> None:
    """Serve POST /v1/detect, a page at /, health checks and metrics until Ctrl-C; what was accepted is finished."""
    if not find_spec("fastapi") or not find_spec("uvicorn"):
        raise ValueError("serving needs FastAPI and Uvicorn: pip install 'fer-tf[serve]'")
    import uvicorn

    from fer_tf.inference.detect import load_detector
    from fer_tf.inference.engine import load_engine
    from fer_tf.inference.pipeline import cores
    from fer_tf.inference.serve import Limits, create_app

    _check_requests(workers)
    if not 0 <= port <= 65535:
        raise ValueError(f"--port must be 0 to 65535, got {port}")
    try:
        listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise OSError(
            f"{host}:{port} cannot be listened on ({error.strerror or error}): give another --port"
        ) from error
    workers = workers or cores()
    limits = {
        "bytes": max_bytes,
        "pixels": max_pixels,
        "deadline_s": deadline,
        "batch": batch,
        "wait_s": max_wait / 1000,
    }
    with busy("loading the model"):
        engine = load_engine(model, backend=backend or "openvino-provider", requests=workers)
        detectors = [load_detector(detector) for _ in range(workers)]
        service = create_app(engine=engine, detectors=detectors, limits=Limits(**limits), api_key=api_key)
    logging.getLogger("fer_tf.serve").setLevel("INFO")
    config = uvicorn.Config(service, access_log=False, server_header=False, log_level="warning")
    config.timeout_graceful_shutdown, config.limit_concurrency = 30, 1000
    address = f"http://{host}:{listening.getsockname()[1]}"
    terminal.say(f"{engine.card.name} on {engine.provider}, {detector}: {address} (Ctrl-C stops)")
    with suppress(KeyboardInterrupt):  # which comes again, once everything is finished
        uvicorn.Server(config).run(sockets=[listening])


@app.command()
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
    _check_requests(requests)
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


@app.command()
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


@app.command()
def models(
    runs: Annotated[Path | None, typer.Option(help="The folder of trained runs; runs/ if left out.")] = None,
    as_json: AsJson = False,
) -> None:
    """List every architecture, shipped model and trained run, with size, cost, labels and test figures."""
    from itertools import groupby

    from fer_tf import paths
    from fer_tf.training.catalogue import catalogue

    if runs and not runs.is_dir():
        raise FileNotFoundError(f"no folder {runs}: give the one that holds the runs")
    folder = runs or paths.RUNS
    found = catalogue(folder)
    shown = [tables.architectures(found["architectures"]), tables.models(found["models"], title="shipped models")]
    places = sorted(map(Path, found["runs"]), key=lambda path: (path.parent, path.name))
    for parent, group in groupby(places, key=lambda path: path.parent):
        trained = {path.name or folder.name: found["runs"][str(path)] for path in group}
        shown.append(tables.models(trained, title=f"trained in {folder / parent}"))
    shown += [f"{folder / name}: {reason}" for name, reason in found["unusable"].items()]
    show(found, *shown, as_json=as_json)


@app.command()
def suite(
    parameter: Annotated[
        list[str], typer.Option("--parameter", "-p", help="NAME=VALUE for the notebooks that declare it. Repeatable.")
    ] = (),
    dataset: Annotated[str | None, typer.Option(help="Short for -p dataset=...")] = None,
    notebook: Annotated[list[str], typer.Option(help="Only these, by path or number: --notebook 02. Repeatable.")] = (),
    grid: Annotated[
        Path | None, typer.Option(help="Train models x seeds of this .toml instead, and compare them; resumable.")
    ] = None,
    run_dir: Annotated[
        Path | None, typer.Option(help="A new folder; runs/<time>, or of a grid runs/<its name>, if left out.")
    ] = None,
) -> None:
    """Run the notebooks in order and gather them on one page; or a grid of trainings, each an executed notebook."""
    from fer_tf.suite import run_suite

    given = dict(_pair(text) for text in parameter) | ({"dataset": dataset} if dataset else {})
    if grid:
        if given or notebook:
            raise ValueError("a grid names its own recipes, data set and choices: leave -p, --dataset, --notebook out")
        _run_grid(grid, run_dir)
        return
    result = run_suite(notebooks=list(notebook) or None, parameters=given, run_dir=run_dir, progress=terminal.results)
    show({}, f"the suite's page: {result.index}", as_json=False)


@app.command()
def card(
    model: Annotated[
        str | None, typer.Argument(help="A shipped model's name, a run folder, or a file with card.json beside it.")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Instead of a model: drawn, fer2013, ferplus, or the path of a CSV or a folder.")
    ] = None,
    labels: Annotated[str, typer.Option(help=f"Whose labels a CSV gets: {LABELS}.")] = "auto",
    output: Annotated[Path | None, typer.Option(help="Write it here, .md, instead of printing it.")] = None,
) -> None:
    """Print the card of a model, or of a data set, as Markdown."""
    from fer_tf.cards import data_card, find_card, read_model_card
    from fer_tf.files import check_writable, write_atomically

    if (model is None) == (dataset is None):
        raise ValueError("give a model, or --dataset, and not both")
    if output:
        check_writable(output)
    if dataset:
        from fer_tf.data.readers import load

        with busy(f"reading {dataset}"):
            text = data_card(load(dataset, labels=labels))
    else:
        text = read_model_card(find_card(model))
    if output:
        write_atomically(output, text.encode())
    show({}, str(output or text.rstrip()), as_json=False)


def _run_grid(grid: Path, run_dir: Path | None) -> None:
    """Run a grid; list what failed, and exit with 1 if anything did."""
    from fer_tf.grid import run_grid

    result = run_grid(grid, run_dir=run_dir, progress=terminal.results)
    if result.table:
        show({}, tables.rows(result.table, title="mean ± standard deviation over the seeds"), as_json=False)
    show({}, f"the grid's page: {result.index}", as_json=False)
    for name, message in result.failed.items():
        terminal.say(f"failed: {name}: {message}")
    if result.failed:
        raise typer.Exit(1)


def _engine(model: str, backend: str | None, threads: int | None = None, requests: int = 1):
    """Load whatever the user named: a `.keras` file or a run without ONNX through Keras, all else as ONNX."""
    path = Path(model)
    if path.suffix.lower() == ".keras" or ((path / "model.keras").is_file() and not (path / "model.onnx").is_file()):
        if backend or threads:
            raise ValueError(f"{model} runs in Keras, which takes no --backend or --threads: `fer-tf export` it first")
        from fer_tf.training.folder import keras_file

        keras_file(path)
        with terminal.quiet():
            from fer_tf.training.keras_engine import load_keras

            return load_keras(path)
    from fer_tf.inference.engine import load_engine

    return load_engine(model, backend=backend or "openvino-provider", threads=threads, requests=requests)


def _say_if_cut_otherwise(engines, data) -> None:
    """Say which models were trained on this data set cut or read in another way."""
    for card in (engine.card for engine in engines):
        known = card.data
        if known.get("name") == data.name and known.get("fingerprint") != data.fingerprint:
            terminal.say(f"{data.name} is not cut or read as {card.name} was trained: it may have seen test rows")


def _save_robustness(found: dict, path: Path) -> None:
    """Draw the curves, with the corruptions shown on a drawn face."""
    from fer_tf import plots
    from fer_tf.data.corrupt import examples
    from fer_tf.data.drawn import draw_faces
    from fer_tf.files import write_atomically

    plots.use_style()
    pictures = examples(draw_faces(1, size=48, seed=4), found["corruptions"], severities=found["severities"])
    picture = io.BytesIO()
    plots.robustness(found, pictures)[0].figure.savefig(picture, dpi=100)
    write_atomically(path, picture.getvalue())


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


def _check_requests(requests: int | None) -> None:
    if requests is not None and not 1 <= requests <= MOST_REQUESTS:
        raise ValueError(f"--requests must be at least 1 and at most {MOST_REQUESTS}, got {requests}")


def _hint(detector: str, *, nothing: bool) -> None:
    if nothing:
        other = "--detector yunet (after `fer-tf download yunet`)" if detector == "haar" else "--detector haar"
        terminal.say(f"no face was found: try {other}, or --detector full where the picture already is one face")


def _face(faces, i: int, emotions: tuple[str, ...]) -> dict:
    shares = faces.probabilities[i]
    ranked = {emotions[k]: round(float(shares[k]), 4) for k in shares.argsort()[::-1]}
    box = [round(float(value), 1) for value in faces.xyxy[i]]
    return {"box": box, "score": round(float(faces.score[i]), 4), "label": next(iter(ranked)), "probabilities": ranked}


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise ValueError(f"expected NAME=VALUE, got {text!r}")
    return name.strip(), value.strip()
