"""TAO specs with older and newer names: every key is honoured, or refused by name."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from i3dzoo.errors import MissingFileError, RecipeError
from i3dzoo.tao.keys import KEYS
from i3dzoo.tao.records import Task
from i3dzoo.tao.spec import load_tao, read_tao
from i3dzoo.training.recipe import load_recipe

AUGMENT = "dataset.augmentation_config"
NEWER: dict[str, Any] = {
    "model": {
        "backbone": "i3d",
        "input_type": "3d",
        "rgb_seq_length": 64,
        "sample_strategy": "consecutive",
    },
    "dataset": {
        "train_dataset_dir": "/data/train",
        "label_map": {"wave": 1, "run": 0, "jump": 2},
        "augmentation_config": {"val_center_crop": True},
    },
    "evaluate": {"checkpoint": "a.pth", "test_dataset_dir": "/data/test"},
    "inference": {"checkpoint": "a.pth", "inference_dataset_dir": "/data/some"},
    "export": {"checkpoint": "a.pth"},
}


def write(folder: Path, document: dict[str, Any]) -> Path:
    """Write a spec."""
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    """Write a spec with newer names that i3dzoo supports completely."""
    return write(tmp_path, NEWER)


@pytest.fixture(scope="module")
def tao(test_data: Path) -> Path:
    """Return the folder of TAO's specs."""
    return test_data / "tao"


