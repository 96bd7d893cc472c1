"""What is particular to object storage: what is sent, conditions, parts, lost connections, errors."""

import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import obstore
import pytest
from botocore.config import Config

from ccs_dacs_pipeline.folders import (
    FileExists,
    FolderDenied,
    FolderError,
    LocalFolder,
    Published,
    TargetDiffers,
    publish,
)
from ccs_dacs_pipeline.folders.bucket import Bucket
from ccs_dacs_pipeline.folders.objects import ObjectFolder
from ccs_dacs_pipeline_tests.folders.conftest import Places
from ccs_dacs_pipeline_tests.folders.files import content, put, sha256
from ccs_dacs_pipeline_tests.folders.strict_storage import (
    ACCESS_KEY,
    BUCKET,
    REGION,
    SECRET_KEY,
    Handler,
    Storage,
    strict_storage,
)

MIB = 1024 * 1024
LARGE = 20 * MIB


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    """A strict storage of the test's own."""
    (tmp_path / "storage").mkdir()
    with strict_storage(tmp_path / "storage") as served:
        yield served


@pytest.fixture
def careless(tmp_path: Path) -> Iterator[Storage]:
    """A storage that ignores If-None-Match."""
    (tmp_path / "careless").mkdir()
    with strict_storage(tmp_path / "careless", conditional=False) as served:
        yield served


def test_conditions_are_found_out_by_one_trial(storage: Storage, careless: Storage):
    assert storage.folder("in").honours_conditions
    assert not careless.folder("in").honours_conditions
    for served in (storage, careless):
        assert served.objects == served.uploads == {}
        folder = served.folder("in")
        folder.honours_conditions  # noqa: B018 - asked once, kept
        served.requests.clear()
        for number in range(3):
            put(folder, f"file-{number}", b"x")
        assert sum(one.startswith("POST uploads") for one in served.requests) == 3


def test_moto_honours_conditions(places: Places):
    assert ObjectFolder(places.moto, "conditions").honours_conditions


def test_another_writer_at_the_same_moment_is_refused_by_the_storage(storage: Storage, monkeypatch: pytest.MonkeyPatch):
    folder = storage.folder("in")
    assert folder.honours_conditions
    # Blind to what is there, so that only the storage can refuse.
    monkeypatch.setattr(ObjectFolder, "size", lambda *_: None)
    put(folder, "name", b"first")
    with pytest.raises(FileExists):
        put(folder, "name", b"second")
    assert content(folder, "name") == b"first"


def test_where_conditions_are_ignored_other_content_is_found_out(careless: Storage, monkeypatch: pytest.MonkeyPatch):
    folder = careless.folder("in")
    put(folder, "name", b"first")
    with pytest.raises(FileExists):
        put(folder, "name", b"second")
    assert content(folder, "name") == b"first"
    monkeypatch.setattr(ObjectFolder, "sha256", lambda *_: sha256(b"another writer's"))
    with pytest.raises(FileExists):
        put(folder, "other", b"second")


