"""Datasets: split lists, archives, indexes, folders in TAO's layout, specs and recipes."""

import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from helpers.training_runs import THREE
from helpers.video_data import write_rar, write_zip
from PIL import Image

from fuzz import mutators as damage
from fuzz.kind import Kind
from fuzz.shared import Shared
from i3dzoo.video.generate import CLIPS_FOLDER, LISTS_FOLDER


def _hmdb51(folder: Path, shared: Shared) -> None:
    shutil.copytree(shared.source / LISTS_FOLDER, folder / "lists")


def _ucf101(folder: Path, shared: Shared) -> None:
    (folder / "lists").mkdir()
    lines = "".join(f"{number} {label}\r\n" for number, label in enumerate(THREE, 1))
    (folder / "lists" / "classInd.txt").write_text(lines)
    for role in ("train", "test"):
        for split in (1, 2, 3):
            lines = ""
            for number, label in enumerate(THREE, 1):
                clips = sorted((shared.source / CLIPS_FOLDER / label).iterdir())
                clip = clips[role == "test"].name
                lines += f"{label}/{clip}{f' {number}' if role == 'train' else ''}\r\n"
            (folder / "lists" / f"{role}list0{split}.txt").write_text(lines)


def _files(shared: Shared) -> dict[str, bytes]:
    clips = sorted((shared.source / CLIPS_FOLDER).rglob("*.avi"))
    return {str(path.relative_to(shared.source / CLIPS_FOLDER)): path.read_bytes()
            for path in clips}  # fmt: skip


def _zip(folder: Path, shared: Shared) -> None:
    write_zip(folder / "hmdb51.zip", _files(shared))


def _rar(folder: Path, shared: Shared) -> None:
    write_rar(folder / "hmdb51.rar", _files(shared))


def _tar(folder: Path, shared: Shared) -> None:
    with tarfile.open(folder / "hmdb51.tar", "w") as archive:
        archive.add(shared.source / CLIPS_FOLDER, "clips")


def _lists_zip(folder: Path, shared: Shared) -> None:
    lists = (shared.source / LISTS_FOLDER).iterdir()
    write_zip(folder / "splits.zip", {path.name: path.read_bytes() for path in sorted(lists)})


def _index(folder: Path, shared: Shared) -> None:
    shutil.copytree(shared.data, folder / "data", symlinks=False)


def _annotations(folder: Path, shared: Shared) -> None:
    clips = sorted(path.stem for path in (shared.source / CLIPS_FOLDER).rglob("*.avi"))
    rows = [f"{clip},c00{row % 3} 0.0 1.0;{THREE[1]}" for row, clip in enumerate(clips)]
    (folder / "test.csv").write_text("\n".join(["id,actions", *rows, ""]))


def _list(suffix: str) -> Callable[[Path, Shared], None]:
    """Return what writes a list of the clips with every column."""

    def build(folder: Path, shared: Shared) -> None:
        clips = sorted((shared.source / CLIPS_FOLDER).rglob("*.avi"))
        rows = [
            {"path": clip.name, "label": clip.parent.name, "split": ("train", "test")[row % 2],
             "start": row * 0.01, "end": 0.4}
            for row, clip in enumerate(clips)
        ]  # fmt: skip
        path = folder / f"list{suffix}"
        if suffix == ".parquet":
            pq.write_table(pa.Table.from_pylist(rows), path)
        elif suffix == ".jsonl":
            path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        elif suffix == ".txt":
            labels = [f"{row['path']} {THREE.index(row['label'])}\n" for row in rows]
            path.write_text("".join(labels))
        else:
            lines = [",".join(map(str, row.values())) for row in ({k: k for k in rows[0]}, *rows)]
            path.write_text("\n".join(lines))

    return build


def _tao_folder(folder: Path, _: Shared) -> None:
    for label in THREE:
        for part in ("rgb", "u", "v"):
            (folder / "data" / label / "clip" / part).mkdir(parents=True)
            for number in range(10):
                image = np.full((40, 48, 3) if part == "rgb" else (40, 48), number, "u1")
                Image.fromarray(image).save(
                    folder / "data" / label / "clip" / part / f"{number:06d}.png"
                )


def _recipe(folder: Path, shared: Shared) -> None:
    shutil.copy(shared.folder / "recipe.yaml", folder)


