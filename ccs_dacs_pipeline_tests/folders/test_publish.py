"""Publishing (sync-lifecycle.md, Files): whole, once, never over another file."""

import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from threading import Event, Thread

import pytest

from ccs_dacs_pipeline.folders import (
    Folder,
    FolderDenied,
    LocalFolder,
    Published,
    SourceDiffers,
    SourceMissing,
    TargetDiffers,
    publish,
    take_away,
)
from ccs_dacs_pipeline.folders.objects import ObjectFolder
from ccs_dacs_pipeline_tests.folders.conftest import MotoBucket
from ccs_dacs_pipeline_tests.folders.files import content, public_directory, put, read_only, run_on_small_disk, sha256

NAME = "C1-DCTIL_0033_00.csv"
DATA = b"1\tF1IL\n" * 300_000
LARGE = 8 * 1024 * 1024


def test_a_file_is_published_and_its_source_stays(extract: Folder, upload: Folder):
    recorded = put(extract, NAME, DATA)
    assert publish(extract, NAME, upload, sha256=recorded) is Published.NEW
    assert content(upload, NAME) == content(extract, NAME) == DATA
    assert upload.sweep(timedelta(0)) == 0


def test_a_published_file_is_recognised_even_when_its_source_is_gone(extract: Folder, upload: Folder):
    recorded = put(extract, NAME, DATA)
    publish(extract, NAME, upload, sha256=recorded)
    assert publish(extract, NAME, upload, sha256=recorded) is Published.ALREADY
    extract.remove(NAME)
    assert publish(extract, NAME, upload, sha256=recorded) is Published.ALREADY


def test_a_consumed_file_is_published_again(extract: Folder, upload: Folder):
    recorded = put(extract, NAME, DATA)
    publish(extract, NAME, upload, sha256=recorded)
    upload.remove(NAME)
    assert publish(extract, NAME, upload, sha256=recorded) is Published.NEW
    assert content(extract, NAME) == DATA


def test_other_content_in_the_target_is_an_error_and_is_left(extract: Folder, upload: Folder):
    recorded = put(extract, NAME, DATA)
    put(upload, NAME, b"another file")
    with pytest.raises(TargetDiffers, match=rf"{upload.url}: {NAME} .* Find out who put it there, and move it away\.$"):
        publish(extract, NAME, upload, sha256=recorded)
    assert content(upload, NAME) == b"another file"


def test_a_source_that_is_in_neither_folder_is_an_error(extract: Folder, upload: Folder):
    with pytest.raises(SourceMissing, match=rf"{NAME} .* restored from the stored frames .* who took it\.$"):
        publish(extract, NAME, upload, sha256=sha256(DATA))
    assert upload.names() == []


def test_a_source_that_is_not_the_recorded_file_is_not_published(extract: Folder, upload: Folder):
    put(extract, NAME, DATA + b"tampered")
    with pytest.raises(SourceDiffers, match=rf"{NAME} .* restored from the stored frames .* who changed it\.$"):
        publish(extract, NAME, upload, sha256=sha256(DATA))
    assert upload.names() == []
    assert upload.sweep(timedelta(0)) == 0


@pytest.mark.parametrize("kind", ["local", "other-file-system"])
def test_a_symbolic_link_is_published_as_the_file_it_names(made: Callable[[str, str], Folder], kind: str):
    elsewhere, extract, upload = made("local", "elsewhere"), made("local", "extract"), made(kind, "upload")
    assert isinstance(elsewhere, LocalFolder)
    assert isinstance(extract, LocalFolder)
    assert isinstance(upload, LocalFolder)
    recorded = put(elsewhere, NAME, DATA)
    extract.path.mkdir()
    (extract.path / NAME).symlink_to(elsewhere.path / NAME)
    publish(extract, NAME, upload, sha256=recorded)
    assert not (upload.path / NAME).is_symlink()
    assert content(upload, NAME) == DATA


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("sftp-openssh", "local"),
        ("sftp-openssh", "sftp-openssh"),
        ("sftp-asyncssh", "sftp-openssh"),
        ("sftp-openssh", "s3-strict"),
        ("s3-strict", "sftp-openssh"),
        ("s3-moto", "local"),
        ("s3-moto", "s3-moto"),
        ("s3-moto", "s3-strict"),
    ],
)
def test_any_kind_publishes_to_any(made: Callable[[str, str], Folder], source: str, target: str):
    extract, upload = made(source, "extract"), made(target, "upload")
    data = random.randbytes(LARGE + 17)
    recorded = put(extract, NAME, data)
    assert publish(extract, NAME, upload, sha256=recorded) is Published.NEW
    assert publish(extract, NAME, upload, sha256=recorded) is Published.ALREADY
    assert content(upload, NAME) == content(extract, NAME) == data
    with pytest.raises(SourceMissing):
        publish(extract, "absent", upload, sha256=recorded)
    assert upload.names() == [NAME]


def test_of_many_attempts_at_once_one_publishes(extract: Folder, upload: Folder):
    recorded = put(extract, NAME, DATA)
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: publish(extract, NAME, upload, sha256=recorded), range(8)))
    if not isinstance(upload, ObjectFolder) or (
        # moto looks for the name and stores under it in two steps.
        upload.honours_conditions and not isinstance(upload.bucket, MotoBucket)
    ):
        assert sorted(result.name for result in results) == ["ALREADY"] * 7 + ["NEW"]
    assert content(upload, NAME) == DATA
    assert upload.names() == [NAME]
    assert upload.sweep(timedelta(0)) == 0


exclusive = pytest.mark.parametrize("kind", ["local", "other-file-system", "sftp-asyncssh", "s3-strict"])
"""Of each way to make a file visible one folder that never puts it over another."""


