"""A clip keeps its audio: in step with the pictures, no longer than they are, and never at their cost."""

import logging
from fractions import Fraction

import av
import numpy as np
import pytest
from squares import BLIND
from tones import NTSC, make_clip

from fer_tf.inference import sound
from fer_tf.inference.clips import VideoWriter, probe, read_frames
from fer_tf.inference.video import annotate_video


def carry_over(source, target, *, frames: int | None = None, audio_from=None):
    """Read a clip and write it anew with its sound, as a run does; stop after so many frames."""
    writer = VideoWriter(target, rate=probe(source).rate, audio_from=source if audio_from is None else audio_from)
    for frame in read_frames(source, limit=frames):
        writer.write(frame.image, frame.time_s)
    assert writer.close(keep=True)
    return target


def heard(path) -> tuple[np.ndarray, np.ndarray]:
    """Return the times, in seconds since the first picture, and the samples of what a player plays."""
    with av.open(str(path)) as container:
        first_s = next(container.decode(video=0)).time
    with av.open(str(path)) as container:
        frames = [
            (frame.time, frame.rate, frame.to_ndarray()) for frame in container.decode(audio=0) if frame.pts is not None
        ]
    times = np.concatenate([time_s + np.arange(wave.shape[1]) / hz for time_s, hz, wave in frames])
    return times - first_s, np.concatenate([wave[0] for *_, wave in frames])


def onset_s(path) -> float:
    times, wave = heard(path)
    return times[np.abs(wave) > 0.2][0]


def audio_codec(path) -> str | None:
    with av.open(str(path)) as container:
        return container.streams.audio[0].codec_context.codec.canonical_name if container.streams.audio else None


@pytest.mark.parametrize(
    ("suffix", "codec", "kept"),
    [
        (".mp4", "aac", "aac"),
        (".mkv", "aac", "aac"),
        (".ts", "aac", "aac"),
        (".mkv", "libmp3lame", "mp3"),
        (".mkv", "ac3", "ac3"),
        (".mkv", "libopus", "opus"),
        (".mkv", "flac", "flac"),
        (".mov", "alac", "alac"),
        (".mkv", "pcm_s16le", "aac"),
        (".avi", "pcm_s16le", "aac"),
        (".asf", "wmav2", "aac"),
    ],
)
def test_audio_is_kept_in_step_and_copied_where_an_mp4_holds_it(suffix, codec, kept, tmp_path):
    source = make_clip(tmp_path / f"a{suffix}", codec)
    output = carry_over(source, tmp_path / "b.mp4")
    assert audio_codec(output) == kept
    assert onset_s(source) == pytest.approx(1.0, abs=0.04)
    assert onset_s(output) == pytest.approx(onset_s(source), abs=0.003)
    times, _ = heard(output)
    assert times[0] >= -0.001 and times[-1] == pytest.approx(2.0, abs=0.06)
    info = probe(output)
    assert (info.rate, info.frames) == (NTSC, 60)


@pytest.mark.parametrize("codec", ["aac", "flac", "pcm_s16le"])
@pytest.mark.parametrize(("begins_s", "picture_s"), [(0.0, 0.5), (0.4, 0.0), (0.7, 0.5), (0.1, 0.6)])
def test_audio_that_begins_before_or_after_the_pictures_stays_in_step(codec, begins_s, picture_s, tmp_path):
    source = make_clip(tmp_path / "a.mkv", codec, begins_s=begins_s, picture_s=picture_s, tone_s=1.3)
    output = carry_over(source, tmp_path / "b.mp4")
    assert onset_s(output) == pytest.approx(1.3 - picture_s, abs=0.005)
    times, _ = heard(output)
    assert times[0] == pytest.approx(max(0.0, begins_s - picture_s), abs=0.03)
    assert times[0] >= -0.001  # nothing is heard before the first picture
    with av.open(str(output)) as container:  # nor kept, but for what a decoder needs
        assert float(next(container.demux(audio=0)).pts * container.streams.audio[0].time_base) > -0.21


@pytest.mark.parametrize("codec", ["aac", "pcm_s16le"])
@pytest.mark.parametrize("frames", [1, 15, 40])
def test_a_run_that_stops_early_ends_its_audio_with_the_last_picture(codec, frames, tmp_path):
    output = carry_over(make_clip(tmp_path / "a.mkv", codec, tone_s=0.0), tmp_path / "b.mp4", frames=frames)
    times, wave = heard(output)
    assert times[-1] == pytest.approx(frames / NTSC, abs=0.03) and np.abs(wave).max() > 0.2
    assert probe(output).frames == frames


