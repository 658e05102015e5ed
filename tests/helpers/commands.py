"""The commands of the command line, one by one."""

from collections.abc import Iterator

import click

from i3dzoo.cli import COMMANDS, cli


def leaf_commands() -> Iterator[tuple[str, click.Command]]:
    """Yield every command that does something, with its name, such as `cache ls`."""
    context = click.Context(cli, info_name="i3dzoo")
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None, name
        yield from _leaves(name, command)


def _leaves(path: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        yield path, command
        return
    for name, child in command.commands.items():
        yield from _leaves(f"{path} {name}", child)
