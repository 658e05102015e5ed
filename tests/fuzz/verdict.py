"""Judge a run of a command on a mutant: accepted, refused, or an escape and why."""

import re
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

MESSAGE: Final = 4000  # characters; a message has the names of a few files and keys

# FFmpeg's "Cannot allocate memory" is none: it refuses single allocations of more than 2 GiB itself
_MEMORY_ERRORS: Final = re.compile(
    r"out of memory|can't allocate memory|bad_alloc|Unable to allocate|MemoryError", re.IGNORECASE
)
_WARNING: Final = re.compile(r"^\S+:\d+: \w*Warning:|^\[W", re.MULTILINE)
_MESSAGE: Final = re.compile(r"^(?:i3dzoo|Error): ", re.MULTILINE)
_CONTROL: Final = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
SECRET: Final = "hf_secretOfTheFuzzer"  # noqa: S105 - a token of the loopback Hub

Verdict = Literal["accepted", "refused", "escape"]


@dataclass(frozen=True)
class Limits:
    """What a command may take; seconds are of the processor, except `wall`, and sizes are bytes."""

    refusal: float = 5
    acceptance: float = 60  # 24 frames of 20 s each are eight minutes of video to predict
    wall: float = 150  # for commands that wait; other processes slow this one down
    memory: int = 300 * 2**20  # beyond twice the file and what the seed takes
    address_space: int = 3 * 2**30  # beyond the same


@dataclass(frozen=True)
class Run:
    """What a command did on a mutant; times are of the processor, sizes are in bytes."""

    code: int  # negative: the signal that ended it
    out: str
    err: str
    seconds: float
    wall: float
    memory: int  # the peak beyond that of the fork server
    memory_limit: int
    limits: Limits
    changed: tuple[str, ...] = ()  # files outside of its output folder that it touched
    left: tuple[str, ...] = ()  # files that it created in its output folder, and temporary ones


@dataclass(frozen=True)
class Outcome:
    """The verdict on a mutant, with the reason of an escape."""

    verdict: Verdict
    reason: str
    run: Run

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


def judge(run: Run) -> Outcome:
    """Judge a run."""
    reason = next(filter(None, (check(run) for check in _CHECKS)), "")
    if reason:
        return Outcome("escape", reason, run)
    return Outcome("refused" if run.code else "accepted", "", run)


def _ended(run: Run) -> str:
    if run.wall > run.limits.wall:
        return f"hang: killed after {run.wall:.0f} s"
    if run.code < 0:
        return f"crash: signal {-run.code}"
    if "Traceback (most recent call last)" in run.out + run.err:
        lines = [line for line in run.err.splitlines() if line.strip()]
        return f"traceback: {lines[-1][:200] if lines else ''}"
    return "" if run.code in (0, 1, 2) else f"exit code {run.code}: {run.err[-200:]}"


def _time(run: Run) -> str:
    limit = run.limits.refusal if run.code else run.limits.acceptance
    return f"time: {run.seconds:.1f} s, expected {limit:g}" if run.seconds > limit else ""


def _memory(run: Run) -> str:
    if _MEMORY_ERRORS.search(run.err):
        return f"memory: {run.err[-200:]}"
    if run.memory > run.memory_limit:
        megabytes = f"{run.memory >> 20} MB, expected {run.memory_limit >> 20}"
        return f"memory: {megabytes}"
    return ""


def _files(run: Run) -> str:
    if run.changed:
        return f"file outside of the output folder: {', '.join(run.changed[:5])}"
    return f"left behind: {', '.join(run.left[:5])}" if run.left else ""


def _output(run: Run) -> str:
    text = run.out + run.err
    if control := _CONTROL.search(text):
        return f"control character {control[0]!r} is printed"
    if SECRET in text:
        return "the token is printed"
    if warning := _WARNING.search(run.err):
        return f"warning of a library: {run.err[warning.start() :][:200]}"
    return ""


def _message(run: Run) -> str:
    """A refusal is one sentence from `i3dzoo: ` or `Error: ` on, or one for each video."""
    if not run.code:
        return ""
    messages = _MESSAGE.split(run.err)[1:]
    if not messages or len(messages) != len(set(messages)):
        return f"{len(messages)} messages: {run.err[-300:]!r}"
    for message in messages:
        if len(message) > MESSAGE:
            return f"message of {len(message)} characters: {message[:200]!r}"
        if message.strip().count("\n") > 20 or len(message) < 20:
            return f"not one sentence: {message[:300]!r}"
    return ""


_CHECKS: Final = (_ended, _memory, _time, _files, _output, _message)
