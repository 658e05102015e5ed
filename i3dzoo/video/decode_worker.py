"""Decode videos in a thread or a process of its own, and send their frames through shared memory.

The other side opens a video, plans with its description, and asks for frames:

    Open(path)          Opened(info)
    Read(info, wanted)  Frames(...), Frames(...), ..., Finished()
    Free(slot)          the frames of a slot were taken

A worker has a few slots of memory and waits while all are full, so its memory is bounded. This
module imports no PyTorch, which would take seconds to start in each process.
"""

import contextlib
import signal
import sys
import traceback
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, Literal

import av
import numpy as np
import numpy.typing as npt
from av.video.reformatter import VideoReformatter

from i3dzoo.errors import I3DZooError
from i3dzoo.video._container import scan_container
from i3dzoo.video._nvdec import NvdecError
from i3dzoo.video._nvdec import planes as nv12_planes
from i3dzoo.video._packet_table import agrees, expect_container
from i3dzoo.video._pixels import quarter_turns, to_array
from i3dzoo.video._webp import is_animated_webp
from i3dzoo.video.decode import probe, stream_exact
from i3dzoo.video.info import Channels, VideoInfo

SLOTS: Final = 3
SLOT_BYTES: Final = 8 << 20

_CHECK_FRAMES: Final = 64  # frames after which requests are looked for

Colours = Literal["rgb", "bt601", "bt601-full", "bt709", "bt709-full"]
"""RGB or flow [H, W, C]; or YUV 4:2:0 as planes one after the other, [H * 3 / 2, W]."""

_MATRICES: Final[dict[int, Colours]] = {1: "bt709", 2: "bt601", 5: "bt601", 6: "bt601"}
_FULL_RANGE: Final = 2
_PLANAR: Final = ("yuv420p", "yuvj420p")


@dataclass(frozen=True)
class Open:
    """Describe a video; `quick` if the whole file will be read, which checks the description."""

    path: Path
    channels: Channels
    quick: bool


@dataclass(frozen=True)
class Opened:
    """The description of a video; `checked` is False for what the packets let expect."""

    info: VideoInfo
    checked: bool


@dataclass(frozen=True, eq=False)
class Read:
    """Send frames in increasing order; `planar` lets YUV frames stay as they are."""

    info: VideoInfo
    wanted: npt.NDArray[np.int64]
    checked: bool
    planar: bool


@dataclass(frozen=True, eq=False)
class Frames:
    """Frames in a slot, or in `data` if one frame is larger than a slot."""

    shape: tuple[int, ...]  # [n, H, W, C]; of planes [n, H * 3 / 2, W]
    dtype: str
    colours: Colours
    slot: int | None
    data: npt.NDArray[Any] | None = None


@dataclass(frozen=True)
class Free:
    """The frames of a slot were taken."""

    slot: int


@dataclass(frozen=True)
class Skip:
    """Stop reading this video."""


@dataclass(frozen=True)
class Finished:
    """All frames were sent; `changed` is the description that decoding found, if it is another."""

    changed: VideoInfo | None = None


@dataclass(frozen=True)
class Failed:
    """A video cannot be used (`error`), or this program has an error (`crash`, its traceback)."""

    error: I3DZooError | None
    crash: str = ""


class _SkippedError(Exception):
    """The other side wants no more of this video."""


