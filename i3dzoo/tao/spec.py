"""Read NVIDIA TAO action_recognition specs; every key is honoured, or refused by name.

A spec has older names (`model_config`, `epochs`, ...) or newer ones (`model`, `num_epochs`, ...).
Keys that are not set have TAO's defaults, not those of i3dzoo's recipes.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from i3dzoo.errors import MissingFileError, RecipeError
from i3dzoo.network.architecture import MIN_FRAMES
from i3dzoo.records import read_yaml
from i3dzoo.tao.keys import KEYS, OLD_BATCH_SIZE, SetValue, check_keys, set_values
from i3dzoo.tao.records import NEEDED, Refusal, TaoExport, TaoRun, TaoSpec, TaoStream, Task
from i3dzoo.training import recipe as recipes
from i3dzoo.training.recipe import Recipe

_ENCRYPTED = (".tlt", ".etlt")
_READS = (
    "it is encrypted, and only NVIDIA's tools can read it; train or export it there without a key, "
    "and name that .pth or .pt"
)
_AUGMENT = "dataset.augmentation_config."

# The only supported value of a key, and why; True where TAO's default is noted, not refused.
_ONLY: dict[str, tuple[Any, str, bool]] = {
    "model.backbone": ("i3d", "i3dzoo trains only I3D; set i3d", False),
    "model.input_type": ("3d", "I3D takes clips, not single images; set 3d", True),
    "model.sample_rate": (1, "i3dzoo takes every frame; set 1", False),
    "model.imagenet_pretrained": (
        False,
        "name an ImageNet checkpoint, such as rgb_imagenet, as the pretrained model",
        False,
    ),
}
# Keys of the layers that join two streams in TAO.
_ONLY_JOINT = {
    "model.num_fc": (
        "i3dzoo joins the streams by the sum of their logits, as published, not by layers; remove "
        "the key"
    ),
    "model.joint_pretrained_model_path": (
        "i3dzoo has no joining layers; name one checkpoint for each stream"
    ),
}
_NO_EFFECT = {
    "model_name": "has no effect: i3dzoo trains only action_recognition",
    f"{_AUGMENT}scales": "has no effect without multi_scale_crop",
    "train.checkpoint_interval": "has no effect: i3dzoo saves every epoch",
    "train.checkpoint_interval_unit": "has no effect: i3dzoo saves every epoch",
}
_ALL_CLIPS = 999  # no more clips of spread frames differ
_SAMPLING: dict[str, Literal["consecutive", "interval"]] = {
    "consecutive": "consecutive",
    "random_interval": "interval",
}
_NO_EFFECT_WITH_SCHEDULER = {
    "MultiStep": ("lr_monitor", "patience", "min_lr"),
    "AutoReduce": ("lr_steps",),
}


def load_tao(path: str | Path, overrides: Iterable[str] = (), *, task: Task = "train") -> TaoSpec:
    """Read a spec, and check that i3dzoo supports everything that a task uses.

    Overrides are `KEY=VALUE`, by older or newer names, such as `model.backbone=i3d`. A RecipeError
    names the keys that are unknown, have a wrong value, or are refused.
    """
    spec = read_tao(path, overrides)
    spec.check(task)
    return spec


def read_tao(path: str | Path, overrides: Iterable[str] = ()) -> TaoSpec:
    """Read a spec; values that i3dzoo does not support are in `refused`."""
    path = Path(path)
    if not path.exists():
        raise MissingFileError(f"{path}: the TAO spec does not exist")
    document = read_yaml(path, error=RecipeError)
    if not isinstance(document, dict):
        raise RecipeError(f"{path}: expected a TAO spec, a mapping with a section model")
    is_older = any(str(section).endswith("_config") for section in document)
    return _Translation(path, set_values(str(path), document, overrides), is_older).spec()


class _Translation:
    """Translates the values of one spec, and collects notes and refusals."""

    def __init__(self, path: Path, given: Mapping[str, SetValue], is_older: bool) -> None:
        self.path, self.given, self._is_older = path, given, is_older
        self.values = check_keys(str(path), given)
        self.notes: list[str] = []
        self.refused: list[Refusal] = []

    def __getitem__(self, key: str) -> Any:
        return self.values[key]

    def spec(self) -> TaoSpec:
        self._check_model()
        streams = self._streams()
        gpu_ids = self._gpus("train.")
        nodes = self["train.num_nodes"]
        recipe = self._recipe(streams[0], len(gpu_ids) * nodes)
        self._check_others()
        kind = self["model.model_type"]
        return TaoSpec(
            path=self.path,
            recipe=recipe,
            stream="flow" if kind == "of" else kind,
            streams=streams,
            train_dir=self._path("dataset.train_dataset_dir"),
            val_dir=self._path("dataset.val_dataset_dir"),
            label_map=self["dataset.label_map"] or {},
            results_dir=self._path("train.results_dir", "results_dir"),
            resume=self._path("train.resume_training_checkpoint_path"),
            gpu_ids=gpu_ids,
            num_nodes=nodes,
            evaluate=self._run("evaluate.", "test_dataset_dir", "video_eval_mode"),
            inference=self._run("inference.", "inference_dataset_dir", "video_inf_mode"),
            export=TaoExport(
                checkpoint=self["export.checkpoint"],
                onnx_file=self._onnx_file(),
                batch_size=self["export.batch_size"],
                results_dir=self._path("export.results_dir", "results_dir"),
                gpu_id=self["export.gpu_id"],
            ),
            notes=tuple(dict.fromkeys(self.notes)),
            refused=tuple(self.refused),
            needs={
                task: tuple(key for key in keys if not self._has(key))
                for task, keys in NEEDED.items()
            },
            folders={
                task: self._path(f"{task}.results_dir")
                or (self._path("results_dir") or Path("results")) / task
                for task in NEEDED
            },
            wandb=self._wandb(),
        )

    def _recipe(self, stream: TaoStream, gpus: int) -> Recipe:
        return Recipe(
            title=f"NVIDIA TAO, {self.path.name}",
            network=recipes.Network(dropout=self["model.dropout_ratio"]),
            augment=self._augment(stream),
            optim=recipes.Optim(
                lr=self["train.optim.lr"],
                momentum=self["train.optim.momentum"],
                weight_decay=self["train.optim.weight_decay"],
                clip_grad_norm=self["train.clip_grad_norm"] or None,
            ),
            schedule=self._schedule(),
            loop=recipes.Loop(
                epochs=self["train.num_epochs"],
                batch_size=self._batch_size * gpus,
                seed=max(self["train.seed"], 0),
                workers=self["dataset.workers"],
                cudnn_benchmark=self["train.cudnn.benchmark"],
                cudnn_deterministic=self["train.cudnn.deterministic"],
            ),
            evaluation=recipes.EvaluationSettings(
                every=self["train.validation_interval"], batch_size=self._batch_size
            ),
        )

    @property
    def _batch_size(self) -> int:
        is_set = "dataset.batch_size" in self.given or not self._is_older
        size: int = self["dataset.batch_size"] if is_set else OLD_BATCH_SIZE
        return size

    def _path(self, *keys: str) -> Path | None:
        """Return the path at the first of the keys that is set."""
        return next((Path(self[key]) for key in keys if self[key]), None)

    def _onnx_file(self) -> Path | None:
        path = self._path("export.onnx_file")
        return path.with_suffix(".onnx") if path and path.suffix in _ENCRYPTED else path

    def _has(self, key: str) -> bool:
        """Return whether a key is set, or an engine in place of a checkpoint."""
        engine = key.replace(".checkpoint", ".trt_engine")
        return bool(self[key] or (engine in KEYS and self[engine]))

    def _wandb(self) -> dict[str, Any] | None:
        """Return the arguments of `wandb.init`, or None if the spec does not log there."""
        if not (self["wandb.enable"] and "wandb.enable" in self.given):
            return None
        names = ("project", "entity", "group", "tags", "reinit", "save_code", "name")
        arguments = {name: self[f"wandb.{name}"] for name in names}
        # all metrics are TensorBoard's, so they are synchronised from there
        return arguments | {"id": self["wandb.run_id"], "sync_tensorboard": True}

    def _refuse(self, key: str, reason: str) -> None:
        given = self.given.get(key)
        written = given.written if given else key
        state = "is" if given else "is not set, and TAO's default is"
        self.refused.append(Refusal(key, written, f"{state} {self[key]!r}: {reason}"))

    def _note(self, key: str, text: str) -> None:
        """Add a note on a key, if the spec sets it to another value than TAO's default."""
        if key in self.given and self[key] != KEYS[key].default:
            self.notes.append(f"{self.given[key].written} {text}")

    def _streams(self) -> tuple[TaoStream, ...]:
        kind = self["model.model_type"]
        names: tuple[tuple[Literal["rgb", "flow"], str, int], ...]
        names = (("rgb", "rgb", 3), ("flow", "of", 2))
        streams = []
        for stream, prefix, channels in names:
            frames, model = f"model.{prefix}_seq_length", f"model.{prefix}_pretrained_model_path"
            classes = f"model.{prefix}_pretrained_num_classes"
            mean, std = (f"{_AUGMENT}{prefix}_input_{name}" for name in ("mean", "std"))
            if kind not in (prefix, "joint"):
                for key in (frames, model, classes, mean, std):
                    self._note(key, f"has no effect: the spec trains the {kind} stream")
                continue
            if self[frames] < MIN_FRAMES:
                state = "" if frames in self.given else " by TAO's default"
                self.notes.append(
                    f"{frames} is {self[frames]}{state}: I3D needs {MIN_FRAMES} frames at least, "
                    f"so clips of {MIN_FRAMES} are taken; 64 are usual"
                )
            if classes in self.given and self[classes] and not self[model]:
                self._note(classes, "has no effect without a pretrained model")
            streams.append(
                TaoStream(
                    stream=stream,
                    frames=max(self[frames], MIN_FRAMES),
                    pretrained=self[model],
                    pretrained_classes=self[classes] if classes in self.given else None,
                    mean=self._per_channel(mean, channels),
                    std=self._per_channel(std, channels),
                )
            )
        return tuple(streams)

    def _per_channel(self, key: str, channels: int) -> tuple[float, ...]:
        """Return a value for each channel; TAO repeats a single one."""
        values: tuple[float, ...] = self[key]
        if len(values) not in (1, channels):
            raise RecipeError(
                f"{self.path}: {self.given[key].written}: expected 1 or {channels} values, found "
                f"{len(values)}"
            )
        return values * channels if len(values) == 1 else values

    def _gpus(self, section: str) -> tuple[int, ...]:
        """Return the GPUs; `num_gpus` alone means the first ones."""
        ids_key, count_key = f"{section}gpu_ids", f"{section}num_gpus"
        ids: tuple[int, ...] = self[ids_key]
        if count_key in self.given and ids_key not in self.given:
            return tuple(range(self[count_key]))
        if count_key in self.given and self[count_key] != len(ids):
            self._refuse(count_key, f"gpu_ids lists {len(ids)}; make them agree")
        if not ids or len(set(ids)) != len(ids):
            self._refuse(ids_key, "expected at least one GPU, each once")
        return ids or (0,)

    def _augment(self, stream: TaoStream) -> recipes.Augment:
        height, width = self["model.input_height"], self["model.input_width"]
        resize = self[f"{_AUGMENT}crop_smaller_edge"]
        if height != width:
            keys = ("model.input_height", "model.input_width")
            self._refuse(
                next((key for key in keys if key in self.given), keys[1]),
                f"the input is {height}x{width}, but i3dzoo crops squares",
            )
        crop_type = self[f"{_AUGMENT}train_crop_type"]
        if crop_type == "multi_scale_crop":
            self._refuse(
                f"{_AUGMENT}train_crop_type",
                "i3dzoo has no crops of several scales; set random_crop or no_crop",
            )
        is_cropped_in_training = crop_type != "no_crop"
        is_cropped = self[f"{_AUGMENT}val_center_crop"]
        if resize < height and (is_cropped or is_cropped_in_training):
            self._refuse(f"{_AUGMENT}crop_smaller_edge", f"it is smaller than the crop of {height}")
        return recipes.Augment(
            frames=stream.frames,
            resize=resize,
            resize_mode="short" if is_cropped_in_training else "squash",
            test_resize_mode="short" if is_cropped else "squash",
            crop=height,
            sampling=_SAMPLING[self["model.sample_strategy"]],
            train_crop="random",
            flip=self[f"{_AUGMENT}horizontal_flip_prob"],
            mean=stream.mean,
            std=stream.std,
            clips_per_video=self["dataset.clips_per_video"],
            fps="native",
        )

    def _schedule(self) -> recipes.Schedule:
        optim = "train.optim."
        scheduler, decay = self[f"{optim}lr_scheduler"], self[f"{optim}lr_decay"]
        for key in _NO_EFFECT_WITH_SCHEDULER[scheduler]:
            self._note(f"{optim}{key}", f"has no effect with the scheduler {scheduler}")
        if scheduler == "MultiStep":
            return recipes.Schedule("multistep", steps=self[f"{optim}lr_steps"], decay=decay)
        if self[f"{optim}lr_monitor"] != "val_loss":
            self._refuse(f"{optim}lr_monitor", "i3dzoo monitors the validation loss; set val_loss")
        patience, lowest = self[f"{optim}patience"], self[f"{optim}min_lr"]
        return recipes.Schedule("plateau", decay=decay, patience=patience, min_lr=lowest)

    def _check_model(self) -> None:
        for key, (value, reason, is_noted) in _ONLY.items():
            if self[key] == value:
                continue
            if is_noted and key not in self.given:
                default = self[key]
                self.notes.append(f"{key} is not set, and TAO's default is {default!r}: {reason}")
            else:
                self._refuse(key, reason)
        if not self["model.imagenet_pretrained"]:
            self._note("model.imagenet_pretrained", "is false and has no effect")
        for key, reason in _ONLY_JOINT.items():
            if self["model.model_type"] != "joint":
                self._note(key, "has no effect: the spec trains one stream")
            elif key in self.given:
                self._refuse(key, reason)

    def _check_others(self) -> None:
        if self["train.seed"] < 0:
            self._refuse("train.seed", "runs of i3dzoo are reproducible; set a seed of 0 or more")
        for key, text in _NO_EFFECT.items():
            self._note(key, text)
        if not self["dataset.val_dataset_dir"]:
            self.notes.append(
                "dataset.val_dataset_dir is not set: the training videos are evaluated, which does "
                "not measure the accuracy on other videos"
            )
        if self._wandb() is None:
            for key in self.given:
                if key.startswith("wandb."):
                    self._note(key, "has no effect without wandb.enable")
        for key in self.given:
            if key.startswith("train.checkpointer."):
                self._note(key, "has no effect: i3dzoo keeps the best weights and the last ones")
        if "dataset.batch_size" not in self.given:
            self.notes.append(
                f"dataset.batch_size is not set: it is {self._batch_size}, the default of "
                + ("TAO before 7" if self._is_older else "TAO 7")
            )
        key_effect = "has no effect: no file is encrypted"
        for key in self.given:
            if key == "export.onnx_file" and str(self[key]).endswith(_ENCRYPTED):
                self._note(key, "names an encrypted file: ONNX is written instead, under .onnx")
            elif str(self[key]).endswith(_ENCRYPTED):
                self._refuse(key, _READS)
                key_effect = "cannot be used: only NVIDIA's tools decrypt with it"
        self._note("encryption_key", key_effect)

    def _run(self, section: str, folder: str, mode: str) -> TaoRun:
        return TaoRun(
            checkpoint=self[f"{section}trt_engine"] or self[f"{section}checkpoint"],
            data_dir=self._path(f"{section}{folder}"),
            batch_size=self[f"{section}batch_size"],
            protocol=self._protocol(f"{section}{mode}", f"{section}video_num_segments"),
            results_dir=self._path(f"{section}results_dir", "results_dir"),
            gpu_ids=self._run_gpus(section),
        )

    def _run_gpus(self, section: str) -> tuple[int, ...]:
        gpu_id = f"{section}gpu_id"
        if self[f"{section}num_nodes"] > 1:
            self._refuse(f"{section}num_nodes", "only training runs on several machines; set 1")
        if gpu_id in self.given and f"{section}gpu_ids" not in self.given:
            return (self[gpu_id],)
        self._note(gpu_id, "has no effect beside gpu_ids")
        return self._gpus(section)

    def _protocol(self, mode: str, segments: str) -> str:
        """Return the protocol of an evaluation mode; clips are spread over the video as in TAO."""
        if self[mode] == "conv" and self["model.sample_strategy"] == "random_interval":
            self._note(segments, "has no effect with the strategy random_interval")
            return f"multi:{_ALL_CLIPS}x1"
        if self[mode] == "conv":
            self._note(
                mode,
                "is conv: i3dzoo averages the logits of the clips and counts each video once; TAO "
                "adds up probabilities and counts the first clip twice",
            )
            return f"multi:{self[segments]}x1"
        if self[mode] == "all":
            self._refuse(mode, "TAO counts each clip as a video; set conv or center")
        # the older key stands for both sections
        modes = (self["evaluate.video_eval_mode"], self["inference.video_inf_mode"])
        is_older = segments in self.given and "." not in self.given[segments].written
        if not (is_older and "conv" in modes):
            self._note(segments, "has no effect without the mode conv")
        return "center"
