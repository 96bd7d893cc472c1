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
    from collections.abc import Iterable, Iterator

    from sqlalchemy.engine import Connection

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
    found = _foreign(site)
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
    yield from unnameable(site)
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


def unnameable(site: Site) -> list[Failed]:
    """Returns the files that match the patterns under names that the ledger cannot hold, and so are never moved.

    Raises:
        FolderError: the extract folder cannot be read.
    """
    reason = "The name is no UTF-8, or longer than 255 characters. Rename the file."
    return [Failed(ascii(name), reason) for name in sorted(_matching(site)) if not _can_be_recorded(name)]


def _matching(site: Site) -> dict[str, Look]:
    """Returns the files that match the patterns, without sources that stay after their delivery."""
    settings = site.settings
    found = {one.name: one for pattern in settings.foreign_file_patterns for one in site.extract.entries(pattern)}
    return {
        name: Look(one.bytes, one.modified)
        for name, one in found.items()
        if not settings.sent_prefix or not name.startswith(settings.sent_prefix)
    }


def _can_be_recorded(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return len(name) <= _LONGEST_NAME


def _foreign(site: Site) -> dict[str, Look]:
    """Returns the files that match the patterns and are not ours, nor kept after an earlier delivery."""
    found = {name: one for name, one in _matching(site).items() if _can_be_recorded(name)}
    # Numbers are given before the first file is written: what was listed above and is ours, the ledger knows by now.
    numbers = {name: number for name in found if (number := site.names.number_of(name)) is not None}
    with site.ledger.read() as db:
        ours = foreign.own_names(db, found) | _kept_names(db, found)
        given = foreign.given_numbers(db, numbers.values())
    return {name: one for name, one in found.items() if name not in ours and numbers.get(name) not in given}


def _kept_names(db: Connection, names: Iterable[str]) -> set[str]:
    """Returns those of some names under which sources were kept, by whatever prefix was set then."""
    prefixes = foreign.used_prefixes(db)
    originals = {name: {name.removeprefix(one) for one in prefixes if name.startswith(one)} for name in names}
    asked = set[str]().union(*originals.values())
    known = foreign.own_names(db, asked) | foreign.delivered_names(db, asked)
    return {name for name, candidates in originals.items() if candidates & known}


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
            foreign.record_prefix(db, site.settings.sent_prefix)
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
    _take_away(site, one)
    return Sent(one.name, one.look.bytes, sha256, seconds)


def _take_away(site: Site, one: Seen) -> None:
    """Takes the source of a delivered file away; one that took its place in that instant gets its name back.

    Raises:
        ForeignFileError: it is another file by now, which is still to be moved.
        FolderError: the folder fails.
    """
    prefix = site.settings.sent_prefix
    taken = take_away(site.extract, one.name, sent_prefix=prefix)
    if taken is not None and Look(taken.bytes, taken.modified) != one.look:
        try:
            site.extract.rename(prefix + one.name, one.name, replace=False)
        except FolderError as error:
            raise ForeignFileError(
                f"{site.extract.url}: another {one.name} came while it was moved. It is called {prefix + one.name} now "
                f"and was not sent; give it its name back. That failed here: {error}"
            ) from error
        raise _changed(site, one.name)


def _refuse_changing(site: Site, one: Seen) -> None:
    if _look_at(site, one.name) != one.look:
        raise _changed(site, one.name)


def _changed(site: Site, name: str) -> ForeignFileError:
    return ForeignFileError(
        f"{site.extract.url}: {name} has changed while it was moved, and stays. It is moved once it stands "
        "still; if this comes again, raise CCS_DACS_FOREIGN_QUIET_SECONDS above the pauses of whoever writes it."
    )


def _refuse_other(site: Site, name: str, sha256: str) -> None:
    present = site.upload.sha256(name)
    if present != sha256:
        raise TargetDiffers(
            f"{site.upload.url}: {name} is there with other content (SHA-256 {present}) than in the extract folder "
            f"({sha256}); both stay as they are. Find out which is right and move the other away."
        )
