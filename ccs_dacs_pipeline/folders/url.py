"""From a setting's value to the folder it names (interface.md, Settings)."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass, field
from ipaddress import ip_address
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
_LOCAL = "a path or file:///path"
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_SCP = re.compile(r"[^/@:]+@[^/@:]+:")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_HOST_NAME = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


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
    url = _url(url_or_path, setting, _KINDS)
    if url is not None and url.scheme == "sftp":
        return _sftp(url, setting, access)
    if url is not None and url.scheme == "s3":
        return _objects(url, setting, access)
    return LocalFolder(local_path(url_or_path, setting=setting))


def local_path(url_or_path: str, *, setting: str) -> Path:
    """Returns the local path that a path or a `file://` URL names, absolute; raises as `open_folder`."""
    url = _url(url_or_path, setting, _LOCAL)
    if url is None:
        try:
            return Path(url_or_path).expanduser().absolute()
        except RuntimeError:
            raise FolderError(f"{setting}: the home that ~ stands for is not known. Write the path in full.") from None
    if url.scheme in {"sftp", "s3"}:
        raise FolderError(f"{setting}: {url.scheme}:// cannot be used here. Set it to a path or a file:// URL.")
    if url.scheme != "file":
        raise FolderError(f"{setting}: unknown scheme {url.scheme!r}. Set it to {_KINDS}.")
    if url.netloc not in {"", "localhost"} or not url.path or url.query or url.fragment:
        raise FolderError(f"{setting}: not a local file:// URL. Write it as file:///absolute/path.")
    return Path(unquote(url.path)).absolute()


def _url(value: str, setting: str, kinds: str) -> SplitResult | None:
    """Returns the parts of a URL, None of a path; what looks like a URL and is none is no path either."""
    if not value.strip():
        raise FolderError(f"{setting} is empty. Set it to {kinds}.")
    if value != value.strip():
        raise FolderError(f"{setting}: has a blank at its beginning or end. Take it away.")
    if "://" in value:
        return _split(value, setting, kinds)
    if _SCHEME.match(value):
        raise FolderError(
            f"{setting}: begins like a URL and is none. Set it to {kinds}; begin a path whose first name has a colon "
            "with ./ or /."
        )
    if _SCP.match(value):
        raise FolderError(
            f"{setting}: a place as scp writes it. Set it to {kinds}; begin a path whose first name has an @ and a "
            "colon with ./ or /."
        )
    return None


def _split(value: str, setting: str, form: str) -> SplitResult:
    """Returns the parts of a URL; the message of its refusal says the `form` that it must have."""
    # Otherwise blanks of some kinds would be left out, and the name of a file be cut short.
    well_formed = not _CONTROL.search(unquote(value))
    try:
        if well_formed:
            return urlsplit(value)
    except ValueError:
        pass  # its own text may repeat a part of a password
    raise FolderError(f"{setting}: not a well-formed URL. Set it to {form}.")


def _port(url: SplitResult, setting: str, form: str) -> int | None:
    """Returns the port that is written, None where none is."""
    try:
        port = url.port
    except ValueError:
        port = 0
    if port == 0:
        raise FolderError(f"{setting}: the port is no number from 1 to 65535. {form}")
    return port


def _sftp(url: SplitResult, setting: str, access: FolderAccess) -> SftpFolder:
    form = "Write it as sftp://user@host:port/path, or sftp://user@host/~/path below the folder where the user arrives."
    if url.password is not None:
        raise FolderError(f"{setting}: holds a password. Set CCS_DACS_SFTP_PASSWORD instead. {form}")
    port = _port(url, setting, form) or _SFTP_PORT
    path = unquote(url.path)
    if path.startswith("/~/"):
        path = path.removeprefix("/~/").lstrip("/")
    if not url.hostname or not url.username or path in {"", "/~"} or url.query or url.fragment:
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
    return SftpFolder(server, path)


def _objects(url: SplitResult, setting: str, access: FolderAccess) -> ObjectFolder:
    if not _BUCKET.fullmatch(url.netloc) or url.query or url.fragment:
        raise FolderError(
            f"{setting}: not an s3:// URL of bucket and prefix. Write it as s3://bucket/prefix; the rest is in the "
            "settings CCS_DACS_S3_ENDPOINT, CCS_DACS_S3_ACCESS_KEY and CCS_DACS_S3_SECRET_KEY."
        )
    if not access.s3_access_key or not access.s3_secret_key:
        raise FolderError(
            f"{setting}: object storage needs CCS_DACS_S3_ACCESS_KEY and CCS_DACS_S3_SECRET_KEY. Set both."
        )
    prefix = unquote(url.path).removeprefix("/").removesuffix("/")
    if prefix and not {"", ".", ".."}.isdisjoint(prefix.split("/")):
        raise FolderError(f"{setting}: a name in the prefix is empty, '.' or '..'. Write it as s3://bucket/one/two.")
    endpoint = _endpoint(access)
    if access.s3_ca_file is not None:
        _check_ca_file(access.s3_ca_file)
    from ccs_dacs_pipeline.folders.bucket import Bucket  # noqa: PLC0415 - as above
    from ccs_dacs_pipeline.folders.objects import ObjectFolder  # noqa: PLC0415

    bucket = Bucket(
        name=url.netloc,
        endpoint=endpoint,
        region=access.s3_region,
        access_key=access.s3_access_key,
        secret_key=access.s3_secret_key,
        in_path=access.s3_addressing == "path",
        ca_file=access.s3_ca_file,
    )
    return ObjectFolder(bucket, prefix)


def _endpoint(access: FolderAccess) -> str:
    """Returns the origin of the storage, without trailing slash.

    What is wrong with it is found here: obstore would end in a panic of its own, which is no `Exception`.
    """
    setting, form = "CCS_DACS_S3_ENDPOINT", "Write the origin and no more, as https://host or https://host:port."
    url = _split(
        access.s3_endpoint or f"https://s3.{access.s3_region}.amazonaws.com", setting, "the origin, as https://host"
    )
    host = url.hostname or ""
    if url.scheme != "https" and not (url.scheme == "http" and host in _LOOPBACK):
        raise FolderError(f"{setting}: not an https:// URL. {form}")
    _port(url, setting, form)
    if "@" in url.netloc or url.path not in {"", "/"} or url.query or url.fragment or not _is_host(host):
        raise FolderError(f"{setting}: not an origin. {form}")
    if access.s3_addressing == "virtual" and _is_address(host):
        raise FolderError(
            f"{setting}: an address takes no bucket into its host name. Write a host name, or set "
            "CCS_DACS_S3_ADDRESSING to path."
        )
    return f"{url.scheme}://{url.netloc}"


def _is_host(host: str) -> bool:
    """Says whether it is a name or an address; a name whose last part is a number would be taken for an address."""
    if _is_address(host):
        return "%" not in host
    return bool(_HOST_NAME.fullmatch(host)) and not host.rstrip(".").rpartition(".")[2].isdigit()


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _check_ca_file(path: Path) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except OSError as error:  # of the file, or of what it holds
        raise FolderError(
            f"CCS_DACS_S3_CA_FILE: cannot be read as certificates ({type(error).__name__}). Name a PEM file that this "
            "user may read, or leave it out."
        ) from None
