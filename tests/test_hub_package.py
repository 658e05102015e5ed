"""What goes into a repository: addresses, card, configuration, results, pictures."""

import dataclasses
import hashlib
import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard, ModelCardData

from i3dzoo.checkpoint import Checkpoint, read_checkpoint
from i3dzoo.errors import (
    ChecksumError,
    FormatError,
    ManifestError,
    MetadataError,
    MissingFileError,
    UnknownNameError,
)
from i3dzoo.head import change_head
from i3dzoo.hub import About, Address, Package, is_address, parse, prepare
from i3dzoo.hub.package import preprocessor, read_sums, verified
from i3dzoo.hub.results import Result, read_results
from i3dzoo.labels import labels
from i3dzoo.loading import build, load
from i3dzoo.manifest import HubFile
from i3dzoo.manifest import parse as parse_manifest
from i3dzoo.metadata import default_input

from .hub_home import constants, onnx_of

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("alice/i3d", Address("alice/i3d")),
        ("alice/i3d-rgb_v1.5@v1", Address("alice/i3d-rgb_v1.5", "v1")),
        ("alice/i3d@refs/pr/1", Address("alice/i3d", "refs/pr/1")),
        ("hf://alice/i3d", Address("alice/i3d")),
        ("hf://models/alice/i3d@refs%2Fpr%2F1", Address("alice/i3d", "refs/pr/1")),
        ("hf://alice/i3d@v1/sub/x.pt", Address("alice/i3d", "v1", "sub/x.pt")),
        (str(Path("hf://alice/i3d/x.pt")), Address("alice/i3d", file="x.pt")),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    """Repository, revision and file are read as the Hub writes them, and written back."""
    assert is_address(text)
    assert parse(text) == address
    assert parse(str(address)) == address


@pytest.mark.parametrize(
    "text", ["rgb_scratch", "x.safetensors", "runs/best.pt", "/a/b", "a/b/c", "./a/b", "../b"]
)
def test_paths_are_no_addresses(text: str) -> None:
    """A path that is not there is not looked for on the Hub."""
    assert not is_address(text)


@pytest.mark.parametrize("text", ["hf://alice", "hf://alice/i3d/../x", "alice", "a b/c", "a/b@"])
def test_malformed_addresses(text: str) -> None:
    """What is no address is refused with the forms that are."""
    with pytest.raises(UnknownNameError, match="is no address on the Hub; expected USER/NAME, "):
        parse(text)


