"""Commands that make a trained model ready to use: ONNX, and ONNX of a lower precision."""

from pathlib import Path
from typing import Annotated

import typer

from fer_tf import terminal
from fer_tf.cli.options import AsJson, Limit
from fer_tf.terminal import busy, show


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
    version: Annotated[int | None, typer.Option(help="Of the model there; 1 if left out.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write ONNX with the card inside; refused if ONNX Runtime or OpenVINO disagree with Keras."""
    if repository and (target or contract != "fer-tf"):
        raise ValueError("--repository takes an ONNX model as it is: leave out --target and --contract")
    if version is not None and not repository:
        raise ValueError("--version is that of a model in a repository: give --repository, too")
    if repository:
        from fer_tf.inference.repository import write_repository

        version = 1 if version is None else version
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


def quantise(
    source: Annotated[Path, typer.Argument(help="A folder with model.onnx and card.json.")],
    dataset: Annotated[str | None, typer.Option(help="If the card does not name what it was trained on.")] = None,
    precision: Annotated[str, typer.Option(help="int8, calibrated on train faces, or fp16, for the weights.")] = "int8",
    limit: Limit = None,
    as_json: AsJson = False,
) -> None:
    """Write ONNX of a lower precision; refused if accuracy on valid falls by more than half a point."""
    from fer_tf.card import ModelCard
    from fer_tf.data.readers import SIZE, load

    if not (source / "model.onnx").is_file():
        raise FileNotFoundError(f"{source} has no model.onnx: run `fer-tf export` first, or give another folder")
    card = ModelCard.load(source / "card.json")
    learned_on = dataset or card.recipe.get("dataset") or card.data.get("name")
    if not learned_on:
        raise ValueError(f"{source / 'card.json'} does not name what the model was trained on: give --dataset")
    with busy("converting, then judging on valid"), terminal.quiet():
        from fer_tf.training.quantise import quantise

        labels, seed = card.recipe.get("labels", "auto"), card.recipe.get("data_seed", 0)
        choices = {"image_size": max(card.image_size, SIZE), "seed": seed, "window": card.window, "limit": limit}
        splits = load(learned_on, labels=labels, **choices)
        done = quantise(source, splits, precision=precision)
    (before, after), sizes = done.accuracy, [f"{size / 1e6:.1f} MB" for size in done.bytes]
    values = {"path": str(done.path), "accuracy": done.accuracy, "bytes": done.bytes}
    lines = f"  accuracy on valid {before:.2%} -> {after:.2%}", f"  {sizes[0]} -> {sizes[1]}", f"saved: {done.path}"
    show(values, *lines, as_json=as_json)
