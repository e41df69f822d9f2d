"""Commands for data: fetch it, cut it."""

from pathlib import Path
from typing import Annotated

import typer

from fer_tf.cli.options import AsJson
from fer_tf.terminal import bar, show


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
