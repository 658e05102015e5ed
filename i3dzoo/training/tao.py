"""NVIDIA TAO action_recognition specs: every key is honoured, or refused by name with the reason.

A spec is read by its older names (`model_config`, `epochs`, ...) or its newer ones (`model`,
`num_epochs`, ...), and keys that are not set have TAO's defaults, not those of i3dzoo's recipes.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from i3dzoo.architecture import MIN_FRAMES
from i3dzoo.errors import MissingFileError, RecipeError
from i3dzoo.training import recipe as recipes
from i3dzoo.training.recipe import Recipe
from i3dzoo.training.tao_keys import Given, apply_overrides, check_keys, parse, rename
from i3dzoo.training.tao_records import (
    NEEDED,
    Refusal,
    TaoExport,
    TaoRun,
    TaoSpec,
    TaoStream,
    Task,
)

__all__ = [
    "Refusal",
    "TaoExport",
    "TaoRun",
    "TaoSpec",
    "TaoStream",
    "Task",
    "load_tao",
    "read_tao",
]

_ENCRYPTED = (".tlt", ".etlt")
_AUGMENT = "dataset.augmentation_config."


def load_tao(path: str | Path, overrides: Iterable[str] = (), *, task: Task = "train") -> TaoSpec:
    """Read a spec and make sure that all it asks for in a task is done.

    Args:
        path: The YAML file.
        overrides: `KEY=VALUE`, by older or newer names, such as `model.backbone=i3d`.
        task: What is to be run.

    Raises:
        MissingFileError: There is no such file.
        RecipeError: A key is unknown, of the wrong type, or refused; the message names it.
    """
    spec = read_tao(path, overrides)
    spec.check(task)
    return spec


def read_tao(path: str | Path, overrides: Iterable[str] = ()) -> TaoSpec:
    """Read a spec whatever it asks for; what i3dzoo does not do is in `refused`.

    Raises:
        MissingFileError: There is no such file.
        RecipeError: A key is unknown or of the wrong type; the message names the nearest key.
    """
    path = Path(path)
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError as error:
        raise MissingFileError(f"{path}: there is no such TAO spec") from error
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read as a TAO spec: {error}") from error
    given = apply_overrides(rename(str(path), parse(str(path), text)), overrides)
    return _Translation(path, given).spec()


class _Translation:
    """One spec on its way: values by their newer names, and what is to be said of them."""

    def __init__(self, path: Path, given: dict[str, Given]) -> None:
        self.path = path
        self.values = check_keys(str(path), given)
        self.given = given
        self.notes: list[str] = []
        self.refused: list[Refusal] = []

    def spec(self) -> TaoSpec:
        self._model()
        streams = self._streams()
        gpu_ids = self._gpus("train.")
        nodes = self["train.num_nodes"]
        recipe = self._recipe(streams[0], len(gpu_ids) * nodes)
        self._others()
        kind = self["model.model_type"]
        return TaoSpec(
            path=self.path,
            recipe=recipe,
            stream="flow" if kind == "of" else kind,
            streams=streams,
            train_dir=self._path("dataset.train_dataset_dir"),
            val_dir=self._path("dataset.val_dataset_dir"),
            label_map=self["dataset.label_map"] or {},
            results_dir=self._path("train.results_dir") or self._path("results_dir"),
            resume=self._path("train.resume_training_checkpoint_path"),
            gpu_ids=gpu_ids,
            num_nodes=nodes,
            evaluate=self._run("evaluate.", "test_dataset_dir", "video_eval_mode"),
            inference=self._run("inference.", "inference_dataset_dir", "video_inf_mode"),
            export=TaoExport(
                self["export.checkpoint"],
                self._path("export.onnx_file"),
                self["export.batch_size"],
                self._path("export.results_dir") or self._path("results_dir"),
                self["export.gpu_id"],
            ),
            notes=tuple(dict.fromkeys(self.notes)),
            refused=tuple(self.refused),
            needs={
                task: tuple(key for key in keys if not self[key]) for task, keys in NEEDED.items()
            },
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
                batch_size=self["dataset.batch_size"] * gpus,
                seed=max(self["train.seed"], 0),
                workers=self["dataset.workers"],
                cudnn_benchmark=self["train.cudnn.benchmark"],
                cudnn_deterministic=self["train.cudnn.deterministic"],
            ),
            evaluation=recipes.Evaluation(
                every=self["train.validation_interval"], batch_size=self["dataset.batch_size"]
            ),
        )

    def __getitem__(self, key: str) -> Any:
        return self.values[key]

    def _path(self, key: str) -> Path | None:
        return Path(self[key]) if self[key] else None

    def _has(self, key: str) -> bool:
        return key in self.given

    def _refuse(self, key: str, reason: str) -> None:
        written = self.given[key].written if self._has(key) else key
        what = f"is {self[key]!r}" if self._has(key) else f"is not set and TAO takes {self[key]!r}"
        self.refused.append(Refusal(key, written, f"{what}: {reason}"))

    def _note(self, key: str, text: str) -> None:
        """Remark on a key, if the spec has it."""
        if self._has(key):
            self.notes.append(f"{self.given[key].written} {text}")

    def _streams(self) -> tuple[TaoStream, ...]:
        kind = self["model.model_type"]
        names: tuple[tuple[Literal["rgb", "flow"], str, int], ...]
        names = (("rgb", "rgb", 3), ("flow", "of", 2))
        found = []
        for stream, prefix, channels in names:
            keys = [f"model.{prefix}_{end}" for end in ("seq_length", "pretrained_model_path")]
            keys += [f"model.{prefix}_pretrained_num_classes"]
            keys += [f"{_AUGMENT}{prefix}_input_{what}" for what in ("mean", "std")]
            if kind not in (prefix, "joint"):
                for key in keys:
                    self._note(key, f"has no meaning: the spec is of the {kind} stream")
                continue
            if self[keys[0]] < MIN_FRAMES:
                self._refuse(keys[0], f"I3D needs at least {MIN_FRAMES} frames; 64 are usual")
            if self[keys[2]] and not self[keys[1]]:
                self._note(keys[2], "has no meaning without a pretrained model")
            mean, std = (self._channels(key, channels) for key in keys[3:])
            path, classes = self[keys[1]], self[keys[2]] or None
            found.append(TaoStream(stream, self[keys[0]], path, classes, mean, std))
        return tuple(found)

    def _channels(self, key: str, channels: int) -> tuple[float, ...]:
        """Return a value for each channel; TAO repeats a single one."""
        values: tuple[float, ...] = self[key]
        if len(values) not in (1, channels):
            raise RecipeError(
                f"{self.path}: {self.given[key].written} has {len(values)} values; expected 1 or "
                f"{channels}"
            )
        if key.endswith("_std") and min(values) <= 0:
            raise RecipeError(
                f"{self.path}: {self.given[key].written} is {list(values)}; expected positive "
                "numbers"
            )
        return values * channels if len(values) == 1 else values

    def _gpus(self, section: str) -> tuple[int, ...]:
        """Return the GPUs; `num_gpus` alone means the first ones."""
        ids: tuple[int, ...] = self[f"{section}gpu_ids"]
        count = self[f"{section}num_gpus"]
        if self._has(f"{section}num_gpus") and not self._has(f"{section}gpu_ids"):
            return tuple(range(count))
        if self._has(f"{section}num_gpus") and count != len(ids):
            self._refuse(f"{section}num_gpus", f"gpu_ids lists {len(ids)}; make them agree")
        if not ids or len(set(ids)) != len(ids):
            self._refuse(f"{section}gpu_ids", "expected at least one GPU, each once")
        return ids or (0,)

    def _augment(self, stream: TaoStream) -> recipes.Augment:
        height, width = self["model.input_height"], self["model.input_width"]
        resize = self[f"{_AUGMENT}crop_smaller_edge"]
        if height != width:
            key = "model.input_height" if self._has("model.input_height") else "model.input_width"
            self._refuse(key, f"the input is {height}x{width}; i3dzoo crops squares")
        if resize < height:
            self._refuse(f"{_AUGMENT}crop_smaller_edge", f"a crop of {height} does not fit in it")
        if self[f"{_AUGMENT}train_crop_type"] != "random_crop":
            self._refuse(
                f"{_AUGMENT}train_crop_type",
                "i3dzoo resizes the short side and crops, as I3D was trained; set random_crop",
            )
        self._note(f"{_AUGMENT}scales", "has no meaning without multi_scale_crop")
        if not self[f"{_AUGMENT}val_center_crop"]:
            self._otherwise(
                f"{_AUGMENT}val_center_crop",
                "i3dzoo crops the centre in validation, and does not squeeze the frame; set true",
            )
        return recipes.Augment(
            frames=stream.frames,
            resize=resize,
            crop=height,
            train_crop="random",
            flip=self[f"{_AUGMENT}horizontal_flip_prob"],
            mean=stream.mean,
            std=stream.std,
            clips_per_video=self["dataset.clips_per_video"],
            fps="native",
        )

    def _otherwise(self, key: str, reason: str) -> None:
        """Refuse a value that the spec sets; remark on it where it is only TAO's default."""
        if self._has(key):
            self._refuse(key, reason)
        else:
            self.notes.append(f"{key} is not set, and TAO takes {self[key]!r}: {reason}")

    def _schedule(self) -> recipes.Schedule:
        optim = "train.optim."
        decay = self[f"{optim}lr_decay"]
        if self[f"{optim}lr_scheduler"] == "MultiStep":
            for key in ("lr_monitor", "patience", "min_lr"):
                self._note(f"{optim}{key}", "has no meaning with the scheduler MultiStep")
            return recipes.Schedule("multistep", steps=self[f"{optim}lr_steps"], decay=decay)
        self._note(f"{optim}lr_steps", "has no meaning with the scheduler AutoReduce")
        if self[f"{optim}lr_monitor"] != "val_loss":
            self._refuse(f"{optim}lr_monitor", "i3dzoo watches the validation loss; set val_loss")
        return recipes.Schedule(
            "plateau",
            decay=decay,
            patience=self[f"{optim}patience"],
            min_lr=self[f"{optim}min_lr"],
        )

    def _model(self) -> None:
        if self["model.backbone"] != "i3d":
            self._refuse("model.backbone", "i3dzoo trains I3D and no ResNet; set i3d")
        if self["model.input_type"] != "3d":
            self._otherwise("model.input_type", "I3D takes clips, not single images; set 3d")
        if self["model.sample_strategy"] != "consecutive":
            self._otherwise(
                "model.sample_strategy", "i3dzoo takes consecutive frames; set consecutive"
            )
        if self["model.sample_rate"] != 1:
            self._refuse("model.sample_rate", "i3dzoo takes every frame; set 1")
        if self["model.imagenet_pretrained"]:
            self._refuse(
                "model.imagenet_pretrained",
                "name an ImageNet checkpoint, such as rgb_imagenet, as the pretrained model",
            )
        else:
            self._note("model.imagenet_pretrained", "is false, and nothing follows from it")
        joint = self["model.model_type"] == "joint"
        if joint and self._has("model.num_fc"):
            self._refuse(
                "model.num_fc",
                "i3dzoo joins the streams by the sum of their logits, as published, and not by "
                "layers of their own; remove it",
            )
        elif not joint:
            self._note("model.num_fc", "has no meaning: the spec is of one stream")
        if joint and self["model.joint_pretrained_model_path"]:
            self._refuse(
                "model.joint_pretrained_model_path",
                "its joining layers do not exist in i3dzoo; name one checkpoint for each stream",
            )
        else:
            self._note("model.joint_pretrained_model_path", "has no meaning here")

    def _others(self) -> None:
        if self["train.seed"] < 0:
            self._refuse("train.seed", "i3dzoo's runs can be repeated; set a seed of 0 or more")
        if self["train.checkpoint_interval"] > 1:
            self._note(
                "train.checkpoint_interval", "is more than 1: each epoch is kept all the same"
            )
        else:
            self._note("train.checkpoint_interval", "is 1, as always: each epoch is kept")
        if not self["dataset.val_dataset_dir"]:
            self.notes.append(
                "dataset.val_dataset_dir is not set: the training videos are evaluated, which says "
                "nothing of others"
            )
        wandb = [key for key in self.given if key.startswith("wandb.")]
        if "wandb.enable" in wandb and self["wandb.enable"]:
            self._refuse("wandb.enable", "i3dzoo writes TensorBoard files and metrics.jsonl")
        else:
            for key in wandb:
                self._note(key, "has no meaning: i3dzoo does not use Weights & Biases")
        encrypted = [key for key in self.given if str(self[key]).endswith(_ENCRYPTED)]
        for key in encrypted:
            self._refuse(key, _encrypted(key))
        if not encrypted:
            self._note("encryption_key", "has no meaning: nothing is encrypted")
        else:
            self._note("encryption_key", "cannot be used: only NVIDIA's tools decrypt with it")

    def _run(self, section: str, folder: str, mode: str) -> TaoRun:
        return TaoRun(
            checkpoint=self[f"{section}checkpoint"],
            data_dir=self._path(f"{section}{folder}"),
            batch_size=self[f"{section}batch_size"],
            protocol=self._protocol(f"{section}{mode}", f"{section}video_num_segments"),
            results_dir=self._path(f"{section}results_dir") or self._path("results_dir"),
            gpu_ids=self._run_gpus(section),
        )

    def _run_gpus(self, section: str) -> tuple[int, ...]:
        if self[f"{section}num_nodes"] > 1:
            self._refuse(f"{section}num_nodes", "only training runs on several machines; set 1")
        if self._has(f"{section}gpu_id") and not self._has(f"{section}gpu_ids"):
            return (self[f"{section}gpu_id"],)
        self._note(f"{section}gpu_id", "has no meaning beside gpu_ids")
        return self._gpus(section)

    def _protocol(self, mode: str, segments: str) -> str:
        """Return the protocol of an evaluation mode: clips are spread over the video as in TAO."""
        if self[mode] == "conv":
            self._note(
                mode,
                "is conv: i3dzoo averages the logits of the clips and counts each video once; TAO "
                "adds up probabilities and counts its first clip twice",
            )
            return f"multi:{self[segments]}x1"
        if self[mode] == "all":
            self._refuse(mode, "TAO counts each clip for a video; set conv or center")
        # the older key stands for both sections
        modes = [self["evaluate.video_eval_mode"], self["inference.video_inf_mode"]]
        older = self._has(segments) and "." not in self.given[segments].written
        if not (older and "conv" in modes):
            self._note(segments, "has no meaning without the mode conv")
        return "center"


def _encrypted(key: str) -> str:
    if key == "export.onnx_file":
        return "i3dzoo writes no encrypted files; name a file .onnx"
    return (
        "it is encrypted and only NVIDIA's tools can read it; train or export it there without "
        "a key, and name that .pth or .pt"
    )