class TestPublishedSpecs:
    def test_the_i3d_spec_is_the_recipe_tao(self, tao: Path) -> None:
        """TAO's I3D spec has the numbers of the recipe `tao`."""
        translated, ours = load_tao(tao / "train_rgb_3d_64_i3d.yaml"), load_recipe("tao")
        for section in ("network", "optim", "schedule", "loop"):
            assert getattr(translated.recipe, section) == getattr(ours, section)
        augment = translated.recipe.augment
        assert augment.frames == ours.augment.frames == 64
        assert (augment.mean, augment.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        assert translated.recipe.loop.batch_size == 8 * 8
        assert translated.gpu_ids == tuple(range(8))
        assert translated.stream == "rgb"
        (stream,) = translated.streams
        assert stream.pretrained == (
            "/workspace/action_recognition/i3d_pretrained/rgb_imagenet_kinetics.pt"
        )
        assert stream.pretrained_classes == 400
        assert translated.labels[:3] == ("throw", "push", "dribble")
        assert translated.label_map["pullup"] == 50
        assert translated.train_dir == Path("/raid/HMDB51_splitted_org/train")
        assert translated.results_dir == Path("exp0_20__/rgb_3d_hmdb")
        assert translated.notes == ("encryption_key has no effect: no file is encrypted",)
        assert translated.refused == ()

    def test_all_are_read(self, tao: Path) -> None:
        """Every spec is read; for other networks, the refusals say what i3dzoo does not support."""
        paths = sorted(tao.glob("*.yaml"))
        assert len(paths) >= 9
        for path in paths:
            translated = read_tao(path)
            kind = path.stem.split("_")[-1]
            streams = {"joint": ("joint", 2), "of": ("flow", 1)}
            assert (translated.stream, len(translated.streams)) == streams.get(kind, ("rgb", 1))
            refused = {refusal.key for refusal in translated.refused}
            assert ("model.backbone" in refused) == path.name.startswith("current")

    def test_a_resnet_spec_is_refused_with_all_reasons(self, tao: Path) -> None:
        """The message names each key as written, with the reason."""
        with pytest.raises(RecipeError) as caught:
            load_tao(tao / "current_experiment.yaml")
        message = str(caught.value)
        assert "model.backbone is 'resnet_18': i3dzoo trains only I3D; set i3d" in message

    def test_overrides_make_it_run(self, tao: Path) -> None:
        """Overrides replace refused values, by older or newer names."""
        path = tao / "current_train_rgb.yaml"
        with pytest.raises(RecipeError, match=r"model_config\.backbone is 'resnet18'"):
            load_tao(path)
        translated = load_tao(path, ["model.backbone=i3d", "train_config.epochs=3"])
        assert translated.recipe.loop.epochs == 3
        assert (
            translated.recipe.optim.weight_decay == 5e-4
        )  # TAO's default, not that of i3dzoo's recipes

    def test_encrypted_models_matter_only_where_they_are_used(self, tao: Path) -> None:
        """A spec that exports an encrypted model can train, but not export."""
        path = tao / "i3d_rgb_3d_64_export.yaml"
        load_tao(path, task="train")
        with pytest.raises(RecipeError) as caught:
            load_tao(path, task="export")
        assert str(caught.value).count("it is encrypted, and only NVIDIA's tools can read it") == 1
        translated = load_tao(path, ["model=a.pth"], task="export")
        assert translated.export.onnx_file == Path("/workspace/rgb_3d_hmdb/i3d_rgb3d_64.onnx")
        assert any(
            "output_file names an encrypted file: ONNX is written" in note
            for note in translated.notes
        )


OTHER_VALUES: dict[str, str] = {
    "model.model_type": "of",
    "model.backbone": "resnet_50",
    "model.input_type": "2d",
    "model.sample_strategy": "random_interval",
    "dataset.label_map": "{a: 0, b: 1}",
    "dataset.augmentation_config.train_crop_type": "no_crop",
    "train.checkpoint_interval_unit": "step",
    "train.checkpointer.mode": "max",
    "dataset.augmentation_config.scales": "[1, 0.8]",
    "dataset.augmentation_config.val_center_crop": "false",
    "wandb.enable": "true",
    "train.optim.lr_scheduler": "AutoReduce",
    "train.optim.lr_monitor": "train_loss",
    "train.optim.lr_steps": "[3]",
    "evaluate.video_eval_mode": "conv",
    "inference.video_inf_mode": "all",
    "wandb.tags": "[a]",
    "train.gpu_ids": "[1, 2]",
    "evaluate.gpu_ids": "[1, 2]",
    "inference.gpu_ids": "[1, 2]",
}


def other(value: Any) -> str:
    """Return another value of the same type as a default, as YAML."""
    if isinstance(value, bool):
        return str(not value).lower()
    if isinstance(value, int | float):
        return str(value + 20 if isinstance(value, int) else abs(value - 0.25))
    return "[0.25]" if isinstance(value, tuple) else "somewhere"


@pytest.mark.parametrize("key", KEYS)
def test_no_key_is_ignored(spec: Path, key: str) -> None:
    """A changed value of any key changes the translation: the recipe, a note or a refusal."""
    value = OTHER_VALUES.get(key) or other(KEYS[key].default)
    before, after = read_tao(spec), read_tao(spec, [f"{key}={value}"])
    assert after != before
    # a note or a refusal names the key, or something else changed
    named = [note for note in after.notes if note.startswith(key)]
    named += [refusal.key for refusal in after.refused if refusal.key == key]
    changed = [
        name
        for name in before.__dataclass_fields__
        if name not in ("notes", "refused") and getattr(before, name) != getattr(after, name)
    ]
    assert named or changed


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("model_config.dropout_ratio", "model.dropout_ratio"),
        ("train_config.epochs", "train.num_epochs"),
        ("train_config.optim.lr", "train.optim.lr"),
        ("dataset_config.batch_size", "dataset.batch_size"),
        ("output_dir", "results_dir"),
        ("gpu_ids", "train.gpu_ids"),
        ("resume_training_checkpoint_path", "train.resume_training_checkpoint_path"),
        ("video_eval_mode", "evaluate.video_eval_mode"),
        ("output_file", "export.onnx_file"),
    ],
)
def test_older_names_are_the_newer_ones(spec: Path, older: str, newer: str) -> None:
    """An older name of a key has the effect of its newer name."""
    value = {"gpu_ids": "[0, 1]", "video_eval_mode": "conv", "dropout_ratio": "0.125"}
    text = value.get(older.rpartition(".")[2], "7")
    fields = ("recipe", "results_dir", "resume", "gpu_ids", "evaluate", "export")
    before, by_older, by_newer = (
        [getattr(read_tao(spec, words), field) for field in fields]
        for words in ((), [f"{older}={text}"], [f"{newer}={text}"])
    )
    assert by_older == by_newer != before


def test_sizes_batches_and_schedules(spec: Path) -> None:
    """Keys become the settings of the recipe, in the right units."""
    overrides = (
        f"dataset_config.output_shape=[112,112] {AUGMENT}.crop_smaller_edge=128 "
        "dataset.batch_size=4 train.num_gpus=3 train.num_nodes=2 train.clip_grad_norm=1.5 "
        "train.optim.lr_scheduler=AutoReduce train.optim.patience=4 train.optim.min_lr=1e-6 "
        "train.optim.weight_decay=1e-7 train.validation_interval=5 "
        "evaluate.video_eval_mode=conv evaluate.video_num_segments=12"
    )
    translated = read_tao(spec, overrides.split())
    translated.check("train")
    recipe = translated.recipe
    assert (recipe.augment.resize, recipe.augment.crop) == (128, 112)
    assert translated.gpu_ids == (0, 1, 2)
    assert recipe.loop.batch_size == 4 * 3 * 2
    assert recipe.optim.clip_grad_norm == 1.5
    assert recipe.optim.weight_decay == 1e-7
    assert (recipe.schedule.kind, recipe.schedule.patience) == ("plateau", 4)
    assert recipe.schedule.min_lr == 1e-6
    assert recipe.evaluation.every == 5
    assert translated.evaluate.protocol == "multi:12x1"
    assert any("counts each video once" in note for note in translated.notes)


