"""Publishing: a finished file goes from one folder to another, whole, once, and never over another one.

Source of the rules: sync-lifecycle.md, Files.
"""

from __future__ import annotations

import enum
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

from ccs_dacs_pipeline.folders.folder import FileExists, FileMissing, FolderError
from ccs_dacs_pipeline.folders.local import LocalFolder, folder_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ccs_dacs_pipeline.folders.folder import Entry, Folder, TemporaryFile
    from ccs_dacs_pipeline.folders.local import LinkedTemporaryFile

_BLOCK_BYTES = 1024 * 1024


class Published(enum.Enum):
    """How a file came to be in the target."""

    NEW = "new"
    ALREADY = "already"


class SourceMissing(FolderError):
    """The file to publish is in neither folder."""


class SourceDiffers(FolderError):
    """The file to publish is not the recorded one."""


class TargetDiffers(FolderError):
    """The target holds another file under that name."""


def publish(
    source: Folder, name: str, target: Folder, *, sha256: str, guard: Callable[[], object] = lambda: None
) -> Published:
    """Puts `name` of `source` into `target` under the same name; the source stays.

    The file is linked (same local file system) or copied to a temporary name, compared with `sha256`, made durable and
    only then visible. A repeat after a crash at any point comes to the same end.

    Args:
        source: folder of the finished file.
        name: the file's name in both folders.
        target: folder to publish to.
        sha256: the recorded SHA-256 of the file, lower-case hexadecimal.
        guard: called once the file is ready, just before it becomes visible; what it raises leaves it unpublished.

    Returns:
        `NEW`, or `ALREADY` when the target has the file; the source is then not looked at.

    Raises:
        TargetDiffers: the target has other content under that name; it is left as it is.
        SourceMissing: the file is in neither folder.
        SourceDiffers: the source has other content than recorded; nothing was published.
        FolderError: a folder fails.
    """
    if _is_there(target, name, sha256):
        return Published.ALREADY
    with ExitStack() as stack:
        try:
            temporary = stack.enter_context(brought(source, name, target))
        except FileMissing as error:
            raise SourceMissing(
                f"{source.url}: {name} is not there to be published, nor is it in {target.url}. "
                "It is restored from the stored frames when the batch goes on; find out who took it."
            ) from error
        if temporary.sha256 != sha256:
            raise SourceDiffers(
                f"{source.url}: {name} has another SHA-256 than recorded ({sha256}); it was not published. "
                "It is restored from the stored frames when the batch goes on; find out who changed it."
            )
        guard()
        try:
            temporary.commit(name, replace=False)
        except FileExists:
            # Another attempt was quicker: the same file, another one, or consumed already and so to be published again.
            return publish(source, name, target, sha256=sha256, guard=guard)
    return Published.NEW


def _is_there(target: Folder, name: str, sha256: str) -> bool:
    present = target.sha256(name)
    if present is not None and present != sha256:
        raise TargetDiffers(
            f"{target.url}: {name} is there with SHA-256 {present}, recorded is {sha256}; it was left as it is. "
            "Find out who put it there, and move it away."
        )
    return present is not None


@contextmanager
def brought(source: Folder, name: str, target: Folder) -> Iterator[TemporaryFile | LinkedTemporaryFile]:
    """Yields the source's file as a temporary one of `target`: a hard link where one can be had, else a copy.

    Raises:
        FileMissing: the source has no such file.
        FolderError: a folder fails.
    """
    if isinstance(source, LocalFolder) and isinstance(target, LocalFolder):
        linked = target.link(source.path_of(name))
        if linked is not None:
            with linked:
                yield linked
            return
    with source.open(name) as stream, target.create(name) as copy:
        with folder_errors(f"{source.url}, reading {name}"):
            while block := stream.read(_BLOCK_BYTES):
                copy.write(block)
        yield copy


def take_away(folder: Folder, name: str, *, sent_prefix: str) -> Entry | None:
    """Removes a delivered file from the folder it came from, or keeps it there by another name; an absent one is fine.

    Args:
        folder: the folder it came from.
        name: the file's name.
        sent_prefix: put before the name under which the file stays, in place of an older one of that name; empty to
            keep nothing.

    Returns:
        What is kept, as it was under its old name, which may have been put there since it was looked at; else None.

    Raises:
        FolderError: the folder fails; the file is there under one of the two names, in object storage maybe under both.
    """
    if not sent_prefix:
        folder.remove(name)
        return None
    with suppress(FileMissing):
        return folder.rename(name, sent_prefix + name, replace=True)
    return None
