"""TAO specs: read by older and newer names, every key honoured or refused by name."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from i3dzoo.errors import MissingFileError, RecipeError
from i3dzoo.training.recipe import load_recipe
from i3dzoo.training.tao import Task, load_tao, read_tao
from i3dzoo.training.tao_keys import KEYS

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
    """A spec by newer names that i3dzoo does all of."""
    return write(tmp_path, NEWER)


@pytest.fixture(scope="module")
def tao(test_data: Path) -> Path:
    """The folder of TAO's own specs."""
    return test_data / "tao"


class TestTheirOwnSpecs:
    def test_the_i3d_recipe_is_ours(self, tao: Path) -> None:
        """TAO's I3D spec, as it is, gives the numbers of the recipe `tao`."""
        found = load_tao(tao / "train_rgb_3d_64_i3d.yaml")
        ours = load_recipe("tao")
        for section in ("network", "optim", "schedule", "loop"):
            assert getattr(found.recipe, section) == getattr(ours, section)
        assert found.recipe.augment.frames == ours.augment.frames == 64
        assert found.recipe.augment.mean == (0.485, 0.456, 0.406)
        assert found.recipe.augment.std == (0.229, 0.224, 0.225)
        assert found.recipe.loop.batch_size == 8 * 8
        assert found.gpu_ids == tuple(range(8))
        assert found.stream == "rgb"
        (stream,) = found.streams
        assert stream.pretrained == (
            "/workspace/action_recognition/i3d_pretrained/rgb_imagenet_kinetics.pt"
        )
        assert stream.pretrained_classes == 400
        assert found.labels[:3] == ("throw", "push", "dribble")
        assert found.label_map["pullup"] == 50
        assert found.train_dir == Path("/raid/HMDB51_splitted_org/train")
        assert found.results_dir == Path("exp0_20__/rgb_3d_hmdb")
        assert found.notes == ("encryption_key has no meaning: nothing is encrypted",)
        assert found.refused == ()

    def test_all_are_read_as_they_are(self, tao: Path) -> None:
        """Every spec is read; those of other networks say what i3dzoo does not do."""
        paths = sorted(tao.glob("*.yaml"))
        assert len(paths) >= 9
        for path in paths:
            found = read_tao(path)
            kind = path.stem.split("_")[-1]
            streams = {"joint": ("joint", 2), "of": ("flow", 1)}
            assert (found.stream, len(found.streams)) == streams.get(kind, ("rgb", 1))
            refused = {refusal.key for refusal in found.refused}
            assert ("model.backbone" in refused) == path.name.startswith("current")

    def test_a_resnet_spec_is_refused_with_all_reasons(self, tao: Path) -> None:
        """The message names each key as it is written, with the reason."""
        with pytest.raises(RecipeError) as caught:
            load_tao(tao / "current_experiment.yaml")
        message = str(caught.value)
        assert "model.backbone is 'resnet_18': i3dzoo trains I3D and no ResNet; set i3d" in message
        assert "train_crop_type is 'no_crop': i3dzoo resizes the short side" in message
        assert "model.rgb_seq_length is 3: I3D needs at least 9 frames" in message

    def test_overrides_make_it_run(self, tao: Path) -> None:
        """What is refused can be set on the command line, by either age of name."""
        path = tao / "current_train_rgb.yaml"
        with pytest.raises(RecipeError, match=r"model_config\.backbone is 'resnet18'"):
            load_tao(path)
        found = load_tao(path, ["model.backbone=i3d", "train_config.epochs=3"])
        assert found.recipe.loop.epochs == 3
        assert found.recipe.optim.weight_decay == 5e-4  # TAO's default, not ours

    def test_encrypted_models_matter_only_where_they_are_used(self, tao: Path) -> None:
        """A spec that exports an encrypted model is refused for exporting, not for training."""
        path = tao / "i3d_rgb_3d_64_export.yaml"
        load_tao(path, task="train")
        with pytest.raises(RecipeError) as caught:
            load_tao(path, task="export")
        assert str(caught.value).count("it is encrypted and only NVIDIA's tools can read it") == 1
        assert "output_file is '/workspace/rgb_3d_hmdb/i3d_rgb3d_64.etlt'" in str(caught.value)


OTHER_VALUES: dict[str, str] = {
    "model.model_type": "of",
    "model.backbone": "resnet_50",
    "model.input_type": "2d",
    "model.sample_strategy": "random_interval",
    "dataset.label_map": "{a: 0, b: 1}",
    "dataset.augmentation_config.train_crop_type": "no_crop",
    "dataset.augmentation_config.scales": "[1, 0.8]",
    "dataset.augmentation_config.val_center_crop": "false",
    "train.optim.lr_scheduler": "AutoReduce",
    "train.optim.lr_monitor": "train_loss",
    "train.optim.lr_steps": "[3]",
    "evaluate.video_eval_mode": "conv",
    "inference.video_inf_mode": "all",
    "wandb.tags": "[a]",
}


