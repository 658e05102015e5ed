"""Take the frames out of an open video file, and find out what a damaged one has lost."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import av
import av.error

_MAX_ERRORS: Final = 100  # after this many errors, the rest of a file is given up

_GAP: Final = 24  # bytes between chunks of an AVI without damage: headers, padding, lists


@dataclass
class Report:
    """What was found while a file was decoded.

    Attributes:
        frames: Frames that were decoded.
        packets: Packets of the video stream.
        lost: Packets and frames that are broken.
        places: Number of places where something was lost.
        first: Frames before the first of these places.
        latest: Frames before the last of them.
        end: Time in seconds at which the last packet ends.
        partial: Whether the file ends within a packet.
        gap: Whether there are bytes between packets that are not packets.
        unflushed: Whether the decoder failed to return its last frames.
    """

    frames: int = 0
    packets: int = 0
    lost: int = 0
    places: int = 0
    first: int | None = None
    latest: int | None = None
    end: float = 0.0
    partial: bool = False
    gap: bool = False
    unflushed: bool = False

    def lose(self, count: int = 1) -> None:
        """Note that packets or frames are lost at this place."""
        self.lost += count
        self.places += self.frames != self.latest
        self.latest = self.frames
        if self.first is None:
            self.first = self.frames


def decode(container: Any, stream: Any, report: Report | None = None) -> Iterator[av.VideoFrame]:
    """Yield the frames that can be decoded; the report counts those that are lost."""
    report = report or Report()
    repeats: deque[int] = deque()
    last: av.VideoFrame | None = None
    for packet in _packets(container, stream, report):
        if packet is not None and not packet.size:
            repeats.append(packet.pts)  # an empty packet of Theora shows the last frame again
            continue
        for frame in decode_packet(stream, packet, report):
            while repeats and frame.pts is not None and repeats[0] < frame.pts:
                yield from _repeat(last, repeats.popleft(), report)
            last = frame
            report.frames += 1
            yield frame
    for pts in repeats:
        yield from _repeat(last, pts, report)


def _repeat(last: av.VideoFrame | None, pts: int, report: Report) -> Iterator[av.VideoFrame]:
    if last is not None:
        last.pts = pts
        report.frames += 1
        yield last


def _packets(container: Any, stream: Any, report: Report) -> Iterator[Any]:
    """Yield the packets of the stream, beyond damage where possible, and None after the last."""
    # Only between all packets of a file is a gap one.
    streams = () if container.format.name == "avi" else (stream,)
    end: int | None = None
    for _ in range(_MAX_ERRORS):
        try:
            for packet in container.demux(*streams):
                if not packet.size and packet.pts is None:
                    continue  # the end of a stream
                if not streams and packet.pos is not None:
                    if end is not None and packet.pos > end + _GAP:
                        report.gap = True
                        report.lose(0)
                    end = max(packet.pos + packet.size, end or 0)
                if packet.stream is stream:
                    report.partial = packet.is_corrupt
                    yield packet
            break
        except IndexError:
            break  # PyAV, at the end of a transport stream that declared another stream on the way
        except (av.error.FFmpegError, OSError):
            if report.partial:
                break  # nothing was read since the last error
            report.partial = True
            report.lose(0)
    yield None


def decode_packet(stream: Any, packet: Any, report: Report) -> list[av.VideoFrame]:
    """Return the frames that a packet, or None after the last one, completes."""
    if packet is not None:
        report.packets += 1
        begin = packet.dts if packet.dts is not None else packet.pts
        if begin is not None and packet.time_base:
            end = float((begin + (packet.duration or 0)) * packet.time_base)
            report.end = max(report.end, end)
        if packet.is_corrupt:
            report.lose()
            return []
    try:
        # None flushes the decoder after the last packet, so that delayed frames are not lost.
        frames = list(stream.codec_context.decode(packet))
    except (av.error.FFmpegError, ValueError):
        if packet is None:
            report.unflushed = True
        else:
            report.lose()
        return []
    whole = [frame for frame in frames if not frame.is_corrupt]
    if len(whole) < len(frames):
        report.lose(len(frames) - len(whole))
    return whole
