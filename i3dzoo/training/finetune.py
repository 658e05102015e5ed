"""Fine-tune checkpoints on a dataset: everything around the training loop."""

import contextlib
import platform
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from msgspec.structs import replace

from i3dzoo.devices import Device, choose_device
from i3dzoo.distributed import ProcessGroup
from i3dzoo.errors import OptionError, OutputError, RecipeError
from i3dzoo.fetch.data import find_data
from i3dzoo.fetch.find import find, open_checkpoint
from i3dzoo.files.exclusive import exclusive_folder
from i3dzoo.progress import SILENT, Progress
from i3dzoo.records import convert
from i3dzoo.report.run_folder import RUN, read_run
from i3dzoo.training import checkpointing
from i3dzoo.training.auto_recipe import AUTO, choose_recipe
from i3dzoo.training.checkpointing import Position
from i3dzoo.training.job import TrainingJob
from i3dzoo.training.loop import train
from i3dzoo.training.recipe import Recipe, load_recipe, override
from i3dzoo.training.schedule import accumulation
from i3dzoo.training.train_step import make_accelerator, processes_of
from i3dzoo.training.trainer import FinetuneTrainer
from i3dzoo.video import FrameCache
from i3dzoo.video.dataset import OnBadVideo
from i3dzoo.video.index_file import is_prepared, read_index
from i3dzoo.video.prepare_videos import SPLIT, VideoOptions, prepare_own
from i3dzoo.video.summary import summarise

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True)
class FinetuneResult:
    """The result of fine-tuning.

    Attributes:
        folder: The folder of the run.
        files: The canonical checkpoints that fine-tuning made, RGB before flow: the best ones, or
            the last ones if no best ones were kept.
        test_data: The data that was evaluated.
        split: Its split; None if all its videos were evaluated.
        position: Where training ended, with the best validation top-1.
        bad_videos: Why a video could not be read, by its file.
    """

    folder: Path
    files: tuple[Path, ...]
    test_data: Path
    split: int | None
    position: Position
    bad_videos: Mapping[str, str]


