"""Publishing the files of a batch or of a whole snapshot, manifest last (sync-lifecycle.md, Files; Shards)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ccs_dacs_pipeline.ccs import Answer
from ccs_dacs_pipeline.dacs.manifest import ManifestFile, render_manifest
from ccs_dacs_pipeline.dacs.names import manifest_name
from ccs_dacs_pipeline.entities import ENTITIES
from ccs_dacs_pipeline.folders import FileExists, SourceDiffers, SourceMissing, TargetDiffers, publish, take_away
from ccs_dacs_pipeline.frames import FramesMissing
from ccs_dacs_pipeline.ledger import contents, foreign, orphans, requests
from ccs_dacs_pipeline.ledger.life import (
    BatchStateError,
    GateClosedError,
    Stage,
    begin_publishing,
    finish_delivery,
    get,
    hold,
    owned,
    refuse_aside,
    stop,
)
from ccs_dacs_pipeline.partitions import Mode
from ccs_dacs_pipeline.sync.extract import extract
from ccs_dacs_pipeline.sync.mapping import orphans_among, withheld_parents
from ccs_dacs_pipeline.sync.stored import StoredDataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import polars as pl

    from ccs_dacs_pipeline.entities import Entity
    from ccs_dacs_pipeline.ledger.contents import File
    from ccs_dacs_pipeline.ledger.leases import Lease
    from ccs_dacs_pipeline.ledger.life import Batch
    from ccs_dacs_pipeline.partitions import SyncBatch
    from ccs_dacs_pipeline.sync.site import Site


@dataclass(frozen=True)
class Delivery:
    """What came of an attempt to deliver.

    Attributes:
        batches: the batches of the delivery: all shards of a snapshot, or the one batch.
        files: the files, in the order they became visible; empty when nothing was published yet.
        waiting_for: why nothing was published yet, None when all is delivered.
    """

    batches: list[Batch]
    files: list[File]
    waiting_for: str | None = None


def deliver(site: Site, key: SyncBatch, lease: Lease) -> Delivery:
    """Publishes a sealed batch, or the whole snapshot once all its shards are sealed; delivered ones stay as they are.

    Args:
        site: the site.
        key: the batch; for a shard its snapshot is meant.
        lease: the incremental lane, or for a shard the lease of its snapshot.

    Raises:
        StoredDataError: a file to publish is missing or differs, or another file has its name; the batch is stopped.
        LeaseLostError: another worker goes on with this delivery.
    """
    with site.ledger.read() as db:
        get(db, key)
        batches = owned(db, key.owner)
    for batch in batches:
        refuse_aside(batch)
    unsealed = [batch for batch in batches if not batch.reached(Stage.SEALED)]
    if any(str(batch.key) == str(key) for batch in unsealed):
        raise BatchStateError(f"Batch {key} is not sealed yet: materialize its three extract assets first.")
    if unsealed:
        return Delivery(batches, [], f"{len(unsealed)} of {len(batches)} shards are not sealed yet")
    try:
        with site.ledger.write() as db:
            lease.check(db)
            begin_publishing(db, batches)
    except GateClosedError as error:
        with site.ledger.write() as db:
            lease.check(db)
            hold(db, key, error.snapshot)
        return Delivery(batches, [], str(error))
    if len(batches) > 1 and not batches[0].rerun:
        _find_orphans(site, batches, lease)
    files = _files_in_order(site, batches)
    try:
        _restore_lost(site, [batch for batch in batches if str(batch.key) != str(key)], lease)
        for file in files:
            _publish_file(site, file, lease)
        _publish_manifest(site, batches, files, lease)
    except (StoredDataError, SourceMissing, SourceDiffers, TargetDiffers) as error:
        reason = (
            f"{error} Then let it go on with `ccs-dacs batch resume {key.owner}`; or give it up with "
            f"`ccs-dacs batch abort {key.owner}`."
        )
        with site.ledger.write() as db:
            lease.check(db)  # what a late worker does not find, its successor has published
            for batch in batches:
                stop(db, batch.key, reason)
        raise StoredDataError(reason) from error
    _record_delivery(site, batches, lease)
    with site.ledger.read() as db:
        return Delivery(owned(db, key.owner), _files_in_order(site, batches))


def _find_orphans(site: Site, batches: Sequence[Batch], lease: Lease) -> None:
    """Finds the children of parents that a shard quarantined after another shard's children were mapped."""
    for entity in ENTITIES:
        with site.ledger.read() as db:
            parents = [one for one in withheld_parents(db, site, batches[0], entity) if one.withheld]
        if not parents:
            continue
        id_column = site.profile.entities[entity.name].id_column
        for batch in batches:
            for rows in _mapped_rows(site, batch, entity):
                found = set(orphans_among(rows, id_column, parents))
                if found:
                    with site.ledger.write() as db:
                        lease.check(db)
                        orphans.add(db, batch.key, entity.name, found)


