"""Removing what nobody needs any more: frames of ended batches, temporary files of killed writers.

Frames hold personal data and grow with every batch; figures, names and checksums stay in the ledger.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from ccs_dacs_pipeline.ledger import contents
from ccs_dacs_pipeline.ledger.store import note, now

if TYPE_CHECKING:
    from ccs_dacs_pipeline.sync.site import Site

# Longer than any file takes to be written.
_ABANDONED = timedelta(days=1)


@dataclass(frozen=True)
class Tidied:
    """How much was removed."""

    batches: int
    temporary_files: int


def tidy(site: Site) -> Tidied:
    """Deletes the frames of batches that ended longer ago than FRAMES_KEEP, and abandoned temporary files.

    Raises:
        FolderError: a folder cannot be reached or changed.
    """
    with site.ledger.read() as db:
        ended = contents.batches_with_old_frames(db, now() - site.settings.frames_keep)
    for key in ended:
        site.frames.delete(key)
        with site.ledger.write() as db:
            contents.forget_frames(db, key)
            note(db, "frames removed", key)
    return Tidied(len(ended), sum(folder.sweep(_ABANDONED) for folder in (site.extract, site.upload)))