def finetune(
    data: str | Path,
    models: str | Path | Sequence[str | Path],
    *,
    folder: str | Path | None = None,
    recipe: str | Path | Recipe = AUTO,
    settings: Mapping[str, Any] | Iterable[str] = (),
    dataset: str = "videos",
    split: int | None = 1,
    test_data: str | Path | None = None,
    keep: Collection[str] = ("last", "best"),
    resume: bool = False,
    on_bad_video: OnBadVideo = "error",
    cache_bytes: int = 0,
    device: Device = "auto",
    labels: str | Path | Sequence[str] | None = None,
    root: str | Path | None = None,
    val_fraction: float = SPLIT.val_fraction,
    group_by: str | None = None,
    command: Sequence[str] = (),
    progress: Progress = SILENT,
) -> FinetuneResult:
    """Fine-tune one model, or an RGB and a flow model together.

    Examples:
        >>> import i3dzoo
        >>> result = i3dzoo.finetune(
        ...     "clips", "mine.safetensors", folder="run", recipe="smoke", device="cpu",
        ...     settings={"loop.max_steps": 1, "loop.batch_size": 2, "loop.workers": 0},
        ... )
        >>> [path.name for path in result.files]
        ['best.safetensors']

    Args:
        data: The folder that `i3dzoo prepare` made; or a folder of class folders, or a list of
            videos, whose index and split are then written to `data/` in the folder of the run.
        models: Zoo names, files of any layout, or repositories on the Hub.
        folder: The folder of the run; None takes `runs/DATASET_STREAM`.
        recipe: A recipe, the name of one that ships with i3dzoo, or a YAML file; `auto` chooses one
            for the size of the data and for the device.
        settings: Replaces keys of the recipe: `{"optim.lr": 0.005}` or `["optim.lr=0.005"]`.
        dataset: Name of the dataset, for the record.
        split: 1, 2 or 3; None trains on all videos of `data` and evaluates on `test_data`.
        test_data: The data to evaluate on; None takes the validation videos of `data`, or else its
            test videos.
        keep: Which weights to keep: `best`, `last` or both.
        resume: Whether to resume the run in `folder`.
        on_bad_video: What to do with a video that cannot be read: `error` or `skip`.
        cache_bytes: Limit of the cache of decoded frames, of all processes; 0 caches none.
        device: `auto` uses GPUs if there are any; `cpu` uses none. `cuda:N` and `mps` are for one
            process.
        labels: Names of the classes in the order of the logits; this and the following arguments
            are for folders and lists of videos, see `i3dzoo.video.prepare_videos`.
        root: The folder of the videos of a list.
        val_fraction: Share of each class for validation, if `data` has no validation or test part.
        group_by: Regular expression that finds the group of a video; a group is not split.
        command: The command as typed, for the record.
        progress: Shows steps, evaluations, notes, and the videos that cannot be read.

    Returns:
        The canonical files, the accuracy, and the videos that were left out.

    Raises:
        I3DZooError: A model, the data, the recipe or the folder is not suitable, or training
            failed.
    """
    if not keep or not {"last", "best"}.issuperset(keep):
        raise RecipeError(f"keep: expected 'last', 'best' or both, found {sorted(keep)}")
    chosen = None if recipe == AUTO else _load(recipe, settings)
    names = [models] if isinstance(models, str | Path) else list(models)
    opened = [(open_checkpoint(find(str(name))), str(name)) for name in names]
    opened.sort(key=lambda pair: pair[0].metadata.stream, reverse=True)  # RGB before flow
    streams = [checkpoint.metadata.stream for checkpoint, _ in opened]
    if not streams or len(set(streams)) < len(streams):
        raise RecipeError("expected one model, or an RGB and a flow model")
    folder = Path(folder or Path("runs") / f"{dataset}_{'_'.join(streams)}")
    processes = ProcessGroup.join(device)
    progress = progress if processes.is_main else SILENT
    own = VideoOptions(labels, root, val_fraction, group_by)
    with _only_run(folder, processes):
        if processes.is_main:
            _find_start(folder, resume, SILENT)  # before the data is prepared
        data, test_data, split = _prepare(data, test_data, split, folder, own, processes, progress)
        if chosen is None:
            chosen = override(_recipe_for(data, folder, resume, device, progress), settings)
        job = TrainingJob(
            checkpoints={checkpoint.metadata.stream: checkpoint for checkpoint, _ in opened},
            names={checkpoint.metadata.stream: name for checkpoint, name in opened},
            train_data=data,
            test_data=test_data,
            split=split,
            classes=None,
            folder=folder,
            on_bad_video=on_bad_video,
            cache_bytes=cache_bytes,
            device=device,
            dataset=dataset,
            command=command,
            keep=keep,
        )
        return _run(job, chosen, resume, progress)


def _prepare(
    data: str | Path,
    test_data: str | Path | None,
    split: int | None,
    folder: Path,
    own: VideoOptions,
    processes: ProcessGroup,
    progress: Progress,
) -> tuple[Path, Path | None, int | None]:
    """Return the prepared data and test data, and the split; see `finetune`."""
    data = find_data(data, progress)
    test_data = None if test_data is None else find_data(test_data, progress)
    if is_prepared(data) and own != VideoOptions():
        raise OptionError(
            f"{data}: is prepared, and --labels, --root, --val-fraction and --group-by are for "
            "folders and lists of videos; leave them out, or pass them to i3dzoo prepare videos"
        )
    if test_data is not None and not is_prepared(test_data):
        split = None
    if split is None:
        own = VideoOptions(own.labels, own.root, 0.0, own.group_by)
    data = prepare_own(data, folder / "data", own, processes, progress)
    if test_data is not None:
        options = VideoOptions(read_index(data).classes, own.root, 0.0)
        test_data = prepare_own(test_data, folder / "test-data", options, processes, progress)
    return data, test_data, split


def _load(recipe: str | Path | Recipe, settings: Mapping[str, Any] | Iterable[str]) -> Recipe:
    return override(recipe if isinstance(recipe, Recipe) else load_recipe(recipe), settings)


def _recipe_for(
    data: Path, folder: Path, resume: bool, device: Device, progress: Progress
) -> Recipe:
    """Return the recipe for the data and the device; a resumed run keeps its recipe."""
    if resume and (folder / RUN).exists():
        return convert(read_run(folder).recipe, Recipe, str(folder / RUN), RecipeError)
    gpu = choose_device(device).type != "cpu"
    recipe, notes = choose_recipe(summarise(read_index(data)), gpu=gpu)
    for note in notes:
        progress.message(note)
    return recipe