@pytest.mark.parametrize("codec", ["aac", "pcm_s16le"])
def test_pictures_from_the_middle_of_a_clip_get_its_middle_of_the_audio(codec, tmp_path):
    source = make_clip(tmp_path / "a.mkv", codec)
    writer = VideoWriter(tmp_path / "b.mp4", rate=NTSC, audio_from=source)
    for frame in read_frames(source, limit=50):
        if frame.index >= 15:
            writer.write(frame.image, frame.time_s)
    writer.close(keep=True)
    times, _ = heard(tmp_path / "b.mp4")
    assert onset_s(tmp_path / "b.mp4") == pytest.approx(onset_s(source) - 15 / NTSC, abs=0.005)
    assert -0.001 <= times[0] < 0.01 and times[-1] == pytest.approx(35 / NTSC, abs=0.03)


def test_uneven_times_are_kept_beside_audio(tmp_path):
    uneven = [0, 0.04, 0.2, 0.24, 1.0, 1.9]
    source = make_clip(tmp_path / "a.mkv", rate=Fraction(25), times=uneven)
    output = carry_over(source, tmp_path / "b.mp4")
    np.testing.assert_allclose([frame.time_s for frame in read_frames(output)], uneven, atol=0.004)
    assert onset_s(output) == pytest.approx(onset_s(source), abs=0.003)


def test_audio_waits_for_the_pictures(tmp_path):
    source = make_clip(tmp_path / "a.mkv", "pcm_s16le")
    writer = VideoWriter(tmp_path / "b.mp4", rate=NTSC, audio_from=source)
    for frame in read_frames(source, limit=30):
        writer.write(frame.image, frame.time_s)
        waiting = writer.sound.ready
        assert abs(float(waiting.pts * waiting.time_base) - frame.time_s) < 0.03  # a packet is 0.02 s
    assert writer.close(keep=False) is False and [path.name for path in tmp_path.iterdir()] == ["a.mkv"]


def test_an_annotated_clip_has_the_audio_of_its_source(engine, workers, tmp_path):
    source, output = make_clip(tmp_path / "a.mkv"), tmp_path / "b.mp4"
    annotate_video(source, engine=engine, detector=BLIND, output=output, limit=45, workers=workers)
    times, _ = heard(output)
    assert onset_s(output) == pytest.approx(onset_s(source), abs=0.003)
    assert times[-1] == pytest.approx(45 / NTSC, abs=0.03) and probe(output).frames == 45


def test_a_clip_without_audio_stays_without(clip, caplog):
    output = carry_over(clip, clip.with_name("b.mp4"))
    assert audio_codec(output) is None and probe(output).frames == 30 and not caplog.records


def damaged(source):
    """Overwrite most of what the audio packets of a file hold, past the first ones."""
    data = bytearray(source.read_bytes())
    with av.open(str(source)) as container:
        packets = [bytes(packet) for packet in container.demux(audio=0) if packet.size]
    noise = np.random.default_rng(0)
    for packet in packets[len(packets) // 4 :]:
        place = data.find(packet)
        assert place > 0
        data[place : place + len(packet)] = noise.integers(0, 256, len(packet), np.uint8).tobytes()
    target = source.with_name(f"damaged{source.suffix}")
    target.write_bytes(data)
    return target


@pytest.mark.parametrize("codec", ["aac", "ac3", "libmp3lame", "flac", "wmav2"])
def test_damaged_audio_costs_no_picture(codec, tmp_path, caplog):
    suffix = ".asf" if codec == "wmav2" else ".mkv"
    output = carry_over(damaged(make_clip(tmp_path / f"a{suffix}", codec, tone_s=0.0)), tmp_path / "b.mp4")
    assert probe(output).frames == len(list(read_frames(output))) == 60
    assert audio_codec(output) is not None
    if codec == "ac3":  # the others decode noise
        assert "damaged pieces of its audio are left out" in caplog.text


def test_audio_whose_times_go_back_costs_no_picture(tmp_path, monkeypatch):
    shifted = sound.Sound._shifted

    def confused(self, track):
        for count, packet in enumerate(shifted(self, track)):
            if count % 5 == 4 and packet.size:
                packet.pts = packet.dts = packet.pts // 2
            yield packet

    monkeypatch.setattr(sound.Sound, "_shifted", confused)
    for codec in ("aac", "pcm_s16le"):
        output = carry_over(make_clip(tmp_path / "a.mkv", codec, tone_s=0.0), tmp_path / "b.mp4")
        assert len(list(read_frames(output))) == 60 and audio_codec(output) == "aac"


def test_unreadable_audio_is_a_warning(tmp_path, caplog, monkeypatch):
    source = make_clip(tmp_path / "a.mkv")

    def broken(self, track):
        raise av.error.InvalidDataError(1, "broken")

    with caplog.at_level(logging.WARNING), monkeypatch.context() as patch:
        patch.setattr(sound.Sound, "_shifted", broken)
        output = carry_over(source, tmp_path / "b.mp4")
    assert "audio ends early" in caplog.text and str(source) in caplog.text
    assert probe(output).frames == 60
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        (tmp_path / "text.mkv").write_text("text")
        output = carry_over(source, tmp_path / "c.mp4", audio_from=tmp_path / "text.mkv")
    assert "its audio cannot be kept" in caplog.text and probe(output).frames == 60
