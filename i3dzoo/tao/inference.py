"""Predict and export by a TAO spec."""

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path

from i3dzoo.devices import Device
from i3dzoo.engines.base import Engine, EngineName, load_engine
from i3dzoo.errors import MetadataError, MissingFileError, RecipeError
from i3dzoo.exporters.export import export
from i3dzoo.exporters.job import Export
from i3dzoo.fetch.find import find, open_checkpoint
from i3dzoo.onnx.options import Precision
from i3dzoo.predict import Prediction, predict_videos
from i3dzoo.progress import SILENT, Progress
from i3dzoo.tao.records import TaoSpec
from i3dzoo.tao.spec import load_tao
from i3dzoo.tao.task import choose_gpus, show_notes, tao_metadata
from i3dzoo.video import BadVideo


@dataclasses.dataclass(frozen=True, eq=False)
class Inference:
    """What the section `inference` of a spec defines: an engine, and the videos to predict."""

    spec: TaoSpec
    engine: Engine
    videos: tuple[Path, ...]

    def run(self, top_k: int = 5, progress: Progress = SILENT) -> Iterator[Prediction | BadVideo]:
        """Yield the prediction of each video, with the input and the classes of the spec."""
        assert self.engine.metadata is not None  # noqa: S101 - load_inference has checked it
        metadata = tao_metadata(self.spec, self.spec.inference.checkpoint, self.engine.metadata)
        protocol = self.spec.inference.protocol
        clips = int(protocol.removeprefix("multi:").partition("x")[0]) if ":" in protocol else 1
        labels = metadata.labels
        for result in predict_videos(
            self.engine,
            self.videos,
            spec=metadata.input,
            clips=clips,
            top_k=top_k,
            progress=progress,
        ):
            if labels is not None and not isinstance(result, BadVideo):
                top = tuple(
                    dataclasses.replace(score, label=labels[score.index]) for score in result.top
                )
                yield dataclasses.replace(result, top=top)
            else:
                yield result


def load_inference(
    path: str | Path,
    overrides: Iterable[str] = (),
    *,
    engine: EngineName = "auto",
    device: Device = "auto",
    precision: Precision | None = None,
    progress: Progress = SILENT,
) -> Inference:
    """Load what the section `inference` of a spec defines.

    Its folder holds videos: files, or folders of frames as in TAO's layout.

    Raises:
        RecipeError: The spec has unknown keys, wrong values, or values that are not supported.
        MissingFileError: There is no such folder, or it holds no videos.
    """
    spec = load_tao(path, overrides, task="inference")
    run = spec.inference
    gpu_note = choose_gpus(run.gpu_ids, device)
    show_notes(spec, (*spec.notes, gpu_note), progress)
    assert run.checkpoint is not None and run.data_dir is not None  # noqa: S101, PT018 - checked
    if not run.data_dir.is_dir():
        raise MissingFileError(f"{run.data_dir}: the inference_dataset_dir does not exist")
    videos = sorted(child for child in run.data_dir.iterdir() if not child.name.startswith("."))
    if not videos:
        raise MissingFileError(f"{run.data_dir}: the inference_dataset_dir holds no videos")
    model = find(run.checkpoint, progress=progress)
    network = load_engine(model, engine, device, precision=precision, progress=progress)
    if network.metadata is None:
        raise MetadataError(f"{run.checkpoint}: the model has no metadata")
    return Inference(spec, network, tuple(videos))


def export_spec(
    path: str | Path,
    overrides: Iterable[str] = (),
    *,
    device: Device = "auto",
    force: bool = False,
    progress: Progress = SILENT,
) -> Export:
    """Export to ONNX as the section `export` of a spec defines.

    Without `onnx_file`, the file has the checkpoint's name and the suffix .onnx, as in TAO.
    """
    spec = load_tao(path, overrides, task="export")
    show_notes(spec, spec.notes, progress)
    assert spec.export.checkpoint is not None  # noqa: S101 - load_tao has checked it
    source = find(spec.export.checkpoint, progress=progress)
    checkpoint = open_checkpoint(source)
    metadata = tao_metadata(spec, spec.export.checkpoint, checkpoint.metadata)
    target = spec.export.onnx_file or Path(spec.export.checkpoint).with_suffix(".onnx")
    if target.suffix.lower() != ".onnx":
        raise RecipeError(
            f"{spec.path}: export.onnx_file: expected a name in .onnx, found {target}"
        )
    checkpoint = dataclasses.replace(checkpoint, metadata=metadata)
    return export(checkpoint, target, "onnx", device=device, force=force, progress=progress)
