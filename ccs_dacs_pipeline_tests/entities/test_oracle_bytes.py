"""From CCS's bytes to the extract file's bytes, against the slow, obvious oracle on awkward records of every kind.

Number and seed are those of ``test_oracle``.
"""

from __future__ import annotations

import json
import random
import re
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from ccs_dacs_pipeline.ccs.pages import decode_page
from ccs_dacs_pipeline.dacs.extract_file import write_extract
from ccs_dacs_pipeline.entities import ENTITIES, Entity, Mapper
from ccs_dacs_pipeline.entities.cleaning import LONE_SURROGATE
from ccs_dacs_pipeline.folders import LocalFolder
from ccs_dacs_pipeline_tests.entities import oracle
from ccs_dacs_pipeline_tests.entities.awkward import Awkward
from ccs_dacs_pipeline_tests.entities.support import DEFAULT, INITIAL
from ccs_dacs_pipeline_tests.entities.test_oracle import RECORDS, SEED

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PAGE = 2_000
_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,15})(\.[0-9]{1,9})?")
_MARK = json.dumps(LONE_SURROGATE)[1:-1]


@pytest.mark.parametrize("entity", ENTITIES, ids=lambda entity: entity.name)
def test_the_file_is_that_of_the_oracle_byte_for_byte(entity: Entity, tmp_path: Path) -> None:
    records = Awkward(SEED).records(entity.name, RECORDS)
    records.sort(key=lambda record: oracle.clean(record[entity.id_member]) or "")
    layout = DEFAULT.entities[entity.name]
    mapper = Mapper(entity, DEFAULT, INITIAL)
    written = write_extract(
        (mapper.map(decode_page(page, entity).frame).rows for page in _pages(entity, records)),
        folder=LocalFolder(tmp_path),
        layout=layout,
        dialect=DEFAULT.dialect,
        max_bytes=2**30 - 1,
        name_of=lambda part: f"C1-X_0001_00_P{part:03}.csv" if part else "C1-X_0001_00.csv",
    )
    batch = oracle.Batch("F1IL", INITIAL.moment, INITIAL.time_zone, "ouaf", {})
    outcomes = (oracle.expect(entity.name, record, batch) for record in records)
    good = [outcome.fields for outcome in outcomes if isinstance(outcome, oracle.Written)]
    expected = "".join("\t".join(fields[name] or "" for name in layout.names) + "\n" for fields in good)
    assert (tmp_path / "C1-X_0001_00.csv").read_bytes() == expected.encode()
    assert [file.rows for file in written] == [len(good)]
    assert len(good) > RECORDS // 5


def _pages(entity: Entity, records: list[oracle.Record]) -> Iterator[bytes]:
    """The answers of a CCS that wraps plural members, or does not, or either as it comes, page by page."""
    chance = random.Random(SEED)
    for number, start in enumerate(range(0, len(records), PAGE)):
        wrapped = (1.0, 0.0, 0.5)[number % 3]
        page = [_shaped(entity, record, chance, wrapped) for record in records[start : start + PAGE]]
        answer = {"limit": PAGE, "hasMore": False, "totalNumberOfRecords": len(page), entity.list_member: page}
        # The mark stands for an escape that is half of a surrogate pair, which no text of Python's can be encoded with.
        yield json.dumps(answer).replace(_MARK, "\\ud83d").encode()


def _shaped(entity: Entity, record: oracle.Record, chance: random.Random, wrapped: float) -> dict[str, Any]:
    """A record as JSON has it: numbers and booleans bare, plural members wrapped or not."""
    shaped: dict[str, Any] = {}
    for name, value in record.items():
        inner = entity.plural_members.get(name)
        if inner is not None:
            shaped[name] = {inner: value} if value is not None and chance.random() < wrapped else value
        else:
            shaped[name] = _bare(value, entity.schema[name])
    return shaped


def _bare(value: Any, dtype: pl.DataType) -> Any:
    if isinstance(value, dict) and isinstance(dtype, pl.Struct):
        return {field.name: _bare(value[field.name], field.dtype) for field in dtype.fields}
    if value in ("true", "false"):
        return value == "true"
    # Not those with leading zeros or blanks: they are text in JSON too.
    if isinstance(value, str) and _NUMBER.fullmatch(value) and len(value) < 16:
        return json.loads(value)
    return value