@pytest.mark.parametrize("key", KEYS)
def test_no_key_is_ignored(spec: Path, key: str) -> None:
    """Any key, set to another value, changes the record: the recipe, a remark or a refusal."""
    value = OTHER_VALUES.get(key)
    if value is None:
        hint, default = KEYS[key].hint, KEYS[key].default
        if hint is bool:
            value = str(not default).lower()
        elif hint is int:
            value = str(default + 20)
        elif hint is float:
            value = str(default - 0.25 if default > 0.5 else default + 0.25)
        elif key.endswith("gpu_ids"):
            value = "[1, 2]"
        elif key.endswith(("mean", "std")):
            value = "[0.25]"
        else:
            value = "somewhere"
    before, after = read_tao(spec), read_tao(spec, [f"{key}={value}"])
    assert after != before
    # The key itself is spoken of, or something other than the remarks changed.
    spoken = [note for note in after.notes if note.startswith(key)]
    spoken += [refusal.key for refusal in after.refused if refusal.key == key]
    changed = [
        name
        for name in before.__dataclass_fields__
        if name not in ("notes", "refused") and getattr(before, name) != getattr(after, name)
    ]
    assert spoken or changed


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
    """A key by its older name does what its newer name does."""
    value = {"gpu_ids": "[0, 1]", "video_eval_mode": "conv", "dropout_ratio": "0.125"}
    text = value.get(older.rpartition(".")[2], "7")
    one, other = read_tao(spec, [f"{older}={text}"]), read_tao(spec, [f"{newer}={text}"])
    assert one.recipe == other.recipe
    assert one.results_dir == other.results_dir
    assert one.resume == other.resume
    assert one.evaluate == other.evaluate
    assert one.export == other.export
    assert one.recipe != read_tao(spec).recipe or older in (
        "output_dir",
        "resume_training_checkpoint_path",
        "video_eval_mode",
        "output_file",
    )


def test_sizes_batches_and_schedules(spec: Path) -> None:
    """Keys arrive where they belong, units included."""
    found = read_tao(
        spec,
        [
            "dataset_config.output_shape=[112, 112]",
            "dataset.augmentation_config.crop_smaller_edge=128",
            "dataset.batch_size=4",
            "train.num_gpus=3",
            "train.num_nodes=2",
            "train.clip_grad_norm=1.5",
            "train.optim.lr_scheduler=AutoReduce",
            "train.optim.patience=4",
            "train.optim.min_lr=1e-6",
            "train.optim.weight_decay=1e-7",
            "train.validation_interval=5",
            "evaluate.video_eval_mode=conv",
            "evaluate.video_num_segments=12",
        ],
    )
    found.check("train")
    recipe = found.recipe
    assert (recipe.augment.resize, recipe.augment.crop) == (128, 112)
    assert found.gpu_ids == (0, 1, 2)
    assert recipe.loop.batch_size == 4 * 3 * 2
    assert recipe.optim.clip_grad_norm == 1.5
    assert recipe.optim.weight_decay == 1e-7
    assert (recipe.schedule.kind, recipe.schedule.patience) == ("plateau", 4)
    assert recipe.schedule.min_lr == 1e-6
    assert recipe.evaluation.every == 5
    assert found.evaluate.protocol == "multi:12x1"
    assert any("counts each video once" in note for note in found.notes)


def test_joint_specs_have_a_recipe_for_each_stream(spec: Path) -> None:
    """A joint spec has two streams, with the frames, means and checkpoints of each."""
    found = load_tao(
        spec,
        [
            "model.model_type=joint",
            "model.of_seq_length=32",
            "model.of_pretrained_model_path=flow_imagenet",
            "dataset.augmentation_config.of_input_mean=[0.25, 0.75]",
        ],
    )
    rgb, flow = found.streams
    assert (rgb.stream, flow.stream) == ("rgb", "flow")
    assert (rgb.pretrained, flow.pretrained) == (None, "flow_imagenet")
    assert found.recipe == found.recipe_of(rgb)
    assert found.recipe_of(flow).augment.frames == 32
    assert found.recipe_of(flow).augment.mean == (0.25, 0.75)
    assert found.recipe_of(flow).augment.std == (0.5, 0.5)


def test_labels_keep_their_own_order(spec: Path) -> None:
    """The order of the classes is that of their indices, not of the file or the alphabet."""
    assert read_tao(spec).labels == ("run", "wave", "jump")


