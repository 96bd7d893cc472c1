"""Going on when the ledger is lost, or an older copy of it is restored (docs/decisions/0016-recovery.md).

All that is done only adds: counters are raised, never lowered, Change Date Times likewise, and requests that await an
answer and that no batch holds get a batch which sends their entities anew. So it may be done again, and on any ledger.
"""

from __future__ import annotations

import re
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING

from ccs_dacs_pipeline.ccs import SyncStatus
from ccs_dacs_pipeline.dacs.manifest import ManifestError, parse_manifest
from ccs_dacs_pipeline.dacs.verify import whole_lines
from ccs_dacs_pipeline.dacs.zip_file import ZipError, member_of, unzipped
from ccs_dacs_pipeline.entities import ENTITIES
from ccs_dacs_pipeline.ledger import life, requests
from ccs_dacs_pipeline.ledger.requests import Chosen
from ccs_dacs_pipeline.ledger.store import note
from ccs_dacs_pipeline.partitions import KeyRefusedError, Mode, SyncBatch, snapshot_number
from ccs_dacs_pipeline.sync.choose import choose
from ccs_dacs_pipeline.sync.start import incremental_codes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import BinaryIO

    from ccs_dacs_pipeline.entities import Entity
    from ccs_dacs_pipeline.folders import Folder
    from ccs_dacs_pipeline.ledger.leases import Lease
    from ccs_dacs_pipeline.sync.site import Site

_MANIFEST = re.compile(r"MANIFEST_(.+)_[0-9]{2,}\.json")
_ROWS = 5000
_BLOCK_BYTES = 1024 * 1024
Moments = dict[str, datetime]
_LOST = (
    "Whether a snapshot was unfinished, or a part of it read: when in doubt, make a new one (`ccs-dacs initial`).",
    "Which records were quarantined, and which children went without parents: `ccs-dacs resync`, or a new snapshot.",
    "Answers of DACS that CCS was not told yet: their entities are sent anew, and answered anew.",
    "Rows of requests that CCS took as synchronized at once, if they were not delivered: `ccs-dacs resync` sends them.",
    "Change Date Times of files that DACS took away: new ones follow the clock, so it must not be set back.",
)


@dataclass
class Found:
    """What was found outside the ledger, and what was made of it.

    Attributes:
        was_empty: whether the ledger held no batch.
        numbers: the highest batch number of each mode that was ever used.
        file_numbers: the highest batch number of each batch code in file names.
        moments: entities whose last Change Date Time was read from files, by DACS entity.
        unknown: requests that await an answer in CCS and that no batch of the ledger holds.
        sources: extract files that no batch of the ledger knows.
        batches: the batches that send the entities of unknown requests anew.
        busy: unknown requests left alone, since unfinished batches hold their entities.
    """

    was_empty: bool
    numbers: dict[Mode, int]
    file_numbers: dict[str, int]
    unknown: list[Chosen]
    sources: list[str]
    moments: Counter[str] = field(default_factory=Counter)
    batches: list[SyncBatch] = field(default_factory=list)
    busy: int = 0

    @property
    def not_known(self) -> list[str]:
        """Says what cannot be known, and what an operator can do about it."""
        told = []
        if self.was_empty:
            told = list(_LOST)
            codes = [code for one in ENTITIES for code in (one.initial_code, one.incremental_code)]
            unseen = [code for code in codes if code not in self.file_numbers]
            if unseen:
                told.append(
                    f"Batch numbers of {', '.join(unseen)}: no file of theirs was found. If there were any, set "
                    "CCS_DACS_FIRST_BATCH_NUMBERS above them."
                )
        if self.sources:
            told.append(
                f"What {len(self.sources)} files in the extract folder are for, such as {self.sources[0]}: no batch "
                "publishes them; remove them when they are none of CCS's own."
            )
        if self.busy:
            told.append(
                f"{self.busy} requests wait for unfinished batches that hold their entities: run `ccs-dacs recover` "
                "again when those are delivered."
            )
        return told


def look(site: Site, partitions: Iterable[str]) -> Found:
    """Looks at CCS, folders, frames and the given partitions; changes nothing.

    Raises:
        CcsError: CCS cannot be asked.
        FolderError: a folder cannot be read.
    """
    uploaded, sources = site.upload.names(), site.extract.names()
    with site.ledger.read() as db:
        was_empty = not life.listed(db, last=1)
        known_files = life.file_names(db)
        held = requests.held(db)
    manifests = [name for name in uploaded if _MANIFEST.fullmatch(name)]
    keys = [found[1] for name in manifests if (found := _MANIFEST.fullmatch(name))]
    listed = [listed for name in manifests for listed in _listed_in(site.upload, name)]
    kept = [name.removeprefix(site.settings.sent_prefix) for name in sources]
    return Found(
        was_empty=was_empty,
        numbers=_highest_numbers([*keys, *partitions, *site.frames.batches()]),
        file_numbers=_highest_file_numbers(site, [*uploaded, *kept, *listed]),
        unknown=[request for request in _awaiting(site) if request.request_id not in held],
        sources=[name for name in sources if site.names.number_of(name, _codes()) and name not in known_files],
    )


