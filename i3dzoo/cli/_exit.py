"""What ends a command: the exit code, and one sentence on standard error if it failed."""

import errno
import io
import re
import shlex
import traceback
from collections.abc import Callable, Sequence
from typing import Final

import click

from i3dzoo.cli._console import ERROR, UnwritableOutputError, say
from i3dzoo.errors import I3DZooError, OptionError
from i3dzoo.text import message

_FAILED, _USAGE, _BUG = 1, 2, 70  # 70 is EX_SOFTWARE of sysexits.h
_INTERRUPTED, _PIPE_CLOSED = 130, 141  # what shells report for SIGINT and SIGPIPE

EXIT_CODES: Final = {
    0: "done",
    _FAILED: "an error, which is one sentence on standard error",
    _USAGE: "wrong usage: an unknown option, or options that contradict each other",
    _BUG: "a bug: please report it with what `i3dzoo --debug ...` prints",
    _INTERRUPTED: "Ctrl-C",
    _PIPE_CLOSED: "the reader of standard output has gone, as in `i3dzoo list | head -1`",
    143: "SIGTERM; temporary files were removed",
}
"""What the exit code of every command means."""

_HELP: Final = frozenset({"-h", "--help", "--version"})

# Errors of the machine rather than bugs, which the system explains well.
_OF_THE_SYSTEM: Final = frozenset(
    {
        errno.EACCES,
        errno.EDQUOT,
        errno.EIO,
        errno.EMFILE,
        errno.ENAMETOOLONG,
        errno.ENFILE,
        errno.ENOSPC,
        errno.EPERM,
        errno.EROFS,
    }
)


def run(command: Callable[[], object], arguments: Sequence[str]) -> int:
    """Run a command, explain what ends it, and return the exit code."""
    try:
        command()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else _FAILED if stop.code else 0
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except (KeyboardInterrupt, click.Abort):
        return _INTERRUPTED
    except click.ClickException as error:
        error.show(text := io.StringIO())
        say(re.sub(r"^Error: ", ERROR, text.getvalue().rstrip(), flags=re.MULTILINE), error=True)
        return error.exit_code
    except Exception as error:  # every command ends with one sentence
        return _explain(error, arguments)
    return 0


def _explain(error: Exception, arguments: Sequence[str]) -> int:
    """Print one sentence about an error, or its traceback, and return the exit code."""
    if _closes_output(error, arguments):
        return _PIPE_CLOSED
    if "--debug" in arguments:
        say(traceback.format_exc().rstrip(), error=True)
    if isinstance(error, I3DZooError):
        code, text = _USAGE if isinstance(error, OptionError) else _FAILED, str(error)
    elif isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # PyTorch's
        code, text = _FAILED, f"out of memory: {str(error) or 'use smaller inputs or batches'}"
    elif isinstance(error, OSError) and error.errno in _OF_THE_SYSTEM:
        where = "" if error.filename is None else f"{error.filename}: "
        code, text = _FAILED, f"{where}{error.strerror}"
    elif isinstance(error, UnwritableOutputError):
        code, text = _FAILED, f"standard output cannot be written: {error.__cause__}"
    else:
        code, text = _BUG, _report(error, arguments)
    if "--debug" not in arguments:
        say(f"i3dzoo: {text}")
    return code


def _closes_output(error: Exception, arguments: Sequence[str]) -> bool:
    """Whether the reader of standard output has gone, as `head` does when it has its lines."""
    if isinstance(error, UnwritableOutputError):
        return isinstance(error.__cause__, BrokenPipeError)
    # click itself prints the help
    return isinstance(error, BrokenPipeError) and bool(_HELP & {*arguments})


def _report(error: Exception, arguments: Sequence[str]) -> str:
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    return (
        f"stopped by an unexpected error ({message(reason)[:300]}); please "
        f"report this bug with the output of: i3dzoo --debug {shlex.join(arguments)}"
    )
