"""What holds for every entity: rules, quarantine, eligibility, references, dialect, counts."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import pytest

from ccs_dacs_pipeline.entities import (
    ENTITIES,
    Column,
    Eligibility,
    Entity,
    EntityLayout,
    LayoutProfile,
    Mapper,
    MappingContext,
    Rule,
    load_profile,
)
from ccs_dacs_pipeline.entities.cleaning import LONE_SURROGATE
from ccs_dacs_pipeline.entities.model import REFERENCES_SCHEMA, Kind, common_sources, member_source
from ccs_dacs_pipeline_tests.entities.support import (
    CONTACT,
    DEFAULT,
    INITIAL,
    MOMENT,
    MS,
    MSP,
    mapped,
    quarantined,
    record,
    written,
)

each_entity = pytest.mark.parametrize("entity", ENTITIES, ids=lambda entity: entity.name)


def with_dialect(**dialect: Any) -> LayoutProfile:
    return DEFAULT.model_copy(update={"dialect": DEFAULT.dialect.model_copy(update=dialect)})


def delta(*references: tuple[str, str | None, datetime]) -> MappingContext:
    frame = pl.DataFrame(list(references), schema=REFERENCES_SCHEMA, orient="row")
    return MappingContext("F1IC", MOMENT, ZoneInfo("America/Los_Angeles"), references=frame)


class TestRows:
    """Rows as they are written."""

    @each_entity
    def test_have_exactly_the_layouts_columns_all_text(self, entity: Entity) -> None:
        rows = mapped(entity, record(entity)).rows
        assert rows.columns == list(DEFAULT.entities[entity.name].names)
        assert set(rows.dtypes) == {pl.String}

    @each_entity
    def test_of_no_records_are_none_with_the_same_columns(self, entity: Entity) -> None:
        result = mapped(entity)
        assert result.rows.schema == mapped(entity, record(entity)).rows.schema
        assert result.quarantined.schema == dict.fromkeys(("entity_id", "rule", "field", "detail"), pl.String)
        assert result.not_eligible.schema == {"entity_id": pl.String, "reason": pl.String}
        assert result.cleaned == {}

    def test_keep_the_input_order(self) -> None:
        ids = ["30", "10", "40", "20"]
        assert mapped(CONTACT, *(record(CONTACT, {"personId": i}) for i in ids)).rows["External Id"].to_list() == ids

    def test_follow_a_sites_order_names_and_requirements(self) -> None:
        layout = DEFAULT.entities["contact"]
        columns = [column.model_copy(update={"name": column.source}) for column in reversed(layout.columns)]
        columns = [
            column.model_copy(update={"required": True}) if column.source == "email" else column for column in columns
        ]
        entities = {**DEFAULT.entities, "contact": layout.model_copy(update={"columns": tuple(columns)})}
        profile = DEFAULT.model_copy(update={"entities": entities})
        row = written(CONTACT, {"emailAddress": "a@example.com"}, profile=profile)
        assert list(row) == [column.source for column in columns]
        assert row["name"] == "John Reddy"
        assert quarantined(CONTACT, profile=profile) == ("required-value", "email")


class TestQuarantine:
    """Records that break a rule."""

    def test_takes_bad_records_and_leaves_the_good(self) -> None:
        result = mapped(
            CONTACT,
            record(CONTACT, {"personId": "1"}),
            record(CONTACT, {"personId": "2", "names": []}),
            record(CONTACT, {"personId": "3"}),
            record(CONTACT, {"personId": "4", "personOrBusiness": "X", "names": []}),
        )
        assert result.rows["External Id"].to_list() == ["1", "3"]
        assert result.quarantined.rows() == [
            ("2", "required-value", "Name", "empty, but required"),
            ("4", "unlisted-code", "Contact Type", "not in the value map person_type"),
        ]

    @pytest.mark.parametrize(
        ("entity", "member", "field", "limit"),
        [
            (CONTACT, "personId", "External Id", 10),
            (CONTACT, "emailAddress", "Email", 254),
            (CONTACT, "lifeSupportSensitiveLoadDescription", "Life Support Sensitive Load Description", 1000),
            (MSP, "premise.premiseId", "External Premise Id", 10),
            (MSP, "premise.address.country", "Country", 3),
            (MSP, "premise.address.postal", "Postal", 12),
            (MSP, "premise.address.address1", "Address 1", 254),
            (MSP, "premise.address.address4", "Address 4", 254),
            (MSP, "premise.address.city", "City", 30),
            (MSP, "premise.address.county", "County", 30),
            (MSP, "premise.address.state", "State", 6),
            (MS, "account.mainCustomerPersonId", "External Contact Id", 10),
            (MS, "account.accountId", "External Account Id", 10),
        ],
    )
    def test_lengths_are_code_points_after_cleaning(self, entity: Entity, member: str, field: str, limit: int) -> None:
        fits = "😀" * (limit - 1) + "e"
        assert written(entity, {member: f"\t{fits}\0  "})[field] == fits
        assert quarantined(entity, {member: f"{fits}\u0301"}) == ("too-long", field)

    @pytest.mark.parametrize(
        ("entity", "member", "field"),
        [
            (CONTACT, "emailAddress", "Email"),
            (CONTACT, "personOrBusiness", "Contact Type"),
            (CONTACT, "personId", "External Id"),
            (MSP, "premise.geocodeLatitude", "Latitude"),
            (MSP, "division", "Division"),
            (MS, "startDate", "Start Date Time"),
        ],
    )
    def test_a_lone_surrogate_in_a_mapped_value_quarantines(self, entity: Entity, member: str, field: str) -> None:
        assert quarantined(entity, {member: f"a{LONE_SURROGATE}"}) == ("lone-surrogate", field)

    def test_a_lone_surrogate_elsewhere_does_no_harm(self) -> None:
        assert written(CONTACT, {"version": LONE_SURROGATE})["External Id"] == "5775933103"

    def test_never_tells_the_value(self) -> None:
        canary = "C4N4RY"
        result = mapped(
            MSP,
            record(MSP, {"premise.address.country": canary}),
            record(MSP, {"sourceStatus": canary}),
            record(MSP, {"premise.geocodeLatitude": canary}),
            record(MSP, {"division": canary + LONE_SURROGATE}),
        )
        assert result.quarantined.height == 4
        assert canary not in str(result.quarantined.rows())

    @pytest.mark.parametrize(
        ("entity", "changes", "dialect", "detail"),
        [
            (CONTACT, {"emailAddress": LONE_SURROGATE}, {}, "half of a surrogate pair"),
            (CONTACT, {"emailAddress": "a" * 255}, {}, "longer than 254 characters"),
            (CONTACT, {"purged": "maybe"}, {}, "neither true nor false"),
            (CONTACT, {"personOrBusiness": "X"}, {}, "not in the value map person_type"),
            (CONTACT, {"names": []}, {}, "empty, but required"),
            (CONTACT, {"emailAddress": "a|b"}, {"separator": "|"}, "holds the separator |"),
            (CONTACT, {"emailAddress": "é"}, {"encoding": "ascii"}, "a character that ascii has not"),
            (MSP, {"premise.geocodeLatitude": "north"}, {}, "no decimal number"),
            (MS, {"startDate": "2026-02-30"}, {}, "no day of the calendar in the form YYYY-MM-DD"),
            (
                MS,
                {"servicePoints": [{"servicePointId": "1", "startDateTime": "never", "stopDateTime": None}]},
                {},
                (
                    "a service point link, which may be the one that counts, "
                    "starts or stops at no ISO 8601 time with offset"
                ),
            ),
        ],
    )
    def test_says_what_is_wrong(
        self, entity: Entity, changes: dict[str, Any], dialect: dict[str, Any], detail: str
    ) -> None:
        result = mapped(entity, record(entity, changes), profile=with_dialect(**dialect))
        assert result.quarantined["detail"].to_list() == [detail]

    def test_every_rule_is_described(self) -> None:
        assert all(rule.description.endswith(".") and str(rule) == rule.value for rule in Rule)


class TestEligibility:
    """Records that an allowed list leaves out."""

    @pytest.mark.parametrize(
        ("entity", "eligibility", "changes", "reason"),
        [
            (CONTACT, Eligibility(person_types=frozenset({"P"})), {"personOrBusiness": "B "}, "person type"),
            (MSP, Eligibility(sp_types=frozenset({"E-RES "})), {"servicePointType": "G-RES"}, "service point type"),
            (MSP, Eligibility(divisions=frozenset({"CA"})), {"division": None}, "division"),
            (MS, Eligibility(sa_types=frozenset({"E-RES"})), {"saType": "W"}, "agreement type"),
            (MS, Eligibility(sa_types=frozenset({"E-RES", "XW"})), {"saType": "W"}, "agreement type"),
            (MS, Eligibility(sa_statuses=frozenset({"20"})), {"status": "60 "}, "agreement status"),
            (MS, Eligibility(divisions=frozenset({"CA"})), {"division": "NY "}, "division"),
        ],
    )
    def test_what_a_list_leaves_out_is_told_by_reason(
        self, entity: Entity, eligibility: Eligibility, changes: dict[str, Any], reason: str
    ) -> None:
        context = replace(INITIAL, eligibility=eligibility)
        result = mapped(entity, record(entity, changes), record(entity), context=context)
        assert result.not_eligible.rows() == [(record(entity)[entity.id_member], reason)]
        assert result.rows.height == 1
        assert result.quarantined.is_empty()

    def test_a_bad_record_that_is_not_eligible_is_not_quarantined(self) -> None:
        context = replace(INITIAL, eligibility=Eligibility(person_types=frozenset({"B"})))
        result = mapped(CONTACT, record(CONTACT, {"names": []}), context=context)
        assert (result.quarantined.height, result.not_eligible.height) == (0, 1)

    def test_divisions_do_not_apply_to_contacts(self) -> None:
        assert written(CONTACT, context=replace(INITIAL, eligibility=Eligibility(divisions=frozenset({"CA"}))))


class TestReferences:
    """What a delta and a resync add to each record."""

    def test_a_delta_carries_request_id_and_change_date_time(self) -> None:
        context = delta(("5775933103", "85810617092033", datetime(2026, 3, 1, 10, 15, 30)))  # noqa: DTZ001
        row = written(CONTACT, context=context)
        assert row["External Reference Id"] == "85810617092033"
        assert row["Change Date Time"] == "2026-03-01-10.15.30"
        assert row["Initial Load Sync Flag"] == "F1IC"

    @pytest.mark.parametrize(
        ("wall_clock", "text"),
        [
            (datetime(2026, 3, 8, 2, 30), "2026-03-08T02:30:00-08:00"),  # noqa: DTZ001  skipped: the offset before
            (datetime(2026, 11, 1, 1, 30), "2026-11-01T01:30:00-07:00"),  # noqa: DTZ001  twice: the first
            (datetime(2026, 11, 1, 2, 0), "2026-11-01T02:00:00-08:00"),  # noqa: DTZ001
        ],
    )
    def test_a_resync_has_no_request_id_and_xsd_times_carry_the_offset(self, wall_clock: datetime, text: str) -> None:
        profile = load_profile("assumed-tail", datetime_format="xsd")
        row = written(CONTACT, profile=profile, context=delta(("5775933103 ", None, wall_clock)))
        assert (row["External Reference Id"], row["Change Date Time"]) == (None, text)

    def test_are_matched_by_id_whatever_the_order(self) -> None:
        moment = datetime(2026, 3, 1)  # noqa: DTZ001
        context = delta(("1", "a", moment), ("2", "b", moment), ("3", "c", moment), ("4", "d", moment))
        rows = mapped(CONTACT, *(record(CONTACT, {"personId": i}) for i in "3142"), context=context).rows
        assert rows["External Reference Id"].to_list() == ["c", "a", "d", "b"]

    def test_must_be_there_once_for_each_record(self) -> None:
        moment = datetime(2026, 3, 1)  # noqa: DTZ001
        with pytest.raises(ValueError, match="1 of 1 records have no reference"):
            mapped(CONTACT, record(CONTACT), context=delta(("1", "a", moment)))
        with pytest.raises(ValueError, match="there twice"):
            mapped(CONTACT, record(CONTACT), context=delta(("5775933103", "a", moment), ("5775933103", "b", moment)))

    def test_go_with_the_load_flag(self) -> None:
        with pytest.raises(ValueError, match="F1IC"):
            MappingContext("F1IC", MOMENT, ZoneInfo("UTC"))
        with pytest.raises(ValueError, match="F1IL"):
            replace(INITIAL, references=pl.DataFrame(schema=REFERENCES_SCHEMA))
        with pytest.raises(ValueError, match="change_date_time"):
            MappingContext("F1IC", MOMENT, ZoneInfo("UTC"), references=pl.DataFrame({"entity_id": ["1"]}))
        aware = pl.DataFrame(schema={**REFERENCES_SCHEMA, "change_date_time": pl.Datetime("us", "UTC")})
        with pytest.raises(ValueError, match="without a time zone"):
            MappingContext("F1IC", MOMENT, ZoneInfo("UTC"), references=aware)

    def test_the_moment_must_be_aware(self) -> None:
        with pytest.raises(ValueError, match="aware"):
            MappingContext("F1IL", MOMENT.replace(tzinfo=None), ZoneInfo("UTC"))


class TestCleaned:
    """How many values cleaning changed."""

    def test_counts_the_written_values_that_cleaning_changed_per_column(self) -> None:
        result = mapped(
            CONTACT,
            record(CONTACT, {"emailAddress": "a\tb"}),
            record(CONTACT, {"emailAddress": "a\0"}),
            record(CONTACT, {"emailAddress": " a "}),
            record(CONTACT, {"emailAddress": "a\n", "names": []}),
            record(CONTACT, {"lifeSupportSensitiveLoadDescription": "\x85", "version": "\t"}),
        )
        assert result.cleaned == {"Email": 2, "Life Support Sensitive Load Description": 1}

    def test_counts_a_composed_value_once_and_only_if_its_parts_were_used(self) -> None:
        used = [{**record(CONTACT)["names"][0], "firstName": "Jo\thn", "lastName": "Red\tdy"}]
        unused = [{**record(CONTACT)["names"][0], "entityName": "Reddy\t,John"}]
        result = mapped(CONTACT, record(CONTACT, {"names": used}), record(CONTACT, {"names": unused}))
        assert result.rows["Name"].to_list() == ["Jo hn Red dy", "John Reddy"]
        assert result.cleaned == {"Name": 1}


class TestDialect:
    """What a site's file cannot carry."""

    def test_a_value_with_a_printable_separator_quarantines(self) -> None:
        profile = with_dialect(separator="|")
        assert quarantined(CONTACT, {"emailAddress": "a|b"}, profile=profile) == ("holds-separator", "Email")
        assert written(CONTACT, {"emailAddress": "a,b"}, profile=profile)["Email"] == "a,b"

    @pytest.mark.parametrize(
        ("encoding", "carried", "not_carried"),
        [("iso8859-1", "Zoë ÿ", "Ωμέγα"), ("cp1252", "Zoë €", "Ω"), ("ascii", "a~", "é"), ("iso8859-7", "Ωμέγα", "ж")],
    )
    def test_a_value_the_encoding_cannot_carry_quarantines(self, encoding: str, carried: str, not_carried: str) -> None:
        profile = with_dialect(encoding=encoding)
        assert written(CONTACT, {"emailAddress": carried}, profile=profile)["Email"] == carried
        assert quarantined(CONTACT, {"emailAddress": not_carried}, profile=profile) == ("not-encodable", "Email")