def recover(site: Site, found: Found, lease: Lease) -> None:
    """Brings what was found into the ledger.

    Raises:
        GateClosedError: a snapshot holds the gate; counters and Change Date Times are raised by then.
        FolderError: a folder cannot be read.
        LeaseLostError: another worker has the incremental lane.
    """
    with site.ledger.write() as db:
        lease.check(db)
        life.raise_numbers(db, found.numbers, found.file_numbers)
    for entity in ENTITIES:
        for folder in (site.upload, site.extract):
            for moments in _moments(site, entity, folder):
                with site.ledger.write() as db:
                    lease.check(db)
                    found.moments[entity.name] += requests.raise_moments(db, entity.name, moments)
    left = found.unknown
    while left:
        with site.ledger.write() as db:
            lease.check(db)
            busy = requests.busy_entities(db)
            chosen = choose(left, limit=site.settings.delta_max_requests, busy=busy)
            if not chosen:
                break
            key = SyncBatch(Mode.DELTA, life.highest_number(db, Mode.DELTA) + 1)
            life.create_chosen(db, key, codes=incremental_codes(), first=site.settings.first_batch_numbers)
            requests.add_entities(db, key, sorted({request.subject for request in chosen}))
            requests.adopt(db, key, chosen)
            note(db, "requests recovered", str(key), requests=len(chosen))
        found.batches.append(key)
        taken = {request.request_id for request in chosen}
        left = [request for request in left if request.request_id not in taken]
    found.busy = len(left)


def _codes() -> list[str]:
    return [code for entity in ENTITIES for code in (entity.initial_code, entity.incremental_code)]


def _highest_numbers(keys: Iterable[str]) -> dict[Mode, int]:
    """Returns the highest number of each mode among batch keys; other names are passed over."""
    highest: dict[Mode, int] = {}
    for key in keys:
        snapshot = snapshot_number(key)
        try:
            batch = SyncBatch.parse(key) if snapshot is None else SyncBatch(Mode.INITIAL, snapshot)
        except KeyRefusedError:
            continue
        highest[batch.mode] = max(batch.number, highest.get(batch.mode, 0))
    return highest


def _highest_file_numbers(site: Site, names: Iterable[str]) -> dict[str, int]:
    highest: dict[str, int] = {}
    for name in names:
        if found := site.names.number_of(name, _codes()):
            code, number = found
            highest[code] = max(number, highest.get(code, 0))
    return highest


def _awaiting(site: Site) -> Iterator[Chosen]:
    for entity in ENTITIES:
        status = SyncStatus.AWAITINGACK
        for page in site.ccs.sync_requests(business_object=entity.business_object, status=status):
            for found in page:
                yield Chosen(found.id, entity.name, found.pk_value1.strip(), found.created)


def _listed_in(folder: Folder, name: str) -> list[str]:
    """Returns the names of the files that a manifest lists: DACS may have taken them away; none when it is damaged."""
    with folder.open(name) as stream:
        try:
            return [file.name for file in parse_manifest(stream.read()).files]
        except ManifestError:
            return []


def _moments(site: Site, entity: Entity, folder: Folder) -> Iterator[Moments]:
    """Yields the Change Date Times in an entity's incremental files, some thousand rows at once."""
    layout, dialect = site.profile.entities[entity.name], site.profile.dialect
    sources = [column.source for column in layout.columns]
    if "change_date_time" not in sources:  # a site's own profile need not have it
        return
    place, id_place = sources.index("change_date_time"), sources.index("external_id")
    for name, original in _incremental_files(site, entity, folder):
        with folder.open(name) as stream:
            lines = islice(_lines(stream, member_of(original)), int(dialect.header), None)
            while chunk := list(islice(lines, _ROWS)):
                rows = (line.decode(dialect.encoding, "replace").split(dialect.separator) for line in chunk)
                whole = (row for row in rows if len(row) >= len(sources))
                yield {row[id_place]: moment for row in whole if (moment := _moment(row[place]))}


def _incremental_files(site: Site, entity: Entity, folder: Folder) -> Iterator[tuple[str, str]]:
    """Yields name and first name of an entity's incremental files; sources that were kept have another by now."""
    for prefix in sorted({"", site.settings.sent_prefix}):
        for name in folder.names(f"{prefix}{entity.incremental_code}*"):
            original = name.removeprefix(prefix)
            if site.names.number_of(original, [entity.incremental_code]):
                yield name, original


def _lines(stream: BinaryIO, member: str | None) -> Iterator[bytes]:
    """Yields a file's lines without their ends; of a damaged zip those that can be read."""
    content = unzipped(stream.read, member) if member else iter(lambda: stream.read(_BLOCK_BYTES), b"")
    with suppress(ZipError):
        for block in whole_lines(content):
            yield from (line.removesuffix(b"\r") for line in block.split(b"\n"))


def _moment(text: str) -> datetime | None:
    """Reads a Change Date Time in either format; None for anything else."""
    try:
        return datetime.fromisoformat(f"{text[:10]}T{text[11:].replace('.', ':')}").replace(tzinfo=None)
    except ValueError:
        return None