def test_no_client_before_it_is_needed() -> None:
    """Neither the Hub's package here nor loading imports the Hub's client, or torch."""
    code = (
        "import sys, i3dzoo.hub, i3dzoo.loading;"
        "assert not {'huggingface_hub', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def front_matter(package: Package) -> dict[str, object]:
    """Return the front matter of a card."""
    document = yaml.safe_load(package.card.split("---\n")[1])
    assert isinstance(document, dict)
    return document


def test_card_of_a_published_checkpoint(genuine: Checkpoint, tmp_path: Path) -> None:
    """The card of rgb_scratch has its licence, data set and published results."""
    package = prepare(genuine, tmp_path, About("alice/i3d-kinetics"))
    front = front_matter(package)
    assert front["library_name"] == "i3dzoo"
    assert front["pipeline_tag"] == "video-classification"
    assert front["license"] == "apache-2.0"
    assert front["datasets"] == ["kinetics-400"]
    (index,) = front["model-index"]  # type: ignore[misc] # yaml has no types
    (result,) = index["results"]
    assert result["dataset"] == {"name": "Kinetics-400", "type": "kinetics-400", "split": "test"}
    assert [metric["value"] for metric in result["metrics"]] == [68.4, 88.0]
    assert result["source"]["url"].startswith("https://github.com/google-deepmind/")
    assert "as published, to the last tensor" in package.card
    assert "i3dzoo predict clip.mp4 --model alice/i3d-kinetics" in package.card


def test_card_of_a_fine_tuned_checkpoint(tmp_path: Path) -> None:
    """The card has the results, the base, the pictures and the licence that were given."""
    run, folder = tmp_path / "run", tmp_path / "package"
    run.mkdir()
    folder.mkdir()
    (run / "curves.png").write_bytes(PNG)
    (run / "confusion_matrix.png").write_bytes(PNG)
    (run / "model.onnx").write_bytes(onnx_of(constants()))
    (run / "results.json").write_text(
        '[{"dataset": "HMDB51", "split": "test 1", "top1": 74.3, "videos": 1530, "seconds": 9}]'
    )
    about = About(
        "alice/i3d",
        licence="LicenseRef-Own",
        results=run / "results.json",
        onnx=run / "model.onnx",
        base_model="alice/i3d-kinetics",
        datasets=("alice/hmdb51",),
    )
    package = prepare(constants(), folder, about, run / "best.safetensors")
    front = front_matter(package)
    assert (front["license"], front["license_name"]) == ("other", "licenseref-own")
    assert (front["base_model"], front["datasets"]) == ("alice/i3d-kinetics", ["alice/hmdb51"])
    (index,) = front["model-index"]  # type: ignore[misc] # yaml has no types
    (metric,) = index["results"][0]["metrics"]
    assert metric == {"type": "accuracy", "value": 74.3, "name": "Top-1 accuracy (%)"}
    for text in (
        "| HMDB51 | test 1 | 74.3 |  | 1530 |",
        "![Training curves](training_curves.png)",
        "![Confusion matrix](confusion_matrix.png)",
        "| [`model.onnx`](model.onnx) |",
        "51 classes. Made from the published checkpoint `rgb_scratch`.",
        "\nbrush_hair, cartwheel, catch,",
        "- fine-tuned on hmdb51 split 1 by 'small'",
        "@inproceedings{carreira2017quo,",
        "`rgb_scratch`, I3D on RGB, trained on Kinetics-400 from scratch, Apache-2.0",
    ):
        assert text in package.card
    assert {name for name, _, _ in package.files} == {path.name for path in folder.iterdir()}


def test_card_of_an_untrained_head(genuine: Checkpoint, tmp_path: Path) -> None:
    """Classes that the head was made for and not trained on are not claimed as training data."""
    package = prepare(change_head(genuine, 51, labels("hmdb51"), "fresh"), tmp_path)
    assert front_matter(package)["datasets"] == ["kinetics-400"]
    assert "51 classes, whose head has not been trained on them: to be fine-tuned" in package.card


def test_cards_are_what_the_hub_reads(package: Package, tmp_path: Path) -> None:
    """The Hub's own reader takes the front matter, finds nothing unknown, and keeps the results."""
    results = tmp_path / "results.json"
    results.write_text('{"dataset": "hmdb51", "split": "test 1", "top1": 74.3, "top5": 91.9}')
    checkpoint = constants()
    history = (
        *checkpoint.metadata.history,
        "fine-tuned from bob/i3d on hmdb51 by 'small' (center)",
    )
    metadata = dataclasses.replace(checkpoint.metadata, history=history)
    checkpoint = dataclasses.replace(checkpoint, metadata=metadata)
    card = ModelCard(prepare(checkpoint, tmp_path, About("alice/i3d", results=results)).card)
    assert card.data.base_model == "bob/i3d"
    found = [(each.metric_name, each.metric_value) for each in card.data.eval_results or []]
    assert found == [("Top-1 accuracy (%)", 74.3), ("Top-5 accuracy (%)", 91.9)]
    assert {each.dataset_type for each in card.data.eval_results or []} == {"hmdb51"}
    known = set(inspect.signature(ModelCardData).parameters) | {"model-index"}
    assert front_matter(package).keys() | card.data.to_dict().keys() <= known


def test_every_file_but_the_card_has_its_digest(package: Package) -> None:
    """SHA256SUMS has the sha256 of each file, but for itself and the card, which people edit."""
    sums = read_sums(package.folder / "SHA256SUMS")
    names = {name for name, _, _ in package.files}
    assert sums.keys() == names - {"SHA256SUMS", "README.md"}
    for name, size, digest in package.files:
        content = (package.folder / name).read_bytes()
        assert (size, digest) == (len(content), hashlib.sha256(content).hexdigest())
        assert sums.get(name, digest) == digest


def test_configuration(package: Package) -> None:
    """config.json has the classes by transformers' convention, and the file's description."""
    config = json.loads((package.folder / "config.json").read_text())
    assert config["architectures"] == ["InceptionI3d"]
    assert (config["num_classes"], config["in_channels"], config["num_frames"]) == (51, 3, 64)
    assert config["id2label"]["1"] == "cartwheel"
    assert config["label2id"]["cartwheel"] == 1
    assert config["i3dzoo"]["input"]["resize"] == 256
    text = (package.folder / "labels.txt").read_text()
    assert tuple(text.splitlines()) == labels("hmdb51")
    metadata = read_checkpoint(package.folder / "model.safetensors").metadata
    assert metadata.labels == labels("hmdb51")


def test_preprocessor() -> None:
    """preprocessor_config.json says what the input record says, by transformers' convention."""
    rgb = preprocessor(default_input("rgb"))
    assert rgb["image_processor_type"] == "VideoMAEImageProcessor"
    assert rgb["size"] == {"shortest_edge": 256}
    assert rgb["crop_size"] == {"height": 224, "width": 224}
    assert (rgb["image_mean"], rgb["image_std"]) == ([0.5] * 3, [0.5] * 3)
    assert rgb["rescale_factor"] * 255 == 1
    flow = preprocessor(default_input("flow"))
    assert "image_processor_type" not in flow
    assert (flow["flow_bound"], flow["channels"], flow["image_mean"]) == (20.0, "xy", [0.5, 0.5])
    assert (
        preprocessor(dataclasses.replace(default_input("rgb"), resize=None))["do_resize"] is False
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "cannot be read as JSON results"),
        ("[]", "holds no result; expected dataset, split and top1"),
        ("[3]", "holds 3; expected an object"),
        ('{"split": "test", "top1": 1}', "lacks dataset; expected dataset, split and top1"),
        ('{"dataset": "x", "split": "1", "top1": "74"}', "top1 is '74'; expected percents"),
        ('{"dataset": "x", "split": "1", "top1": NaN}', "top1 is nan; expected percents, 0 to 100"),
        (
            '{"dataset": "x", "split": "1", "top1": 1, "top5": 101}',
            "top5 is 101; expected percents",
        ),
    ],
)
def test_malformed_results(tmp_path: Path, text: str, message: str) -> None:
    """A file of results that is none is refused with what is wrong in it."""
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(MetadataError, match=rf"results\.json: {message}"):
        read_results(path)