def _mapped_rows(site: Site, batch: Batch, entity: Entity) -> Iterator[pl.DataFrame]:
    """Yields mapped rows; none when they are lost, since a shard is delivered without its frames too."""
    try:
        yield from site.frames.read(str(batch.key), entity.name)
    except FramesMissing:
        return


def _files_in_order(site: Site, batches: Sequence[Batch]) -> list[File]:
    """Returns all files, contacts first: DACS refuses rows whose parents it does not know."""
    with site.ledger.read() as db:
        return [file for entity in ENTITIES for batch in batches for file in contents.files_of(db, batch, entity.name)]


def _restore_lost(site: Site, others: Sequence[Batch], lease: Lease) -> None:
    """Restores lost sources of other shards from their frames: the run that publishes has seen to its own shard alone.

    Raises:
        StoredDataError: one cannot be restored with the same content.
        LeaseLostError: another worker goes on with this delivery.
    """
    for batch in others:
        for entity in ENTITIES:
            with site.ledger.read() as db:
                files = contents.files_of(db, batch, entity.name)
            if any(_is_lost(site, file) for file in files):
                lease.check()
                extract(site, batch, entity)


def _is_lost(site: Site, file: File) -> bool:
    kept = file.delivered is not None or site.extract.size(file.name) == file.bytes
    return not kept and site.upload.size(file.name) is None


def _publish_file(site: Site, file: File, lease: Lease) -> None:
    """Publishes one file and records it before its source is removed; one that is recorded is only tidied up."""
    if file.delivered is None:
        publish(site.extract, file.name, site.upload, sha256=file.sha256, guard=lease.check)
        with site.ledger.write() as db:
            lease.check(db)
            contents.record_file_delivered(db, file.name)
            foreign.record_prefix(db, site.settings.sent_prefix)
    take_away(site.extract, file.name, sent_prefix=site.settings.sent_prefix)


def _publish_manifest(site: Site, batches: Sequence[Batch], files: Sequence[File], lease: Lease) -> None:
    """Publishes the manifest, last; the same ledger gives the same bytes at every attempt."""
    if site.settings.manifest == "off" or not files:
        return
    first = batches[0]
    owner, rerun = first.key.owner, first.rerun
    with site.ledger.read() as db:
        if contents.manifest_delivered(db, owner, rerun):
            return
    listed = [ManifestFile(one.name, one.entity, one.rows, one.bytes, one.sha256) for one in files]
    data = render_manifest(owner, first.key.mode.value, rerun, site.profile.name, listed)
    name, sha256 = manifest_name(owner, rerun), hashlib.sha256(data).hexdigest()
    with site.ledger.write() as db:
        lease.check(db)
        contents.record_manifest(db, owner, rerun, name, sha256)
    with site.upload.create(name) as file:
        file.write(data)
        lease.check()
        try:
            file.commit(name, replace=False)
        except FileExists:
            if (present := site.upload.sha256(name)) != sha256:
                raise StoredDataError(
                    f"{name} is in the upload folder already, with other content (SHA-256 {present}, recorded is "
                    f"{sha256}). Find out what put it there, and move it away."
                ) from None
    with site.ledger.write() as db:
        lease.check(db)
        contents.record_manifest_delivered(db, owner, rerun)


def _record_delivery(site: Site, batches: Sequence[Batch], lease: Lease) -> None:
    with site.ledger.write() as db:
        lease.check(db)
        fresh = [batch for batch in batches if not get(db, batch.key).reached(Stage.DELIVERED)]
        if not fresh:
            return
        finish_delivery(db, fresh)
        for batch in fresh:
            if batch.key.mode is Mode.DELTA and not batch.rerun:
                acknowledged = site.settings.acknowledgements == "expected"
                requests.settle_delivered(db, batch.key, acknowledged=acknowledged, answer=Answer.positive().to_json())
            if batch.key.mode is not Mode.INITIAL and not batch.rerun:
                contents.clear_quarantine(db, batch.key)
        if not fresh[0].rerun:  # a replay's rows are old: what was found since stands
            orphans.deliver(db, fresh)
        requests.settle_batches(db)
