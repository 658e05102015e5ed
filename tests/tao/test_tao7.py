"""TAO 7: keys and defaults of NVIDIA's own schema, and the specs that it publishes."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from i3dzoo.tao.keys import KEYS
from i3dzoo.tao.records import Task
from i3dzoo.tao.spec import load_tao

I3D = ["model.backbone=i3d", "model.input_type=3d"]
PATHS = [
    "dataset.train_dataset_dir=/data/train",
    "dataset.val_dataset_dir=/data/val",
    "dataset.label_map={catch: 0, smile: 1}",
]
TASKS: dict[Task, list[str]] = {
    "train": [],
    "evaluate": ["evaluate.checkpoint=a.pth", "evaluate.test_dataset_dir=/data/test"],
    "inference": ["inference.checkpoint=a.pth", "inference.inference_dataset_dir=/data/some"],
    "export": ["export.checkpoint=a.pth"],
}
OLDER = {"evaluate.gpu_id", "inference.gpu_id"}  # gone since TAO 7, and still accepted


def leaves(document: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the keys of a nested mapping with their values."""
    for key, value in document.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    """Return the defaults of all keys, from NVIDIA's schema."""
    config = pytest.importorskip("nvidia_tao_core.config.action_recognition.default_config")
    return dict(leaves(dataclasses.asdict(config.ExperimentConfig())))


@pytest.mark.tao7
class TestSchema:
    def test_every_key_with_its_default(self, schema: dict[str, Any]) -> None:
        """i3dzoo knows the keys of the schema and those of older versions, and no others."""
        assert schema.keys() == KEYS.keys() - OLDER
        for key, default in schema.items():
            expected = None if default in ("", "???") else default
            ours = KEYS[key].default
            assert (list(ours) if isinstance(ours, tuple) else ours) == expected, key

    @pytest.mark.parametrize("task", TASKS)
    def test_a_generated_spec_is_accepted(
        self, schema: dict[str, Any], task: Task, tmp_path: Path
    ) -> None:
        """A spec that sets every key to its default runs with I3D and paths."""
        document: dict[str, Any] = {}
        for key, value in schema.items():
            section = document
            *names, last = key.split(".")
            for name in names:
                section = section.setdefault(name, {})
            section[last] = value
        path = tmp_path / "spec.yaml"
        path.write_text(yaml.safe_dump(document))
        assert load_tao(path, [*I3D, *PATHS, *TASKS[task]], task=task).label_map["smile"] == 1


@pytest.fixture(scope="module")
def specs(test_data: Path) -> list[Path]:
    """Return NVIDIA's templates and tutorials."""
    paths = sorted((test_data / "tao7").glob("*.yaml"))
    assert len(paths) == 8
    return paths


class TestPublishedSpecs:
    @pytest.mark.parametrize("task", TASKS)
    def test_all_are_accepted(self, specs: list[Path], task: Task) -> None:
        """Every file runs every task, with I3D and paths given as overrides."""
        for path in specs:
            translated = load_tao(path, [*I3D, *PATHS, *TASKS[task]], task=task)
            augment = translated.recipe.augment
            is_tutorial = path.stem.startswith("tutorial")
            sampling = "consecutive" if is_tutorial else "interval"
            assert (augment.sampling, augment.test_resize_mode) == (sampling, "squash"), path
            assert augment.resize_mode == ("squash" if is_tutorial else "short")
            assert translated.recipe.loop.batch_size == (32 if is_tutorial else 2)
            assert (translated.wandb is None) == is_tutorial

    def test_wandb(self, specs: list[Path]) -> None:
        """The section wandb becomes the arguments of wandb.init."""
        overrides = [*I3D, *PATHS, "wandb.group=mine", "wandb.run_id=7"]
        assert load_tao(specs[3], overrides).wandb == {
            "project": "TAO Toolkit",
            "entity": None,
            "group": "mine",
            "tags": ("tao-toolkit",),
            "reinit": False,
            "save_code": False,
            "name": "TAO Toolkit Training",
            "id": "7",
            "sync_tensorboard": True,
        }