@exclusive
def test_another_file_that_comes_just_before_is_left(made: Callable[[str, str], Folder], kind: str):
    extract, upload = made("local", "extract"), made(kind, "upload")
    recorded = put(extract, NAME, DATA)
    with pytest.raises(TargetDiffers, match=NAME):
        publish(extract, NAME, upload, sha256=recorded, guard=lambda: put(upload, NAME, b"another file"))
    assert content(upload, NAME) == b"another file"
    assert upload.sweep(timedelta(0)) == 0


@exclusive
def test_another_attempt_that_is_just_quicker_has_published(made: Callable[[str, str], Folder], kind: str):
    extract, upload = made("local", "extract"), made(kind, "upload")
    recorded = put(extract, NAME, DATA)
    quicker = publish(extract, NAME, upload, sha256=recorded, guard=lambda: put(upload, NAME, DATA))
    assert quicker is Published.ALREADY
    assert content(upload, NAME) == DATA


class TakenWhenLookedAt(LocalFolder):
    """An upload folder from which DACS takes each file just before anybody looks at it."""

    def sha256(self, name: str) -> str | None:
        self.remove(name)
        return super().sha256(name)


def test_what_a_quicker_attempt_published_and_dacs_took_is_published_again(extract: Folder, tmp_path: Path):
    upload = TakenWhenLookedAt(tmp_path / "upload")
    recorded = put(extract, NAME, DATA)
    asked = []

    def quicker_once() -> None:
        asked.append(NAME)
        if len(asked) == 1:
            put(upload, NAME, DATA)

    assert publish(extract, NAME, upload, sha256=recorded, guard=quicker_once) is Published.NEW
    assert len(asked) == 2
    assert content(upload, NAME) == DATA


@exclusive
def test_what_the_guard_refuses_is_not_published(made: Callable[[str, str], Folder], kind: str):
    extract, upload = made("local", "extract"), made(kind, "upload")
    recorded = put(extract, NAME, DATA)

    def refuse() -> None:
        assert upload.names() == []
        raise PermissionError("another worker has the lease")

    with pytest.raises(PermissionError, match="lease"):
        publish(extract, NAME, upload, sha256=recorded, guard=refuse)
    assert upload.names() == []
    assert upload.sweep(timedelta(0)) == 0


def test_a_denied_upload_folder_publishes_nothing():
    with public_directory() as path:
        extract, upload = LocalFolder(path / "extract"), LocalFolder(path / "upload")
        recorded = put(extract, NAME, DATA)
        upload.path.mkdir()
        with read_only(upload.path), pytest.raises(FolderDenied, match=str(upload.path)):
            publish(extract, NAME, upload, sha256=recorded)
        assert upload.names() == []


def test_a_full_upload_folder_shows_nothing(tmp_path: Path):
    run_on_small_disk(
        tmp_path / "disk",
        f"""
        from ccs_dacs_pipeline.folders import FolderFull, LocalFolder, publish
        extract, upload = LocalFolder(Path({str(tmp_path)!r}) / "extract"), LocalFolder(disk)
        with extract.create() as file:
            file.write(bytes(1_000_000))
            file.commit("name", replace=False)
        try:
            publish(extract, "name", upload, sha256=file.sha256)
        except FolderFull as error:
            assert str(disk) in str(error), error
        else:
            raise AssertionError("no error")
        assert list(disk.iterdir()) == []
        """,
    )


@contextmanager
def watching(folder: Folder, expected: dict[str, str], *, take: bool) -> Iterator[Event]:
    """Reads, and when `take` is true removes, every visible file as fast as it can.

    Yields the event that every expected file was seen; fails at the end when one was seen torn.
    """
    torn: list[str] = []
    seen: set[str] = set()
    all_seen, done = Event(), Event()

    def watch() -> None:
        while not done.is_set():
            for name in folder.names():
                # Hashed once, then measured only: a quick round sees more.
                if folder.size(name) != LARGE or (name not in seen and folder.sha256(name) != expected[name]):
                    torn.append(name)
                seen.add(name)
                if take:
                    folder.remove(name)
            if seen == expected.keys():
                all_seen.set()

    thread = Thread(target=watch)
    thread.start()
    try:
        yield all_seen
    finally:
        done.set()
        thread.join()
    assert torn == []


@pytest.mark.parametrize("take", [False, True], ids=["watched", "taken at once"])
def test_a_watcher_never_sees_a_torn_file(extract: Folder, upload: Folder, take: bool):
    names = [f"C1-DCTIL_{number:04}_00.csv" for number in range(4)]
    expected = {name: put(extract, name, random.randbytes(LARGE)) for name in names}
    with watching(upload, expected, take=take) as all_seen:
        for name, recorded in expected.items():
            assert publish(extract, name, upload, sha256=recorded) is Published.NEW
        assert all_seen.wait(timeout=30)


def test_a_delivered_source_is_removed_and_an_absent_one_is_fine(extract: LocalFolder):
    put(extract, NAME, DATA)
    for _ in range(2):
        take_away(extract, NAME, sent_prefix="")
        assert extract.names() == []


def test_a_delivered_source_stays_under_the_prefix_in_place_of_an_older_one(extract: LocalFolder):
    for data in (b"old", b"new", b"new"):
        put(extract, NAME, data)
        take_away(extract, NAME, sent_prefix="Sent-")
        assert extract.names() == [f"Sent-{NAME}"]
        assert content(extract, f"Sent-{NAME}") == data
    take_away(extract, NAME, sent_prefix="Sent-")
    assert extract.names() == [f"Sent-{NAME}"]
    assert extract.sweep(timedelta(0)) == 0
