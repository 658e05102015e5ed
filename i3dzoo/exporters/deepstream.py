"""What runs an exported ONNX file outside Python: a trtexec command, and files for DeepStream.

The keys are those of the plugins Gst-nvdspreprocess and Gst-nvinfer, as NVIDIA's sample application
deepstream-3d-action-recognition sets them.
"""

import os
import shlex
from pathlib import Path
from typing import Final

from i3dzoo.errors import MetadataError
from i3dzoo.exporters.job import Export
from i3dzoo.files import atomic_write, check_output, make_folder
from i3dzoo.onnx.options import INPUT

BATCHES: Final = (1, 4, 8)
"""The smallest, usual and largest batch of the engine that trtexec builds."""

_LIBRARY: Final = (
    "/opt/nvidia/deepstream/deepstream/lib/libnvds_custom_sequence_preprocess.so"  # of DeepStream
)


def trtexec_command(export: Export) -> str:
    """Return the command that builds a TensorRT engine of an ONNX file, as NVIDIA documents it."""
    spec, stream = export.metadata.input, export.metadata.stream
    clip = f"{len(spec.mean)}x{spec.frames}x{spec.crop}x{spec.crop}"
    shapes = [
        f"--{name}Shapes={INPUT[stream]}:{batch}x{clip}"
        for name, batch in zip(("min", "opt", "max"), BATCHES, strict=True)
    ]
    engine = export.path.with_suffix(".engine")
    words = [f"--onnx={export.path}", *shapes, "--fp16", f"--saveEngine={engine}"]
    return shlex.join(["trtexec", *words])


def write_deepstream(folder: Path, export: Export, *, force: bool = False) -> tuple[Path, ...]:
    """Write the files with which DeepStream's 3D action recognition runs an ONNX file.

    They are config_infer_primary_3d_action.txt, config_preprocess_3d_custom.txt and labels.txt.

    Raises:
        MetadataError: DeepStream cannot make the input, or the classes have no names.
        OutputError: A file exists or cannot be written.
    """
    metadata = export.metadata
    if metadata.stream != "rgb" or not export.takes_clips:
        raise MetadataError(
            f"{export.path}: DeepStream passes clips of RGB; export an RGB model without --pixels"
        )
    if metadata.input.sampling != "consecutive":
        raise MetadataError(
            f"{export.path}: DeepStream passes consecutive frames, but the model takes frames "
            "spread over the whole video"
        )
    if metadata.labels is None:
        raise MetadataError(
            f"{export.path}: DeepStream needs names of the classes; name them with i3dzoo convert "
            "--head keep --labels"
        )
    make_folder(folder)
    texts = {
        "config_infer_primary_3d_action.txt": _infer(folder, export),
        "config_preprocess_3d_custom.txt": _preprocess(export),
        "labels.txt": ";".join(label.replace(";", ",") for label in metadata.labels) + "\n",
    }
    paths = tuple(folder / name for name in texts)
    for path in paths:
        check_output(path, force)
    for path, text in zip(paths, texts.values(), strict=True):
        with atomic_write(path) as file:
            file.write(text.encode())
    return paths


def _infer(folder: Path, export: Export) -> str:
    onnx = os.path.relpath(export.path.absolute(), folder.absolute())
    engine = Path(onnx).with_suffix(".engine")
    return f"""[property]
gpu-id=0
onnx-file={onnx}
model-engine-file={engine}
labelfile-path=labels.txt
batch-size={BATCHES[1]}
# 1: primary; the preprocessing plugin passes the clips
process-mode=1
input-tensor-from-meta=1
# 2: half precision
network-mode=2
# 1: classifier
network-type=1
gie-unique-id=1
tensor-meta-pool-size=8
classifier-threshold=0
"""


def _preprocess(export: Export) -> str:
    spec = export.metadata.input
    scales = ";".join(f"{1 / (255 * std):.9g}" for std in spec.std)
    offsets = ";".join(f"{255 * mean:.9g}" for mean in spec.mean)
    rate = f"{spec.fps:g} frames a second" if spec.fps else "every frame"
    shape = ";".join(map(str, (BATCHES[1], len(spec.mean), spec.frames, spec.crop, spec.crop)))
    return f"""[property]
enable=1
target-unique-ids=1
# batch, channels, frames, height, width
network-input-shape={shape}
# 0: RGB, 1: BGR
network-color-format={int(spec.channels == "bgr")}
# 2: custom, here NCDHW
network-input-order=2
# 0: float32
tensor-data-type=0
tensor-name={INPUT[export.metadata.stream]}
processing-width={spec.crop}
processing-height={spec.crop}
scaling-pool-memory-type=0
scaling-pool-compute-hw=0
# 1: bilinear
scaling-filter=1
tensor-buf-pool-size=8
custom-lib-path={_LIBRARY}
custom-tensor-preparation-function=CustomSequenceTensorPreparation

[user-configs]
# a pixel p becomes (p - offset) * scale
channel-scale-factors={scales}
channel-mean-offsets={offsets}
# frames from one clip to the next
stride={max(spec.frames // 2, 1)}
# frames left out between two; the model was trained on {rate}
subsample=0

[group-0]
src-ids=-1
process-on-roi=0
"""
