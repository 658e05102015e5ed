"""Known traps: states of a machine that make results wrong, slow or impossible, with a remedy."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

_SHARED_MEMORY: Final = 1 << 30
_FREE: Final = 2 << 30


def find_traps(facts: Mapping[str, Any]) -> Iterator[str]:
    """Yield one sentence for each trap that the facts of an examination show.

    Args:
        facts: Parts of the document of an examination: `packages` (versions by name), `torch` (the
            report of its attempt), `driver`, `video`, `environment`, `free_bytes` of the cache,
            `shared_memory_bytes` and `archives`. What is missing or None is not judged.
    """
    torch = facts.get("torch") or {}
    packages = facts.get("packages") or {}
    yield from _conv3d(packages.get("torch"), torch.get("cudnn"))
    if facts.get("driver") and torch and not torch.get("gpus"):
        if not torch.get("cuda"):
            yield (
                "there is an NVIDIA driver, but this PyTorch is built without CUDA, so the CPU is "
                "used; install PyTorch with CUDA"
            )
        else:
            yield (
                f"there is an NVIDIA driver ({facts['driver']}), but PyTorch for CUDA "
                f"{torch['cuda']} finds no GPU: the driver may be too old, or CUDA_VISIBLE_DEVICES "
                "hides it"
            )
    yield from _twins(packages)
    video = facts.get("video") or {}
    if missing := video.get("missing_decoders"):
        yield (
            f"PyAV has no decoder for {', '.join(missing)}; install the wheel of av from the "
            "package index, which has them"
        )
    if "libx264" in video.get("missing_encoders", ()):
        yield "PyAV has no encoder libx264, so `predict --video` writes MPEG-4 instead of H.264"
    environment = facts.get("environment") or {}
    if environment.get("OMP_NUM_THREADS") == "1" and (facts.get("processors") or 1) > 1:
        yield "OMP_NUM_THREADS is 1, so PyTorch uses one processor; unset it for speed"
    if environment.get("HF_HUB_OFFLINE") not in (None, "", "0"):
        yield "HF_HUB_OFFLINE is set, so nothing is fetched from the Hub"
    if facts.get("archives") == []:
        yield "there is no bsdtar, unrar or 7z, so `prepare` cannot extract .rar files"
    free, shared = facts.get("free_bytes"), facts.get("shared_memory_bytes")
    if free is not None and free < _FREE:
        yield f"the disk of the cache has {free / 1e9:.1f} GB left; see i3dzoo cache ls"
    if shared is not None and shared < _SHARED_MEMORY:
        yield (
            f"the shared memory (/dev/shm) has {shared / 1e6:.0f} MB for the workers of training; "
            "start a container with --shm-size 8g, or train with --set loop.workers=0"
        )


def _conv3d(torch: str | None, cudnn: int | None) -> Iterator[str]:
    """Yield the faults of 3D convolutions in half precision.

    Sources: pytorch issues 166643 (2.9 avoids cuDNN before 9.15, and takes more memory and time)
    and 163539 (cuDNN 9.8 to 9.12 gives wrong results in bfloat16).
    """
    version = re.match(r"(\d+)\.(\d+)\.(\d+)", torch or "")
    if version is None or cudnn is None:
        return
    if version[1] == "2" and version[2] == "9" and (version[3] == "0" or cudnn < 91500):
        yield (
            f"PyTorch {torch} avoids cuDNN for 3D convolutions in half precision, and takes more "
            "memory and time (pytorch issue 166643); use another version, or 2.9.1 with "
            "nvidia-cudnn 9.15 or newer"
        )
    elif 90800 <= cudnn < 91300:
        yield (
            f"cuDNN {cudnn // 10000}.{cudnn // 100 % 100} may give wrong 3D convolutions in bf16 "
            "(pytorch issue 163539); use fp16 or fp32, or nvidia-cudnn 9.15 or newer"
        )


def _twins(packages: Mapping[str, str | None]) -> Iterator[str]:
    """Yield packages that overwrite each other's files."""
    cv2 = [name for name in packages if name.startswith("opencv-") and packages[name]]
    if len(cv2) > 1:
        yield (
            f"{' and '.join(cv2)} overwrite each other; uninstall all of them, and install "
            "opencv-contrib-python-headless"
        )
    onnx = [name for name in packages if name.startswith("onnxruntime") and packages[name]]
    if len(onnx) > 1:
        yield f"{' and '.join(onnx)} overwrite each other; uninstall all but one"
