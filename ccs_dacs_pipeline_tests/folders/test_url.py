"""From a setting to its folder (interface.md, Settings)."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from ccs_dacs_pipeline.folders import FolderAccess, FolderError, LocalFolder, open_folder
from ccs_dacs_pipeline.folders.objects import ObjectFolder


@pytest.mark.parametrize(
    "value", ["/srv/my files/upload", "file:///srv/my%20files/upload", "file://localhost/srv/my%20files/upload"]
)
def test_a_path_and_a_file_url_name_the_same_folder(value: str):
    folder = open_folder(value, setting="UPLOAD_URL")
    assert isinstance(folder, LocalFolder)
    assert folder.path == Path("/srv/my files/upload")
    assert folder.url == "file:///srv/my%20files/upload"


def test_a_relative_path_is_taken_from_the_working_directory(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert open_folder("./data/upload", setting="UPLOAD_URL").url == (tmp_path / "data/upload").as_uri()


@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        "sftp://user:canary@host/path",
        "sftp://canary/path",
        "sftp://canary@host",
        "sftp://canary@host/~",
        "sftp://canary@host:canary/path",
        "sftp://canary@host/path?canary",
        "s3://canary/prefix",
        "s3://canary:canary@bucket/prefix",
        "s3:///canary",
        "ftp://user:canary@host/",
        "file://canary/path",
        "file://",
        "file:///path?canary",
    ],
)
def test_any_other_value_is_refused_with_the_settings_name_and_without_secrets(value: str):
    with pytest.raises(FolderError, match="UPLOAD_URL") as caught:
        open_folder(value, setting="UPLOAD_URL")
    assert "canary" not in str(caught.value)


ACCESS = FolderAccess(
    sftp_password="canary-password",
    sftp_known_hosts=Path("/etc/known_hosts"),
    s3_access_key="canary-key",
    s3_secret_key="canary-secret",
    s3_region="eu-frankfurt-1",
)


@pytest.mark.parametrize(
    ("value", "url"),
    [
        ("sftp://mover@files.example.com/dacs/upload/", "sftp://mover@files.example.com:22/dacs/upload"),
        ("sftp://mover@files.example.com:2222/", "sftp://mover@files.example.com:2222/"),
        ("sftp://a%40b@host/my%20files", "sftp://a@b@host:22/my files"),
        ("sftp://mover@host/~/upload", "sftp://mover@host:22/~/upload"),
        ("s3://dacs-upload/in/here/", "s3://dacs-upload/in/here"),
        ("s3://dacs-upload", "s3://dacs-upload"),
    ],
)
def test_a_url_names_a_folder_of_its_kind_and_touches_nothing(value: str, url: str):
    folder = open_folder(value, setting="UPLOAD_URL", access=ACCESS)
    assert folder.url == url
    assert "canary" not in f"{folder.url}{ACCESS!r}".replace("canary-key", "")
    folder.close()


@pytest.mark.parametrize(
    ("addressing", "endpoint", "base"),
    [
        ("path", None, "https://s3.eu-frankfurt-1.amazonaws.com/bucket"),
        ("virtual", None, "https://bucket.s3.eu-frankfurt-1.amazonaws.com"),
        ("path", "https://ns.compat.example.com/", "https://ns.compat.example.com/bucket"),
        ("path", "http://127.0.0.1:9000", "http://127.0.0.1:9000/bucket"),
    ],
)
def test_the_endpoint_of_a_bucket(addressing: Literal["path", "virtual"], endpoint: str | None, base: str):
    access = replace(ACCESS, s3_addressing=addressing, s3_endpoint=endpoint)
    folder = open_folder("s3://bucket/in", setting="UPLOAD_URL", access=access)
    assert isinstance(folder, ObjectFolder)
    assert folder.bucket.base_url == base


@pytest.mark.parametrize("endpoint", ["http://storage.example.com", "storage.example.com", "ftp://127.0.0.1"])
def test_an_endpoint_without_tls_is_refused(endpoint: str):
    with pytest.raises(FolderError, match="CCS_DACS_S3_ENDPOINT"):
        open_folder("s3://bucket/in", setting="UPLOAD_URL", access=replace(ACCESS, s3_endpoint=endpoint))
