"""What a Hub or a mirror answers: JSON, headers, and the files of a repository."""

import shutil
from pathlib import Path

from fuzz import mutators as damage
from fuzz.kind import Kind
from fuzz.shared import Shared
from i3dzoo.hub import About, prepare
from i3dzoo.video.generate import CLIPS_FOLDER


def _repository(folder: Path, shared: Shared) -> None:
    (folder / "repository").mkdir()
    prepare(shared.checkpoint, folder / "repository", About(licence="Apache-2.0"))


def _data_set(folder: Path, shared: Shared) -> None:
    (folder / "repository").mkdir()
    rows = ["file_name,label"]
    for clip in sorted((shared.source / CLIPS_FOLDER).rglob("*.avi")):
        shutil.copy(clip, folder / "repository")
        rows.append(f"{clip.name},{clip.parent.name}")
    (folder / "repository" / "metadata.csv").write_text("\n".join([*rows, ""]))


_PULL = ("pull", "alice/i3d")
_PREPARE = ("prepare", "videos", "hf://datasets/alice/i3d", "out/d", "--jobs", "1")

KINDS = (
    Kind("hub answers", _repository, {}, _PULL, 0.3, hub="answers"),
    Kind("hub headers", _repository, {}, _PULL, 0.2, hub="headers"),
    Kind("hub listing", _repository, {}, ("list", "--hub", "alice"), 0.3, hub="answers"),
    Kind("hub answers to a push", _repository, {},
         ("push", "repository/model.safetensors", "alice/new", "--license", "Apache-2.0"), 0.2,
         hub="answers"),
    Kind("hub digests", _repository, {"repository/SHA256SUMS": damage.damage_lines}, _PULL, 0.2,
         hub="files"),
    Kind("hub files", _repository, {"repository/*": damage.damage_bytes}, _PULL, 0.2, hub="files"),
    Kind("hub data set answers", _data_set, {}, _PREPARE, 0.3, hub="answers", partial=("*",)),
    Kind("hub data set headers", _data_set, {}, _PREPARE, 0.15, hub="headers", partial=("*",)),
    Kind("hub data set files", _data_set, {"repository/*": damage.damage_lines}, _PREPARE,
         0.2, hub="files", partial=("*",)),
)  # fmt: skip