def test_results(tmp_path: Path) -> None:
    """One result, or several under a key, are read; other keys are passed over."""
    path = tmp_path / "results.json"
    path.write_text('{"results": [{"dataset": "X", "split": 1, "top1": 5, "top5": 9.5, "a": []}]}')
    assert read_results(path) == (Result("x", "1", 5.0, 9.5),)


def test_results_of_an_evaluation(tmp_path: Path) -> None:
    """What `evaluate --json` prints becomes percents, under the name that the labels tell."""
    path = tmp_path / "results.json"
    document = {
        "i3dzoo": "evaluation",
        "dataset": None,
        "split": "1",
        "protocol": "paper",
        "videos": 1530,
        "top1": 0.7431,
        "top5": 0.9195,
    }
    path.write_text(json.dumps([document, {**document, "dataset": "ucf101", "split": "none"}]))
    assert read_results(path, "hmdb51") == (
        Result("hmdb51", "test 1, paper", 74.31, 91.95, 1530),
        Result("ucf101", "test, paper", 74.31, 91.95, 1530),
    )
    with pytest.raises(MetadataError, match="lacks dataset"):
        read_results(path)
    card = prepare(constants(), tmp_path, About("alice/i3d", results=path)).card
    assert "| HMDB51 | test 1, paper | 74.3 | 92.0 | 1530 |" in card


