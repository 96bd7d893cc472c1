"""From a setting's value to the folder it names (interface.md, Settings)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import SplitResult, unquote, urlsplit

from ccs_dacs_pipeline.folders.folder import Folder, FolderError
from ccs_dacs_pipeline.folders.local import LocalFolder

if TYPE_CHECKING:
    from ccs_dacs_pipeline.folders.objects import ObjectFolder
    from ccs_dacs_pipeline.folders.sftp import SftpFolder

_SFTP_PORT = 22
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_KINDS = "a path, file:///path, sftp://user@host:port/path or s3://bucket/prefix"


@dataclass(frozen=True)
class FolderAccess:
    """What opens a folder that is not local: the settings of that name, without the prefix.

    Attributes:
        sftp_settings: how the names of the settings begin that password and key are from, for messages.
    """

    sftp_settings: str = "CCS_DACS_SFTP"
    sftp_password: str | None = field(default=None, repr=False)
    sftp_key_file: Path | None = None
    sftp_key_passphrase: str | None = field(default=None, repr=False)
    sftp_known_hosts: Path | None = None
    sftp_sha256_command: str | None = None
    s3_endpoint: str | None = None
    s3_region: str = "us-east-1"
    s3_access_key: str | None = None
    s3_secret_key: str | None = field(default=None, repr=False)
    s3_addressing: Literal["path", "virtual"] = "path"
    s3_ca_file: Path | None = None


def open_folder(url_or_path: str, *, setting: str, access: FolderAccess | None = None) -> Folder:
    """Returns the folder that `url_or_path` names; touches nothing yet.

    Args:
        url_or_path: a path, or a URL.
        setting: the setting the value comes from, for messages.
        access: what opens folders that are not local.

    Raises:
        FolderError: the value names no folder. The message holds no part of the value but its scheme, since a URL may
            carry credentials.
    """
    access = access or FolderAccess()
    url = urlsplit(url_or_path) if "://" in url_or_path else SplitResult("", "", url_or_path, "", "")
    if url.scheme == "sftp":
        return _sftp(url, setting, access)
    if url.scheme == "s3":
        return _objects(url, setting, access)
    return LocalFolder(local_path(url_or_path, setting=setting))


def local_path(url_or_path: str, *, setting: str) -> Path:
    """Returns the local path that a path or a `file://` URL names, absolute; raises as `open_folder`."""
    if "://" not in url_or_path:
        if not url_or_path.strip():
            raise FolderError(f"{setting} is empty. Set it to a path or a file:// URL.")
        return Path(url_or_path).expanduser().absolute()
    url = urlsplit(url_or_path)
    if url.scheme in {"sftp", "s3"}:
        raise FolderError(f"{setting}: {url.scheme}:// cannot be used here. Set it to a path or a file:// URL.")
    if url.scheme != "file":
        raise FolderError(f"{setting}: unknown scheme {url.scheme!r}. Set it to {_KINDS}.")
    if url.netloc not in {"", "localhost"} or not url.path or url.query or url.fragment:
        raise FolderError(f"{setting}: not a local file:// URL. Write it as file:///absolute/path.")
    return Path(unquote(url.path)).absolute()


def _sftp(url: SplitResult, setting: str, access: FolderAccess) -> SftpFolder:
    form = "Write it as sftp://user@host:port/path, or sftp://user@host/~/path below the folder where the user arrives."
    if url.password is not None:
        raise FolderError(f"{setting}: holds a password. Set CCS_DACS_SFTP_PASSWORD instead. {form}")
    try:
        port = url.port or _SFTP_PORT
    except ValueError:
        raise FolderError(f"{setting}: the port is no number. {form}") from None
    if not url.hostname or not url.username or url.path in {"", "/~"} or url.query or url.fragment:
        raise FolderError(f"{setting}: not an sftp:// URL with user, host and path. {form}")
    # Not with the others: a site without SFTP need not spend the fifth of a second and the memory that it takes.
    from ccs_dacs_pipeline.folders.sftp import SftpFolder  # noqa: PLC0415
    from ccs_dacs_pipeline.folders.sftp_server import SftpAccess, SftpServer  # noqa: PLC0415

    entered = SftpAccess(
        settings=access.sftp_settings,
        password=access.sftp_password,
        key_file=access.sftp_key_file,
        key_passphrase=access.sftp_key_passphrase,
        known_hosts=access.sftp_known_hosts,
        sha256_command=access.sftp_sha256_command,
    )
    server = SftpServer(url.hostname, port, unquote(url.username), entered)
    return SftpFolder(server, unquote(url.path).removeprefix("/~/"))


def _objects(url: SplitResult, setting: str, access: FolderAccess) -> ObjectFolder:
    if "@" in url.netloc or ":" in url.netloc or not url.hostname or url.query or url.fragment:
        raise FolderError(
            f"{setting}: not an s3:// URL of bucket and prefix. Write it as s3://bucket/prefix; the rest is in the "
            "settings CCS_DACS_S3_ENDPOINT, CCS_DACS_S3_ACCESS_KEY and CCS_DACS_S3_SECRET_KEY."
        )
    if not access.s3_access_key or not access.s3_secret_key:
        raise FolderError(
            f"{setting}: object storage needs CCS_DACS_S3_ACCESS_KEY and CCS_DACS_S3_SECRET_KEY. Set both."
        )
    endpoint = access.s3_endpoint or f"https://s3.{access.s3_region}.amazonaws.com"
    origin = urlsplit(endpoint)
    if origin.scheme != "https" and not (origin.scheme == "http" and origin.hostname in _LOOPBACK):
        raise FolderError("CCS_DACS_S3_ENDPOINT: not an https:// URL. Write the origin, as https://host.")
    from ccs_dacs_pipeline.folders.bucket import Bucket  # noqa: PLC0415 - as above
    from ccs_dacs_pipeline.folders.objects import ObjectFolder  # noqa: PLC0415

    bucket = Bucket(
        name=url.netloc,
        endpoint=endpoint.rstrip("/"),
        region=access.s3_region,
        access_key=access.s3_access_key,
        secret_key=access.s3_secret_key,
        in_path=access.s3_addressing == "path",
        ca_file=access.s3_ca_file,
    )
    return ObjectFolder(bucket, unquote(url.path).strip("/"))
