"""Decode by NVDEC, the decoder of NVIDIA GPUs, with the same result as on the CPU.

Only codecs whose standard fixes every bit are decoded by it. Whatever is unusual about a file is an
`NvdecError`, and the file is decoded on the CPU.
"""

import contextlib
import ctypes
from functools import cache
from typing import Any, Final

import av
import numpy as np
import numpy.typing as npt
from av.codec.hwaccel import HWAccel, hwdevices_available

CODECS: Final = ("h264", "hevc", "vp9", "av1")
_BLOCKING_SYNC: Final = 4  # of CUDA's contexts: what FFmpeg wants of the one that it shares


class NvdecError(Exception):
    """NVDEC does not decode a file, or may not decode it as the CPU does."""


def missing() -> str | None:
    """Return why this machine cannot decode by NVDEC; None if it may."""
    if "cuda" not in hwdevices_available():
        return "PyAV was built without it"
    for name in ("libcuda.so.1", "libnvcuvid.so.1"):
        try:
            ctypes.CDLL(name)
        except OSError:
            return f"{name} of NVIDIA's driver is missing"
    return None


@cache
def accelerator(gpu: int) -> HWAccel:
    """Return what opens files for a GPU; all files of this process share its context."""
    with contextlib.suppress(OSError, AttributeError):
        cuda, context = ctypes.CDLL("libcuda.so.1"), ctypes.c_void_p()
        # Held until the process ends, so that files need not make it anew.
        cuda.cuInit(0)
        cuda.cuDevicePrimaryCtxSetFlags_v2(gpu, _BLOCKING_SYNC)
        cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), gpu)
    options: dict[str, object] = {"primary_ctx": "1"}
    return HWAccel("cuda", str(gpu), allow_software_fallback=False, options=options)


def check_codec(stream: Any) -> None:
    """Raise an NvdecError if the codec of an open stream is not one of NVDEC's."""
    context = stream.codec_context
    if context.name not in CODECS or not context.is_hwaccel:
        raise NvdecError(f"codec {context.name}")


def planes(
    frame: av.VideoFrame, size: tuple[int, int]
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Return the planes Y [H, W], U and V [H / 2, W / 2] of an NV12 frame of a size.

    Raises:
        NvdecError: The frame is not one of 8 bits in 4:2:0 that is shown as it is stored.
    """
    height, width = size
    plain = (frame.height, frame.width) == size and not frame.rotation
    if frame.format.name != "nv12" or not plain or frame.interlaced_frame:
        raise NvdecError(f"{frame.format.name} of {frame.width}x{frame.height} pixels")
    parts: Any = frame.planes
    luma, chroma = (np.frombuffer(part, np.uint8).reshape(-1, part.line_size) for part in parts)
    pairs = chroma[: height // 2, :width]
    return luma[:height, :width], pairs[:, 0::2], pairs[:, 1::2]
