"""Run mutants, and print the counts by kind and every escape."""

import argparse
import collections
import json
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from fuzz.server import ForkServer

Counts = dict[str, collections.Counter[str]]

_VERDICTS = ("refused", "accepted", "escape")
_START, _END = "<!-- counts of the long run -->", "<!-- end of the counts -->"


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=3000, help="mutants of all kinds together")
    parser.add_argument("--kind", action="append", help="only this kind; can be repeated")
    parser.add_argument("--seed", type=int, help="only this mutant of the kind")
    parser.add_argument("--jobs", type=int, default=1, help="fork servers")
    parser.add_argument("--page", type=Path, help="write the counts to the table of this page")
    options = parser.parse_args()
    from fuzz.kinds import KINDS, shares

    if unknown := set(options.kind or ()) - set(KINDS):
        parser.error(f"no such kind: {', '.join(unknown)}; expected {', '.join(KINDS)}")
    names = options.kind or list(KINDS)
    if options.seed is not None:
        jobs = [(name, options.seed) for name in names]
    elif options.kind:
        jobs = [(name, number) for name in names for number in range(options.count)]
    else:
        jobs = [(name, n) for name, share in shares(options.count).items() for n in range(share)]
    counts: Counts = {name: collections.Counter() for name in names}
    for name, number, outcome in _run(jobs, options.jobs):
        counts[name][outcome["verdict"]] += 1
        if outcome["verdict"] == "escape":
            print(f'--kind "{name}" --seed {number}: {outcome["reason"]!r}', flush=True)
        if options.seed is not None:
            print(json.dumps(outcome, indent=1))
    print(table(counts))
    if options.page:
        options.page.write_text(update_table(options.page.read_text(), counts, KINDS))
    sys.exit(any(counter["escape"] for counter in counts.values()))


def table(counts: Counts) -> str:
    """Return the counts as a table in Markdown."""
    lines = ["| kind | tried | refused | accepted | escapes |", "|---|---:|---:|---:|---:|"]
    total = sum(counts.values(), collections.Counter[str]())
    return "\n".join([*lines, *(_row(*item) for item in counts.items()), _row("**all**", total)])


def _row(name: str, counter: collections.Counter[str]) -> str:
    numbers = (counter.total(), *(counter[verdict] for verdict in _VERDICTS))
    return f"| {name} | {' | '.join(f'{number:,}' for number in numbers)} |"


def update_table(text: str, counts: Counts, kinds: Iterable[str]) -> str:
    """Return a page with new counts in its table; the rows of other kinds stay."""
    before, start, rest = text.partition(_START)
    old, end, after = rest.partition(_END)
    rows: Counts = {}
    for line in old.splitlines():
        name, *numbers = line.strip("| ").split(" | ")
        if len(numbers) == 4 and name in kinds:
            values = [int(number.replace(",", "")) for number in numbers]
            rows[name] = collections.Counter(dict(zip(_VERDICTS, values[1:], strict=True)))
    rows |= counts
    ordered = {name: rows[name] for name in kinds if name in rows}
    return f"{before}{start}\n{table(ordered)}\n{end}{after}"


def _run(jobs: list[tuple[str, int]], servers: int) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Run mutants in several fork servers; each takes the mutants of one kind after another."""
    kinds = collections.deque(dict.fromkeys(name for name, _ in jobs))
    results: list[tuple[str, int, dict[str, Any]] | BaseException] = []
    ready = threading.Condition()

    def put(result: tuple[str, int, dict[str, Any]] | BaseException) -> None:
        with ready:
            results.append(result)
            ready.notify()

    def work(folder: Path) -> None:
        try:
            with ForkServer(folder) as server:
                while kinds:
                    kind = kinds.popleft()
                    for name, number in jobs:
                        if name == kind:
                            put((name, number, server.run(name, number)))
        except BaseException as error:  # the main thread raises it
            put(error)

    with tempfile.TemporaryDirectory() as folder:
        threads = [
            threading.Thread(target=work, args=(Path(folder) / str(number),), daemon=True)
            for number in range(servers)
        ]
        for thread in threads:
            thread.start()
        for _ in jobs:
            with ready:
                while not results:
                    ready.wait()
                result = results.pop(0)
            if isinstance(result, BaseException):
                raise result
            yield result
        for thread in threads:
            thread.join()


if __name__ == "__main__":
    main()
