"""Clips are read and written whole: every frame, at its time, upright, or with one clear error."""

from fractions import Fraction

import av
import numpy as np
import pytest
from tones import make_clip

from fer_tf.inference.clips import VideoWriter, probe, read_frames, write_video


@pytest.mark.parametrize("fps", [7.5, 24, 25, 29.97, 30000 / 1001, 59.94])
@pytest.mark.parametrize("size", [(64, 48), (33, 17)], ids=["even", "odd"])
def test_a_written_clip_keeps_rate_size_and_frames(fps, size, tmp_path):
    images = [np.full((size[1], size[0], 3), 20 * k, np.uint8) for k in range(10)]
    info = probe(write_video(tmp_path / "a.mp4", images, fps=fps))
    assert float(info.rate) == pytest.approx(fps, rel=1e-4) and info.frames == 10
    assert (info.width, info.height) == tuple(side + side % 2 for side in size)
    frames = list(read_frames(tmp_path / "a.mp4"))
    assert [frame.index for frame in frames] == list(range(10))
    np.testing.assert_allclose([frame.time_s for frame in frames], np.arange(10) / fps, atol=1e-4)
    for frame, image in zip(frames, images, strict=True):
        assert np.abs(frame.image[: size[1], : size[0]] - image.astype(int)).max() <= 4


def test_a_written_clip_plays_in_browsers(clip):
    with av.open(str(clip)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
    head = clip.read_bytes()
    assert head.index(b"moov") < head.index(b"mdat")  # it starts before it is loaded


def test_a_variable_rate_is_kept_and_a_rounded_clock_is_mended(tmp_path):
    uneven, rounded = [0, 0.04, 0.2, 0.24, 1.0], [0, 0.033, 0.067, 0.1, 0.133]
    for name, times in (("uneven", uneven), ("rounded", rounded)):
        writer = VideoWriter(tmp_path / f"{name}.mp4", rate=Fraction(30))
        for k, time_s in enumerate(times):
            writer.write(np.full((32, 32, 3), k, np.uint8), time_s)
        writer.close(keep=True)
    read = {name: [frame.time_s for frame in read_frames(tmp_path / f"{name}.mp4")] for name in ("uneven", "rounded")}
    np.testing.assert_allclose(read["uneven"], uneven, atol=0.004)
    np.testing.assert_allclose(read["rounded"], np.arange(5) / 30, atol=1e-4)


def test_frames_of_another_size_are_brought_to_the_first(tmp_path):
    write_video(tmp_path / "a.mp4", [np.zeros((48, 64, 3), np.uint8), np.zeros((30, 30, 3), np.uint8)], fps=5)
    assert [frame.image.shape for frame in read_frames(tmp_path / "a.mp4")] == [(48, 64, 3)] * 2


def append_h264(path, width: int, height: int) -> None:
    with av.open(str(path.with_name("part")), "w", format="h264") as container:
        stream = container.add_stream("libx264", rate=25, width=width, height=height)
        for level in range(0, 250, 50):
            image = np.full((height, width, 3), level, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    with path.open("ab") as file:
        file.write(path.with_name("part").read_bytes())


def test_reads_on_where_a_clip_changes_its_size(tmp_path):
    for size in ((64, 48), (32, 96)):
        append_h264(tmp_path / "a.h264", *size)
    frames = list(read_frames(tmp_path / "a.h264"))
    assert [frame.image.shape[:2] for frame in frames] == [(48, 64)] * 5 + [(96, 32)] * 5
    for k, frame in enumerate(frames):
        assert np.abs(frame.image.astype(int) - 50 * (k % 5)).max() <= 4
    write_video(tmp_path / "b.mp4", (frame.image for frame in frames), fps=25)
    assert (probe(tmp_path / "b.mp4").width, probe(tmp_path / "b.mp4").frames) == (64, 10)


def test_time_goes_on_where_a_clips_clock_begins_anew(tmp_path, caplog):
    with av.open(str(tmp_path / "part.ts"), "w") as container:
        stream = container.add_stream("libx264", rate=25, width=64, height=48)
        for _ in range(25):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode())
    (tmp_path / "both.ts").write_bytes((tmp_path / "part.ts").read_bytes() * 2)
    times = [frame.time_s for frame in read_frames(tmp_path / "both.ts")]
    np.testing.assert_allclose(np.diff(times), 0.04, atol=1e-3)
    assert len(times) == 50 and caplog.text.count("at frame 25 and is set on") == 1


@pytest.mark.parametrize(("oblong", "size"), [("2", (128, 48)), ("1/2", (64, 96)), ("1/900", (64, 48))])
def test_oblong_pixels_become_square(oblong, size, tmp_path):
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("libx264", rate=25, width=64, height=48)
        stream.codec_context.sample_aspect_ratio = Fraction(oblong)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), 90, np.uint8), format="rgb24")))
        container.mux(stream.encode())
    (frame,) = read_frames(tmp_path / "a.mkv")
    assert frame.image.shape[1::-1] == size and abs(int(frame.image.mean()) - 90) <= 2
    assert (probe(tmp_path / "a.mkv").width, probe(tmp_path / "a.mkv").height) == size


