"""Writing the extract files of a batch, verified by reading them back; the last entity seals the batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

from ccs_dacs_pipeline.dacs.extract_file import write_extract
from ccs_dacs_pipeline.dacs.verify import Verified, verify_file
from ccs_dacs_pipeline.dacs.zip_file import member_of
from ccs_dacs_pipeline.entities import ENTITIES
from ccs_dacs_pipeline.ledger import contents, requests
from ccs_dacs_pipeline.ledger.contents import File
from ccs_dacs_pipeline.ledger.life import BatchStateError, get, number_of, refuse_aside
from ccs_dacs_pipeline.partitions import Mode
from ccs_dacs_pipeline.sync.stored import StoredDataError, recorded_frame

if TYPE_CHECKING:
    from collections.abc import Callable

    from ccs_dacs_pipeline.entities import Entity
    from ccs_dacs_pipeline.ledger.leases import Lease
    from ccs_dacs_pipeline.ledger.life import Batch
    from ccs_dacs_pipeline.sync.site import Site


@dataclass(frozen=True)
class Extracted:
    """The files of an entity, what reading them back found, and the rows that mapping gave."""

    files: list[File]
    verified: list[Verified]
    mapped_rows: int

    @property
    def rows(self) -> int:
        """Records in the files, as the ledger has them."""
        return sum(file.rows for file in self.files)

    @property
    def totals_agree(self) -> bool:
        """Whether mapping, ledger and every file read back give the same figures."""
        read = [(one.rows, one.bytes, one.sha256) for one in self.verified]
        recorded = [(file.rows, file.bytes, file.sha256) for file in self.files if not file.delivered]
        return self.rows == self.mapped_rows and read == recorded


def extract(site: Site, batch: Batch, entity: Entity) -> Extracted:
    """Writes and verifies the extract files of an entity, or checks those that are recorded already.

    Nothing is recorded here: `record` does, once the caller has judged the result.

    Raises:
        StoredDataError: a recorded file of the batch cannot be restored with the same content.
    """
    refuse_aside(batch)
    with site.ledger.read() as db:
        mapped = contents.frame_of(db, batch.key, entity.name)
        done = contents.is_extracted(db, batch, entity.name)
        files = contents.files_of(db, batch, entity.name)
    if mapped is None:
        raise BatchStateError(f"Materialize dacs/{entity.name} of {batch.key} first: there is nothing to write.")
    if done and batch.rows_fixed:
        return Extracted(files, _verify_recorded(site, batch, entity, files), mapped.rows)
    recorded_frame(site, batch, entity.name)
    written = _write(site, batch, entity)
    return Extracted(written, _verify(site, entity, written), mapped.rows)


def record(site: Site, batch: Batch, entity: Entity, result: Extracted, lease: Lease) -> bool:
    """Records complete extract files; seals the batch with the last entity. Says whether this call sealed it."""
    with site.ledger.write() as db:
        lease.check(db)
        current = get(db, batch.key)
        if contents.is_extracted(db, current, entity.name) and current.rows_fixed:
            return False
        contents.record_extract(db, current, entity.name, result.files)
        sealed = contents.seal_when_complete(db, batch.key, [one.name for one in ENTITIES])
        if sealed and batch.key.mode is Mode.DELTA and not batch.rerun:
            requests.release_own_answers(db, batch.key)
    return sealed


def file_namer(site: Site, batch: Batch, entity: Entity) -> Callable[[int | None], str]:
    """Returns what names an entity's files: their numbers were fixed when the batch was created."""
    numbers = _numbers(site, batch, entity)

    def name(part: int | None) -> str:
        return site.names.name(**numbers, part=part)

    return name


class _Numbers(TypedDict):
    """What the names of an entity's files have in common."""

    batch_code: str
    batch_number: int
    rerun: int
    thread: int | None


def _numbers(site: Site, batch: Batch, entity: Entity) -> _Numbers:
    initial = batch.key.mode is Mode.INITIAL
    code = entity.initial_code if initial else entity.incremental_code
    with site.ledger.read() as db:
        number = number_of(db, batch.key.owner, code)
    thread = batch.key.shard if batch.key.shards > 1 else None
    return {"batch_code": code, "batch_number": number, "rerun": batch.rerun, "thread": thread}


def remove_sources(site: Site, batch: Batch) -> None:
    """Removes the extract files of a batch that is given up, those too that were written and not yet recorded."""
    for entity in ENTITIES:
        numbers = _numbers(site, batch, entity)
        ours = site.names.names_of_parts(**numbers)
        for name in site.extract.names(f"{numbers['batch_code']}*"):
            if ours.fullmatch(name):
                site.extract.remove(name)


def _write(site: Site, batch: Batch, entity: Entity) -> list[File]:
    made = write_extract(
        site.frames.read(str(batch.key), entity.name),
        folder=site.extract,
        layout=site.profile.entities[entity.name],
        dialect=site.profile.dialect,
        max_bytes=int(site.settings.max_file_bytes),
        name_of=file_namer(site, batch, entity),
    )
    return [
        File(str(batch.key), entity.name, one.part or 1, one.name, one.rows, one.bytes, one.sha256, None)
        for one in made
    ]


def _verify(site: Site, entity: Entity, files: list[File]) -> list[Verified]:
    """Reads files back, part after part: ids ascend through all of them."""
    verified: list[Verified] = []
    for file in files:
        previous_id = verified[-1].last_id if verified else None
        with site.extract.open(file.name) as stream:
            verified.append(
                verify_file(
                    stream,
                    layout=site.profile.entities[entity.name],
                    dialect=site.profile.dialect,
                    previous_id=previous_id,
                    member=member_of(file.name),
                )
            )
    return verified


def _verify_recorded(site: Site, batch: Batch, entity: Entity, files: list[File]) -> list[Verified]:
    """Verifies recorded files that are still to be delivered; restores a missing one when its content is the same."""
    missing = [file for file in files if not file.delivered and site.extract.sha256(file.name) != file.sha256]
    if missing:
        recorded_frame(site, batch, entity.name)
        restored = {file.name: file.sha256 for file in _write(site, batch, entity)}
        for file in missing:
            if restored.get(file.name) != file.sha256:
                raise StoredDataError(
                    f"{file.name} of {batch.key} cannot be restored with the content that the ledger recorded: layout "
                    "or settings have changed since it was sealed. Set them back; or abort the batch and send it anew."
                )
        for file in files:  # restoring wrote all parts; the delivered ones have left the folder for good
            if file.delivered:
                site.extract.remove(file.name)
    return _verify(site, entity, [file for file in files if not file.delivered])
