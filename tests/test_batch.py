"""Frames come back in order with their own logits, however their faces fell into batches and calls."""

import random
import time
from types import SimpleNamespace

import numpy as np
import pytest

from fer_tf.faces import Faces
from fer_tf.inference.batch import Batches
from fer_tf.inference.pipeline import Stage, run

pytestmark = pytest.mark.usefixtures("no_thread_is_left")
IMAGE = np.zeros((8, 8, 3), np.uint8)


def frames(counts, *, tracks=None):
    """Frames with so many faces; each face carries its own number in its score."""
    number = 0
    for index, count in enumerate(counts):
        score = np.arange(number, number + count, dtype=np.float32)
        xyxy = np.tile(np.float32([0, 0, 8, 8]), (count, 1))
        track_id = None if tracks is None else np.array(tracks[index], int)
        yield Faces(frame_index=index, time_s=index / 30, image=IMAGE, xyxy=xyxy, score=score, track_id=track_id)
        number += count


class Counting:
    """An engine whose logits tell a crop's number; several calls may be in flight, each takes a time of its own."""

    def __init__(self, *, requests=1, fails_at=None):
        self.card = SimpleNamespace(emotions=("a", "b"), input_shape=(2, 2, 3), window=1)
        self.requests, self.sizes, self.fails_at = requests, [], fails_at

    def logits(self, crops):
        self.sizes.append(len(crops))
        numbers = crops[:, 0, 0].astype(np.float32) @ np.float32([1, 256, 65536])
        if self.fails_at is not None and (numbers == self.fails_at).any():
            raise ValueError("no")
        time.sleep(random.Random(int(numbers.sum())).choice([0, 0, 0.001]))
        return np.stack([numbers, -numbers], axis=1)


def cut(faces, places, out):
    numbers = faces.score[places].astype(int)
    out[:] = np.stack([numbers % 256, numbers // 256 % 256, numbers // 65536], axis=1)[:, None, None]


def classified(counts, *, workers=3, chunk=5, tracks=None, engine, **choices):
    batches = Batches(engine, follow=lambda faces: faces, cut=cut, **choices)
    return list(run(frames(counts, tracks=tracks), stages(batches), workers=workers, chunk=chunk)), batches


def stages(batches):
    return [
        Stage("crop", [batches.gather], in_order=True),
        Stage("infer", [batches.classify] * batches.requests),
        Stage("finish", [batches.finish], in_order=True),
    ]


@pytest.mark.parametrize("requests", [1, 3])
@pytest.mark.parametrize("size", [1, 4, 7])
@pytest.mark.parametrize("chunk", [1, 16])
def test_every_face_gets_its_own_logits_in_order(requests, size, chunk, workers):
    counts = np.random.default_rng(0).choice([0, 0, 1, 1, 2, 3, 20], 150)
    engine = Counting(requests=requests)
    found, batches = classified(counts, engine=engine, size=size, chunk=chunk, workers=workers)
    assert [faces.frame_index for faces in found] == list(range(150))
    for faces in found:
        np.testing.assert_array_equal(faces.logits, np.stack([faces.score, -faces.score], axis=1))
    assert max(engine.sizes) <= size and batches.crops == counts.sum() == sum(engine.sizes)
    assert batches.calls == len(engine.sizes) and min(engine.sizes) > 0


def test_ten_thousand_frames_stay_in_order_with_a_randomly_delayed_engine():
    counts = np.random.default_rng(1).integers(0, 3, 10_000)
    found, _ = classified(counts, engine=Counting(requests=4), size=8)
    assert [faces.frame_index for faces in found] == list(range(10_000))
    got = np.concatenate([faces.logits[:, 0] for faces in found])
    np.testing.assert_array_equal(got, np.arange(counts.sum()))


def test_batches_are_full_across_the_frames_of_a_chunk(workers):
    engine = Counting()
    classified([1, 3, 0, 2] * 8, engine=engine, size=8, chunk=16, workers=workers)
    assert engine.sizes == [8] * 6


@pytest.mark.parametrize("requests", [1, 3])
def test_a_tracked_face_keeps_what_it_was_found_to_be_until_its_turn(requests, workers):
    """Track 7 on all frames, track 9 on frames 2 to 5; each is classified on every third frame since it came."""
    tracks = [[7], [7], [7, 9], [7, 9], [9, 7], [7, 9], [7], [], [7]]
    counts = [len(track) for track in tracks]
    engine = Counting(requests=requests)
    found, batches = classified(counts, engine=engine, size=4, every=3, tracks=tracks, workers=workers)
    seen = {}
    for faces in found:
        for track, number in zip(faces.track_id.tolist(), faces.logits[:, 0].tolist(), strict=True):
            seen.setdefault(track, []).append(int(number))
    assert seen == {7: [0, 0, 0, 4, 4, 4, 10, 10], 9: [3, 3, 3, 9]}
    assert batches.crops == 5


@pytest.mark.parametrize("requests", [1, 3])
def test_a_call_that_fails_loses_nothing_before_it(requests, workers):
    batches, got = Batches(Counting(requests=requests, fails_at=21), follow=lambda faces: faces, cut=cut, size=4), []
    with pytest.raises(RuntimeError, match="infer: no"):
        for faces in run(frames([1] * 100), stages(batches), workers=workers, chunk=10):
            got.append(faces.frame_index)
    assert got == list(range(20))


def test_what_was_gathered_before_a_frame_that_fails_is_not_lost(workers):
    def follow(faces):
        if faces.frame_index == 13:
            raise ValueError("no")
        return faces

    batches, got = Batches(Counting(), follow=follow, cut=cut, size=8), []
    with pytest.raises(RuntimeError, match="crop: no"):
        for faces in run(frames([1] * 100), stages(batches), workers=workers, chunk=8):
            got.append(faces.frame_index)
    assert got == list(range(13))