def test_where_conditions_are_ignored_the_consumer_may_take_the_file_at_once(
    careless: Storage, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(ObjectFolder, "sha256", lambda *_: None)
    put(careless.folder("in"), "name", b"x")


def test_other_content_in_the_target_is_an_error(careless: Storage, tmp_path: Path):
    extract, upload = LocalFolder(tmp_path / "extract"), careless.folder("in")
    recorded = put(extract, "name", b"x")
    put(upload, "name", b"y")
    with pytest.raises(TargetDiffers):
        publish(extract, "name", upload, sha256=recorded)


@pytest.mark.parametrize("name", ["name", None], ids=["named", "unnamed"])
def test_parts_are_no_object_until_the_upload_is_complete(storage: Storage, name: str | None):
    folder = storage.folder("in")
    with folder.create(name) as file:
        file.write(bytes(LARGE))
        assert storage.objects == {}
        assert len(storage.uploads) == 1
        assert folder.sweep(timedelta(hours=1)) == 0
        file.commit("name", replace=False)
    assert list(storage.objects) == ["in/name"]
    assert storage.uploads == {}


def test_parts_share_connections(storage: Storage):
    folder = storage.folder("in")
    assert folder.honours_conditions
    storage.requests.clear()
    before = storage.connections
    with folder.create("name") as file:
        file.write(bytes(10 * LARGE))
        file.commit("name", replace=True)
    assert sum(one.startswith("PUT partNumber") for one in storage.requests) == 25
    assert storage.connections - before <= 4  # as many as there are parts under way


def test_connections_that_the_storage_has_closed_are_opened_anew(storage: Storage):
    storage.hang_up = True
    folder = storage.folder("in")
    with folder.create() as file:
        file.write(bytes(LARGE))
        file.commit("other", replace=True)
    put(folder, "name", bytes(LARGE))
    assert content(folder, "name") == bytes(LARGE)
    folder.rename("name", "new", replace=False)
    folder.remove("other")
    assert folder.names() == ["new"]
    assert list(storage.objects) == ["in/new"]


@pytest.mark.parametrize("name", ["name", None], ids=["named", "unnamed"])
def test_parts_of_a_failed_writer_are_removed_at_once(storage: Storage, name: str | None):
    with pytest.raises(ZeroDivisionError), storage.folder("in").create(name) as file:
        file.write(bytes(LARGE) + bytes(file.write(bytes(LARGE)) or 1 // 0))
    assert storage.objects == storage.uploads == {}


@pytest.mark.parametrize("name", ["name", None], ids=["named", "unnamed"])
def test_parts_of_a_killed_writer_are_swept(storage: Storage, name: str | None):
    script = f"""
import os, pathlib, signal
from ccs_dacs_pipeline.folders.bucket import Bucket
from ccs_dacs_pipeline.folders.objects import ObjectFolder
bucket = Bucket({BUCKET!r}, {storage.endpoint!r}, {REGION!r}, {ACCESS_KEY!r}, {SECRET_KEY!r},
                ca_file=pathlib.Path({str(storage.ca_file)!r}))
with ObjectFolder(bucket, "in").create({name!r}) as file:
    file.write(bytes({LARGE}))
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode < 0
    folder = storage.folder("in")
    assert len(storage.uploads) == 1
    assert folder.names() == []
    assert storage.folder("other").sweep(timedelta(0)) == 0
    assert folder.sweep(timedelta(0)) == 1
    assert storage.uploads == {}


def test_a_part_whose_connection_is_lost_is_sent_again(storage: Storage, tmp_path: Path):
    extract, upload = LocalFolder(tmp_path / "extract"), storage.folder("in")
    data = bytes(range(256)) * (100 * 1024)
    recorded = put(extract, "name", data)
    storage.drop = 3
    assert publish(extract, "name", upload, sha256=recorded) is Published.NEW
    assert storage.drop == 0
    assert content(upload, "name") == data
    assert storage.uploads == {}


def test_an_upload_ends_under_the_name_it_was_begun_with(storage: Storage):
    with storage.folder("in").create("name") as file, pytest.raises(FolderError, match="begun as name, ended as other"):
        file.commit("other", replace=False)
    assert storage.objects == storage.uploads == {}


def test_a_storage_that_refuses_is_named_with_its_own_word_and_without_secrets(storage: Storage):
    folder = storage.folder("in")
    storage.denied = True
    for size in (1, LARGE):
        with pytest.raises(FolderDenied, match=r"s3://utility/in.*\(AccessDenied\).*CCS_DACS_S3_ACCESS_KEY") as caught:
            put(folder, "name", bytes(size))
        assert SECRET_KEY not in str(caught.value)
    assert storage.objects == {}


def test_a_wrong_secret_is_named_by_its_setting(storage: Storage):
    folder = ObjectFolder(storage.bucket(secret_key="canary-wrong"), "in")
    with pytest.raises(FolderDenied, match="CCS_DACS_S3_SECRET_KEY") as caught:
        folder.names()
    with pytest.raises(FolderError, match="unfinished uploads"):
        folder.abort_uploads("x", datetime.now(UTC))
    assert "canary" not in str(caught.value)
    assert "canary-wrong" not in repr(storage.bucket(secret_key="canary-wrong"))


def test_an_unknown_authority_is_refused(storage: Storage, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(storage, "ca_file", None)
    with pytest.raises(FolderError, match="CCS_DACS_S3_ENDPOINT"):
        storage.folder("in").names()


def test_a_file_of_authorities_that_cannot_be_read_is_named(storage: Storage, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(storage, "ca_file", Path("/nowhere/ca.pem"))
    with pytest.raises(FolderError, match="CCS_DACS_S3_CA_FILE"):
        storage.folder("in").names()


def test_variables_of_other_tools_change_nothing(storage: Storage, monkeypatch: pytest.MonkeyPatch):
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN", "REGION", "DEFAULT_REGION"):
        monkeypatch.setenv(f"AWS_{name}", "foreign")
    monkeypatch.setenv("AWS_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_UNSIGNED_PAYLOAD", "true")
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    put(storage.folder("in"), "name", b"x")


def test_deeper_objects_are_not_in_the_folder(storage: Storage):
    put(storage.folder("in/deeper"), "name", b"x")
    put(storage.folder(""), "root", b"x")
    put(storage.folder("in"), "own", b"x")
    assert storage.folder("in").names() == ["own"]
    assert storage.folder("").names() == ["root"]
    assert storage.folder("").url == "s3://utility"


def test_a_listing_of_several_pages_is_whole(storage: Storage):
    storage.page = 3
    folder = storage.folder("in")
    names = sorted(f"file {number:02}+.csv" for number in range(10))
    for name in names:
        put(folder, name, b"x")
    put(storage.folder("in.d"), "other", b"x")
    assert folder.names() == names


@pytest.fixture(params=["moto", "strict"])
def bucket(request: pytest.FixtureRequest, places: Places) -> Bucket:
    found = getattr(places, request.param)
    return found.bucket() if isinstance(found, Storage) else found


def test_what_cannot_be_named_does_not_hide_the_others(bucket: Bucket):
    prefix = uuid.uuid4().hex
    folder = ObjectFolder(bucket, prefix)
    put(folder, "name", b"x")
    client = boto3.client(
        "s3",
        endpoint_url=bucket.endpoint,
        region_name=bucket.region,
        aws_access_key_id=bucket.access_key,
        aws_secret_access_key=bucket.secret_key,
        verify=str(bucket.ca_file) if bucket.ca_file else None,
        config=Config(
            s3={"addressing_style": "path"},
            request_checksum_calculation="when_required",
            parameter_validation=False,
        ),
    )
    for odd in ("/odd.csv", "./dot.csv", "tab\tx", "\x01", "deeper/file", ""):
        client.put_object(Bucket=bucket.name, Key=f"{prefix}/{odd}", Body=b"x")
    assert folder.names() == ["name"]
    assert [entry.name for entry in folder.entries()] == ["name"]
    assert folder.sweep(timedelta(0)) == 0


@pytest.mark.parametrize("name", ["tab\tx", "\x01", "line\n", "del\x7f", "\udce4", "\uffff"])
def test_names_that_no_storage_can_tell_are_refused_before_anything_is_sent(storage: Storage, name: str):
    folder = storage.folder("in")
    for asked in (
        lambda: put(folder, name, b"x"),
        lambda: folder.size(name),
        lambda: folder.open(name),
        lambda: folder.remove(name),
        lambda: folder.rename("name", name, replace=True),
    ):
        with pytest.raises(FolderError, match=r"s3://utility/in: .*no name with control characters.*another name") as e:
            asked()
        assert str(e.value).isprintable()
    assert storage.connections == 0


def test_an_answer_that_is_no_xml_is_an_error_that_names_the_file(storage: Storage, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Handler, "_post", lambda self, _: self._send(200, b"<Key>\x01</Key>"))
    monkeypatch.setattr(Handler, "_list", lambda self: self._send(200, b"not at all"))
    monkeypatch.setattr(Handler, "_list_uploads", lambda self: self._send(200, b""))
    folder = storage.folder("in")
    with pytest.raises(FolderError, match=r"s3://utility/in/name: .*\(AnswerUnreadable\)"):
        put(folder, "name", b"x")
    for asked in (folder.names, lambda: folder.abort_uploads("", datetime.now(UTC))):
        with pytest.raises(FolderError, match=r"s3://utility/in.*\(AnswerUnreadable\)"):
            asked()


@pytest.mark.parametrize("kind", ["moto", "strict"])
def test_a_bucket_that_is_not_there_is_named(places: Places, storage: Storage, tmp_path: Path, kind: str):
    storage.missing = True
    bucket = replace(places.moto, name="nowhere") if kind == "moto" else storage.bucket()
    folder = ObjectFolder(bucket, "in")
    extract = LocalFolder(tmp_path)
    recorded = put(extract, "name", b"x")

    def unnamed() -> None:
        with folder.create() as file:
            file.write(b"x")
            file.commit("name", replace=True)

    for asked in (
        folder.names,
        lambda: folder.create("name"),
        unnamed,
        lambda: folder.sha256("name"),
        lambda: folder.open("name"),
        lambda: folder.sweep(timedelta(0)),
        lambda: publish(extract, "name", folder, sha256=recorded),
    ):
        with pytest.raises(FolderError, match=rf"s3://{bucket.name}/in.*the bucket is not there.*CCS_DACS_S3_ENDPOINT"):
            asked()


def test_a_storage_that_sends_on_to_another_has_done_nothing(storage: Storage, careless: Storage):
    storage.elsewhere = careless.endpoint
    folder = storage.folder("in")
    for asked in (
        folder.names,
        lambda: folder.remove("name"),
        lambda: folder.create("name"),
        lambda: folder.sweep(timedelta(0)),
    ):
        with pytest.raises(FolderError, match=r"s3://utility/in.*\(PermanentRedirect\).*CCS_DACS_S3_ENDPOINT"):
            asked()
    assert (careless.requests, careless.connections) == ([], 0)


def test_an_object_that_changes_while_it_is_renamed_stays(storage: Storage, monkeypatch: pytest.MonkeyPatch):
    folder = storage.folder("in")
    put(folder, "old", b"first")
    original = obstore.copy

    def copy(*args: Any, **options: Any) -> None:
        original(*args, **options)
        put(storage.folder("in"), "old", b"second", replace=True)

    monkeypatch.setattr(obstore, "copy", copy)
    with pytest.raises(FolderError, match=r"s3://utility/in/old: changed while it was being renamed to new"):
        folder.rename("old", "new", replace=True)
    assert (content(folder, "old"), content(folder, "new")) == (b"second", b"first")


@pytest.mark.parametrize("name", ["name", None], ids=["named", "unnamed"])
def test_memory_is_bounded_by_parts(storage: Storage, name: str | None):
    """A process of its own, since the storage of the tests keeps all in this one's memory."""
    script = f"""
import pathlib, resource
from ccs_dacs_pipeline.folders.bucket import Bucket
from ccs_dacs_pipeline.folders.objects import ObjectFolder
bucket = Bucket({BUCKET!r}, {storage.endpoint!r}, {REGION!r}, {ACCESS_KEY!r}, {SECRET_KEY!r},
                ca_file=pathlib.Path({str(storage.ca_file)!r}))
folder, data = ObjectFolder(bucket, "in"), bytes({MIB})
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with folder.create({name!r}) as file:
    for _ in range(250):
        file.write(data)
    file.commit("name", replace=False)
assert file.sha256 == folder.sha256("name")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert int(done.stdout) < 120 * 1024
