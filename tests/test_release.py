"""What a release consists of: one version, equal builds, a citation, and images."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

from i3dzoo.digests import sha256
from i3dzoo.version import __version__

ROOT = Path(__file__).parents[1]
INDEX = re.compile(r"index-url\s+[\"']?https?://|pypi\.|download\.pytorch", re.I)


@pytest.fixture(scope="module")
def sources() -> list[str]:
    """The files of the repository."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("this is not a checkout")
    listed = subprocess.run(
        ["git", "ls-files", "-z"],  # noqa: S607
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def build(sources: list[str], folder: Path, umask: int) -> dict[str, str]:
    """Build from a copy of the sources; return the digests of the wheel and of the sdist."""
    old = os.umask(umask)
    try:
        for name in sources:
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())  # with the time and mode of a new file
        subprocess.run(
            [sys.executable, "-m", "hatchling", "build", "-d", "out"],
            cwd=folder,
            env={**os.environ, "SOURCE_DATE_EPOCH": "1700000000"},
            capture_output=True,
            check=True,
        )
    finally:
        os.umask(old)
    return {path.name: sha256(path) for path in (folder / "out").iterdir()}


def test_builds_are_equal(sources: list[str], tmp_path: Path) -> None:
    """Two builds in other folders, at other times and with another umask are equal to the byte."""
    first = build(sources, tmp_path / "a", 0o022)
    second = build(sources[::-1], tmp_path / "elsewhere" / "b", 0o077)
    assert set(first) == {f"i3dzoo-{__version__}-py3-none-any.whl", f"i3dzoo-{__version__}.tar.gz"}
    assert first == second
    wheel = tmp_path / "a" / "out" / f"i3dzoo-{__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        assert archive.getinfo("i3dzoo/version.py").date_time == (2023, 11, 14, 22, 13, 20)
    assert "i3dzoo/_data/converters/deepmind.toml" in names
    assert not [name for name in names if "__pycache__" in name or name.startswith("tests")]


def test_version_is_in_one_place(sources: list[str]) -> None:
    """Beside version.py, only the citation and the changelog name the version."""
    pattern = re.compile(rf"(?<![\d.]){re.escape(__version__)}(?![\d.])")
    suffixes = (".py", ".md", ".toml", ".cff", ".yml", ".yaml", "Dockerfile")
    own = ("i3dzoo/", "docs/", "docker", "README", "pyproject", "CITATION", "CHANGELOG", "Docker")
    named = [
        name
        for name in sources
        if name.endswith(suffixes)
        and name.startswith(own)
        and pattern.search((ROOT / name).read_text("utf-8"))
    ]
    assert sorted(named) == ["CHANGELOG.md", "CITATION.cff", "i3dzoo/version.py"]
    versions = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M)
    assert versions[0].rstrip(",") == __version__


def test_citation() -> None:
    """The citation has what version 1.2.0 of the format requires, and the paper."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == __version__
    (paper,) = citation["references"]
    assert paper["url"] == "https://arxiv.org/abs/1705.07750"


@pytest.fixture(scope="module")
def dockerfile() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile."""
    text = (ROOT / "Dockerfile").read_text("utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.partition(" ")[0], line.partition(" ")[2]) for line in lines]


def test_targets(dockerfile: list[tuple[str, str]]) -> None:
    """There are images for the CPU and for CUDA, with the pinned versions and without root."""
    stages = [text.split(" AS ")[1] for word, text in dockerfile if word == "FROM"]
    assert stages == ["wheel", "base", "cpu", "cuda"]
    assert [text for word, text in dockerfile if word == "USER"] == ["user", "user"]
    installs = [text for word, text in dockerfile if word == "RUN" and "install" in text]
    for text in installs:
        assert "constraints.txt" in text or text.startswith("apt-get update && "), text
        assert not INDEX.search(text)


def test_copied_files(dockerfile: list[tuple[str, str]]) -> None:
    """What is copied exists and is not ignored, and is enough to build the wheel."""
    ignored = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    copied = []
    for word, text in dockerfile:
        if word == "COPY" and not text.startswith("--from"):
            *names, _ = text.split()
            copied += names
    for name in copied:
        assert (ROOT / name).exists(), name
        assert f"!{name.partition('/')[0]}" in ignored
    assert {"pyproject.toml", "i3dzoo", "converters", "manifests"} <= set(copied)


def test_extras_exist(dockerfile: list[tuple[str, str]]) -> None:
    """The extras of the images are extras of the package."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    for _, text in dockerfile:
        if "/opt/i3dzoo/install " in text:
            assert set(text.split()[-1].split(",")) <= set(extras["optional-dependencies"])


def test_install_refuses_two_wheels(tmp_path: Path) -> None:
    """The step that installs a wheel takes exactly one."""
    for name in ("a.whl", "b.whl"):
        (tmp_path / name).touch()
    command = ["/bin/sh", str(ROOT / "docker" / "install"), str(tmp_path), "constraints.txt", ""]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "expected one wheel" in result.stderr