REFUSED: list[tuple[Task, str, str]] = [
    ("train", "model.backbone=resnet_18", "model.backbone is 'resnet_18': i3dzoo trains I3D"),
    ("train", "model.input_type=2d", "model.input_type is '2d': I3D takes clips"),
    ("train", "model.sample_rate=2", "model.sample_rate is 2: i3dzoo takes every frame; set 1"),
    ("train", "model.rgb_seq_length=8", "is 8: I3D needs at least 9 frames"),
    ("train", "model.input_width=128", "the input is 224x128; i3dzoo crops squares"),
    ("train", "model.imagenet_pretrained=true", "name an ImageNet checkpoint"),
    ("train", "train.seed=-1", "train.seed is -1: i3dzoo's runs can be repeated"),
    ("train", "train.gpu_ids=[0, 0]", "expected at least one GPU, each once"),
    ("train", "train.gpu_ids=[]", "expected at least one GPU, each once"),
    ("train", "wandb.enable=true", "wandb.enable is True: i3dzoo writes TensorBoard files"),
    ("train", "model.rgb_pretrained_model_path=a.tlt", "it is encrypted and only NVIDIA's"),
    ("train", "dataset.augmentation_config.crop_smaller_edge=200", "a crop of 224 does not fit"),
    ("evaluate", "evaluate.video_eval_mode=all", "TAO counts each clip for a video"),
    ("evaluate", "evaluate.num_nodes=2", "only training runs on several machines"),
    ("export", "export.onnx_file=a.etlt", "i3dzoo writes no encrypted files; name a file .onnx"),
    (
        "train",
        "dataset.train_dataset_dir=",
        "dataset.train_dataset_dir is not set, and train needs",
    ),
    ("evaluate", "evaluate.checkpoint=??", "evaluate.checkpoint is not set, and evaluate needs it"),
]


@pytest.mark.parametrize(("task", "override", "message"), REFUSED)
def test_what_is_not_done_is_refused_by_name(
    spec: Path, task: Task, override: str, message: str
) -> None:
    """A value that i3dzoo does not do is an error with its key, its reason and what to do."""
    load_tao(spec, task=task)
    with pytest.raises(RecipeError) as caught:
        load_tao(spec, [override], task=task)
    assert message in str(caught.value)


def test_gpu_counts_that_disagree_are_refused(spec: Path) -> None:
    """num_gpus and gpu_ids must say the same."""
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
        ("train.num_epochs=many", "train.num_epochs is 'many'; expected int"),
        ("train.num_epochs=0", "train.num_epochs is 0; expected at least 1"),
        ("train.optim.lr=0", "train.optim.lr is 0.0; expected more than 0"),
        ("train.seed=[1", r"train.seed=\[1: the value is no YAML; expected one such as 1, true"),
        ("train.seed=4294967296", r"train.seed is 4294967296; expected -1\.\.4294967295"),
        ("model.dropout_ratio=1.5", r"model.dropout_ratio is 1.5; expected 0\.\.1"),
        ("model.model_type=depth", "model.model_type is 'depth'; expected 'rgb' or 'of' or 'joi"),
        ("dataset.output_shape=[224]", r"is \[224\]; expected \[height, width\]"),
        ("dataset.label_map={a: 0, b: 0}", "gives a and b the index 0; expected each index once"),
        ("dataset.label_map={a: 0, b: 2}", r"label_map.b is 2; expected 0\.\.1, as there are 2 cl"),
        ("dataset.label_map={a: 0, no: 1}", "has the class False, .* put its name in quotes"),
        ("dataset.label_map=[a]", r"label_map is \['a'\]; expected name: index"),
        ("model.backbone", "model.backbone: expected KEY=VALUE, such as model.backbone=i3d"),
        ("dataset.augmentation_config.rgb_input_mean=[1, 2]", "has 2 values; expected 1 or 3"),
        ("dataset.augmentation_config.rgb_input_std=[0]", "expected positive numbers"),
    ],
)
def test_wrong_keys_and_values(spec: Path, override: str, message: str) -> None:
    """An unknown key names the nearest one; a wrong value says what is expected."""
    with pytest.raises(RecipeError, match=message):
        read_tao(spec, [override])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: {backbone: i3d}\nmodel_config: {backbone: i3d}\n", "are the same key; remove one"),
        ("model:\n  backbone: i3d\n  backbone: i3d\n", "line 3 gives backbone a second time"),
        ("model: [\n", "is no YAML"),
        ("- a\n", "is no mapping; expected a TAO spec"),
        ("", "is no mapping; expected a TAO spec"),
    ],
)
def test_files_that_are_no_specs(tmp_path: Path, text: str, message: str) -> None:
    """A file that is no YAML, or that says a thing twice, is an error."""
    path = tmp_path / "spec.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=message):
        read_tao(path)


def test_a_missing_file(tmp_path: Path) -> None:
    """A file that is not there is named."""
    with pytest.raises(MissingFileError, match=r"nothing\.yaml: there is no such TAO spec"):
        read_tao(tmp_path / "nothing.yaml")


def test_what_tao_defaults_to_and_i3dzoo_does_otherwise_is_told(tmp_path: Path) -> None:
    """A short spec runs, and the remarks say where TAO's defaults are not followed."""
    short = {"model": {"backbone": "i3d", "rgb_seq_length": 64}, "dataset": NEWER["dataset"]}
    found = load_tao(write(tmp_path, short))
    assert any(note.startswith("model.input_type is not set, and TAO") for note in found.notes)
    assert any(note.startswith("model.sample_strategy is not set") for note in found.notes)
