"""Stored frames and files of a sealed batch, checked against the ledger (sync-lifecycle.md, "Life of a batch")."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccs_dacs_pipeline.ledger import contents
from ccs_dacs_pipeline.ledger.life import Stage
from ccs_dacs_pipeline.partitions import Mode

if TYPE_CHECKING:
    from ccs_dacs_pipeline.ledger.contents import Frame
    from ccs_dacs_pipeline.ledger.life import Batch
    from ccs_dacs_pipeline.sync.site import Site


class StoredDataError(Exception):
    """A stored frame or file of a sealed batch is missing or is not what the ledger recorded."""


def recorded_frame(site: Site, batch: Batch, asset: str) -> Frame:
    """Returns the recorded figures of a frame that cannot change any more, once the stored one is found equal.

    Raises:
        StoredDataError: it is missing or differs; names the way out.
    """
    with site.ledger.read() as db:
        recorded = contents.frame_of(db, batch.key, asset)
    stored = site.frames.stored(str(batch.key), asset)
    if recorded is None or stored is None or (stored.rows, stored.sha256) != (recorded.rows, recorded.sha256):
        what = "is missing" if stored is None else "differs from what the ledger recorded"
        raise StoredDataError(
            f"The stored frame {asset} of {batch.key}, which is {batch.state}, {what}. CCS is not asked again for a "
            f"sealed batch. Put the frame back from a copy of the frames folder; or {_anew(batch)}."
        )
    return recorded


def _anew(batch: Batch) -> str:
    """How the entities are sent anew: those of an unfinished batch once it is given up, since it holds them."""
    if batch.reached(Stage.DELIVERED):
        return "send the entities anew with `ccs-dacs resync`"
    anew = "ccs-dacs initial" if batch.key.mode is Mode.INITIAL else "ccs-dacs resync"
    return f"give it up with `ccs-dacs batch abort {batch.key.owner}`, and send the entities anew with `{anew}`"
