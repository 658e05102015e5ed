"""The keys of NVIDIA TAO's action_recognition specs: types, ranges, defaults and older names.

Types and defaults are those of TAO 7: `config/action_recognition/default_config.py` and
`config/common/common_config.py` in the package nvidia-tao-core 7.3.0. Older names are those of the
specs in NVIDIA-AI-IOT/tao_toolkit_recipes and of TAO 3.0 to 5.
"""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from msgspec import Meta

from i3dzoo.errors import RecipeError
from i3dzoo.records import convert
from i3dzoo.training.recipe import Count, Fraction, NonNegative, Positive, Size, parse_setting


@dataclass(frozen=True)
class Key:
    """A key of a spec: its type and range for `i3dzoo.records.convert`, and TAO's default."""

    kind: Any
    default: Any = None


@dataclass(frozen=True)
class SetValue:
    """A value that a spec sets, and the key as the spec writes it."""

    value: Any
    written: str


_PATH = Key(str | None)
_SIZE = Key(Size, 1)
_SHAPE: Any = Annotated[tuple[int, int], Meta(description="[height, width]")]
_MODE = Literal["center", "conv", "all"]
_GPUS: dict[str, Key] = {
    "num_gpus": _SIZE,
    "gpu_ids": Key(tuple[Count, ...], (0,)),
    "num_nodes": _SIZE,
}
_RUN: dict[str, Key] = {
    **_GPUS,
    "gpu_id": Key(Count, 0),  # gone since TAO 7
    "checkpoint": _PATH,
    "trt_engine": _PATH,
    "results_dir": _PATH,
    "batch_size": _SIZE,
}
_SECTIONS: dict[str, dict[str, Key]] = {
    "": {
        "model_name": Key(str | None, "action_recognition"),
        "encryption_key": _PATH,
        "results_dir": _PATH,
    },
    "wandb.": {
        "enable": Key(bool, True),
        "project": Key(str | None, "TAO Toolkit"),
        "entity": Key(str | None),
        "group": Key(str | None),
        "tags": Key(tuple[str, ...], ("training", "tao-toolkit")),
        "reinit": Key(bool, False),
        "sync_tensorboard": Key(bool, False),
        "save_code": Key(bool, False),
        "name": Key(str | None, "TAO Toolkit training experiment"),
        "run_id": Key(str | None),
    },
    "model.": {
        "model_type": Key(Literal["rgb", "of", "joint"], "rgb"),
        "backbone": Key(str, "resnet_18"),
        "input_type": Key(Literal["2d", "3d"], "2d"),
        "of_seq_length": Key(Size, 10),
        "of_pretrained_model_path": _PATH,
        "of_pretrained_num_classes": Key(Count, 5),
        "rgb_seq_length": Key(Size, 3),
        "rgb_pretrained_model_path": _PATH,
        "rgb_pretrained_num_classes": Key(Count, 5),
        "num_fc": Key(Size, 64),
        "joint_pretrained_model_path": _PATH,
        "sample_strategy": Key(Literal["random_interval", "consecutive"], "random_interval"),
        "sample_rate": Key(Size, 1),
        "imagenet_pretrained": Key(bool, False),
        "dropout_ratio": Key(Fraction, 0.5),
        "input_width": Key(Size, 224),
        "input_height": Key(Size, 224),
    },
    "dataset.": {
        "train_dataset_dir": _PATH,
        "val_dataset_dir": _PATH,
        "label_map": Key(dict[str, int]),
        "batch_size": Key(Size, 2),
        "workers": Key(Count, 8),
        "clips_per_video": _SIZE,
    },
    "dataset.augmentation_config.": {
        "train_crop_type": Key(
            Literal["random_crop", "multi_scale_crop", "no_crop"], "random_crop"
        ),
        "scales": Key(tuple[float, ...], (1.0,)),
        "horizontal_flip_prob": Key(Fraction, 0.5),
        "rgb_input_mean": Key(tuple[float, ...], (0.485, 0.456, 0.406)),
        "rgb_input_std": Key(tuple[Positive, ...], (0.229, 0.224, 0.225)),
        "of_input_mean": Key(tuple[float, ...], (0.5,)),
        "of_input_std": Key(tuple[Positive, ...], (0.5,)),
        "val_center_crop": Key(bool, False),
        "crop_smaller_edge": Key(Size, 256),
    },
    "train.": {
        **_GPUS,
        "seed": Key(Annotated[int, Meta(ge=-1, le=2**32 - 1)], 1234),
        "cudnn.benchmark": Key(bool, False),
        "cudnn.deterministic": Key(bool, True),
        "num_epochs": Key(Size, 10),
        "checkpoint_interval": _SIZE,
        "checkpoint_interval_unit": Key(Literal["epoch", "step"], "epoch"),
        "validation_interval": _SIZE,
        "resume_training_checkpoint_path": _PATH,
        "results_dir": _PATH,
        "clip_grad_norm": Key(NonNegative, 0.0),
    },
    "train.checkpointer.": {
        "enable_topk": Key(bool, False),
        "replace_periodic": Key(bool, False),
        "monitor": Key(str | None),
        "mode": Key(Literal["min", "max"] | None),
        "save_top_k": _SIZE,
        "filename": Key(str, "model_best_{epoch:03d}"),
        "dirpath": _PATH,
        "auto_insert_metric_name": Key(bool, False),
    },
    "train.optim.": {
        "lr": Key(Positive, 5e-4),
        "momentum": Key(Fraction, 0.9),
        "weight_decay": Key(NonNegative, 5e-4),
        "lr_scheduler": Key(Literal["MultiStep", "AutoReduce"], "MultiStep"),
        "lr_monitor": Key(Literal["val_loss", "train_loss"], "val_loss"),
        "patience": Key(Count, 1),
        "min_lr": Key(NonNegative, 1e-4),
        "lr_steps": Key(tuple[Count, ...], (15, 25)),
        "lr_decay": Key(Fraction, 0.1),
    },
    "evaluate.": {
        **_RUN,
        "test_dataset_dir": _PATH,
        "video_eval_mode": Key(_MODE, "center"),
        "video_num_segments": Key(Size, 10),
    },
    "inference.": {
        **_RUN,
        "inference_dataset_dir": _PATH,
        "video_inf_mode": Key(_MODE, "center"),
        "video_num_segments": _SIZE,
    },
    "export.": {
        "checkpoint": _PATH,
        "results_dir": _PATH,
        "onnx_file": _PATH,
        "gpu_id": Key(Count, 0),
        "batch_size": _SIZE,
    },
}

