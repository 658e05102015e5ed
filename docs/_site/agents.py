"""SKILL.md and llms.txt, one page each for programs that use i3dzoo.

The commands and their examples are those of `--help`, the Python names those of `i3dzoo.__all__`.
`make agents` writes SKILL.md, and a test compares it with the help. llms.txt is part of the site.
"""

import ast
import re
from pathlib import Path

import click

import i3dzoo
from i3dzoo.cli import COMMANDS, cli
from i3dzoo.cli._exit import EXIT_CODES

ROOT = Path(__file__).parents[2]
_SECTIONS = {"guides": "Guides", "concepts": "Concepts", "reference": "Reference"}


def skill() -> str:
    """Return the text of SKILL.md."""
    codes = "\n".join(f"| {code} | {_cell(text)} |" for code, text in EXIT_CODES.items())
    rows = (f"| `{_cell(_example(name))}` | {text} |" for name, text in COMMANDS.items())
    return _template("skill_template.md").format(
        codes=codes, commands="\n".join(rows), names=_names()
    )


def llms() -> str:
    """Return the text of llms.txt, with the pages of the site."""
    commands = "\n".join(f"- `i3dzoo {name}`: {summary}" for name, summary in COMMANDS.items())
    pages = []
    for folder, title in _SECTIONS.items():
        files = sorted((ROOT / "docs" / folder).glob("*.md"))
        links = [f"- [{_title(file)}]({folder}/{file.stem}.html)" for file in files]
        pages.append(f"## {title}\n\n" + "\n".join(links))
    return _template("llms_template.txt").format(commands=commands, pages="\n\n".join(pages))


def _template(name: str) -> str:
    return (Path(__file__).parent / name).read_text("utf-8")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _example(name: str) -> str:
    """Return the first example in the help of a command."""
    command = cli.get_command(click.Context(cli), name)
    text = (command.help if command else None) or ""
    lines = (line.strip() for line in text.partition("Examples:\n")[2].splitlines())
    return next(line for line in lines if line.startswith("i3dzoo "))


def _names() -> str:
    """Return a line for each public name: the first sentence of its docstring."""
    lines = []
    for name in i3dzoo.__all__:
        if not name.startswith("__"):
            lines.append(f"- `{name}`: {_summary(name)}")
    return "\n".join(lines)


def _summary(name: str) -> str:
    """Return the first sentence of a docstring, without importing PyTorch."""
    path = ROOT / "i3dzoo" / f"{i3dzoo._HOME[name].replace('.', '/')}.py"
    if not path.exists():  # a package, whose module of the same name defines it
        path = path.with_suffix("") / f"{path.stem}.py"
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            first = (ast.get_docstring(node) or "").partition("\n\n")[0]
            return re.sub(r"(?<=\.) .*", "", " ".join(first.split()))
    raise LookupError(name)


def _title(file: Path) -> str:
    heading = re.search(r"^# (.+)$", file.read_text("utf-8"), re.M)
    return heading[1] if heading else file.stem


if __name__ == "__main__":
    (ROOT / "SKILL.md").write_text(skill(), "utf-8")
