"""What a batch holds: figures, frames, files, manifest, quarantine (sync-lifecycle.md, Life of a batch)."""

import sqlalchemy as sa

from ccs_dacs_pipeline.ledger import Ledger, contents, life, orphans
from ccs_dacs_pipeline.ledger.contents import File, Finding, Frame, Tally
from ccs_dacs_pipeline.ledger.requests import DISCARDED, Outcome
from ccs_dacs_pipeline.ledger.schema import quarantine
from ccs_dacs_pipeline.partitions import SyncBatch

from .batches import (
    SHA256,
    batch,
    change,
    claim,
    deliver,
    delta,
    give_up,
    map_all,
    seal,
    send,
    send_snapshot,
    start_delta,
    start_snapshot,
)

FRAME = Frame(3, 300, SHA256)


def claimed(ledger: Ledger) -> SyncBatch:
    key = start_delta(ledger, 1, change("r1", "a"))
    claim(ledger, key)
    return key


def file(key: SyncBatch, part: int, rows: int = 3, *, rerun: int = 0, entity: str = "contact") -> File:
    name = f"{entity}_{key}_{rerun:02d}_P{part:03d}.csv"
    return File(str(key), entity, part, name, rows, 10 * rows, SHA256, None)


def quarantined(ledger: Ledger, *ids: str, entity: str = "contact") -> set[str]:
    with ledger.read() as db:
        return set(orphans.withheld(db, delta(99), entity)) & set(ids)


def test_figures_and_frames_are_found_again(ledger: Ledger):
    key = claimed(ledger)
    tally = Tally(3, 1, {"too-long": 1}, {"division": 1}, {"name": 2}, {"contact": 1})
    with ledger.write() as db:
        contents.record_fetched(db, life.get(db, key), "contact", "person", FRAME)
        assert contents.tally_of(db, key, "contact") == Tally(3)
        contents.record_mapped(db, life.get(db, key), "contact", Frame(1, 90, SHA256), tally, [])
    with ledger.read() as db:
        assert contents.tally_of(db, key, "contact") == tally
        assert contents.frame_of(db, key, "person") == FRAME
        assert contents.frame_of(db, key, "contact") == Frame(1, 90, SHA256)
        assert contents.frame_of(db, key, "metered_service") is None
        assert contents.tally_of(db, key, "metered_service") is None


def test_an_entity_that_is_fetched_again_forgets_what_was_made_of_it(ledger: Ledger):
    key = claimed(ledger)
    map_all(ledger, key)
    with ledger.write() as db:
        contents.record_extract(db, life.get(db, key), "contact", [file(key, 1)])
        contents.record_fetched(db, life.get(db, key), "contact", "person", FRAME)
    with ledger.read() as db:
        now = life.get(db, key)
        assert contents.frame_of(db, key, "contact") is None
        assert contents.tally_of(db, key, "contact") == Tally(3)
        assert contents.files_of(db, now) == []
        assert not contents.is_extracted(db, now, "contact")


def test_an_entity_that_is_mapped_again_forgets_its_files_and_findings(ledger: Ledger):
    key = claimed(ledger)
    finding = Finding("a", "too-long", "name", "255 > 254")
    with ledger.write() as db:
        now = life.get(db, key)
        contents.record_mapped(db, now, "contact", FRAME, Tally(4, 3, {"too-long": 1}), [finding])
        contents.record_extract(db, now, "contact", [file(key, 1)])
        contents.record_mapped(db, now, "contact", FRAME, Tally(3, 3), [])
        assert contents.files_of(db, now) == []
    assert quarantined(ledger, "a") == set()


def test_an_id_or_a_column_that_is_longer_than_its_place_is_shown_cut(ledger: Ledger):
    """An id that is too long is itself a rule that a record breaks, and must not stop the batch."""
    key = claimed(ledger)
    finding = Finding("9" * 33, "too-long", "N" * 121, "longer than 10 characters")
    with ledger.write() as db:
        contents.record_mapped(db, life.get(db, key), "contact", FRAME, Tally(1, 0, {"too-long": 1}), [finding])
        found = db.execute(sa.select(quarantine.c.entity_id, quarantine.c.field)).one()
    assert found == ("9" * 31 + "…", "N" * 119 + "…")


def test_files_are_listed_by_entity_and_part_and_delivered_once(ledger: Ledger):
    key = claimed(ledger)
    with ledger.write() as db:
        now = life.get(db, key)
        contents.record_extract(db, now, "metered_service", [file(key, 1, entity="metered_service")])
        contents.record_extract(db, now, "contact", [file(key, 2), file(key, 1)])
        contents.record_file_delivered(db, file(key, 1).name)
    with ledger.read() as db:
        found = contents.files_of(db, now)
        assert [(one.entity, one.part) for one in found] == [("contact", 1), ("contact", 2), ("metered_service", 1)]
        assert contents.files_of(db, now, "contact") == found[:2]
    assert [one.delivered is not None for one in found] == [True, False, False]
    with ledger.write() as db:
        contents.record_file_delivered(db, file(key, 1).name)
        assert contents.files_of(db, now)[0].delivered == found[0].delivered  # the first moment stands


def test_an_entity_without_rows_is_complete_without_a_file(ledger: Ledger):
    key = claimed(ledger)
    with ledger.write() as db:
        now = life.get(db, key)
        assert not contents.is_extracted(db, now, "contact")
        contents.record_extract(db, now, "contact", [])
        assert contents.is_extracted(db, now, "contact")
        assert contents.files_of(db, now) == []


