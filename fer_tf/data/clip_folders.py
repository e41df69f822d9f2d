"""Folders of clips, one folder per emotion, as `LabelledClips`. A clip is a video file or a folder of its frames."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from fer_tf.data.folders import Progress, emotion_folders, image_files, is_litter
from fer_tf.data.images import read_image, to_rgb
from fer_tf.data.labelled import LabelledClips, to_crops
from fer_tf.faces import LUMA

Crop = Callable[[np.ndarray], np.ndarray | None]
"""Takes a frame, uint8 (height, width, 3) RGB, and returns the picture of its face alone, or None without one."""


def read_clips(
    folder: Path | str,
    *,
    window: int,
    image_size: int = 48,
    emotions: tuple[str, ...] | None = None,
    root: Path | None = None,
    crop: Crop | None = None,
    progress: Progress | None = None,
) -> LabelledClips:
    """Read a folder that holds one folder per emotion; images uint8 (n, window, image_size, image_size, 1), in grey.

    In an emotion's folder every file is a clip (mp4, mkv, gif, webm ...), every folder one whose frames are its images,
    in the order of the numbers in their names. Of each clip `window` frames are taken, evenly from its first to its
    last: nobody knows where the apex lies. Every frame shows one face, cropped already, unless `crop` does that
    (`inference.detect.face_cropper`); where it finds none, the face of the frame before stands in.

    emotions, root, progress  as in `folders.read_folder`

    Where a split is missing it is cut clip by clip: give folders of your own for train, valid and test if one person
    has several clips, or the same people are on both sides.

    Raises FileNotFoundError, or ValueError that names the clip or folder at fault: one that cannot be decoded, that has
    fewer frames than the window, that is no face alone, or in which no face is found.
    """
    folder = Path(folder)
    clips = {emotion: _clips(path) for emotion, path in emotion_folders(folder).items()}
    emotions = emotions or tuple(clips)
    if unknown := set(clips) - set(emotions):
        raise ValueError(f"{folder} has folders for {', '.join(sorted(unknown))}; expected {', '.join(emotions)} only")
    chosen = [path for paths in clips.values() for path in paths]
    images = np.empty((len(chosen), window, image_size, image_size, 1), np.uint8)
    for done, (target, path) in enumerate(zip(images, chosen, strict=True), start=1):
        frames = read_window(path, window)
        height, width = frames[0].shape[:2]
        if crop is None and max(height, width) > 1.5 * min(height, width):
            raise ValueError(
                f"{path} is {width}x{height}, hardly a face alone: crop the faces first, or read the clips with "
                "read_clips(crop=face_cropper(...)) of fer_tf.inference.detect"
            )
        for place, face in zip(target, _faces(frames, crop, path) if crop else frames, strict=True):
            place[..., 0] = np.rint(to_crops(face, image_size) @ LUMA)
        if progress:
            progress(done, len(chosen))
    return LabelledClips(
        images=images,
        labels=np.repeat([emotions.index(emotion) for emotion in clips], [len(paths) for paths in clips.values()]),
        emotions=emotions,
        ids=np.array([path.relative_to(root or folder).as_posix() for path in chosen]),
    )


def read_window(path: Path, window: int) -> list[np.ndarray]:
    """Return `window` frames of a clip, uint8 (height, width, 3) RGB, evenly from its first to its last.

    path  a video file, or a folder of images

    Raises ValueError that names the clip for one that is shorter or cannot be decoded.
    """
    count = sum(1 for _ in _frames(path, decode=False))
    if count < window:
        raise ValueError(f"{path} has {count} frames, a window takes {window}: leave it out, or train a shorter window")
    places = np.linspace(0, count - 1, window).round().astype(int)
    wanted = set(places.tolist())
    frames = {k: frame for k, frame in enumerate(_frames(path)) if k in wanted}
    return [frames[k] for k in places.tolist()]


def _clips(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.iterdir() if not is_litter(path))
    if not found:
        raise ValueError(f"{folder} holds no clips: put some there, or delete the folder")
    return found


def _faces(frames: list[np.ndarray], crop: Crop, path: Path) -> list[np.ndarray]:
    """Return the face of every frame; one without takes that of the frame before, at the start of the one after."""
    faces = [crop(frame) for frame in frames]
    last = next((face for face in faces if face is not None), None)
    if last is None:
        raise ValueError(f"no face was found in {path}: leave it out, or try another detector")
    return [last := last if face is None else face for face in faces]


def _frames(path: Path, *, decode: bool = True) -> Iterator[np.ndarray | None]:
    """Yield the frames of a clip, or as many times None if they need only be counted."""
    if path.is_dir():
        for file in sorted(image_files(path), key=_by_number):
            yield read_image(file) if decode else None
        return
    import av

    try:
        with av.open(str(path)) as container:
            in_rgb = to_rgb(container.streams.video[0])
            for frame in container.decode(video=0):
                yield in_rgb(frame) if decode else None
    except (av.FFmpegError, IndexError) as error:  # IndexError: sound alone
        raise ValueError(f"{path} is no clip that can be decoded, or not a whole one: {error}") from error


def _by_number(path: Path) -> list:
    """Sort frame_10 behind frame_9."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.as_posix())]
