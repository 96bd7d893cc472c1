"""The manifest: published last, it lists the files of a batch (record-layouts.md, File names)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

if TYPE_CHECKING:
    from collections.abc import Sequence

Count = Annotated[int, Field(ge=0, strict=True)]


class ManifestError(Exception):
    """A manifest cannot be read. The message names the member and the reason, and holds no value."""


@dataclass(frozen=True)
class ManifestFile:
    """One published extract file: its name, DACS entity, number of records, size and SHA-256 (hexadecimal)."""

    name: str
    entity: str
    rows: Count
    bytes: Count
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


@dataclass(frozen=True)
class Manifest:
    """The manifest of a batch or of a whole snapshot; `files` in the order they were published."""

    batch: str
    mode: Literal["initial", "delta", "resync"]
    rerun: Count
    profile: str
    files: tuple[ManifestFile, ...]


_MANIFEST = TypeAdapter(Manifest)


def render_manifest(
    batch: str,
    mode: Literal["initial", "delta", "resync"],
    rerun: int,
    profile: str,
    files: Sequence[ManifestFile],
) -> bytes:
    """Returns the manifest as UTF-8 JSON: the same bytes for the same arguments.

    Args:
        batch: key of the batch, or of the snapshot without the shard.
        mode: kind of the batch.
        rerun: rerun number, from 0.
        profile: name of the layout profile.
        files: the published files, in their order.
    """
    manifest = Manifest(batch=batch, mode=mode, rerun=rerun, profile=profile, files=tuple(files))
    return _MANIFEST.dump_json(manifest, indent=2) + b"\n"


def parse_manifest(data: bytes) -> Manifest:
    """Reads a manifest; members it does not know are ignored.

    Raises:
        ManifestError: it is not JSON, or a member is missing or of the wrong kind.
    """
    try:
        return _MANIFEST.validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        member = ".".join(str(step) for step in first["loc"]) or "the document"
        raise ManifestError(
            f"manifest, {member}: {first['msg']}. Take the file as it was published, or publish the batch again."
        ) from None