def _spec(task: str) -> Callable[[Path, Shared], None]:
    def build(folder: Path, shared: Shared) -> None:
        _tao_folder(folder, shared)
        document = {
            "results_dir": "out",
            "gpu_ids": [0],
            "model": {
                "model_type": "rgb",
                "input_type": "3d",
                "backbone": "i3d",
                "rgb_seq_length": 9,
                "rgb_pretrained_model_path": str(shared.motions_network),
                "sample_strategy": "consecutive",
            },
            "train": {
                "optim": {"lr": 0.01, "momentum": 0.9, "lr_steps": [1], "lr_decay": 0.1},
                "num_epochs": 1,
            },
            "dataset": {
                "train_dataset_dir": "data",
                "val_dataset_dir": "data",
                "label_map": {label: number for number, label in enumerate(THREE)},
                "output_shape": [32, 32],
                "batch_size": 2,
                "workers": 0,
                "augmentation_config": {
                    "train_crop_type": "random_crop",
                    "horizontal_flip_prob": 0.5,
                    "rgb_input_mean": [0.5, 0.5, 0.5],
                    "rgb_input_std": [0.5, 0.5, 0.5],
                    "val_center_crop": True,
                },
            },
            "evaluate": {
                "checkpoint": str(shared.motions_network),
                "test_dataset_dir": "data",
                "batch_size": 1,
            },
        }
        if task == "evaluate":
            del document["train"]
        (folder / "spec.yaml").write_text(yaml.safe_dump(document, sort_keys=False))

    return build


_PREPARE = ("--jobs", "1", "--allow-missing")
_MADE = ("*",)  # a prepared folder is resumed
_EVALUATE = ("evaluate", "{shared}/motions.safetensors", "--workers", "0", "-o", "out",
             "--device", "cpu")  # fmt: skip
_TRAIN = ("--device", "cpu", "--keep", "best")
_SHORT = ("--set", "loop.max_steps=1", "--set", "network.freeze=trunk")

KINDS = (
    Kind("hmdb51 split lists", _hmdb51, {"lists/*": damage.damage_lines},
         ("prepare", "hmdb51", "{shared}/source", "out/d", "--splits", "lists", *_PREPARE),
         partial=_MADE),
    Kind("ucf101 split lists", _ucf101, {"lists/*": damage.damage_lines},
         ("prepare", "ucf101", "{shared}/source", "out/d", "--splits", "lists", *_PREPARE),
         partial=_MADE),
    Kind("zip of clips", _zip, {"hmdb51.zip": damage.damage_zip},
         ("prepare", "hmdb51", "hmdb51.zip", "out/d", "--splits", "{shared}/source", *_PREPARE),
         0.5, partial=_MADE),
    Kind("rar of clips", _rar, {"hmdb51.rar": damage.damage_bytes},
         ("prepare", "hmdb51", "hmdb51.rar", "out/d", "--splits", "{shared}/source", *_PREPARE),
         0.5, partial=_MADE),
    Kind("tar of clips", _tar, {"hmdb51.tar": damage.damage_bytes},
         ("prepare", "hmdb51", "hmdb51.tar", "out/d", "--splits", "{shared}/source", *_PREPARE),
         0.5, partial=_MADE),
    Kind("zip of split lists", _lists_zip, {"splits.zip": damage.damage_zip},
         ("prepare", "hmdb51", "{shared}/source", "out/d", "--splits", "splits.zip", *_PREPARE),
         0.5, partial=_MADE),
    *(
        Kind(f"list {suffix[1:]}", _list(suffix), {f"list{suffix}": mutator},
             ("prepare", "videos", f"list{suffix}", "out/d", "--root", "{shared}/source", "--jobs",
              "1"), 0.3, partial=_MADE)
        for suffix, mutator in (
            (".csv", damage.damage_lines), (".txt", damage.damage_lines),
            (".jsonl", damage.damage_json_lines), (".parquet", damage.damage_bytes),
        )
    ),
    Kind("index", _index, {"data/index.jsonl": damage.damage_json_lines},
         (*_EVALUATE, "--data", "data"), 0.2, partial=("*.jsonl",)),
    Kind("clips of an index", _index, {"data/**/*.avi": damage.damage_media},
         (*_EVALUATE, "--data", "data", "--on-bad-video", "skip"), 0.15, partial=("*.jsonl",)),
    Kind("annotations", _annotations, {"test.csv": damage.damage_lines},
         ("evaluate", "{shared}/multi.safetensors", "--workers", "0", "-o", "out", "--device",
          "cpu", "--data", "{shared}/data", "--annotations", "test.csv"), 0.2,
         partial=("*.jsonl",)),
    Kind("folder of frames", _tao_folder, {"data/*/*/rgb/*": damage.damage_media},
         (*_EVALUATE, "--data", "data", "--split", "none"), 0.2,
         partial=("*.jsonl",)),
    Kind("recipe", _recipe, {"recipe.yaml": damage.damage_yaml},
         ("finetune", "motions", "--data", "{shared}/data", "--from",
          "{shared}/motions.safetensors", "--recipe", "recipe.yaml", "-o", "out/run", *_TRAIN),
         0.3, partial=("run/*",)),
    Kind("TAO train spec", _spec("train"), {"spec.yaml": damage.damage_yaml},
         ("finetune", "-e", "spec.yaml", *_SHORT, *_TRAIN), 0.3, partial=("*",)),
    Kind("TAO evaluate spec", _spec("evaluate"), {"spec.yaml": damage.damage_yaml},
         ("evaluate", "-e", "spec.yaml", "--workers", "0", "--device", "cpu"), 0.15,
         partial=("*",)),
)  # fmt: skip