def test_joint_specs_have_a_recipe_for_each_stream(spec: Path) -> None:
    """Each stream of a joint spec has its own frames, means and checkpoint."""
    overrides = (
        "model.model_type=joint model.of_seq_length=32 "
        f"model.of_pretrained_model_path=flow_imagenet {AUGMENT}.of_input_mean=[0.25,0.75]"
    )
    translated = load_tao(spec, overrides.split())
    rgb, flow = translated.streams
    assert (rgb.stream, flow.stream) == ("rgb", "flow")
    assert (rgb.pretrained, flow.pretrained) == (None, "flow_imagenet")
    assert translated.recipe == translated.recipe_of(rgb)
    assert translated.recipe_of(flow).augment.frames == 32
    assert translated.recipe_of(flow).augment.mean == (0.25, 0.75)
    assert translated.recipe_of(flow).augment.std == (0.5, 0.5)


def test_labels_keep_their_own_order(spec: Path) -> None:
    """The classes are in the order of their indices."""
    assert read_tao(spec).labels == ("run", "wave", "jump")


REFUSED: list[tuple[Task, str, str]] = [
    ("train", "model.backbone=resnet_18", "model.backbone is 'resnet_18': i3dzoo trains only I3D"),
    ("train", "model.input_type=2d", "model.input_type is '2d': I3D takes clips"),
    ("train", "model.sample_rate=2", "model.sample_rate is 2: i3dzoo takes every frame; set 1"),
    ("train", "model.input_width=128", "the input is 224x128, but i3dzoo crops squares"),
    ("train", "model.imagenet_pretrained=true", "name an ImageNet checkpoint"),
    ("train", "train.seed=-1", "train.seed is -1: runs of i3dzoo are reproducible"),
    ("train", "train.gpu_ids=[0, 0]", "expected at least one GPU, each once"),
    ("train", "train.gpu_ids=[]", "expected at least one GPU, each once"),
    ("train", f"{AUGMENT}.train_crop_type=multi_scale_crop", "no crops of several scales"),
    ("train", "model.rgb_pretrained_model_path=a.tlt", "it is encrypted, and only NVIDIA's"),
    ("train", f"{AUGMENT}.crop_smaller_edge=200", "it is smaller than the crop of 224"),
    ("evaluate", "evaluate.video_eval_mode=all", "TAO counts each clip as a video"),
    ("evaluate", "evaluate.num_nodes=2", "only training runs on several machines"),
    ("train", "dataset.train_dataset_dir=", "train_dataset_dir is not set, but train needs it"),
    ("evaluate", "evaluate.checkpoint=??", "evaluate.checkpoint is not set, but evaluate needs it"),
]


@pytest.mark.parametrize(("task", "override", "message"), REFUSED)
def test_unsupported_values_are_refused_by_name(
    spec: Path, task: Task, override: str, message: str
) -> None:
    """The message has the key, the reason, and what to do."""
    load_tao(spec, task=task)
    with pytest.raises(RecipeError) as caught:
        load_tao(spec, [override], task=task)
    assert message in str(caught.value)