def test_a_rerun_has_files_of_its_own_and_the_first_ones_stay_recorded(ledger: Ledger):
    key = start_delta(ledger, 1, change("r1", "a"))
    send(ledger, key)
    first = batch(ledger, key)
    with ledger.write() as db:
        life.replay(db, "delta-1")
    seal(ledger, key)
    with ledger.read() as db:
        names = [[one.name for one in contents.files_of(db, run)] for run in (first, life.get(db, key))]
    assert names == [["contact_delta-1_00.csv"], ["contact_delta-1_01.csv"]]


def test_a_manifest_is_recorded_before_and_after_it_is_published_per_rerun(ledger: Ledger):
    with ledger.write() as db:
        contents.record_manifest(db, "delta-1", 0, "MANIFEST_delta-1_00.json", SHA256)
        assert not contents.manifest_delivered(db, "delta-1", 0)
        contents.record_manifest_delivered(db, "delta-1", 0)
        contents.record_manifest(db, "delta-1", 0, "MANIFEST_delta-1_00.json", SHA256)  # a repeat
        assert contents.manifest_delivered(db, "delta-1", 0)
        assert not contents.manifest_delivered(db, "delta-1", 1)
        assert not contents.manifest_delivered(db, "delta-2", 0)


def test_a_quarantined_entity_is_found_among_many_ids(ledger: Ledger):
    key = start_delta(ledger, 1, change("r1", "0700"), change("r2", "0701", entity="metered_service"))
    claim(ledger, key)
    map_all(ledger, key, {"0700": Outcome.QUARANTINED, "0701": Outcome.QUARANTINED})
    many = [f"{number:04d}" for number in range(1200)]
    assert quarantined(ledger, *many) == {"0700"}
    assert quarantined(ledger, *many, entity="metered_service") == {"0701"}


def test_a_later_delivery_of_the_entity_ends_its_quarantine(ledger: Ledger):
    send(ledger, start_delta(ledger, 1, change("r1", "a"), change("r2", "b")), outcomes={"a": Outcome.QUARANTINED})
    assert quarantined(ledger, "a", "b") == {"a"}
    key = start_delta(ledger, 2, change("r3", "a", after=60))
    claim(ledger, key)
    map_all(ledger, key)
    seal(ledger, key)
    assert quarantined(ledger, "a") == {"a"}  # its children are told apart until it is delivered
    deliver(ledger, key)
    assert quarantined(ledger, "a") == set()


def test_a_batch_that_judges_the_entity_bad_again_keeps_it_quarantined(ledger: Ledger):
    for number in (1, 2):
        key = start_delta(ledger, number, change(f"r{number}", "a", after=number))
        send(ledger, key, outcomes={"a": Outcome.QUARANTINED})
    assert quarantined(ledger, "a") == {"a"}


def test_a_batch_that_sends_nothing_of_the_entity_leaves_it_quarantined(ledger: Ledger):
    send(ledger, start_delta(ledger, 1, change("r1", "a")), outcomes={"a": Outcome.QUARANTINED})
    send(ledger, start_delta(ledger, 2, change("r2", "a", after=60)), {"r2": DISCARDED})
    assert quarantined(ledger, "a") == {"a"}


def test_a_delivered_snapshot_judges_anew_what_it_read_an_aborted_one_nothing(ledger: Ledger):
    inside, outside = "1999999999", "2000000000"  # the two shards read from 0 to 1999999999
    bad = {inside: Outcome.QUARANTINED, outside: Outcome.QUARANTINED}
    send(ledger, start_delta(ledger, 1, change("r1", inside), change("r2", outside)), outcomes=bad)
    start_snapshot(ledger, 1)
    give_up(ledger, "initial-1")
    assert quarantined(ledger, inside, outside) == {inside, outside}
    keys = start_snapshot(ledger, 2, shards=2)
    own = "0777777777"
    finding = Finding(own, "too-long", "name", "255 > 254")
    with ledger.write() as db:
        contents.record_mapped(db, life.get(db, keys[0]), "contact", FRAME, Tally(4, 3, {"too-long": 1}), [finding])
    for key in keys:
        with ledger.write() as db:
            life.advance(db, key, life.Stage.CLAIMED)
        seal(ledger, key)
    deliver(ledger, *keys)
    assert quarantined(ledger, inside, outside, own) == {outside, own}


def test_what_an_operator_rejected_is_judged_anew_by_a_snapshot_that_read_it(ledger: Ledger):
    inside, outside = "0999999999", "1000000000"
    bad = {inside: Outcome.QUARANTINED, outside: Outcome.QUARANTINED}
    send(ledger, start_delta(ledger, 1, change("r1", inside), change("r2", outside)), outcomes=bad)
    with ledger.write() as db:
        contents.reject_quarantined(db, "contact", [inside, outside])
    send_snapshot(ledger, start_snapshot(ledger, 1))
    with ledger.read() as db:
        left = db.execute(sa.select(quarantine.c.entity_id, quarantine.c.rejected).where(~quarantine.c.open)).all()
    assert {tuple(row) for row in left} == {(inside, False), (outside, True)}


def test_shards_without_entities_are_delivered_and_settled(ledger: Ledger):
    keys = start_snapshot(ledger, 1, shards=3)
    send_snapshot(ledger, keys)
    assert {batch(ledger, key).state for key in keys} == {"settled"}
