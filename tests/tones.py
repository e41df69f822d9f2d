"""Clips with sound, made by PyAV alone: grey pictures, and a tone whose beginning tells whether both are in step."""

from fractions import Fraction

import av
import numpy as np

NTSC = Fraction(30000, 1001)


def make_clip(
    path, codec: str = "aac", *, rate=NTSC, times=None, tone_s=1.0, begins_s=0.0, picture_s=0.0, seconds=2.0, hz=48_000
):
    """Write grey pictures from `picture_s` on, and sound from `begins_s` on that is silent until `tone_s`."""
    times = np.arange(round(seconds * rate)) / float(rate) if times is None else times
    wave = np.arange(round((picture_s + seconds - begins_s) * hz)) / hz + begins_s
    wave = np.where(wave >= tone_s, 0.5 * np.sin(2 * np.pi * 1000 * (wave - tone_s)), 0).astype(np.float32)
    with av.open(str(path), "w") as container:
        pictures = container.add_stream("libx264", rate=rate, width=64, height=48)
        pictures.codec_context.time_base = 1 / (rate * 100)
        pictures.options = {"tune": "zerolatency"}
        track = container.add_stream(codec, rate=hz)
        track.layout, track.bit_rate = "mono", 96_000
        for index, time_s in enumerate(times):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), index % 250, np.uint8), format="rgb24")
            frame.pts = round((picture_s + time_s) * rate * 100)
            frame.time_base = 1 / (rate * 100)
            container.mux(pictures.encode(frame))
        for start in range(0, len(wave), 960):
            frame = av.AudioFrame.from_ndarray(wave[None, start : start + 960], format="fltp", layout="mono")
            frame.sample_rate, frame.time_base = hz, Fraction(1, hz)
            frame.pts = round(begins_s * hz) + start
            container.mux(track.encode(frame))
        for stream in (pictures, track):
            container.mux(stream.encode(None))
    return path