def test_gpu_counts_that_disagree_are_refused(spec: Path) -> None:
    """num_gpus and gpu_ids must agree."""
    with pytest.raises(RecipeError, match="num_gpus is 4: gpu_ids lists 2; make them agree"):
        load_tao(spec, ["train.num_gpus=4", "train.gpu_ids=[0, 1]"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.backbon=i3d", r"unknown key model.backbon; did you mean model.backbone\?"),
        ("model_config.drop=1", r"unknown key model_config.drop; .*model_config.dropout_ratio\?"),
        ("train_config.epoch=1", r"unknown key train_config.epoch; did you mean train_config.epo"),
        ("lr_steps=[1]", r"unknown key lr_steps; did you mean train.optim.lr_steps\?"),
        ("zzz=1", "unknown key zzz; TAO's action_recognition has no such key; remove it"),
        ("train.num_epochs=many", "num_epochs: expected an integer of 1 or more, found 'many'"),
        ("train.num_epochs=0", "train.num_epochs: expected an integer of 1 or more, found 0"),
        ("train.optim.lr=0", "train.optim.lr: expected a number greater than 0, found 0"),
        ("train.seed=[1", r"train.seed=\[1: is not valid YAML"),
        ("train.seed=4294967296", "train.seed: expected an integer from -1 to 4294967295, found"),
        ("model.dropout_ratio=1.5", "dropout_ratio: expected a number from 0.* to 1.*, found 1.5"),
        ("model.model_type=depth", "model.model_type: expected 'joint' or .*, found 'depth'"),
        ("dataset.output_shape=[224]", r"expected \[height, width\], found a list of 1"),
        ("dataset.label_map={a: 0, b: 0}", "a and b have the index 0; expected each index once"),
        ("dataset.label_map={a: 0, b: 2}", r"label_map.b: expected 0\.\.1 for 2 classes, found 2"),
        ("dataset.label_map={a: 0, no: 1}", "class False is not text .* its name in quotes"),
        ("dataset.label_map=[a]", "label_map: expected a mapping, found a list of 1"),
        ("model.backbone", "model.backbone: expected KEY=VALUE, such as model.backbone=i3d"),
        (f"{AUGMENT}.rgb_input_mean=[1, 2]", "expected 1 or 3 values, found 2"),
        (f"{AUGMENT}.rgb_input_std=[0]", "expected a number greater than 0"),
    ],
)
def test_wrong_keys_and_values(spec: Path, override: str, message: str) -> None:
    """The message suggests the nearest key, or says what value is expected."""
    with pytest.raises(RecipeError, match=message):
        read_tao(spec, [override])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: {backbone: i3d}\nmodel_config: {backbone: i3d}\n", "are the same key; remove one"),
        ("model:\n  backbone: i3d\n  backbone: i3d\n", "has the key 'backbone' twice"),
        ("model: [\n", "is not valid YAML"),
        ("- a\n", "expected a TAO spec, a mapping"),
        ("", "expected a TAO spec, a mapping"),
    ],
)
def test_files_that_are_not_specs(tmp_path: Path, text: str, message: str) -> None:
    """A file that is not YAML, or that sets a key twice, is an error."""
    path = tmp_path / "spec.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=message):
        read_tao(path)


def test_a_missing_file(tmp_path: Path) -> None:
    """A missing file is named."""
    with pytest.raises(MissingFileError, match=r"nothing\.yaml: the TAO spec does not exist"):
        read_tao(tmp_path / "nothing.yaml")


def test_differences_from_tao_are_noted(tmp_path: Path) -> None:
    """A short spec runs with TAO's defaults, and notes name those that are not used."""
    short = {"model": {"backbone": "i3d", "rgb_seq_length": 64}, "dataset": NEWER["dataset"]}
    translated = load_tao(write(tmp_path, short))
    assert any(
        note.startswith("model.input_type is not set, and TAO's default")
        for note in translated.notes
    )
    assert "dataset.batch_size is not set: it is 2, the default of TAO 7" in translated.notes
    augment = translated.recipe.augment
    assert (augment.sampling, augment.resize_mode, augment.test_resize_mode) == (
        "interval", "short", "short",
    )  # fmt: skip
    older = {"model_config": {"rgb_seq_length": 64}}
    notes = read_tao(write(tmp_path, older)).notes
    assert "dataset.batch_size is not set: it is 32, the default of TAO before 7" in notes


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ("train_crop_type=random_crop", ("short", "squash")),
        ("train_crop_type=no_crop", ("squash", "squash")),
        ("val_center_crop=true train_crop_type=no_crop", ("squash", "short")),
        ("train_crop_type=no_crop crop_smaller_edge=100", ("squash", "squash")),
    ],
)
def test_squashed_frames(tmp_path: Path, overrides: str, expected: tuple[str, str]) -> None:
    """`no_crop` squashes training frames, and without `val_center_crop` those of evaluation."""
    path = write(tmp_path, NEWER | {"dataset": {**NEWER["dataset"], "augmentation_config": {}}})
    words = [f"{AUGMENT}.{override}" for override in overrides.split()]
    augment = load_tao(path, words).recipe.augment
    assert (augment.resize_mode, augment.test_resize_mode) == expected


def test_few_frames_are_noted(spec: Path) -> None:
    """I3D takes clips of at least 9 frames, also where a spec leaves TAO's default of 3."""
    translated = load_tao(spec, ["model.rgb_seq_length=3"])
    assert translated.recipe.augment.frames == 9
    assert any("rgb_seq_length is 3: I3D needs 9 frames" in note for note in translated.notes)