class DecodeWorker:
    """Answers the requests that come through a connection, until it is closed.

    `gpu` is the GPU whose NVDEC decodes what it can; None decodes on the CPU.
    """

    def __init__(
        self,
        connection: "Connection[Any, Any]",
        memory: npt.NDArray[np.uint8],
        threads: int,
        gpu: int | None = None,
    ) -> None:
        self.connection, self.memory = connection, memory
        self.threads, self.gpu = threads, gpu
        self.slot_bytes = len(memory) // SLOTS
        self.free = list(range(SLOTS))
        self._slot: int | None = None  # the one that is being filled
        self._kind: tuple[tuple[int, ...], str, Colours] = ((), "", "rgb")
        self._count = 0
        self._sent = False  # frames of the file that is being read

    def run(self) -> None:
        """Answer requests."""
        try:
            while True:
                request = self._receive()
                if isinstance(request, Open | Read):
                    self._answer(request)
        except (EOFError, OSError):
            return  # the other side has ended

    def _answer(self, request: Open | Read) -> None:
        try:
            answer: Any = self._open(request) if isinstance(request, Open) else self._read(request)
        except _SkippedError:
            answer = Finished()
        except I3DZooError as error:
            answer = Failed(type(error)(*error.args))
        except (EOFError, OSError):
            raise
        except Exception:  # a bug in a decoder; the other process raises it with its traceback
            answer = Failed(None, traceback.format_exc())
        self._discard()  # the frames of a video that failed
        self.connection.send(answer)

    def _discard(self) -> None:
        """Drop the frames of the slot that is being filled."""
        if self._slot is not None:
            self.free.append(self._slot)
            self._slot = None

    def _receive(self) -> Any:
        request = self.connection.recv()
        if isinstance(request, Free):
            self.free.append(request.slot)
        return request

    def _open(self, request: Open) -> Opened:
        path = request.path
        plain = request.quick and request.channels == "rgb" and path.is_file()
        if plain and path.suffix.lower() not in (".npy", ".npz") and not is_animated_webp(path):
            expected = expect_container(path)
            if expected is not None:
                return Opened(expected, checked=False)
        return Opened(probe(path, request.channels), checked=True)

    def _read(self, request: Read) -> Finished:
        if request.checked:
            for _, pixels in stream_exact(request.info, request.wanted, self.threads):
                self._pack([pixels], pixels.shape, pixels.dtype.name, "rgb")
            self._send()
            return Finished()
        if self.gpu is not None and request.planar:
            self._sent = False
            with contextlib.suppress(NvdecError):
                if agrees(request.info, self._decode(request, self.gpu)):
                    self._send()
                    return Finished()
            if self._sent:  # what the other side has must be replaced
                return Finished(changed=probe(request.info.path))
            self._discard()
        decoded = self._decode(request, None)
        self._send()
        if agrees(request.info, decoded):
            return Finished()
        # With several threads, a damaged file loses different frames every time.
        if decoded is None or (decoded.warnings and self.threads != 1):
            decoded = probe(request.info.path)
        return Finished(changed=decoded)

    def _decode(self, request: Read, gpu: int | None) -> VideoInfo | None:
        """Pack the wanted frames of a file, and return its description."""
        scan = scan_container(request.info.path, self.threads if gpu is None else 1, gpu)
        pending = iter(request.wanted.tolist())
        target = next(pending, None)
        reformatter, index = VideoReformatter(), 0
        while True:
            try:
                frame = next(scan)
            except StopIteration as end:
                decoded: VideoInfo | None = end.value
                return decoded
            if index == target:
                self._convert(frame, request, None if gpu is not None else reformatter)
                target = next(pending, None)
            elif index % _CHECK_FRAMES == 0:
                self._check_requests()
            index += 1

    def _convert(
        self, frame: av.VideoFrame, request: Read, reformatter: VideoReformatter | None
    ) -> None:
        """Pack a frame; without a reformatter, it is one of NVDEC."""
        size = request.info.height, request.info.width
        if reformatter is None:
            parts = nv12_planes(frame, size)
            if (colours := _planar(frame, size, ["nv12"])) is None:
                raise NvdecError("colours")
            self._pack(parts, (size[0] * 3 // 2, size[1]), "uint8", colours)
        elif request.planar and (colours := _planar(frame, size, _PLANAR)) is not None:
            planes = [_plane(plane) for plane in frame.planes]
            self._pack(planes, (size[0] * 3 // 2, size[1]), "uint8", colours)
        else:
            pixels = to_array(frame, reformatter, request.info.path, size)
            self._pack([pixels], pixels.shape, "uint8", "rgb")

    def _pack(
        self,
        parts: Sequence[npt.NDArray[Any]],
        shape: tuple[int, ...],
        dtype: str,
        colours: Colours,
    ) -> None:
        """Put the parts of a frame into a slot, which is sent as soon as it is full."""
        kind, size = (shape, dtype, colours), sum(part.nbytes for part in parts)
        if kind != self._kind:
            self._send()
            self._kind = kind
        if size > self.slot_bytes:
            whole = np.concatenate([part.reshape(-1) for part in parts]).reshape(1, *shape)
            self._check_requests()
            self.connection.send(Frames((1, *shape), dtype, colours, None, whole))
            self._sent = True
            return
        if self._slot is None:
            self._slot, self._count = self._next_slot(), 0
        begin = self._slot * self.slot_bytes + self._count * size
        for part in parts:
            place = self.memory[begin : begin + part.nbytes].view(part.dtype)
            np.copyto(place.reshape(part.shape), part)
            begin += part.nbytes
        self._count += 1
        if (self._count + 1) * size > self.slot_bytes:
            self._send()

    def _send(self) -> None:
        """Send the slot that is being filled."""
        if self._slot is None:
            return
        shape, dtype, colours = self._kind
        slot, self._slot, self._sent = self._slot, None, True
        self.connection.send(Frames((self._count, *shape), dtype, colours, slot))

    def _next_slot(self) -> int:
        self._check_requests()
        while not self.free:
            self._check(self._receive())
        return self.free.pop()

    def _check_requests(self) -> None:
        while self.connection.poll():
            self._check(self._receive())

    def _check(self, request: Any) -> None:
        if isinstance(request, Skip):
            raise _SkippedError


def _planar(
    frame: av.VideoFrame, size: tuple[int, int], formats: Collection[str]
) -> Colours | None:
    """Return the colours of a YUV 4:2:0 frame that is shown as it is stored; None of others."""
    name = frame.format.name
    same = (frame.height, frame.width) == size and not quarter_turns(frame)
    if name not in formats or not same or size[0] % 2 or size[1] % 2:
        return None
    matrix = _MATRICES.get(int(frame.colorspace))
    if matrix is None:
        return None
    full: Colours = "bt709-full" if matrix == "bt709" else "bt601-full"
    return full if name == "yuvj420p" or int(frame.color_range) == _FULL_RANGE else matrix


def _plane(plane: Any) -> npt.NDArray[np.uint8]:
    lines = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
    return lines[:, : plane.width]


def process_main(
    descriptor: int, memory: int, size: int, threads: int, gpu: int | None = None
) -> None:
    """Run a worker in a process that inherits a connection and a file of shared memory."""
    import mmap

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the other side ends its workers
    slots: npt.NDArray[np.uint8] = np.frombuffer(mmap.mmap(memory, size), np.uint8)
    DecodeWorker(Connection(descriptor), slots, threads, gpu).run()


def process_arguments(
    descriptor: int, memory: int, size: int, threads: int, gpu: int | None
) -> list[str]:
    """Return the command of such a process: this interpreter with the same search path."""
    paths = [entry for entry in sys.path if entry]
    program = (
        f"import sys; sys.path[:] = {paths}; from {__name__} import process_main; "
        f"process_main({descriptor}, {memory}, {size}, {threads}, {gpu})"
    )
    return [sys.executable, "-c", program]