def run_job(
    job: TrainingJob, recipe: Recipe, *, resume: bool | Path = False, progress: Progress = SILENT
) -> FinetuneResult:
    """Fine-tune: train, evaluate, and write canonical files and a report.

    `resume` is whether to resume from the newest checkpoint, or the checkpoint to resume from.
    """
    processes = ProcessGroup.join(job.device)
    with _only_run(job.folder, processes):
        return _run(job, recipe, resume, progress if processes.is_main else SILENT)


def _only_run(folder: Path, processes: ProcessGroup) -> contextlib.AbstractContextManager[None]:
    """Let no other command write to the folder of the run."""
    return exclusive_folder(folder) if processes.is_main else contextlib.nullcontext()


def _run(
    job: TrainingJob, recipe: Recipe, resume: bool | Path, progress: Progress
) -> FinetuneResult:
    """Fine-tune into a folder that no other process writes to."""
    accelerator = make_accelerator(recipe, job.device)
    processes = processes_of(accelerator)
    checkpoint = _find_start(job.folder, resume, progress) if processes.is_main else None
    recipe = _fit_to_devices(job, recipe, accelerator, progress)
    torch.backends.cudnn.benchmark = recipe.loop.cudnn_benchmark
    torch.backends.cudnn.deterministic = recipe.loop.cudnn_deterministic
    torch.manual_seed(recipe.loop.seed)
    trainer = FinetuneTrainer(
        job,
        recipe,
        accelerator,
        cache=_frame_cache(job.cache_bytes, accelerator),
        resumed=checkpoint is not None,
        progress=progress,
    )
    if processes.is_main and resume:
        checkpointing.remove_partial_files(job.folder)
    accelerator.wait_for_everyone()
    position = train(
        recipe,
        trainer.streams,
        trainer.clips,
        trainer,
        job.folder,
        accelerator=accelerator,
        resume=processes.broadcast(checkpoint),
        progress=progress,
    )
    if processes.is_main:
        trainer.finish()
    return FinetuneResult(
        job.folder,
        trainer.files,
        job.test_data or job.train_data,
        job.split,
        position,
        trainer.bad_videos.reasons,
    )


def _find_start(folder: Path, resume: bool | Path, progress: Progress) -> Path | None:
    """Return the checkpoint to resume from, or None for a new run.

    An OutputError says that the folder contains a run that is not to be resumed, or cannot be.
    """
    if isinstance(resume, Path):
        return resume
    checkpoint = checkpointing.latest(folder)
    if not resume and (checkpoint or any(folder.glob("*.safetensors"))):
        raise OutputError(
            f"{folder}: contains a run; resume it with --resume, or use another folder"
        )
    if resume and checkpoint is None:
        if (folder / RUN).exists() and read_run(folder).finished is not None:
            raise OutputError(
                f"{folder}: contains a finished run without a checkpoint (--keep best), which "
                "cannot be resumed; use another folder"
            )
        progress.message(f"{folder}: contains no checkpoint yet; the run starts at its first step")
    return checkpoint


def _fit_to_devices(
    job: TrainingJob, recipe: Recipe, accelerator: "Accelerator", progress: Progress
) -> Recipe:
    """Return the recipe for the devices that there are; the batch stays the same."""
    loop, world_size = recipe.loop, accelerator.num_processes
    if loop.precision == "fp16" and accelerator.device.type == "cpu":
        progress.message("loop.precision is fp16, which needs a GPU; this CPU uses fp32")
        loop = replace(loop, precision="fp32")
    limit = job.max_clips
    if limit and loop.accumulate == 1 and loop.batch_size > limit * world_size:
        parts = accumulation(loop.batch_size, world_size, limit) or 1
        progress.message(
            f"the batch of {loop.batch_size} is meant for {loop.batch_size // limit} GPUs with "
            f"{limit} clips each; it stays the same, in {parts} parts on "
            f"{'one device' if world_size == 1 else f'each of {world_size} devices'}"
        )
        loop = replace(loop, accumulate=parts)
    return replace(recipe, loop=loop)


def _frame_cache(limit: int, accelerator: "Accelerator") -> FrameCache | None:
    """Return the cache that the processes of this machine share, or None for a limit of 0."""
    if not limit:
        return None
    host = platform.node()
    cache = FrameCache(limit) if accelerator.is_local_main_process else None
    folders = dict(processes_of(accelerator).gather([(host, cache.folder)] if cache else []))
    return cache or FrameCache.of(folders[host], limit)
