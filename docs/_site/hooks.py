"""MkDocs hooks: pages and files from outside of docs/, pages of commands, and generated tables.

A page links to a file of the repository by its relative path there, so that links work where the
Markdown is read as it is. READMEs, results and tables become pages and files of the site here.
"""

import json
import posixpath
import re
from pathlib import Path
from typing import Any

import agents
import commands
import tables
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
_PAGES = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "converters/README.md",
    "converters/presets/README.md",
    "manifests/README.md",
    "benchmarks/README.md",
    "benchmarks/results/README.md",
)
_RESULTS = "benchmarks/results"
_LINK = re.compile(r"(\]\()([^()\s]+)(\))")
_TABLE = re.compile(r"^<!-- table: ([\w-]+) -->$", re.M)
_NO_DEFAULT = re.compile(r"<td>(None|<code>Sentinel.UNSET</code>)</td>")  # of mkdocs-click
_DRAWING = re.compile(r'<img alt="([^"]*)" src="([^"]*/|)images/([\w-]+\.svg)" ?/?>')


def on_config(config: Any) -> None:
    """Expand the entries of `nav` that stand for generated pages."""
    pages = {
        "reference/commands": commands.nav(),
        _RESULTS: [f"{_RESULTS}/README.md"]
        + [path.relative_to(ROOT).as_posix() for path in _results()],
    }
    for section in config.nav:
        for title, entries in section.items():
            if isinstance(entries, list):
                section[title] = [_expand(entry, pages) for entry in entries]


def on_files(files: Files, config: Any) -> None:
    """Add the pages and the files from outside of docs/, and the pages of commands."""
    for path in [ROOT / name for name in _PAGES] + _results():
        uri = path.relative_to(ROOT).as_posix()
        files.append(File.generated(config, uri, content=path.read_text("utf-8")))
    for uri, text in commands.pages().items():
        files.append(File.generated(config, uri, content=text))
    files.append(File.generated(config, "tour.md", content=_notebook("tour.ipynb")))
    files.append(File.generated(config, "llms.txt", content=agents.llms()))
    files.append(File.generated(config, "llms-full.txt", content=agents.skill()))
    for uri in _data():
        files.append(File.generated(config, uri, abs_src_path=str(ROOT / uri)))


def on_page_markdown(markdown: str, page: Any, files: Files, **_: Any) -> str:
    """Fill in the tables, and turn paths of the repository into paths of the site."""
    text = _TABLE.sub(lambda match: tables.TABLES[match.group(1)](), markdown)
    source = _in_repository(page.file)

    def on_site(match: re.Match[str]) -> str:
        path, _, anchor = match.group(2).partition("#")
        if not path or ":" in path:
            return match.group(0)
        uri = _on_site(posixpath.normpath(posixpath.join(posixpath.dirname(source), path)))
        if files.get_file_from_path(uri) is None:
            return match.group(0)  # MkDocs names it as a link to nothing
        relative = posixpath.relpath(uri, posixpath.dirname(page.file.src_uri) or ".")
        return f"{match.group(1)}{relative}{'#' + anchor if anchor else ''}{match.group(3)}"

    return _LINK.sub(on_site, text)


def on_page_content(html: str, page: Any, **_: Any) -> str:
    """Put drawings into the page, where they follow its light or dark theme."""

    def inline(match: re.Match[str]) -> str:
        drawing = (ROOT / "docs/images" / match.group(3)).read_text("utf-8")
        return drawing.replace("<svg ", f'<svg role="img" aria-label="{match.group(1)}" ', 1)

    if page.file.src_uri.startswith(commands.FOLDER):
        html = _NO_DEFAULT.sub("<td></td>", html)
    return _DRAWING.sub(inline, html)


def _notebook(name: str) -> str:
    """Markdown of the notebook, which can be downloaded as well."""
    cells = json.loads((ROOT / "docs" / name).read_text("utf-8"))["cells"]
    parts = []
    for cell in cells:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
    parts.insert(1, f"[Download the notebook]({name}){{ .md-button }}")
    return "\n\n".join(parts)


def _expand(entry: Any, pages: dict[str, list[Any]]) -> Any:
    if isinstance(entry, dict):
        return {
            title: pages.get(target, target) if isinstance(target, str) else target
            for title, target in entry.items()
        }
    return entry


def _results() -> list[Path]:
    return sorted(path for path in (ROOT / _RESULTS).glob("*.md") if path.name != "README.md")


def _in_repository(file: File) -> str:
    """The path of a page in the repository, from which its links start."""
    outside = file.src_uri in _PAGES or file.src_uri.startswith(_RESULTS)
    return file.src_uri if outside else f"docs/{file.src_uri}"


def _on_site(path: str) -> str:
    """The path on the site of a file of the repository; a folder is its README or its index."""
    if path == "docs" or (ROOT / path).is_dir():
        path += "/index.md" if path.startswith("docs") else "/README.md"
    return path.removeprefix("docs/")


def _data() -> list[str]:
    """The data files that pages link to: tables, presets, manifests and labels."""
    return [
        path.relative_to(ROOT).as_posix()
        for folder in ("converters", "manifests", "i3dzoo/features/presets")
        for path in sorted((ROOT / folder).rglob("*"))
        if path.suffix in (".toml", ".txt", ".yaml")
    ]
