"""The site of the documentation: built strictly, and loading nothing from other hosts."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from helpers.docs import ROOT

import i3dzoo
from i3dzoo.cli import COMMANDS
from i3dzoo.zoo import names


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built site. Warnings, such as a link to nothing, are errors."""
    folder = tmp_path_factory.mktemp("site")
    result = subprocess.run(  # not with --quiet, by which MkDocs accepts warnings
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return folder


class _Resources(HTMLParser):
    """Collects what a browser loads for a page."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.feed(page.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        link = values.get("href") if tag == "link" else values.get("src")
        if link:
            self.loaded.append(link)


def test_pages_load_nothing_from_other_hosts(site: Path) -> None:
    """Scripts, styles, fonts and images are files of the site."""
    pages = list(site.rglob("*.html"))
    assert len(pages) > 50
    for page in pages:
        for link in _Resources(page).loaded:
            assert not re.match(r"(https?:)?//", link), f"{page.relative_to(site)}: {link}"
    for style in site.rglob("*.css"):
        assert not re.search(r"(@import|url\()[\s\"']*(https?:)?//", style.read_text("utf-8"))


def test_every_command_has_a_page(site: Path) -> None:
    """A page has the options and the examples of its command."""
    assert {page.stem for page in (site / "reference/commands").glob("*.html")} == {
        "index",
        *COMMANDS,
    }
    page = (site / "reference/commands/predict.html").read_text("utf-8")
    assert "--timeline" in page
    assert not [each for each in site.rglob("*.html") if "Sentinel" in each.read_text("utf-8")]
    assert "i3dzoo predict clip.gif" in re.sub(r"<[^>]+>", "", page)


def test_every_public_name_is_described(site: Path) -> None:
    """The reference of Python has each name of `i3dzoo.__all__`."""
    page = (site / "reference/api.html").read_text("utf-8")
    described = set(re.findall(r'id="i3dzoo\.(\w+)"', page))
    assert set(i3dzoo.__all__) - {"__version__"} <= described


def test_links_of_llms_txt_lead_somewhere(site: Path) -> None:
    """The pages that programs are led to are those of the site."""
    links = re.findall(r"\]\(([^)]+)\)", (site / "llms.txt").read_text("utf-8"))
    assert len(links) > 20
    for link in links:
        assert (site / link).is_file(), link


def test_the_zoo_has_every_checkpoint(site: Path) -> None:
    """Its tables come from the manifests."""
    page = (site / "zoo.html").read_text("utf-8")
    assert all(f'id="{name}"' in page for name in names())
    assert "71.1 / 89.3" in page


def test_links_of_the_readme_lead_somewhere() -> None:
    """It is no page of the site, which checks the links of all others."""
    links = re.findall(r"\]\(([^)#:]+)[)#]", (ROOT / "README.md").read_text("utf-8"))
    assert len(links) > 10
    assert not [link for link in links if not (ROOT / link).exists()]


@pytest.mark.parametrize("image", sorted((ROOT / "docs/images").iterdir()), ids=lambda p: p.name)
def test_images_are_small(image: Path) -> None:
    """A page with pictures loads quickly."""
    assert image.stat().st_size < 150_000