@each_entity
def test_records_in_several_chunks_are_mapped_as_in_one(entity: Entity) -> None:
    chunk = pl.DataFrame([record(entity)] * 200, schema=entity.schema)
    chunked = pl.concat([chunk] * 10, rechunk=False)
    assert chunked.n_chunks() == 10
    mapper = Mapper(entity, DEFAULT, INITIAL)
    assert mapper.map(chunked).rows.equals(mapper.map(chunked.rechunk()).rows)


@each_entity
def test_records_of_another_schema_are_refused(entity: Entity) -> None:
    raw = pl.DataFrame([record(entity)], schema=entity.schema)
    mapper = Mapper(entity, DEFAULT, INITIAL)
    with pytest.raises(ValueError, match="version"):
        mapper.map(raw.with_columns(pl.col("version").cast(pl.Int64)))
    with pytest.raises(ValueError, match="strange"):
        mapper.map(raw.with_columns(strange=pl.lit("x")))
    with pytest.raises(ValueError, match="order of members"):
        mapper.map(raw.select(reversed(raw.columns)))


def test_a_fourth_entity_is_a_description_and_its_table() -> None:
    meter = replace(
        CONTACT,
        name="asset",
        source="meter",
        id_member="meterId",
        schema=pl.Schema({"meterId": pl.String(), "badge": pl.String()}),
        sources={**common_sources("meterId"), "badge": member_source("badge", Kind.TEXT)},
        criteria=(),
        parts={},
    )
    columns = tuple(Column(name=source, source=source) for source in meter.sources)
    profile = DEFAULT.model_copy(update={"entities": {"asset": EntityLayout(entity="asset", columns=columns)}})
    assert mapped(meter, {"meterId": "1 ", "badge": "B\t7"}, profile=profile).rows.row(0, named=True) == {
        "external_reference_id": None,
        "change_date_time": None,
        "initial_load_flag": "F1IL",
        "external_id": "1",
        "badge": "B 7",
    }
