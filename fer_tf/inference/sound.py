"""`Sound`: the audio of a clip, carried over to the new pictures of that clip, in step with them."""

import logging
import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

COPIED = {"aac": 0, "mp3": 0, "ac3": 0, "eac3": 0, "opus": 19, "flac": 34, "alac": 36}
"""Codecs whose packets go into an mp4 as they are, with the bytes of their header; every other one becomes AAC."""
BIT_RATE = 128_000
"""Bits per second of sound that becomes AAC."""
_log = logging.getLogger(__name__)


def open_sound(source: Path | str, container, *, start_s: float) -> "Sound | None":
    """Return the `Sound` of a clip, or None if it has none, or, with a warning, none that can be read."""
    import av

    try:
        with av.open(f"file:{source}") as clip:
            if not clip.streams.audio:
                return None
            first = next(clip.decode(video=0), None) if clip.streams.video else None
            began_s = first.time if first and first.time else 0.0
        return Sound(source, container, start_s=began_s + start_s)
    except (av.FFmpegError, ValueError) as error:
        _log.warning("%s: its audio cannot be kept (%s)", source, error)
        return None


class Sound:
    """Moves the best audio track of `source` into `container`, an mp4 that is being written, piece by piece.

    start_s  when the first new picture is shown, in seconds on the clock of the source

    No more is read than the pictures need, so that little waits in memory. What precedes the first picture is dropped.
    Where the audio is damaged it is left out with a warning: the pictures are worth more.
    """

    def __init__(self, source: Path | str, container, *, start_s: float):
        import av

        self.source, self.target, self.start_s = source, container, start_s
        self.ready, self.lost = None, 0
        self.input = av.open(f"file:{source}")
        try:
            track = self.input.streams.best("audio")
            self.pieces = self._pieces(track)
            next(self.pieces)  # adds the stream to the container, before its first packet
        except BaseException:
            self.input.close()
            raise

    def write_until(self, time_s: float) -> None:
        """Write the sound before `time_s`, in seconds since the first new picture, to the nearest packet."""
        while packet := self.ready or self._next():
            self.ready = packet
            if float((packet.pts + (packet.duration or 0) / 2) * packet.time_base) >= time_s:
                return
            self.ready = None
            try:
                self.target.mux(packet)
            except ValueError as error:  # not of its codec, or not after the last; a full disk is another error
                self.lose(error)

    def lose(self, error: Exception) -> None:
        """Count a piece that the container or the decoder refuses."""
        _log.debug("%s: %s", self.source, error)
        self.lost += 1

    def close(self) -> None:
        self.pieces.close()
        self.input.close()
        if self.lost:
            _log.warning("%s: %d damaged pieces of its audio are left out", self.source, self.lost)

    def _next(self):
        import av

        try:
            return next(self.pieces, None)
        except (av.FFmpegError, ValueError) as error:
            _log.warning("%s: its audio ends early, it cannot be read further (%s)", self.source, error)
            return None

    def _pieces(self, track) -> Iterator:
        """Add the stream, yield None once, then the packets to write, their times on the clock of the new pictures."""
        coder = track.codec_context
        if coder is None or not track.rate:
            raise ValueError("nothing here decodes it")
        copied = len(coder.extradata or b"") >= COPIED.get(coder.codec.canonical_name, math.inf)
        stream = self.target.add_stream_from_template(track) if copied else self._encoder(track)
        yield None
        packets = self._shifted(track)
        for packet in self._sound(packets) if copied else self._encoded(packets, stream):
            packet.stream = stream
            yield packet

    def _shifted(self, track) -> Iterator:
        """Yield the packets of the track that are heard with the new pictures."""
        start = round(self.start_s / track.time_base)
        for packet in self.input.demux(track):
            timed = packet.pts is not None and packet.dts is not None
            if timed and packet.size:
                packet.pts, packet.dts = packet.pts - start, packet.dts - start
                # A decoder needs the packet before the one that it plays. An mp4 says where within them to begin.
                if packet.pts + 2 * (packet.duration or 0) > 0:
                    yield packet
            elif not packet.size and packet.dts is None:  # the end, which gets the rest out of a decoder
                yield packet

    def _encoder(self, track):
        import av

        known = track.rate in av.Codec("aac", "w").audio_rates
        stream = self.target.add_stream("aac", rate=track.rate if known else 48_000)
        stream.bit_rate = BIT_RATE
        stream.layout = "mono" if track.channels == 1 else "stereo"
        return stream

    def _sound(self, packets: Iterator) -> Iterator:
        """Yield the packets that can be decoded; a muxer that meets another may take the pictures after it along."""
        for packet in packets:
            if packet.size and self._decoded(packet) is not None:
                yield packet

    def _encoded(self, packets: Iterator, stream) -> Iterator:
        due_s = Fraction(0)
        for frame in (frame for packet in packets for frame in self._decoded(packet) or ()):
            if frame.pts is None:  # one of several in a packet
                frame.pts = round(due_s / frame.time_base)
            due_s = frame.pts * frame.time_base + Fraction(frame.samples, frame.rate)
            yield from stream.encode(frame)
        yield from stream.encode(None)

    def _decoded(self, packet) -> list | None:
        import av

        try:
            return packet.decode()
        except av.FFmpegError as error:
            self.lose(error)
            return None
