"""From a setting's value to the folder it names (interface.md, Settings)."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from ccs_dacs_pipeline.folders.folder import Folder, FolderError
from ccs_dacs_pipeline.folders.local import LocalFolder


def open_folder(url_or_path: str, *, setting: str) -> Folder:
    """Returns the folder that `url_or_path` names; touches nothing yet.

    Args:
        url_or_path: a path, or a `file://` URL.
        setting: the setting the value comes from, for messages.

    Raises:
        FolderError: the value names no folder, or one of a kind that is not built yet. The message holds no part of
            the value but its scheme, since a URL may carry credentials.
    """
    return LocalFolder(local_path(url_or_path, setting=setting))


def local_path(url_or_path: str, *, setting: str) -> Path:
    """Returns the local path that a path or a `file://` URL names, absolute; raises as `open_folder`."""
    if "://" not in url_or_path:
        if not url_or_path.strip():
            raise FolderError(f"{setting} is empty. Set it to a path or a file:// URL.")
        return Path(url_or_path).expanduser().absolute()
    url = urlsplit(url_or_path)
    if url.scheme in {"sftp", "s3"}:
        raise FolderError(f"{setting}: {url.scheme}:// folders are not built yet. Set it to a path or a file:// URL.")
    if url.scheme != "file":
        raise FolderError(f"{setting}: unknown scheme {url.scheme!r}. Set it to a path or a file:// URL.")
    if url.netloc not in {"", "localhost"} or not url.path or url.query or url.fragment:
        raise FolderError(f"{setting}: not a local file:// URL. Write it as file:///absolute/path.")
    return Path(unquote(url.path)).absolute()
