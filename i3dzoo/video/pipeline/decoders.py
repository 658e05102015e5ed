"""The decoders of a run: threads of this process, or processes, each at one video at a time.

The network leaves a CPU no time to decode faster in processes than in threads, which start at once.
A GPU waits for Python, so that its decoders are processes: several threads would take turns.
"""

import contextlib
import mmap
import multiprocessing
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from i3dzoo.errors import VideoError
from i3dzoo.video.decode_worker import (
    SLOT_BYTES,
    SLOTS,
    DecodeWorker,
    Failed,
    Frames,
    Free,
    process_arguments,
)
from i3dzoo.video.parallel import interrupts_blocked
from i3dzoo.video.pipeline.colours import yuv_to_rgb
from i3dzoo.video.shared_memory import pin_memory, unpin_memory

_END_SECONDS: Final = 5.0


class Decoder:
    """One decoder, which a connection and a few slots of shared memory lead to."""

    def __init__(self, *, process: bool, threads: int, pin: bool, gpu: int | None = None) -> None:
        self.connection, other = multiprocessing.Pipe()
        self.process: subprocess.Popen[bytes] | None = None
        size = SLOTS * SLOT_BYTES
        if process:
            with _memory_file(size) as memory, interrupts_blocked():
                arguments = process_arguments(other.fileno(), memory, size, threads, gpu)
                self.process = subprocess.Popen(  # noqa: S603 - this interpreter, with our own code
                    arguments, pass_fds=(other.fileno(), memory), stdin=subprocess.DEVNULL
                )
                self._mapped = mmap.mmap(memory, size)
            other.close()
            self.memory: npt.NDArray[np.uint8] = np.frombuffer(self._mapped, np.uint8)
        else:
            self.memory = np.empty(size, np.uint8)
            worker = DecodeWorker(other, self.memory, threads, gpu)
            threading.Thread(target=_run, args=(worker, other), daemon=True).start()
        self.gpu = gpu
        self._pinned = pin and pin_memory(self.memory.ctypes.data, size)
        self._copies: list[tuple[Any, int]] = []  # to a GPU, with the slots they come from

    def send(self, request: object) -> None:
        """Send a request; a process that has ended is found when its answer is read."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.connection.send(request)

    def receive(self) -> Any:
        """Return the next answer; that of a process that has crashed is `Failed`."""
        try:
            return self.connection.recv()
        except (EOFError, ConnectionResetError):
            code = self.process.wait(_END_SECONDS) if self.process else 0
            how = f"signal {-code}" if code < 0 else f"exit status {code}"
            return Failed(VideoError(f"the decoder crashed ({how}); the file may be damaged"))

    @property
    def crashed(self) -> bool:
        """Whether it is a process that has ended."""
        return self.process is not None and self.process.poll() is not None

    def take(self, frames: Frames, device: torch.device) -> Tensor:
        """Return frames on a device, [n, H, W, C], and free their slot when it is copied."""
        if frames.slot is None:
            pixels = torch.from_numpy(frames.data).to(device)
        else:
            begin = frames.slot * SLOT_BYTES
            kind = np.dtype(frames.dtype)
            size = int(np.prod(frames.shape)) * kind.itemsize
            held = torch.from_numpy(
                self.memory[begin : begin + size].view(kind).reshape(frames.shape)
            )
            if device.type == "cuda":
                pixels = held.to(device, non_blocking=self._pinned)
                event = torch.cuda.Event()  # type: ignore[no-untyped-call] # torch has no types here
                event.record(torch.cuda.current_stream(device))
                self._copies.append((event, frames.slot))
            else:
                pixels = held.to(device, copy=True)
                self.send(Free(frames.slot))
        return pixels if frames.colours == "rgb" else yuv_to_rgb(pixels, frames.colours)

    def free_copied(self, *, block: bool) -> None:
        """Free the slots whose copies to a GPU have ended; `block` waits for them."""
        while self._copies and (block or self._copies[0][0].query()):
            event, slot = self._copies.pop(0)
            event.synchronize()
            self.send(Free(slot))

    def close(self) -> None:
        """End the decoder."""
        for event, _ in self._copies:
            event.synchronize()
        if self._pinned:
            unpin_memory(self.memory.ctypes.data)
        self.connection.close()
        if self.process is not None:
            self.process.kill()
            self.process.wait()


class Decoders:
    """As many decoders as are needed, up to a number.

    Args:
        most: The number.
        processes: Whether they are processes; not on Windows, where they are threads.
        threads: Threads of each that decode.
        pin: Whether their memory is pinned for copies to a GPU.
        nvdec: How many of them decode by NVDEC what it can decode.
        gpu: The number of its GPU.
    """

    def __init__(
        self, most: int, *, processes: bool, threads: int, pin: bool, nvdec: int = 0, gpu: int = 0
    ) -> None:
        self.most, self.nvdec, self.gpu = most, nvdec, gpu
        process = processes and sys.platform != "win32"
        self._start = partial(Decoder, process=process, threads=threads, pin=pin)
        self._all: list[Decoder] = []
        self._idle: list[Decoder] = []

    def idle(self) -> Decoder | None:
        """Return a decoder that has nothing to do; None if all are at work."""
        if self._idle:
            return self._idle.pop()
        if len(self._all) == self.most:
            return None
        begun = sum(decoder.gpu is not None for decoder in self._all)
        decoder = self._start(gpu=self.gpu if begun < self.nvdec else None)
        self._all.append(decoder)
        return decoder

    def release(self, decoder: Decoder) -> None:
        """Take back a decoder that has finished with a video."""
        if decoder.crashed:
            self._all.remove(decoder)
            decoder.close()
        else:
            self._idle.append(decoder)

    def answers(self) -> Iterator[tuple[Decoder, Any]]:
        """Wait until decoders have answered; yield one answer of each."""
        for decoder in self._all:
            decoder.free_copied(block=False)
        by_connection: dict[Any, Decoder] = {d.connection: d for d in self._all}
        ready = wait(list(by_connection), timeout=0)
        if not ready:
            for decoder in self._all:
                decoder.free_copied(block=True)
            ready = wait(list(by_connection))
        for connection in ready:
            yield by_connection[connection], by_connection[connection].receive()

    def close(self) -> None:
        """End all decoders."""
        for decoder in self._all:
            decoder.close()


def _run(worker: DecodeWorker, connection: "Connection[Any, Any]") -> None:
    with connection:
        worker.run()


@contextlib.contextmanager
def _memory_file(size: int) -> Iterator[int]:
    """Make a file in memory that other processes can map; its descriptor is closed afterwards."""
    if sys.platform == "linux":
        # unlike /dev/shm, which is 64 MB in a container, it has no limit of its own
        descriptor = os.memfd_create("i3dzoo-frames")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    try:
        os.ftruncate(descriptor, size)
        yield descriptor
    finally:
        os.close(descriptor)