KEYS: dict[str, Key] = {
    section + name: key for section, keys in _SECTIONS.items() for name, key in keys.items()
}

OLD_BATCH_SIZE = 32
"""The default of `dataset.batch_size` before TAO 7."""

_OLD_SECTIONS = {"model_config": "model", "dataset_config": "dataset", "train_config": "train"}

# An older name at the top of a file stands for each of these keys, because such a file served one
# task without naming it.
_OLD_KEYS: dict[str, tuple[str, ...]] = {
    "key": ("encryption_key",),
    "output_dir": ("results_dir",),
    "num_gpus": ("train.num_gpus",),
    "gpu_ids": ("train.gpu_ids",),
    "gpu_id": ("evaluate.gpu_id", "inference.gpu_id", "export.gpu_id"),
    "resume_training_checkpoint_path": ("train.resume_training_checkpoint_path",),
    "train.epochs": ("train.num_epochs",),
    "dataset.output_shape": ("model.input_height", "model.input_width"),
    "model": ("evaluate.checkpoint", "inference.checkpoint", "export.checkpoint"),
    "output_file": ("export.onnx_file",),
    "batch_size": ("evaluate.batch_size", "inference.batch_size", "export.batch_size"),
    "test_dataset_dir": ("evaluate.test_dataset_dir",),
    "inference_dataset_dir": ("inference.inference_dataset_dir",),
    "video_eval_mode": ("evaluate.video_eval_mode",),
    "video_inf_mode": ("inference.video_inf_mode",),
    "video_num_segments": ("evaluate.video_num_segments", "inference.video_num_segments"),
}

