"""The keys of NVIDIA TAO's action_recognition specs: types, ranges, defaults, older names.

Types and defaults are those of `config/default_config.py` and `core/common_config.py` in
NVIDIA/tao_pytorch_backend at commit 191babf; older names are those of the specs in
NVIDIA-AI-IOT/tao_toolkit_recipes and of TAO 3.0 to 4.0.
"""

import difflib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from i3dzoo.errors import RecipeError
from i3dzoo.training.ranges import MOST_SEED, Range, check_range
from i3dzoo.training.recipe import check_value, need_yaml, yaml_value

__all__ = ["KEYS", "Given", "Key", "apply_overrides", "check_keys", "parse", "rename"]


@dataclass(frozen=True)
class Key:
    """What a key may hold.

    Attributes:
        hint: Its type.
        default: What TAO takes where the key is not set.
        low: Smallest number allowed.
        high: Largest number allowed.
        above: Whether `low` itself is not.
    """

    hint: Any
    default: Any = None
    low: float = -math.inf
    high: float = math.inf
    above: bool = False


@dataclass(frozen=True)
class Given:
    """A value as a spec gives it, with the key as it is written there."""

    value: Any
    written: str


_PATH = Key(str | None)
_COUNT = Key(int, 1, 1)
_MODE = Literal["center", "conv", "all"]
_GPUS: dict[str, Key] = {
    "num_gpus": _COUNT,
    "gpu_ids": Key(tuple[int, ...], (0,), 0),
    "num_nodes": _COUNT,
}
_RUN: dict[str, Key] = {
    **_GPUS,
    "gpu_id": Key(int, 0, 0),
    "checkpoint": _PATH,
    "results_dir": _PATH,
    "batch_size": _COUNT,
}
_SECTIONS: dict[str, dict[str, Key]] = {
    "": {"encryption_key": _PATH, "results_dir": _PATH},
    "wandb.": {
        "enable": Key(bool, True),
        "project": Key(str | None),
        "entity": Key(str | None),
        "tags": Key(tuple[str, ...], ()),
        "reinit": Key(bool, False),
        "sync_tensorboard": Key(bool, False),
        "save_code": Key(bool, False),
        "name": Key(str | None),
    },
    "model.": {
        "model_type": Key(Literal["rgb", "of", "joint"], "rgb"),
        "backbone": Key(str, "resnet_18"),
        "input_type": Key(Literal["2d", "3d"], "2d"),
        "of_seq_length": Key(int, 10, 1),
        "of_pretrained_model_path": _PATH,
        "of_pretrained_num_classes": Key(int, 0, 0),
        "rgb_seq_length": Key(int, 3, 1),
        "rgb_pretrained_model_path": _PATH,
        "rgb_pretrained_num_classes": Key(int, 0, 0),
        "num_fc": Key(int, 64, 1),
        "joint_pretrained_model_path": _PATH,
        "sample_strategy": Key(Literal["random_interval", "consecutive"], "random_interval"),
        "sample_rate": Key(int, 1, 1),
        "imagenet_pretrained": Key(bool, False),
        "dropout_ratio": Key(float, 0.5, 0, 1),
        "input_width": Key(int, 224, 1),
        "input_height": Key(int, 224, 1),
    },
    "dataset.": {
        "train_dataset_dir": _PATH,
        "val_dataset_dir": _PATH,
        "label_map": Key(dict),
        "batch_size": Key(int, 32, 1),
        "workers": Key(int, 8, 0),
        "clips_per_video": _COUNT,
    },
    "dataset.augmentation_config.": {
        "train_crop_type": Key(
            Literal["random_crop", "multi_scale_crop", "no_crop"], "random_crop"
        ),
        "scales": Key(tuple[float, ...], (1.0,)),
        "horizontal_flip_prob": Key(float, 0.5, 0, 1),
        "rgb_input_mean": Key(tuple[float, ...], (0.485, 0.456, 0.406)),
        "rgb_input_std": Key(tuple[float, ...], (0.229, 0.224, 0.225)),
        "of_input_mean": Key(tuple[float, ...], (0.5,)),
        "of_input_std": Key(tuple[float, ...], (0.5,)),
        "val_center_crop": Key(bool, False),
        "crop_smaller_edge": Key(int, 256, 1),
    },
    "train.": {
        **_GPUS,
        "seed": Key(int, 1234, -1, MOST_SEED),
        "cudnn.benchmark": Key(bool, False),
        "cudnn.deterministic": Key(bool, True),
        "num_epochs": Key(int, 10, 1),
        "checkpoint_interval": _COUNT,
        "validation_interval": _COUNT,
        "resume_training_checkpoint_path": _PATH,
        "results_dir": _PATH,
        "clip_grad_norm": Key(float, 0.0, 0),
    },
    "train.optim.": {
        "lr": Key(float, 5e-4, 0, above=True),
        "momentum": Key(float, 0.9, 0, 1),
        "weight_decay": Key(float, 5e-4, 0),
        "lr_scheduler": Key(Literal["MultiStep", "AutoReduce"], "MultiStep"),
        "lr_monitor": Key(Literal["val_loss", "train_loss"], "val_loss"),
        "patience": Key(int, 1, 0),
        "min_lr": Key(float, 1e-4, 0),
        "lr_steps": Key(tuple[int, ...], (15, 25), 0),
        "lr_decay": Key(float, 0.1, 0, 1),
    },
    "evaluate.": {
        **_RUN,
        "test_dataset_dir": _PATH,
        "video_eval_mode": Key(_MODE, "center"),
        "video_num_segments": Key(int, 10, 1),
    },
    "inference.": {
        **_RUN,
        "inference_dataset_dir": _PATH,
        "video_inf_mode": Key(_MODE, "center"),
        "video_num_segments": _COUNT,
    },
    "export.": {
        "checkpoint": _PATH,
        "results_dir": _PATH,
        "onnx_file": _PATH,
        "gpu_id": Key(int, 0, 0),
        "batch_size": _COUNT,
    },
}

