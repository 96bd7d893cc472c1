"""A target built with the Singer SDK that writes tab-separated files, a file per stream.

Tuned as the SDK allows: msgspec reads the messages, records are not validated, batches are large.
"""

import csv
from pathlib import Path
from typing import Any

from singer_sdk import Target
from singer_sdk import typing as th
from singer_sdk.contrib.msgspec import MsgSpecReader
from singer_sdk.sinks import BatchSink


class TsvSink(BatchSink):
    """Appends each batch to the stream's file."""

    max_size = 20_000

    def process_batch(self, context: dict[str, Any]) -> None:
        """Writes a batch without quoting, as the extract files have it."""
        columns = list(self.schema["properties"])
        path = Path(self.config["out"]) / f"{self.stream_name}.csv"
        with path.open("a", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter="\t", quoting=csv.QUOTE_NONE, quotechar=None, lineterminator="\n")
            writer.writerows([record.get(column) for column in columns] for record in context["records"])


class TargetTsv(Target):
    """Tab-separated files in a folder."""

    name = "target-tsv"
    message_reader_class = MsgSpecReader
    default_sink_class = TsvSink
    config_jsonschema = th.PropertiesList(
        th.Property("out", th.StringType, required=True),
        th.Property("validate_records", th.BooleanType, default=False),
    ).to_dict()


if __name__ == "__main__":
    TargetTsv.cli()