# Values that mean "not set" in Hydra and in TAO's own templates.
_UNSET = ("", "??", "???", None)


def set_values(
    where: str, document: Mapping[str, Any], overrides: Iterable[str]
) -> dict[str, SetValue]:
    """Return the values that a spec or an override `KEY=VALUE` sets, by the newer names of keys."""
    values: dict[str, SetValue] = {}
    for written, value in _leaves(document):
        for key, part in _targets(where, written, value):
            if key in values:
                raise RecipeError(
                    f"{where}: {values[key].written} and {written} are the same key; remove one"
                )
            if part not in _UNSET:
                values[key] = SetValue(part, written)
    for override in overrides:
        written, value = parse_setting(override, "", "model.backbone=i3d")
        for key, part in _targets("the command line", written, value):
            values.pop(key, None)
            if part not in _UNSET:
                values[key] = SetValue(part, written)
    return values


def check_keys(where: str, values: Mapping[str, SetValue]) -> dict[str, Any]:
    """Check the values, and return those of all keys, with TAO's defaults where not set."""
    checked = {name: key.default for name, key in KEYS.items()}
    for name, given in values.items():
        kind, value, path = KEYS[name].kind, given.value, f"{where}: {given.written}"
        if kind in (str, str | None) and type(value) in (int, float):
            value = str(value)  # as in TAO, a name or an encryption key may look like a number
        is_label_map = name == "dataset.label_map"
        for label in value if is_label_map and isinstance(value, dict) else ():
            if not isinstance(label, str):
                raise RecipeError(
                    f"{path}: the class {label!r} is not text in YAML; put its name in quotes, "
                    'such as "no"'
                )
        checked[name] = convert(value, kind, path, RecipeError)
        if is_label_map:
            _check_indices(path, checked[name])
    return checked


def _leaves(document: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in document.items():
        name = f"{path}{key}"
        if isinstance(value, dict) and not name.endswith(".label_map"):
            yield from _leaves(value, f"{name}.")
        else:
            yield name, value


def _targets(where: str, written: str, value: Any) -> list[tuple[str, Any]]:
    section, dot, rest = written.partition(".")
    key = f"{_OLD_SECTIONS.get(section, section)}{dot}{rest}"
    if key == "dataset.output_shape":
        shape = convert(value, _SHAPE, f"{where}: {written}", RecipeError)
        return list(zip(_OLD_KEYS[key], shape, strict=True))
    keys = _OLD_KEYS.get(key, (key,))
    if keys == (key,) and key not in KEYS:
        if value is None and any(name.startswith(f"{key}.") for name in KEYS):
            return []  # a section without keys
        raise RecipeError(f"{where}: unknown key {written}; {_nearest(written, key)}")
    return [(name, value) for name in keys]


def _nearest(written: str, key: str) -> str:
    """Suggest the known key that was meant, by an older name if the written one is older."""
    known = {*KEYS, *_OLD_KEYS}
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    if not near:
        last = {name.rpartition(".")[2]: name for name in known}
        ends = difflib.get_close_matches(key.rpartition(".")[2], last, n=1, cutoff=0.7)
        near = [last[end] for end in ends]
    if not near:
        return "TAO's action_recognition has no such key; remove it"
    section, dot, rest = near[0].partition(".")
    if written.partition(".")[0] in _OLD_SECTIONS:
        section = {new: old for old, new in _OLD_SECTIONS.items()}.get(section, section)
    return f"did you mean {section}{dot}{rest}?"


def _check_indices(where: str, label_map: Mapping[str, int]) -> None:
    """Check that the indices are 0 to N-1, each once; they may be in any order."""
    names: dict[int, str] = {}
    for name, index in label_map.items():
        if index in names:
            raise RecipeError(
                f"{where}: {names[index]} and {name} have the index {index}; expected each index "
                "once"
            )
        if not 0 <= index < len(label_map):
            raise RecipeError(
                f"{where}.{name}: expected 0..{len(label_map) - 1} for {len(label_map)} classes, "
                f"found {index}"
            )
        names[index] = name
