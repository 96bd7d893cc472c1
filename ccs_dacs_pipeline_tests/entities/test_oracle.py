"""The mapping agrees with the slow, obvious oracle on awkward records of every kind.

``CCS_DACS_TEST_ORACLE_RECORDS`` sets how many of each entity (default 3,000); ``CCS_DACS_TEST_ORACLE_SEED`` the seed.
"""

from __future__ import annotations

import os
from collections import Counter
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import polars as pl
import pytest

from ccs_dacs_pipeline.entities import ENTITIES, Entity, Mapper, MappingContext, load_profile
from ccs_dacs_pipeline_tests.entities import oracle
from ccs_dacs_pipeline_tests.entities.awkward import Awkward
from ccs_dacs_pipeline_tests.entities.support import MOMENT

RECORDS = int(os.environ.get("CCS_DACS_TEST_ORACLE_RECORDS", "3000"))
SEED = int(os.environ.get("CCS_DACS_TEST_ORACLE_SEED", "1"))
FRAME = 1_000


@pytest.mark.parametrize("load_flag", ["F1IL", "F1IC"])
@pytest.mark.parametrize(("datetime_format", "zone"), [("ouaf", "UTC"), ("xsd", "America/Sao_Paulo")])
@pytest.mark.parametrize("entity", ENTITIES, ids=lambda entity: entity.name)
def test_mapping_agrees_with_the_oracle(entity: Entity, datetime_format: str, zone: str, load_flag: str) -> None:
    profile = load_profile("assumed-tail", datetime_format=datetime_format)
    records = Awkward(SEED).records(entity.name, RECORDS // 4)
    for start in range(0, len(records), FRAME):
        some = records[start : start + FRAME]
        batch = oracle.Batch(load_flag, MOMENT, ZoneInfo(zone), datetime_format, _references(entity, some, load_flag))
        raw = pl.DataFrame(some, schema=entity.schema)
        context = MappingContext(load_flag, MOMENT, batch.zone, references=_frame(batch))
        result = Mapper(entity, profile, context).map(raw)

        expected = [
            (oracle.clean(record[entity.id_member]), oracle.expect(entity.name, record, batch)) for record in some
        ]
        good = [outcome for _, outcome in expected if isinstance(outcome, oracle.Written)]
        bad = [(entity_id, outcome) for entity_id, outcome in expected if isinstance(outcome, oracle.Quarantined)]
        assert result.rows.columns == list(profile.entities[entity.name].names)
        assert result.rows.rows(named=True) == [outcome.fields for outcome in good]
        assert result.quarantined.select("entity_id", "rule", "field").rows() == [
            (entity_id and entity_id.replace(oracle.LONE_SURROGATE, "\ufffd"), outcome.rule, outcome.field)
            for entity_id, outcome in bad
        ]
        assert result.not_eligible.is_empty()
        assert result.cleaned == dict(Counter(name for outcome in good for name in outcome.cleaned))


@pytest.mark.parametrize("entity", ENTITIES, ids=lambda entity: entity.name)
def test_the_awkward_records_are_awkward_enough(entity: Entity) -> None:
    batch = oracle.Batch("F1IL", MOMENT, ZoneInfo("UTC"), "ouaf", {})
    outcomes = [oracle.expect(entity.name, record, batch) for record in Awkward(SEED).records(entity.name, 1_000)]
    rules = {outcome.rule for outcome in outcomes if isinstance(outcome, oracle.Quarantined)}
    good = [outcome for outcome in outcomes if isinstance(outcome, oracle.Written)]
    assert {"required-value", "too-long", "lone-surrogate"} <= rules
    assert len(good) >= 200
    assert any(outcome.cleaned for outcome in good)


def _references(entity: Entity, records: list[oracle.Record], load_flag: str) -> dict[str, tuple[str | None, datetime]]:
    """A sync request for each entity of a delta, of every third none; times through a gap and a fold."""
    if load_flag == "F1IL":
        return {}
    ids = [oracle.clean(record[entity.id_member]) for record in records]
    first = datetime(2018, 2, 17, 22, 0)  # noqa: DTZ001  wall clock time
    return {
        entity_id: (f"{number:014}" if number % 3 else None, first + timedelta(hours=7 * number, seconds=number))
        for number, entity_id in enumerate(ids)
        if entity_id is not None
    }


def _frame(batch: oracle.Batch) -> pl.DataFrame | None:
    if batch.load_flag == "F1IL":
        return None
    rows = [(entity_id, *reference) for entity_id, reference in batch.references.items()]
    schema = {"entity_id": pl.String, "external_reference_id": pl.String, "change_date_time": pl.Datetime}
    return pl.DataFrame(rows, schema=schema, orient="row")
