"""Takes batches through their life in the ledger alone, as the sync steps do beside CCS and the folders."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from ccs_dacs_pipeline.ledger import Ledger, acknowledgements, contents, life, requests
from ccs_dacs_pipeline.ledger.acknowledgements import Acknowledgement, Stored
from ccs_dacs_pipeline.ledger.contents import File, Finding, Frame, Tally
from ccs_dacs_pipeline.ledger.requests import AWAITING, Chosen, Outcome, Settlement, Source
from ccs_dacs_pipeline.ledger.schema import requests as request_rows
from ccs_dacs_pipeline.partitions import Mode, SyncBatch

ENTITIES = ("contact", "metered_service_point", "metered_service")
INITIAL_CODES = ("C1-DCTIL", "C1-DSPIL", "C1-DMSIL")
CODES = ("C1-DCTEX", "C1-DSPEX", "C1-DMSEX")
CREATED = datetime(2026, 3, 1, 18, 15, 30, tzinfo=UTC)
NOON = datetime(2026, 3, 1, 12)  # noqa: DTZ001 - Change Date Times are wall clock
POSITIVE: dict[str, Any] = {"hasError": False}
ERROR: dict[str, Any] = {"hasError": True, "exceptionInfo": [{"sequence": 1, "comments": "rule: text"}]}
SHA256 = "0" * 64


def delta(number: int) -> SyncBatch:
    return SyncBatch(Mode.DELTA, number)


def change(request_id: str, entity_id: str, *, entity: str = "contact", after: int = 0) -> Chosen:
    """A sync request, created so many seconds after the first."""
    return Chosen(request_id, entity, entity_id, CREATED + timedelta(seconds=after))


def start_snapshot(ledger: Ledger, number: int, shards: int = 1, **first: int) -> list[SyncBatch]:
    ranges = [(f"{part}000000000", f"{part}999999999") for part in range(shards)]
    with ledger.write() as db:
        life.create_snapshot(db, number, ranges, codes=INITIAL_CODES, first=first)
        return [batch.key for batch in life.owned(db, f"initial-{number}")]


def start_delta(ledger: Ledger, number: int, *chosen: Chosen) -> SyncBatch:
    with ledger.write() as db:
        life.create_chosen(db, delta(number), codes=CODES, first={})
        requests.add(db, delta(number), chosen)
    return delta(number)


def read_back(ledger: Ledger, key: SyncBatch, states: Mapping[str, str], attempts: int = 1) -> None:
    """Records the claim of requests: attempts, then the states that CCS gives."""
    with ledger.write() as db:
        for _ in range(attempts):
            requests.record_attempts(db, key, list(states))
        requests.record_found(db, key, states)


def claim(ledger: Ledger, key: SyncBatch, states: Mapping[str, str] | None = None, moment: datetime = NOON) -> None:
    """Claims a batch; requests without a state given are found awaiting their acknowledgement."""
    with ledger.read() as db:
        found = {one.request_id: AWAITING for one in requests.claims(db, key)}
    read_back(ledger, key, found | dict(states or {}))
    with ledger.write() as db:
        requests.finish_claim(db, key, moment)


def map_all(ledger: Ledger, key: SyncBatch, outcomes: Mapping[str, Outcome] | None = None) -> None:
    """Fetches and maps every entity to send; those without an outcome given are written."""
    for entity in ENTITIES:
        with ledger.write() as db:
            ids = [entity_id for entity_id, _, _ in requests.to_send(db, key, entity)]
            made = {entity_id: (outcomes or {}).get(entity_id, Outcome.WRITTEN) for entity_id in ids}
            bad = [entity_id for entity_id, outcome in made.items() if outcome is Outcome.QUARANTINED]
            left_out = sum(outcome is Outcome.NOT_ELIGIBLE for outcome in made.values())
            written = sum(outcome is Outcome.WRITTEN for outcome in made.values())
            batch = life.get(db, key)
            fetched = written + len(bad) + left_out
            contents.record_fetched(db, batch, entity, f"raw {entity}", Frame(fetched, 10 * fetched, SHA256))
            rules, reasons = {"too-long": len(bad)} if bad else {}, {"division": left_out} if left_out else {}
            tally = Tally(fetched, written, rules, reasons, {}, {})
            findings = [Finding(entity_id, "too-long", "name", "255 > 254") for entity_id in bad]
            contents.record_mapped(db, batch, entity, Frame(written, 10 * written, SHA256), tally, findings)
            answers = {one: (how, None if how is Outcome.WRITTEN else ERROR) for one, how in made.items()}
            requests.record_mapped(db, key, entity, answers)


def seal(ledger: Ledger, key: SyncBatch) -> None:
    """Records the extract files of all entities; one without rows has none."""
    for entity in ENTITIES:
        with ledger.write() as db:
            batch, tally = life.get(db, key), contents.tally_of(db, key, entity)
            rows = tally.written if tally and tally.written else 0
            name = f"{entity}_{key}_{batch.rerun:02d}.csv"
            made = [File(str(key), entity, 1, name, rows, 10 * rows, SHA256, None)] if rows else []
            contents.record_extract(db, batch, entity, made)
            if contents.seal_when_complete(db, key, ENTITIES):
                requests.release_own_answers(db, key)


def publish(ledger: Ledger, *keys: SyncBatch) -> None:
    with ledger.write() as db:
        life.begin_publishing(db, [life.get(db, key) for key in keys])


def finish(ledger: Ledger, *keys: SyncBatch, acknowledged: bool = True) -> None:
    """Records the delivery of batches that are being published."""
    with ledger.write() as db:
        batches = [life.get(db, key) for key in keys]
        for batch in batches:
            for file in contents.files_of(db, batch):
                contents.record_file_delivered(db, file.name)
        life.finish_delivery(db, batches)
        for batch in batches:
            if batch.key.mode is Mode.DELTA and not batch.rerun:
                requests.settle_delivered(db, batch.key, acknowledged=acknowledged, answer=POSITIVE)
            if batch.key.mode is not Mode.INITIAL:
                contents.clear_quarantine(db, batch.key)
        requests.settle_batches(db)


def deliver(ledger: Ledger, *keys: SyncBatch, acknowledged: bool = True) -> None:
    publish(ledger, *keys)
    finish(ledger, *keys, acknowledged=acknowledged)


def send(
    ledger: Ledger,
    key: SyncBatch,
    states: Mapping[str, str] | None = None,
    outcomes: Mapping[str, Outcome] | None = None,
    *,
    acknowledged: bool = True,
) -> None:
    """Takes a created delta all the way to delivery."""
    claim(ledger, key, states)
    map_all(ledger, key, outcomes)
    seal(ledger, key)
    deliver(ledger, key, acknowledged=acknowledged)


def send_snapshot(ledger: Ledger, keys: list[SyncBatch]) -> None:
    """Takes created shards all the way to delivery."""
    for key in keys:
        with ledger.write() as db:
            life.advance(db, key, life.Stage.CLAIMED)
        map_all(ledger, key)
        seal(ledger, key)
    deliver(ledger, *keys)


def give_up(ledger: Ledger, owner: str) -> None:
    with ledger.write() as db:
        for batch in life.abort(db, owner):
            if batch.key.mode is Mode.DELTA:
                requests.abort(db, batch.key, ERROR)


def acknowledge(ledger: Ledger, **verdicts: bool) -> Stored:
    """Stores acknowledgements, as the inbox does: request id -> hasError; ids are given as `r1`."""
    items = [Acknowledgement(one, error, ERROR if error else POSITIVE) for one, error in verdicts.items()]
    with ledger.write() as db:
        return acknowledgements.store(db, items)


def take(ledger: Ledger) -> set[str]:
    """Turns all stored acknowledgements that can be taken into answers; returns the batches touched."""
    touched: set[str] = set()
    with ledger.write() as db:
        acknowledgements.match_parked(db)
        while (taken := requests.take_acknowledgements(db)) is not None:
            touched |= taken
    return touched


def due_ids(ledger: Ledger) -> list[str]:
    with ledger.read() as db:
        return [one.request_id for one in requests.due(db, 1000)]


def tell(ledger: Ledger, closed: frozenset[str] = frozenset()) -> dict[str, Settlement]:
    """Tells CCS every answer that is due; CCS has closed some requests by itself."""
    with ledger.write() as db:
        due = requests.due(db, 1000)
        requests.record_answer_attempts(db, due)
        ends = [(one, Settlement.CLOSED if one.request_id in closed else _end(one)) for one in due]
        requests.settle(db, ends)
        requests.settle_batches(db)
    return {one.request_id: how for one, how in ends}


def _end(due: requests.Due) -> Settlement:
    if due.source is Source.DACS:
        return Settlement.NEGATIVE if due.has_error else Settlement.POSITIVE
    return Settlement.OWN_ERROR if due.source is Source.OWN else Settlement.ON_DELIVERY


def request(ledger: Ledger, request_id: str, key: SyncBatch | None = None) -> sa.Row[Any]:
    """A request as the ledger has it, in its only or the given batch."""
    which = request_rows.c.request_id == request_id
    if key is not None:
        which &= request_rows.c.batch == str(key)
    with ledger.read() as db:
        return db.execute(sa.select(request_rows).where(which)).one()


def batch(ledger: Ledger, key: SyncBatch) -> life.Batch:
    with ledger.read() as db:
        return life.get(db, key)


def gate(ledger: Ledger) -> int | None:
    """The snapshot that holds the gate."""
    with ledger.read() as db:
        return life.gate_holder(db)


def let_pass(ledger: Ledger, seconds: float, name: str) -> None:
    """Makes a lease as old as if so many seconds had passed."""
    with ledger.write() as db:
        db.execute(sa.text("UPDATE leases SET expires = expires - :s WHERE name = :n"), {"s": seconds, "n": name})