def test_false_claim_is_not_pushed(genuine: Checkpoint, tmp_path: Path) -> None:
    """Weights that say that they are published ones and are not are not packed."""
    altered = dict(genuine.tensors)
    altered["Conv3d_1a_7x7.bn.bias"] = altered["Conv3d_1a_7x7.bn.bias"] + 1
    with pytest.raises(ChecksumError, match="says that it is rgb_scratch, but its tensors are not"):
        prepare(Checkpoint(altered, genuine.metadata), tmp_path)
    names = tuple(f"class {number}" for number in range(400))
    renamed = dataclasses.replace(genuine.metadata, labels=names)
    with pytest.raises(MetadataError, match="says that it is rgb_scratch, but its classes have"):
        prepare(Checkpoint(genuine.tensors, renamed), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_packed(tmp_path: Path) -> None:
    """A licence that is none, a missing ONNX file and a picture that is none are refused."""
    checkpoint = constants()
    with pytest.raises(MetadataError, match="'My licence!' is no SPDX identifier"):
        prepare(checkpoint, tmp_path, About(licence="My licence!"))
    (tmp_path / "confusion.png").write_bytes(b"no picture")
    with pytest.raises(FormatError, match=r"confusion\.png: is no PNG, so the Hub would not show"):
        prepare(checkpoint, tmp_path, beside=tmp_path / "x.safetensors")
    (tmp_path / "package").mkdir()
    with pytest.raises(MissingFileError, match=r"none\.onnx: there is no such ONNX file"):
        prepare(checkpoint, tmp_path / "package", About(onnx=tmp_path / "none.onnx"))


def test_onnx_of_other_weights(tmp_path: Path) -> None:
    """An ONNX file that is of other weights, or does not say of which, is not packed."""
    path = tmp_path / "model.onnx"
    for content, error, message in (
        (onnx_of(constants(value=0.25)), ChecksumError, "was exported from weights with checksum"),
        (b"", FormatError, "is truncated or no ONNX file"),
        (b"onnx", FormatError, "is truncated or no ONNX file"),
        (b"\x08\x0a", ChecksumError, "does not say which weights it is of"),
    ):
        path.write_bytes(content)
        with pytest.raises(error, match=rf"model\.onnx: {message}"):
            prepare(constants(), tmp_path, About(onnx=path))


def test_save_twice_and_load(tmp_path: Path) -> None:
    """A network is saved over what was saved before, beside files of others, and loaded."""
    model = build(constants())
    model.save_pretrained(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    model.save_pretrained(tmp_path)
    (tmp_path / "notes.txt").write_text("mine, later")
    assert load(tmp_path).labels == model.labels
    (tmp_path / "labels.txt").write_text("other")
    with pytest.raises(ChecksumError, match=r"labels\.txt: has sha256 .* it was altered, save or"):
        load(tmp_path)
    assert model.metadata is not None
    model.metadata = dataclasses.replace(model.metadata, labels=None)
    before = (tmp_path / "config.json").read_bytes()
    with pytest.raises(MetadataError, match="its 51 classes have no names"):
        model.save_pretrained(tmp_path)
    assert (tmp_path / "config.json").read_bytes() == before


@pytest.mark.parametrize("name", ["/dev/zero", "../x", "zero"])
def test_sums_stay_in_their_folder(tmp_path: Path, name: str) -> None:
    """A digest of a file elsewhere, or of a device, is not computed."""
    (tmp_path / "SHA256SUMS").write_text(f"{'0' * 64}  {name}\n")
    (tmp_path / "zero").symlink_to("/dev/zero")
    with pytest.raises((FormatError, MissingFileError), match=r"is not in the folder|is missing"):
        verified(tmp_path)


def test_malformed_sums(tmp_path: Path) -> None:
    """A list of digests that is none is refused with its first wrong line."""
    path = tmp_path / "SHA256SUMS"
    path.write_text(f"{'0' * 64}  a\nnonsense\n")
    with pytest.raises(FormatError, match="line 2 is 'nonsense'; expected a sha256, two spaces"):
        read_sums(path)


def manifest(**changes: str) -> str:
    """Return rgb_scratch's manifest with a Hub source."""
    from i3dzoo._resources import data

    entries = {
        "repository": '"alice/i3d"',
        "revision": '"v1"',
        "file": '"sub/model.safetensors"',
        "max_size": "60000000",
    } | changes
    source = '[[source]]\nkind = "hub"\ntitle = "A"\nlayout = "canonical"\nlicence = "MIT"\n'
    source += "".join(f"{key} = {value}\n" for key, value in entries.items())
    text = (data("manifests") / "rgb_scratch.toml").read_text("utf-8")
    return text.replace("[[source]]", f"{source}\n[[source]]", 1)


def test_hub_source_in_a_manifest() -> None:
    """A manifest names a file of a repository; it needs no digest of it."""
    source = parse_manifest("rgb_scratch", manifest(), "x").sources[0]
    assert source == HubFile(
        "A", "canonical", "MIT", "alice/i3d", "v1", "sub/model.safetensors", 60_000_000
    )
    assert source.total_size == 60_000_000


@pytest.mark.parametrize(
    ("key", "value"), [("repository", '"alice"'), ("file", '"../x"'), ("max_size", "0")]
)
def test_malformed_hub_source(key: str, value: str) -> None:
    """A Hub source that is malformed is refused with its key."""
    with pytest.raises(ManifestError, match=rf"source\[0\]\.{key} is"):
        parse_manifest("rgb_scratch", manifest(**{key: value}), "x")
