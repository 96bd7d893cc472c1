"""What the ledger remembers of foreign files, on both databases."""

from datetime import UTC, datetime, timedelta

from ccs_dacs_pipeline.ledger import Ledger, life
from ccs_dacs_pipeline.ledger.foreign import (
    Look,
    begin,
    given_numbers,
    observe,
    own_names,
    pass_report,
    record_delivered,
    record_failure,
    seen,
)
from ccs_dacs_pipeline.ledger.store import now
from ccs_dacs_pipeline.partitions import SyncBatch

OLD = Look(3, datetime(2026, 3, 1, 10, 0, 0, 123456, tzinfo=UTC))
NEW = Look(3, OLD.modified + timedelta(microseconds=1))
SHA256 = "0" * 64


def test_a_file_rests_since_it_was_first_found_so(ledger: Ledger):
    with ledger.write() as db:
        observe(db, {"b": NEW, "a": OLD})
    with ledger.write() as db:
        record_failure(db, "a", "full")
        observe(db, {"b": NEW, "a": OLD})
        first, second = seen(db)
    assert [(one.name, one.look, one.failures) for one in (first, second)] == [("a", OLD, 1), ("b", NEW, 0)]
    assert first.failed_ago is not None
    assert first.rest >= first.failed_ago >= 0
    with ledger.write() as db:
        observe(db, {"a": NEW})
        (changed,) = seen(db)
    assert (changed.look, changed.failures, changed.failed_ago) == (NEW, 0, None)
    assert changed.rest <= first.rest + 1


def test_a_delivered_file_is_known_by_name_time_and_content(ledger: Ledger):
    began = now()
    with ledger.write() as db:
        assert not begin(db, "a", OLD, SHA256)
        assert not begin(db, "a", OLD, SHA256)
        record_delivered(db, "a", OLD, SHA256, 0.5)
        assert begin(db, "a", OLD, SHA256)
        assert not begin(db, "a", NEW, SHA256)
        assert not begin(db, "a", OLD, "1" * 64)
        assert not begin(db, "b", OLD, SHA256)
        observe(db, {"failed": OLD, "waiting": OLD})
        record_failure(db, "failed", "full")
        assert pass_report(db, began) == {
            "sent": [{"name": "a", "bytes": 3, "sha256": SHA256, "seconds": 0.5}],
            "failed": [{"name": "failed", "reason": "full"}],
            "waiting": ["waiting"],
        }
        assert pass_report(db, now() + timedelta(seconds=1))["sent"] == []


def test_numbers_of_batches_are_known_by_code_and_number(ledger: Ledger):
    with ledger.write() as db:
        life.create_chosen(db, SyncBatch.parse("delta-1"), codes=["C1-DCTEX", "C1-DSPEX"], first={"C1-DSPEX": 7})
    asked = [
        ("C1-DCTEX", 1),
        ("C1-DCTEX", 7),
        ("C1-DSPEX", 7),
        ("C1-BILL", 10**9 - 1),
        *(("C1-X", n) for n in range(3000)),
    ]
    with ledger.read() as db:
        assert given_numbers(db, asked) == {("C1-DCTEX", 1), ("C1-DSPEX", 7)}
        assert given_numbers(db, []) == set()
        assert own_names(db, (f"name-{number}" for number in range(2500))) == set()
