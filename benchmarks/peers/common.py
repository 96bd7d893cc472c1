"""What the peers share: their arguments, and dlt's configuration."""

import argparse
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rows import Entity


@dataclass(frozen=True)
class Arguments:
    """What the harness tells a peer."""

    url: str
    user: str
    out: Path
    page_size: int
    workers: int
    concurrency: int


def arguments() -> Arguments:
    """The command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--user", default="sandbox", help="user name, and password")
    parser.add_argument("--out", type=Path, required=True, help="empty folder for files and working data")
    parser.add_argument("--page-size", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=2, help="processes, where the tool has them")
    parser.add_argument("--concurrency", type=int, default=4, help="pages under way at once, where the tool can")
    return Arguments(**vars(parser.parse_args()))


def configure(given: Arguments, *, quoting: str) -> None:
    """Sets dlt's configuration in the environment, where its worker processes find it too.

    Args:
        given: the arguments.
        quoting: dlt's `quote_none` refuses a value that holds a quotation mark, so its files are quoted where needed.
    """
    os.environ |= {
        "RUNTIME__DLTHUB_TELEMETRY": "false",
        "RUNTIME__LOG_LEVEL": "ERROR",
        "DATA_WRITER__DISABLE_COMPRESSION": "true",
        "DATA_WRITER__BUFFER_MAX_ITEMS": "20000",
        "DATA_WRITER__FILE_MAX_ITEMS": "50000",  # else one file per table, and one process to normalize it
        "NORMALIZE__DATA_WRITER__DELIMITER": "\t",
        "NORMALIZE__DATA_WRITER__INCLUDE_HEADER": "false",
        "NORMALIZE__DATA_WRITER__QUOTING": quoting,
        "NORMALIZE__WORKERS": str(given.workers),
        "NORMALIZE__START_METHOD": "fork",
        "LOAD__WORKERS": str(given.workers),
        "EXTRACT__WORKERS": "8",
    }


def declared(entity: "Entity") -> dict[str, Any]:
    """The columns of an entity as dlt's schema has them: all text, so nothing is inferred."""
    return {name: {"data_type": "text", "nullable": True} for name in entity.columns}


def pipeline(given: Arguments) -> Any:  # noqa: ANN401 -- dlt's
    """A pipeline into a folder of files, with a working folder of its own."""
    import dlt  # noqa: PLC0415 - after the configuration

    return dlt.pipeline(
        "bench",
        pipelines_dir=str(given.out / "work"),
        destination=dlt.destinations.filesystem(bucket_url=f"file://{given.out / 'files'}"),
        dataset_name="dacs",
    )
