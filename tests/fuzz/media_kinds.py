"""Videos of several containers, folders of images, and arrays."""

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
from helpers.video_files import numbered
from PIL import Image

from fuzz import mutators as damage
from fuzz.kind import Kind
from fuzz.shared import Shared, run_apart
from i3dzoo.checkpoints.metadata import Input
from i3dzoo.video.loader import centre_clip


def _video(
    file: str, codec: str, pixels: str, container: str | None = None
) -> Callable[[Path, Shared], None]:
    def build(folder: Path, _: Shared) -> None:
        with av.open(str(folder / file), "w", format=container) as output:
            stream = output.add_stream(codec, rate=25)
            stream.height, stream.width, stream.pix_fmt = 40, 48, pixels
            stream.thread_count = 1
            for array in numbered(24, 40, 48):
                frame = av.VideoFrame.from_ndarray(array, format="rgb24")
                output.mux(stream.encode(frame))
            output.mux(stream.encode(None))

    return build


def _images(ending: str) -> Callable[[Path, Shared], None]:
    def build(folder: Path, _: Shared) -> None:
        (folder / "frames").mkdir()
        for number, array in enumerate(numbered(10, 40, 48)):
            Image.fromarray(array).save(folder / "frames" / f"{number:06d}.{ending}")

    return build


def _flow_images(folder: Path, _: Shared) -> None:
    for part in ("u", "v"):
        (folder / "flow" / part).mkdir(parents=True)
        for number in range(17):
            grey = np.full((40, 48), 100 + number, "u1")
            Image.fromarray(grey).save(folder / "flow" / part / f"{number:06d}.jpg")


def _array(depth: int) -> Callable[[Path, Shared], None]:
    def build(folder: Path, _: Shared) -> None:
        frames = np.zeros((17, 40, 48, depth), "u1")
        np.save(folder / "x.npy", frames)

    return build


def _npz(folder: Path, _: Shared) -> None:
    np.savez(folder / "x.npz", rgb=np.zeros((17, 40, 48, 3), "u1"))


def _animated_webp(folder: Path, _: Shared) -> None:
    first, *others = map(Image.fromarray, numbered(12, 40, 48))
    first.save(folder / "x.webp", save_all=True, append_images=others, duration=40)


def _list(folder: Path, shared: Shared) -> None:
    (folder / "videos.txt").write_text(f"{shared.video}\n\n{shared.video}\n")


def _described_features(folder: Path, shared: Shared) -> None:
    run_apart("features", shared.video, "--model", shared.network, "-o", folder / "out")


def read_rgb(path: Path) -> None:
    """Read the centre clip of an input as `predict` does, without the network."""
    centre_clip(path, Input(resize=36, crop=32, frames=9))


def read_flow(path: Path) -> None:
    """Read the centre clip of optical flow."""
    spec = Input("xy", (0.5, 0.5), (0.5, 0.5), resize=36, crop=32, frames=9, flow_bound=20.0)
    centre_clip(path, spec)


_VIDEOS = {
    "mp4 h264": ("x.mp4", "libx264", "yuv420p", None),
    "avi mpeg4": ("x.avi", "mpeg4", "yuv420p", None),
    "avi mjpeg": ("x.avi", "mjpeg", "yuvj420p", None),
    "mov png": ("x.mov", "png", "rgb24", None),
    "mkv ffv1": ("x.mkv", "ffv1", "yuv420p", None),
    "webm vp8": ("x.webm", "libvpx", "yuv420p", None),
    "webm vp9": ("x.webm", "libvpx-vp9", "yuv420p", None),
    "y4m": ("x.y4m", "wrapped_avframe", "yuv420p", "yuv4mpegpipe"),
    "gif": ("x.gif", "gif", "rgb8", None),
    "mpeg": ("x.mpg", "mpeg2video", "yuv420p", None),
    "mpegts": ("x.ts", "mpeg2video", "yuv420p", None),
    "flv": ("x.flv", "flv1", "yuv420p", None),
    "wmv": ("x.wmv", "wmv2", "yuv420p", "asf"),
}
"""File, codec, pixel format and container, if the name of the file does not say it."""

_RGB, _FLOW = "fuzz.media_kinds:read_rgb", "fuzz.media_kinds:read_flow"
# not "auto", which would measure all engines again in the empty cache of each command
_MODEL = ("--model", "{shared}/rgb.safetensors", "--engine", "torch")

KINDS = (
    *(
        Kind(name, _video(*video), {video[0]: damage.damage_media}, (_RGB, video[0]))
        for name, video in _VIDEOS.items()
    ),
    *(
        Kind(f"images {ending}", _images(ending), {"frames/*": damage.damage_media},
             (_RGB, "frames"))
        for ending in ("jpg", "png", "bmp", "webp")
    ),
    Kind("images of flow", _flow_images, {"flow/*/*": damage.damage_media}, (_FLOW, "flow")),
    Kind("npy", _array(3), {"x.npy": damage.damage_npy}, (_RGB, "x.npy")),
    Kind("npy of flow", _array(2), {"x.npy": damage.damage_npy}, (_FLOW, "x.npy")),
    Kind("npz", _npz, {"x.npz": damage.damage_zip}, (_RGB, "x.npz")),
    Kind("npz headers", _npz, {"x.npz": damage.damage_member("rgb.npy", damage.damage_npy)},
         (_RGB, "x.npz")),
    Kind("animated webp", _animated_webp, {"x.webp": damage.damage_media}, (_RGB, "x.webp")),
    Kind("predict", _video(*_VIDEOS["y4m"]), {"x.y4m": damage.damage_media},
         ("predict", "x.y4m", *_MODEL, "--device", "cpu"), 0.15),
    Kind("predict over time", _video(*_VIDEOS["avi mpeg4"]), {"x.avi": damage.damage_media},
         ("predict", "x.avi", *_MODEL, "--device", "cpu", "--timeline"), 0.15),
    Kind("features", _video(*_VIDEOS["mp4 h264"]), {"x.mp4": damage.damage_media},
         ("features", "x.mp4", *_MODEL, "-o", "out"), 0.15, partial=("features.yaml",)),
    Kind("list of videos", _list, {"videos.txt": damage.damage_lines},
         ("features", "--list", "videos.txt", *_MODEL, "-o", "out"), 0.15,
         partial=("features.yaml", "*.json", "*.npy")),
    Kind("features.yaml", _described_features,
         {"out/features.yaml": damage.damage_yaml, "out/video.json": damage.damage_json},
         ("features", "{shared}/video.avi", *_MODEL, "-o", "out"), 0.2),
)  # fmt: skip
