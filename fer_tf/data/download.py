"""`download`: what a user may fetch, resumed after an interruption, in place only with the right checksum."""

import hashlib
import shutil
import tempfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path

from fer_tf import labels, paths
from fer_tf.card import ModelCard, describe_file

CHUNK = 1 << 18  # bytes read at a time
TIMEOUT = 30  # seconds without an answer

Progress = Callable[[int, int | None], None]
"""Called with the bytes that are here and the bytes that there are (None: the server does not say)."""


class DownloadError(OSError):
    """A download that did not arrive whole; the message is one sentence on what to do."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A file to fetch.

    path     where it goes, below `paths.DATA`
    urls     where it lies, tried in order; name.zip holds it packed, as name
    digest   its checksum, "sha256:" or "md5:" and hex digits
    terms    licence or terms of use
    instead  file name -> digest of files that serve as well if they lie in its folder
    by_hand  what to do where no URL answers
    card     of a model that has none inside: it goes beside the file, as card.json
    """

    path: str
    urls: tuple[str, ...]
    digest: str
    terms: str
    instead: dict[str, str] = field(default_factory=dict)
    by_hand: str = ""
    card: ModelCard | None = None


def _model_zoo_card(name: str) -> ModelCard:
    """Return the card of a FER+ classifier of the ONNX Model Zoo."""
    return ModelCard(
        name=name,
        architecture="ferplus_vgg13",
        emotions=tuple(map(labels.canonical, labels.FERPLUS_PUBLISHED)),
        image_size=64,
        colour="GREY",
        layout="NCHW",
        data={"name": "FER+", "terms": "FER2013: research use; FER+ votes (Barsoum et al. 2016): MIT"},
        notices=("Trained by Microsoft in CNTK on FER+; from the ONNX Model Zoo. MIT.",),
    )


# How the checksums are known. fer2013: torchvision's FER2013 reader names the md5 of both files (that of fer2013.csv is
# f8428a1edbd21e88f42c73edd2a14f95); the sha256 is that of a file with this md5. Of the mirror we know from its users
# that its file has the same size. ferplus: computed from the published file, and named by others who fetched it.
# yunet: the Git LFS pointer in OpenCV Zoo. emotion-ferplus: ONNX_HUB_MANIFEST.json of the ONNX Model Zoo; the manifest
# does not have the INT8 file, whose checksum is that of its Git LFS pointer there.
SOURCES = {
    "fer2013": Source(
        path="fer2013/fer2013.csv",
        urls=("https://huggingface.co/datasets/chitradrishti/fer2013/resolve/main/fer2013.csv.zip",),
        digest="sha256:3b8d9617d1017f34733c8f2474d7784c563ce86c40a86ac12c2d37cc968f871b",
        terms="ICML 2013 challenge data: research use, not redistributable",
        instead={"icml_face_data.csv": "md5:b114b9e04e6949e5fe8b6a98b3892b1d"},
        by_hand="log in at https://www.kaggle.com/c/challenges-in-representation-learning-facial-expression-recognition-"
        "challenge/data, accept the terms, and unpack fer2013.csv (in fer2013.tar.gz) or icml_face_data.csv",
    ),
    "ferplus": Source(
        path="fer2013/fer2013new.csv",
        urls=("https://raw.githubusercontent.com/microsoft/FERPlus/master/fer2013new.csv",),
        digest="sha256:9206e20d62f56475939f516847d61753e4860caeac9718b560129541b776fc2c",
        terms="MIT (Microsoft)",
    ),
    "yunet": Source(
        path=paths.YUNET.relative_to(paths.DATA).as_posix(),
        urls=(
            "https://media.githubusercontent.com/media/opencv/opencv_zoo/main/models/face_detection_yunet/"
            "face_detection_yunet_2023mar.onnx",
            "https://huggingface.co/opencv/face_detection_yunet/resolve/main/face_detection_yunet_2023mar.onnx",
        ),
        digest="sha256:8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4",
        terms="MIT (OpenCV Zoo)",
    ),
    "emotion-ferplus": Source(
        path="emotion-ferplus/emotion-ferplus-8.onnx",
        urls=(
            "https://huggingface.co/onnxmodelzoo/emotion-ferplus-8/resolve/main/emotion-ferplus-8.onnx",
            "https://media.githubusercontent.com/media/onnx/models/main/validated/vision/body_analysis/emotion_ferplus/"
            "model/emotion-ferplus-8.onnx",
        ),
        digest="sha256:a2a2ba6a335a3b29c21acb6272f962bd3d47f84952aaffa03b60986e04efa61c",
        terms="MIT (ONNX Model Zoo)",
        card=_model_zoo_card("emotion-ferplus-8"),
    ),
    "emotion-ferplus-int8": Source(
        path="emotion-ferplus-int8/emotion-ferplus-12-int8.onnx",
        urls=(
            "https://huggingface.co/onnxmodelzoo/emotion-ferplus-12-int8/resolve/main/emotion-ferplus-12-int8.onnx",
            "https://media.githubusercontent.com/media/onnx/models/main/validated/vision/body_analysis/emotion_ferplus/"
            "model/emotion-ferplus-12-int8.onnx",
        ),
        digest="sha256:3e47195d79e9593294df9e81a6d296a1e10969b68a717284081c29493a0ff5f1",
        terms="MIT (ONNX Model Zoo)",
        card=_model_zoo_card("emotion-ferplus-12-int8"),
    ),
}


