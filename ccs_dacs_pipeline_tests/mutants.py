"""Prints how many mutants of each module the tests have noticed; `make mutants` ends with it (docs/mutants.md)."""

from collections import Counter
from collections.abc import Iterator

from mutmut.mutation.data import SourceFileMutationData
from mutmut.stats import status_by_exit_code
from mutmut.utils.file_utils import walk_mutatable_files
from rich.console import Console
from rich.table import Table

WANTED = 0.85
NOTICED = ("killed", "timeout", "segfault")


def results() -> Iterator[tuple[str, Counter[str]]]:
    """Gives each module with the number of its mutants by what became of them."""
    for path in sorted(walk_mutatable_files()):
        module = SourceFileMutationData(path=path)
        module.load()
        yield str(path), Counter(status_by_exit_code[code] for code in module.exit_code_by_key.values())


def share_noticed(found: Counter[str]) -> float:
    return sum(found[status] for status in NOTICED) / found.total()


def main() -> int:
    """Prints the table; returns 1 when too many mutants went unnoticed."""
    total: Counter[str] = Counter()
    table = Table("module", "mutants", "noticed", "what became of them")
    for name, found in results():
        total += found
        table.add_row(name, str(found.total()), f"{share_noticed(found):.1%}", str(dict(found)))
    table.add_row("in all", str(total.total()), f"{share_noticed(total):.1%}", str(dict(total)))
    Console(width=140).print(table)
    return int(share_noticed(total) < WANTED)


if __name__ == "__main__":
    raise SystemExit(main())
