"""Folders are left as they were found: what a trial makes on the way to one is removed again."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from ccs_dacs_pipeline.folders import FolderError, LocalFolder
from ccs_dacs_pipeline.folders.local import folder_errors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncssh import SFTPClient

    from ccs_dacs_pipeline.folders import Folder
    from ccs_dacs_pipeline.folders.sftp import SftpFolder


@contextmanager
def as_before(folder: Folder) -> Iterator[bool]:
    """Yields whether the folder is absent; once the block ends, removes what was made of it and of those above it.

    A folder in which somebody else has put something meanwhile stays. One of object storage is never absent.

    Raises:
        FolderError: it cannot be seen whether it is there.
    """
    absent = _absent(folder)
    try:
        yield bool(absent)
    finally:
        with suppress(FolderError):  # such as a lost connection: what is left is empty
            _remove(folder, absent)


def _absent(folder: Folder) -> list[str]:
    """Returns the folder and those above it, as far as they are absent, the deepest first."""
    if isinstance(folder, LocalFolder):
        with folder_errors(str(folder.path)):
            levels = (folder.path, *folder.path.parents)
            return [str(path) for path in takewhile(lambda path: not path.exists(), levels)]
    on_server = _on_server(folder)
    return _absent_there(on_server) if on_server else []


def _remove(folder: Folder, made: list[str]) -> None:
    if isinstance(folder, LocalFolder):
        for path in made:
            with suppress(OSError):
                Path(path).rmdir()
        return
    on_server = _on_server(folder)
    if on_server and made:
        _remove_there(on_server, made)


def _on_server(folder: Folder) -> SftpFolder | None:
    if not folder.url.startswith("sftp:"):
        return None
    from ccs_dacs_pipeline.folders.sftp import SftpFolder  # noqa: PLC0415 - as in folders/url.py

    return folder if isinstance(folder, SftpFolder) else None


def _absent_there(folder: SftpFolder) -> list[str]:
    from asyncssh import SFTPNoSuchFile, SFTPNoSuchPath, SFTPPermissionDenied  # noqa: PLC0415 - as above

    path = PurePosixPath(folder.path)

    async def look(client: SFTPClient) -> list[str]:
        absent: list[str] = []
        for level in (path, *path.parents):
            try:
                await client.stat(str(level))
            except (SFTPNoSuchFile, SFTPNoSuchPath):
                absent.append(str(level))
            except SFTPPermissionDenied:
                break  # whether files can be written there is for the trial to say
            else:
                break
        return absent

    return folder.server.run(look, where=folder.url)


def _remove_there(folder: SftpFolder, made: list[str]) -> None:
    from asyncssh import SFTPError  # noqa: PLC0415 - as above

    async def remove(client: SFTPClient) -> None:
        for path in made:
            with suppress(SFTPError):
                await client.rmdir(path)

    folder.server.run(remove, where=folder.url)