def download(
    name: str, *, target: Path | None = None, progress: Progress | None = None, sources: dict[str, Source] = SOURCES
) -> Path:
    """Fetch one of `sources` to the file `target` (default: its place below `paths.DATA`) and return the path.

    A file that is there already and whole is not fetched again, so this also checks one that was put there by hand.
    Bytes go to a .part file beside it, which the next call continues; `target` appears only with the right checksum.
    A model that carries no card gets its card.json beside it.

    Raises ValueError for an unknown name, FileExistsError if another file, or the card of another model, is in the
    place, DownloadError that says what went wrong at every URL.
    """
    if name not in sources:
        raise ValueError(f"nothing to download is called {name!r}; known are {', '.join(sources)}")
    source = sources[name]
    target = Path(target or paths.DATA / source.path)
    beside = target.with_name("card.json")
    if source.card and beside.exists() and ModelCard.load(beside).name != source.card.name:
        raise FileExistsError(f"{beside} is the card of another model: give {name} a folder of its own")
    path = _present(source, target) or _fetch_first(source, target, progress)
    if source.card:
        source.card.with_(files={path.name: describe_file(path)}).save(beside)
    return path


def _present(source: Source, target: Path) -> Path | None:
    """Return the file that is in the place already, or one that serves as well; FileExistsError for any other file."""
    for path, digest in [(target, source.digest), *((target.with_name(n), d) for n, d in source.instead.items())]:
        if path.exists():
            if (found := digest_of(path, digest)) != digest:
                raise FileExistsError(f"{path} has {found}, the published file {digest}: move it away and try again")
            return path
    return None


def _fetch_first(source: Source, target: Path, progress: Progress | None) -> Path:
    """Fetch `target` from the first URL that has it; DownloadError if none has."""
    target.parent.mkdir(parents=True, exist_ok=True)
    failures = []
    for url in source.urls:
        try:
            _fetch(url, target, source.digest, progress)
            return target
        except DownloadError as error:
            failures.append(str(error))
    if source.by_hand:
        failures.append(f"or by hand: {source.by_hand} into {target.parent}, then run this again to check it")
    raise DownloadError("; ".join(failures))


def digest_of(path: Path, like: str) -> str:
    """Return the checksum of a file, of the kind and in the form of `like`: "sha256:" or "md5:" and hex digits."""
    kind = like.split(":")[0]
    with path.open("rb") as file:
        return f"{kind}:{hashlib.file_digest(file, kind).hexdigest()}"


def _fetch(url: str, target: Path, digest: str, progress: Progress | None) -> None:
    """Bring the file at `url` to `target`; DownloadError if it is not there, not whole or not the expected one."""
    part = target.with_name(url.rsplit("/", 1)[1] + ".part")
    try:
        _receive(url, part, progress)
    except urllib.error.HTTPError as error:
        raise DownloadError(f"{url} answers {error.code} {error.reason}: it has moved or wants a login") from error
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", error) or type(error).__name__
        raise DownloadError(f"{url} did not arrive ({reason}): check the network and run this again") from error
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".unpack-") as folder:
        try:
            whole = _unpack(part, Path(folder)) if url.endswith(".zip") else part
            if (found := digest_of(whole, digest)) != digest:
                raise DownloadError(f"{url} sent a file with {found} instead of {digest}: deleted, try again later")
        except DownloadError:
            part.unlink()
            raise
        whole.replace(target)
    part.unlink(missing_ok=True)


def _receive(url: str, part: Path, progress: Progress | None) -> None:
    """Append what `part` still lacks of `url`; from the start if the server does not continue."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "fer-tf"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if have and error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # everything is here already; the checksum decides
        raise
    with response:
        continued = response.status == HTTPStatus.PARTIAL_CONTENT
        have = have if continued else 0
        length = response.headers["Content-Length"]
        total = have + int(length) if length else None
        with part.open("ab" if continued else "wb") as file:
            while chunk := response.read(CHUNK):
                have += file.write(chunk)
                if progress:
                    progress(have, total)
    if total is not None and have < total:
        raise ConnectionError(f"it broke off after {have:,} of {total:,} bytes")


def _unpack(archive: Path, folder: Path) -> Path:
    """Unpack the file x from x.zip.part into `folder`; DownloadError if it is not there or damaged."""
    target = folder / archive.name.removesuffix(".zip.part")
    try:
        with zipfile.ZipFile(archive) as packed:
            inside = [name for name in packed.namelist() if name.rsplit("/", 1)[-1] == target.name]
            if not inside:
                raise DownloadError(f"{archive.name} holds no {target.name}, only {packed.namelist()[:5]}: deleted")
            with packed.open(inside[0]) as source, target.open("wb") as file:
                shutil.copyfileobj(source, file, CHUNK)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise DownloadError(
            f"what came as {archive.name} is no whole zip file ({error}): deleted, try again"
        ) from error
    return target
