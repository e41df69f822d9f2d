"""How well tracks keep to known identities: CLEAR MOT (Bernardin and Stiefelhagen 2008). Needs SciPy."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from fer_tf.inference.track import overlap

Identified = tuple[np.ndarray, np.ndarray]
"""Identities int (n,), none twice, and their boxes xyxy (n, 4) in one frame."""


@dataclass(frozen=True, kw_only=True)
class ClearMot:
    """Counts over a clip.

    faces            true faces in all frames
    misses           true faces without a track
    false_positives  boxes of tracks without a true face
    switches         matches of a face with another track than the one it was last matched with
    fragmentations   times that a face lost its track and was matched again, be it by the same track or another
    """

    faces: int
    misses: int
    false_positives: int
    switches: int
    fragmentations: int

    @property
    def mota(self) -> float:
        """Multiple object tracking accuracy: 1 is perfect; below 0 there are more errors than faces."""
        return 1 - (self.misses + self.false_positives + self.switches) / self.faces

    def __add__(self, other: "ClearMot") -> "ClearMot":
        """Return the counts of two clips together."""
        return ClearMot(**{name: count + getattr(other, name) for name, count in vars(self).items()})


def clear_mot(truth: Iterable[Identified], found: Iterable[Identified], *, min_iou: float = 0.5) -> ClearMot:
    """Hold tracks against the truth, frame by frame; both give the same frames.

    A face and a track may match where they overlap by `min_iou`. Matches of the frame before are kept as long as they
    may; the others are those with the greatest overlap in sum. Frames in which a face is not there at all, as when it
    has left the picture, neither are misses nor break its track.

    Raises ValueError for lengths that differ, an identity twice in a frame, or no face at all.
    """
    from scipy.optimize import linear_sum_assignment

    faces = misses = false_positives = switches = fragmentations = 0
    before: dict[int, int] = {}  # face -> track, matched in the frame before
    last: dict[int, int] = {}  # the same, whenever it was last matched
    lost: set[int] = set()  # faces missed since then
    for (people, people_xyxy), (tracks, tracks_xyxy) in zip(truth, found, strict=True):
        people, tracks = np.asarray(people).tolist(), np.asarray(tracks).tolist()
        for name, ids in (("truth", people), ("found", tracks)):
            if len(set(ids)) < len(ids):
                raise ValueError(f"{name} must name each identity once per frame, got {ids}")
        shared = overlap(np.asarray(people_xyxy, float).reshape(-1, 4), np.asarray(tracks_xyxy, float).reshape(-1, 4))
        kept = np.array([[before.get(person) == track for track in tracks] for person in people]).reshape(shared.shape)
        weight = np.where(shared >= min_iou, shared + len(people) * kept, 0)  # one kept outweighs all others
        pairs = zip(*linear_sum_assignment(weight, maximize=True), strict=True)
        matched = {people[i]: tracks[j] for i, j in pairs if weight[i, j] > 0}
        switches += sum(last.get(person, track) != track for person, track in matched.items())
        fragmentations += len(lost & matched.keys())
        faces += len(people)
        misses += len(people) - len(matched)
        false_positives += len(tracks) - len(matched)
        before, last = matched, last | matched
        lost = (lost | (set(people) & last.keys())) - matched.keys()
    if not faces:
        raise ValueError("the truth names no face in any frame: without faces there is nothing to track")
    return ClearMot(
        faces=faces,
        misses=misses,
        false_positives=false_positives,
        switches=switches,
        fragmentations=fragmentations,
    )