KEYS: dict[str, Key] = {
    section + name: key for section, keys in _SECTIONS.items() for name, key in keys.items()
}

_OLD_SECTIONS = {"model_config": "model", "dataset_config": "dataset", "train_config": "train"}

# An older name at the top of a file means each of these keys: such a file served one task, and
# does not say which.
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

# How Hydra, and TAO's own templates, write that a value is still to be given.
_UNSET = ("", "??", "???", None)


def parse(where: str, text: str) -> dict[str, Any]:
    """Read YAML; a key that stands twice in one mapping is an error, as one would be ignored.

    Raises:
        RecipeError: It is no YAML, no mapping, or has a key twice.
    """
    need_yaml()
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            seen = set()
            for key, _ in node.value:
                name = self.construct_object(key)
                if isinstance(name, str) and name in seen:
                    raise RecipeError(
                        f"{where}: line {key.start_mark.line + 1} gives {name} a second time; "
                        "remove one"
                    )
                seen.add(str(name))
            return super().construct_mapping(node, deep)

    try:
        document = yaml.load(text, Loader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        raise RecipeError(f"{where}: is no YAML: {error}") from error
    if not isinstance(document, dict):
        raise RecipeError(f"{where}: is no mapping; expected a TAO spec with a section model")
    return document


def rename(where: str, document: Mapping[str, Any]) -> dict[str, Given]:
    """Return the values that are set, by the newer names of their keys.

    Raises:
        RecipeError: A key is unknown, or is given by an older and by a newer name.
    """
    found: dict[str, Given] = {}
    for written, value in _leaves(document):
        for key, part in _targets(where, written, value):
            if key in found:
                raise RecipeError(
                    f"{where}: {found[key].written} and {written} are the same key; remove one"
                )
            if part not in _UNSET:
                found[key] = Given(part, written)
    return found


def apply_overrides(found: dict[str, Given], overrides: Iterable[str]) -> dict[str, Given]:
    """Return the values with `KEY=VALUE` overrides, keys by their older or newer names.

    Raises:
        RecipeError: A key is unknown, a value is no YAML, or there is no `=`.
    """
    result = dict(found)
    for override in overrides:
        written, equals, text = override.partition("=")
        if not equals:
            raise RecipeError(f"{override}: expected KEY=VALUE, such as model.backbone=i3d")
        value = yaml_value(override, text)
        for key, part in _targets("the command line", written, value):
            result.pop(key, None)
            if part not in _UNSET:
                result[key] = Given(part, written)
    return result


def check_keys(where: str, found: Mapping[str, Given]) -> dict[str, Any]:
    """Return all values, TAO's defaults where a key is not set, each of its type and in range.

    Raises:
        RecipeError: A value is of another type or out of range.
    """
    values = {name: key.default for name, key in KEYS.items()}
    for name, given in found.items():
        key = KEYS[name]
        if key.hint is dict:
            values[name] = _label_map(where, given)
            continue
        value = check_value(where, key.hint, given.value, given.written)
        check_range(where, given.written, value, Range(key.low, key.high, key.above))
        values[name] = value
    return values


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
        shape = check_value(where, tuple[int, ...], value, written)
        if len(shape) != 2:
            raise RecipeError(f"{where}: {written} is {value}; expected [height, width]")
        return list(zip(_OLD_KEYS[key], shape, strict=True))
    keys = _OLD_KEYS.get(key, (key,))
    if keys == (key,) and key not in KEYS:
        if value is None and any(name.startswith(f"{key}.") for name in KEYS):
            return []  # a section without keys
        raise RecipeError(f"{where}: unknown key {written}; {_nearest(written, key)}")
    return [(name, value) for name in keys]


def _nearest(written: str, key: str) -> str:
    """Say which known key was meant, by the names of the same age as the one that is written."""
    known = {*KEYS, *_OLD_KEYS}
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    if not near:
        last = {name.rpartition(".")[2]: name for name in known}
        ends = difflib.get_close_matches(key.rpartition(".")[2], last, n=1, cutoff=0.7)
        near = [last[end] for end in ends]
    if not near:
        return "TAO's action_recognition has no such key; remove it"
    section, dot, rest = near[0].partition(".")
    older = {new: old for old, new in _OLD_SECTIONS.items()}
    if written.partition(".")[0] in _OLD_SECTIONS:
        section = older.get(section, section)
    return f"did you mean {section}{dot}{rest}?"


def _label_map(where: str, given: Given) -> dict[str, int]:
    """Check that the indices are 0 to N-1, each once; the order of the file does not matter."""
    if not isinstance(given.value, dict):
        raise RecipeError(f"{where}: {given.written} is {given.value!r}; expected name: index")
    result: dict[str, int] = {}
    for name, index in given.value.items():
        if not isinstance(name, str):
            raise RecipeError(
                f"{where}: {given.written} has the class {name!r}, which YAML does not take for a "
                'text; put its name in quotes, such as "no"'
            )
        result[name] = check_value(where, int, index, f"{given.written}.{name}")
    places: dict[int, str] = {}
    for name, index in result.items():
        if index in places:
            raise RecipeError(
                f"{where}: {given.written} gives {places[index]} and {name} the index {index}; "
                "expected each index once"
            )
        if not 0 <= index < len(result):
            raise RecipeError(
                f"{where}: {given.written}.{name} is {index}; expected 0..{len(result) - 1}, as "
                f"there are {len(result)} classes"
            )
        places[index] = name
    return result