def test_a_pixel_is_a_clip(tmp_path):
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=5, width=1, height=1)
        stream.pix_fmt = "bgr0"
        for level in (0, 200):
            frame = av.VideoFrame.from_ndarray(np.full((1, 1, 3), level, np.uint8), format="rgb24")
            container.mux(stream.encode(frame.reformat(format="bgr0")))
        container.mux(stream.encode())
    assert [frame.image.tolist() for frame in read_frames(tmp_path / "a.mkv")] == [[[[0] * 3]], [[[200] * 3]]]
    info = probe(write_video(tmp_path / "b.mp4", [np.zeros((1, 1, 3), np.uint8)], fps=5))
    assert (info.width, info.height, info.frames) == (2, 2, 1)


def test_nothing_stays_of_a_clip_that_cannot_be_written(tmp_path):
    def broken():
        yield np.zeros((8, 8, 3), np.uint8)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_video(tmp_path / "a.mp4", broken(), fps=5)
    with pytest.raises(ValueError, match="no frames"):
        write_video(tmp_path / "b.mp4", [], fps=5)
    with pytest.raises(ValueError, match="at most 16384 pixels a side, got 8 x 16385: scale"):
        write_video(tmp_path / "c.mp4", [np.zeros((16385, 8, 3), np.uint8)], fps=5)
    assert list(tmp_path.iterdir()) == []


def test_an_encoder_that_fails_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr("fer_tf.inference.clips.MAX_SIDE", 99_999)
    writer = VideoWriter(tmp_path / "a.mp4", rate=Fraction(5))
    for step in (lambda: writer.write(np.zeros((8, 20_000, 3), np.uint8), 0.0), lambda: writer.close(keep=True)):
        with pytest.raises(OSError, match=r"a\.mp4 cannot be written \(Generic error"):
            step()
    assert list(tmp_path.iterdir()) == []


def test_reads_a_limited_number_of_frames(clip):
    assert [frame.index for frame in read_frames(clip, limit=7)] == list(range(7))
    with pytest.raises(ValueError, match="limit must be at least 1 frame, got 0"):
        read_frames(clip, limit=0)


def test_turns_a_rotated_clip_upright(tmp_path):
    upright = np.zeros((48, 64, 3), np.uint8)
    upright[:24, :32] = 255
    lying = write_video(tmp_path / "lying.mp4", [np.rot90(upright, -1)] * 3, fps=5)
    with av.open(str(lying)) as source, av.open(str(tmp_path / "turned.mp4"), "w") as target:
        track = source.streams.video[0]
        copy = target.add_stream_from_template(track)
        turn = av.BitStreamFilterContext("h264_metadata=display_orientation=insert:rotate=90", track, copy)
        for packet in [*source.demux(track), None]:
            for turned in turn.filter(packet):
                turned.stream = copy
                target.mux(turned)
    frames = list(read_frames(tmp_path / "turned.mp4"))
    assert len(frames) == 3
    assert np.abs(frames[0].image.astype(int) - upright).mean() < 8


@pytest.mark.parametrize("suffix", [".mkv", ".gif"])
def test_notices_a_file_that_ends_early_without_an_error(suffix, shared_data, tmp_path):
    source = shared_data / "video" / {".mkv": "yes.mkv", ".gif": "classroom.gif"}[suffix]
    cut = tmp_path / f"cut{suffix}"
    cut.write_bytes(source.read_bytes()[: source.stat().st_size * 6 // 10])
    with pytest.raises(OSError, match=r"breaks off after \d+ frames"):
        list(read_frames(cut))
    assert len(list(read_frames(source))) == {".mkv": 65, ".gif": 45}[suffix]


@pytest.mark.parametrize("suffix", [".mkv", ".flv", ".mp4", ".ts"])
@pytest.mark.parametrize("frames", [1, 6, 40])
def test_sound_may_be_longer_than_the_pictures(suffix, frames, tmp_path):
    clip = make_clip(tmp_path / f"a{suffix}", times=np.arange(frames) / 25, rate=Fraction(25), seconds=4.0, hz=44_100)
    assert len(list(read_frames(clip))) == frames
