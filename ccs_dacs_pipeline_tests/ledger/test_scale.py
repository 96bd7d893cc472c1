"""A ledger of years: what is asked often passes through what is asked for, not through all that was ever recorded.

By the plans that the databases make, never by time. PostgreSQL reads a table of few rows whole, however it is indexed,
so it is told to do that only where nothing else is possible.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ccs_dacs_pipeline.ledger import Ledger, life, orphans, report, requests
from ccs_dacs_pipeline.partitions import Mode

from .batches import ENTITIES, change, delta, send, start_delta

Statement = tuple[str, Any]
_LITE = re.compile(r"SCAN (\w+)(?: USING (?:COVERING )?INDEX (\w+))?")
_SERVER = re.compile(r"Seq Scan on (\w+)|Index (?:Only )?Scan(?: Backward)? using (\w+)[^\n]*\n(?!\s+Index Cond)")


@contextmanager
def noted(db: Connection) -> Iterator[list[Statement]]:
    """Notes the statements of a connection, with their values."""
    statements: list[Statement] = []

    def note(_db: object, _cursor: object, text: str, values: object, _context: object, _many: bool) -> None:
        statements.append((text, values))

    sa.event.listen(db, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        sa.event.remove(db, "before_cursor_execute", note)


def plans_of(ledger: Ledger, work: Callable[[Connection], object]) -> str:
    """The plans of all statements of some work."""
    with ledger.read() as db:
        if not ledger.is_sqlite:
            db.exec_driver_sql("SET LOCAL enable_seqscan = off")
            db.exec_driver_sql("SET LOCAL enable_bitmapscan = off")
        with noted(db) as statements:
            work(db)
        explain, column = ("EXPLAIN QUERY PLAN", 3) if ledger.is_sqlite else ("EXPLAIN", 0)
        asked = [one for one in statements if one[0].startswith("SELECT")]
        assert asked
        return "\n".join(
            row[column] for text, values in asked for row in db.exec_driver_sql(f"{explain} {text}", values)
        )


def passed_whole(ledger: Ledger, work: Callable[[Connection], object]) -> set[str]:
    """The tables, or the indexes of them, that some work passes through from the first row to the last."""
    form = _LITE if ledger.is_sqlite else _SERVER
    return {found[2] or found[1] for found in form.finditer(plans_of(ledger, work) + "\n")}


@pytest.mark.parametrize(
    ("work", "whole"),
    [
        pytest.param(report.unfinished, set(), id="unfinished batches"),
        pytest.param(lambda db: life.highest_number(db, Mode.DELTA), set(), id="highest number"),
        pytest.param(requests.busy_entities, {"ux_batch_entities_active"}, id="entities of unfinished batches"),
        pytest.param(lambda db: requests.open_requests(db, ["r1", "r2"]), set(), id="open among the pending"),
        pytest.param(lambda db: report.batch_lines(db, [life.get(db, delta(1))]), set(), id="one batch's line"),
    ],
)
def test_what_is_asked_at_every_tick_or_delta_passes_through_nothing_that_only_grows(
    ledger: Ledger, work: Callable[[Connection], object], whole: set[str]
):
    send(ledger, start_delta(ledger, 1, change("r1", "e1")))
    start_delta(ledger, 2, change("r2", "e2"))
    assert passed_whole(ledger, work) <= whole


def test_an_entity_is_looked_up_among_those_of_unfinished_batches(ledger: Ledger):
    plans = plans_of(ledger, lambda db: orphans.ready(db, 1))
    assert "ux_batch_entities_active" in plans
    assert "SCAN batch_entities" not in plans


@pytest.mark.parametrize(
    "work",
    [pytest.param(report.answers_due, id="count"), pytest.param(lambda db: requests.due(db, 500), id="page")],
)
def test_due_answers_are_found_without_passing_over_the_requests_that_await_one(
    ledger: Ledger, work: Callable[[Connection], object]
):
    assert "ix_requests_due" in plans_of(ledger, work)


def test_status_takes_from_the_database_only_the_ended_batches_that_it_shows(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(report, "_SHOWN_SETTLED", 2)
    for number in range(1, 5):
        send(ledger, start_delta(ledger, number))
    start_delta(ledger, 5, change("r1", "e1"))
    with ledger.read() as db, noted(db) as statements:
        shown = [line["key"] for line in report.status(db, timedelta(days=1))["batches"]]
        of_batches = [text for text, _ in statements if "FROM batches" in text and "ORDER BY" in text]
    assert shown == ["delta-3", "delta-4", "delta-5"]
    assert ["LIMIT" in text for text in of_batches] == [False, True]


def test_to_reconcile_takes_as_many_statements_for_many_batches_as_for_few(ledger: Ledger):
    taken = []
    for numbers in (range(1, 3), range(3, 9)):
        for number in numbers:
            send(ledger, start_delta(ledger, number, change(f"r{number}", f"e{number}")))
        with ledger.read() as db, noted(db) as statements:
            figures = report.reconcile(db, ENTITIES)
        assert figures["holds"]
        assert len(figures["batches"]) == max(numbers)
        taken.append(len([text for text, _ in statements if text.startswith("SELECT")]))
    assert taken[0] == taken[1]
