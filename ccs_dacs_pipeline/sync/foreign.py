"""Moving foreign files: those that CCS's own batches put into the extract folder (sync-lifecycle.md, Files).

They go to the upload folder oldest first, whole and untouched, once. One that cannot be moved stays, is named, and does
not hold up the others. Files of our own and temporary names are left alone.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ccs_dacs_pipeline.folders import FileExists, FolderError, TargetDiffers, brought, take_away
from ccs_dacs_pipeline.ledger import foreign
from ccs_dacs_pipeline.ledger.foreign import Look, Seen

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ccs_dacs_pipeline.ledger.leases import Lease
    from ccs_dacs_pipeline.sync.site import Site

_LONGEST_NAME = 255


class ForeignFileError(Exception):
    """A foreign file cannot be moved now. The message names it and the way out."""


@dataclass(frozen=True)
class Sent:
    """A file that is in the upload folder now, and how long that took."""

    name: str
    bytes: int
    sha256: str
    seconds: float


@dataclass(frozen=True)
class Failed:
    """A file that stays in the extract folder, and why."""

    name: str
    reason: str


def look(site: Site) -> list[Seen]:
    """Looks at the foreign files in the extract folder and remembers how each stands; returns them, the oldest first.

    Raises:
        FolderError: the extract folder cannot be read.
    """
    found = {name: one for name in _foreign_names(site) if (one := _look_at(site, name)) is not None}
    with site.ledger.write() as db:
        foreign.observe(db, found)
        return foreign.seen(db)


def until_rest(site: Site, seen: list[Seen]) -> float:
    """Returns the seconds until all of some files have stood still long enough, 0 or less when they have already."""
    return max((site.settings.foreign_quiet_seconds - one.rest for one in seen), default=0.0)


def transfer(site: Site, lease: Lease) -> Iterator[Sent | Failed]:
    """Moves every foreign file that has stood still for FOREIGN_QUIET_SECONDS, the oldest first.

    Args:
        site: the site.
        lease: the lane of transfers.

    Yields:
        What came of each file; those that are still being written are passed over.

    Raises:
        LeaseLostError: another worker goes on with this pass.
        FolderError: the extract folder cannot be read.
    """
    for name in sorted(name for name in _matching(site) if not _can_be_recorded(name)):
        yield Failed(ascii(name), "The name is no UTF-8, or longer than 255 characters. Rename the file.")
    for one in look(site):
        if one.rest < site.settings.foreign_quiet_seconds or _look_at(site, one.name) is None:
            continue
        try:
            sent = _move(site, one, lease)
        except (FolderError, ForeignFileError) as error:
            lease.check()  # what a late worker does not find, its successor has moved
            with site.ledger.write() as db:
                foreign.record_failure(db, one.name, str(error))
            yield Failed(one.name, str(error))
        else:
            yield sent
    # So that what a report finds is what has stayed.
    look(site)


def _matching(site: Site) -> set[str]:
    """Returns the names that match the patterns, without those of sources that stay after their delivery."""
    settings = site.settings
    names = {name for pattern in settings.foreign_file_patterns for name in site.extract.names(pattern)}
    return {name for name in names if not settings.sent_prefix or not name.startswith(settings.sent_prefix)}


def _can_be_recorded(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return len(name) <= _LONGEST_NAME


def _foreign_names(site: Site) -> list[str]:
    """Returns the names that match the patterns and are not ours."""
    names = {name for name in _matching(site) if _can_be_recorded(name)}
    # Numbers are given before the first file is written: what was listed above and is ours, the ledger knows by now.
    numbers = {name: number for name in names if (number := site.names.number_of(name)) is not None}
    with site.ledger.read() as db:
        ours = foreign.own_names(db, names)
        given = foreign.given_numbers(db, numbers.values())
    return sorted(name for name in names - ours if numbers.get(name) not in given)


def _look_at(site: Site, name: str) -> Look | None:
    size, modified = site.extract.size(name), site.extract.modified(name)
    return None if size is None or modified is None else Look(size, modified)


def _move(site: Site, one: Seen, lease: Lease) -> Sent:
    """Publishes a file and records it before its source is taken away; a repeat after a crash ends in the same.

    Raises:
        ForeignFileError: it is changing after all.
        TargetDiffers: the upload folder has another file of that name.
        FolderError: a folder fails.
    """
    started = time.monotonic()
    with brought(site.extract, one.name, site.upload) as file:
        sha256 = file.sha256
        _refuse_changing(site, one)
        with site.ledger.write() as db:
            lease.check(db)
            delivered = foreign.begin(db, one.name, one.look, sha256)
        if not delivered:
            try:
                file.commit(one.name, replace=False)
            except FileExists:
                _refuse_other(site, one.name, sha256)
    seconds = round(time.monotonic() - started, 3)
    if not delivered:
        with site.ledger.write() as db:
            lease.check(db)
            foreign.record_delivered(db, one.name, one.look, sha256, seconds)
    _refuse_changing(site, one)
    take_away(site.extract, one.name, sent_prefix=site.settings.sent_prefix)
    return Sent(one.name, one.look.bytes, sha256, seconds)


def _refuse_changing(site: Site, one: Seen) -> None:
    if _look_at(site, one.name) != one.look:
        raise ForeignFileError(
            f"{site.extract.url}: {one.name} has changed while it was moved, and stays. It is moved once it stands "
            "still; if this comes again, raise CCS_DACS_FOREIGN_QUIET_SECONDS above the pauses of whoever writes it."
        )


def _refuse_other(site: Site, name: str, sha256: str) -> None:
    if site.upload.sha256(name) != sha256:
        raise TargetDiffers(
            f"{site.upload.url}: {name} is there with other content than in the extract folder; both stay as they are. "
            "Find out which is right and move the other away."
        )
