"""From a setting to its folder (interface.md, Settings)."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from ccs_dacs_pipeline.folders import FolderAccess, FolderError, LocalFolder, open_folder
from ccs_dacs_pipeline.folders.objects import ObjectFolder
from ccs_dacs_pipeline_tests.folders.conftest import Places
from ccs_dacs_pipeline_tests.folders.strict_storage import ACCESS_KEY, BUCKET, REGION, SECRET_KEY


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
        "sftp:/user:canary@host/p",
        "sftp:user:canary@host/p",
        "sftp ://user:canary@host/p",
        "s3:/canary/x",
        "file:/canary/x",
        "canary:x/y",
        " sftp://canary@host/p",
        "sftp://canary@host/p ",
        "/srv/canary\n",
        "sftp://mover@host/can%00ary",
        "sftp://mover@host/can\tary",
        "sftp://mover@host/~/",
        "sftp://mover@host/~//",
        "sftp://mover:can[ary]canary@host/p",
        "sftp://mover:can\uff1aary@host/p",
        "sftp://canary@[::1/p",
        "sftp://canary@host:0/p",
        "sftp://canary@host:99999/p",
        "~canary/x",
    ],
)
def test_any_other_value_is_refused_with_the_settings_name_and_without_secrets(value: str):
    with pytest.raises(FolderError, match="UPLOAD_URL") as caught:
        open_folder(value, setting="UPLOAD_URL")
    assert "ary" not in str(caught.value)
    assert caught.value.__context__ is None or caught.value.__suppress_context__


def test_a_mistyped_url_is_answered_with_the_forms_that_are_taken():
    for value in ("sftp:/user@host/p", "user@host:/p", "user.name@192.0.2.1:p"):
        with pytest.raises(FolderError, match=r"sftp://user@host:port/path or s3://bucket/prefix.*\./"):
            open_folder(value, setting="UPLOAD_URL")


@pytest.mark.parametrize("value", ["./sftp:x/y", "/srv/a:b", "srv/a b:c", "./user@host:p", "srv/user@host:p", "a@b"])
def test_a_colon_elsewhere_in_a_path_is_one_of_its_characters(value: str):
    assert isinstance(open_folder(value, setting="UPLOAD_URL"), LocalFolder)


@pytest.mark.parametrize("port", ["0", "99999", "x"])
def test_a_wrong_port_is_answered_with_the_right_ones(port: str):
    with pytest.raises(FolderError, match="the port is no number from 1 to 65535"):
        open_folder(f"sftp://user@host:{port}/p", setting="UPLOAD_URL")


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
        ("sftp://a%40b@host/my%20files", "sftp://a%40b@host:22/my files"),
        ("sftp://mover@host/~/upload", "sftp://mover@host:22/~/upload"),
        ("sftp://mover@host/~//upload", "sftp://mover@host:22/~/upload"),
        ("sftp://mover@[::1]:2222/upload", "sftp://mover@[::1]:2222/upload"),
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
        ("path", "http://[::1]:9000", "http://[::1]:9000/bucket"),
        ("virtual", "https://storage:9000?", "https://bucket.storage:9000"),
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


@pytest.mark.parametrize(
    "value",
    [
        *("s3://bucket/a//b", "s3://bucket//a", "s3://bucket/a//", "s3://bucket/../b", "s3://bucket/a/./b"),
        *("s3://bucket/a/%2e%2e", "s3://bucket/a%2F%2Fb", "s3://./a", "s3://buc<ket/a"),
    ],
)
def test_a_bucket_or_prefix_that_a_storage_would_take_otherwise_is_refused(value: str):
    with pytest.raises(FolderError, match=r"^UPLOAD_URL: .*s3://"):
        open_folder(value, setting="UPLOAD_URL", access=ACCESS)


@pytest.mark.parametrize(
    "endpoint",
    [
        *("https://canary:99999", "https://canary:0", "https://canary:x", "https://", "https://:443", "https://[::1"),
        *("https://canary/path", "https://canary?query", "https://canary#part", "https://canary@host"),
        *("https://can ary", "https://canary ", "https://1.2.3.999", "https://[fe80::1%25canary]", "https://can<ary"),
    ],
)
def test_an_endpoint_that_is_no_origin_is_refused(endpoint: str):
    with pytest.raises(FolderError, match=r"^CCS_DACS_S3_ENDPOINT: .*https://host") as caught:
        open_folder("s3://bucket/in", setting="UPLOAD_URL", access=replace(ACCESS, s3_endpoint=endpoint))
    assert "ary" not in str(caught.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_an_address_takes_no_bucket_into_its_host_name(host: str):
    access = replace(ACCESS, s3_endpoint=f"https://{host}:9000", s3_addressing="virtual")
    with pytest.raises(FolderError, match="CCS_DACS_S3_ADDRESSING"):
        open_folder("s3://bucket/in", setting="UPLOAD_URL", access=access)


@pytest.mark.parametrize(
    "content",
    [None, "", "no certificate", "-----BEGIN CERTIFICATE-----\nnothing\n-----END CERTIFICATE-----\n"],
    ids=["absent", "empty", "text", "damaged"],
)
def test_a_certificate_authority_that_is_none_is_refused_by_its_setting(tmp_path: Path, content: str | None):
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(FolderError, match=r"^CCS_DACS_S3_CA_FILE: "):
        open_folder("s3://bucket/in", setting="UPLOAD_URL", access=replace(ACCESS, s3_ca_file=path))


def test_a_certificate_authority_is_taken(places: Places):
    storage = places.strict
    access = replace(ACCESS, s3_endpoint=storage.endpoint, s3_ca_file=storage.ca_file)
    access = replace(access, s3_region=REGION, s3_access_key=ACCESS_KEY, s3_secret_key=SECRET_KEY)
    folder = open_folder(f"s3://{BUCKET}/unused", setting="UPLOAD_URL", access=access)
    assert folder.names() == []
    folder.close()
