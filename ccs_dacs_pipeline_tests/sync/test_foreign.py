"""Moving foreign files (sync-lifecycle.md, Files; interface.md, Foreign files)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from ccs_dacs_pipeline.entities import ENTITIES
from ccs_dacs_pipeline.folders import FolderError, LocalFolder
from ccs_dacs_pipeline.ledger import life
from ccs_dacs_pipeline.ledger.foreign import Look, pass_report, record_delivered
from ccs_dacs_pipeline.ledger.leases import TRANSFERS, LeaseLostError, acquire
from ccs_dacs_pipeline.ledger.schema import foreign_files, foreign_seen
from ccs_dacs_pipeline.ledger.store import now
from ccs_dacs_pipeline.partitions import SyncBatch
from ccs_dacs_pipeline.settings import load_settings
from ccs_dacs_pipeline.sync import foreign
from ccs_dacs_pipeline.sync.foreign import Failed, Sent, look, transfer, until_rest
from ccs_dacs_pipeline.sync.site import Site
from ccs_dacs_pipeline_tests.folders.files import content, put, sha256


@pytest.fixture
def make_site(tmp_path: Path):
    opened = []

    def make(**settings: Any) -> Site:
        defaults = {"data_dir": tmp_path, "foreign_file_patterns": "*.csv,*.xml", "foreign_quiet_seconds": 0}
        opened.append(Site(load_settings(**defaults | settings)))
        return opened[-1]

    yield make
    for site in opened:
        site.close()


@pytest.fixture
def site(make_site) -> Site:
    return make_site()


def moved(site: Site) -> list[Sent | Failed]:
    return list(transfer(site, site.lease(TRANSFERS, "test")))


def names(events: list[Sent | Failed]) -> list[tuple[str, type]]:
    return [(one.name, type(one)) for one in events]


def age(site: Site, name: str, seconds: float) -> None:
    path = site.extract.path_of(name)
    os.utime(path, (path.stat().st_atime, path.stat().st_mtime - seconds))


def let_pass(site: Site, seconds: float) -> None:
    """Makes the last look so many seconds older."""
    with site.ledger.write() as db:
        db.execute(sa.update(foreign_seen).values(since=foreign_seen.c.since - seconds))


def test_files_go_oldest_first_whole_and_once(site: Site):
    for name, seconds in (("a.csv", 0), ("b.xml", 100), ("c.csv", 50), ("d.txt", 200)):
        put(site.extract, name, name.encode() * 100)
        age(site, name, seconds)
    events = moved(site)
    assert names(events) == [("b.xml", Sent), ("c.csv", Sent), ("a.csv", Sent)]
    assert [(one.bytes, one.sha256) for one in events] == [
        (500, sha256(name * 100)) for name in (b"b.xml", b"c.csv", b"a.csv")
    ]
    assert site.upload.names() == ["a.csv", "b.xml", "c.csv"]
    assert content(site.upload, "a.csv") == b"a.csv" * 100
    assert site.extract.names() == ["d.txt"]
    assert moved(site) == []


def test_sources_stay_under_the_prefix_and_are_not_sent_again(make_site):
    site = make_site(sent_prefix="Sent-", foreign_file_patterns="*")
    put(site.extract, "a.csv", b"x")
    assert names(moved(site)) == [("a.csv", Sent)]
    assert site.extract.names() == ["Sent-a.csv"]
    assert moved(site) == []
    assert site.upload.names() == ["a.csv"]


@pytest.mark.parametrize("later", ["Done-", ""])
def test_what_was_kept_under_another_prefix_is_not_sent(make_site, later: str):
    first = make_site(sent_prefix="Sent-", foreign_file_patterns="*")
    put(first.extract, "a.csv", b"x")
    moved(first)
    site = make_site(sent_prefix=later, foreign_file_patterns="*")
    put(site.extract, "Sent-unknown.csv", b"x")
    assert names(moved(site)) == [("Sent-unknown.csv", Sent)]
    assert "Sent-a.csv" in site.extract.names()


def test_own_files_kept_under_another_prefix_are_not_sent(make_world, make_site):
    world = make_world(settings={"sent_prefix": "Sent-"})
    world.initial()
    kept = world.site.extract.names()
    assert kept
    site = make_site(**world.settings.model_dump(include={"data_dir"}), foreign_file_patterns="*")
    assert moved(site) == []
    assert site.extract.names() == kept


def test_without_patterns_nothing_is_moved(make_site):
    site = make_site(foreign_file_patterns="")
    put(site.extract, "a.csv", b"x")
    assert moved(site) == []


def test_a_name_that_comes_again_is_sent_again(site: Site):
    for data in (b"first", b"second", b"second"):
        put(site.extract, "daily.csv", data)
        age(site, "daily.csv", site.extract.size("daily.csv"))
        assert names(moved(site)) == [("daily.csv", Sent)]
        assert content(site.upload, "daily.csv") == data
        site.upload.remove("daily.csv")


def test_the_same_file_that_comes_again_is_sent_again(site: Site):
    for _ in range(2):
        put(site.extract, "daily.csv", b"x")
        os.utime(site.extract.path_of("daily.csv"), (1_000_000, 1_000_000))
        assert names(moved(site)) == [("daily.csv", Sent)]
        assert site.upload.names() == ["daily.csv"]
        site.upload.remove("daily.csv")


class TestStillWritten:
    """What is still being written is recognised by its size and time standing still."""

    def test_a_file_is_moved_once_it_has_stood_still(self, make_site):
        site = make_site(foreign_quiet_seconds=3600)
        put(site.extract, "a.csv", b"x")
        assert moved(site) == []
        assert 3500 < until_rest(site, look(site)) <= 3600
        let_pass(site, 3500)
        assert moved(site) == []
        let_pass(site, 100)
        assert until_rest(site, look(site)) < 0
        assert names(moved(site)) == [("a.csv", Sent)]

    @pytest.mark.parametrize("change", [lambda path: path.write_bytes(b"longer"), lambda path: os.utime(path, (1, 1))])
    def test_another_size_or_time_begins_the_wait_anew(self, make_site, change):
        site = make_site(foreign_quiet_seconds=3600)
        put(site.extract, "a.csv", b"x")
        look(site)
        (before,) = look(site)
        assert before.rest > 0
        change(site.extract.path_of("a.csv"))
        (after,) = look(site)
        assert after.rest < before.rest + 0.001

    def test_an_old_time_alone_is_no_rest(self, make_site):
        """A copy may carry the time of its original while it is being written."""
        site = make_site(foreign_quiet_seconds=30)
        put(site.extract, "a.csv", b"x")
        age(site, "a.csv", 10_000)
        assert moved(site) == []

    def test_one_that_changes_after_all_is_left_and_named(self, site: Site, monkeypatch: pytest.MonkeyPatch):
        put(site.extract, "a.csv", b"x")
        put(site.extract, "b.csv", b"x")
        age(site, "a.csv", 10)
        brought = foreign.brought

        def written_meanwhile(source: LocalFolder, name: str, target: LocalFolder):
            if name == "a.csv":
                site.extract.path_of(name).write_bytes(b"and on")
            return brought(source, name, target)

        monkeypatch.setattr(foreign, "brought", written_meanwhile)
        events = moved(site)
        assert names(events) == [("a.csv", Failed), ("b.csv", Sent)]
        assert "has changed while it was moved" in events[0].reason
        assert site.upload.names() == ["b.csv"]
        assert content(site.extract, "a.csv") == b"and on"

    def test_one_that_goes_on_after_it_is_visible_keeps_its_source(self, site: Site, monkeypatch: pytest.MonkeyPatch):
        put(site.extract, "a.csv", b"x")

        def delivered_then_written(*arguments: object):
            record_delivered(*arguments)
            # As most writers of a whole file do: a new one in the place of the old.
            put(site.extract, "a.csv", b"and on", replace=True)

        monkeypatch.setattr(foreign.foreign, "record_delivered", delivered_then_written)
        assert names(moved(site)) == [("a.csv", Failed)]
        assert content(site.upload, "a.csv") == b"x"
        assert content(site.extract, "a.csv") == b"and on"

    def test_one_that_comes_while_its_predecessor_is_kept_is_not_lost(self, make_site, monkeypatch: pytest.MonkeyPatch):
        site = make_site(sent_prefix="Sent-")
        put(site.extract, "a.csv", b"x")
        rename = LocalFolder.rename

        def replaced_before(folder: LocalFolder, name: str, new_name: str, *, replace: bool):
            if replace:
                put(site.extract, "a.csv", b"a new one", replace=True)
            return rename(folder, name, new_name, replace=replace)

        with monkeypatch.context() as patched:
            patched.setattr(LocalFolder, "rename", replaced_before)
            assert names(moved(site)) == [("a.csv", Failed)]
        assert site.extract.names() == ["a.csv"]
        assert content(site.upload, "a.csv") == b"x"
        site.upload.remove("a.csv")
        assert names(moved(site)) == [("a.csv", Sent)]
        assert content(site.upload, "a.csv") == b"a new one"

    def test_one_that_cannot_get_its_name_back_is_named(self, make_site, monkeypatch: pytest.MonkeyPatch):
        site = make_site(sent_prefix="Sent-")
        put(site.extract, "a.csv", b"x")
        rename = LocalFolder.rename

        def replaced_before_and_after(folder: LocalFolder, name: str, new_name: str, *, replace: bool):
            put(site.extract, "a.csv", b"a new one", replace=True)
            return rename(folder, name, new_name, replace=replace)

        monkeypatch.setattr(LocalFolder, "rename", replaced_before_and_after)
        (failed,) = moved(site)
        assert "It is called Sent-a.csv now and was not sent" in failed.reason
        assert "there already and not replaced" in failed.reason
        assert site.extract.names() == ["Sent-a.csv", "a.csv"]


class TestFailures:
    """A file that cannot be moved stays, is named, and holds up no other."""

    def test_another_file_of_the_same_name_is_an_error(self, site: Site):
        put(site.extract, "a.csv", b"ours")
        put(site.extract, "b.csv", b"x")
        put(site.upload, "a.csv", b"theirs")
        began = now()
        events = moved(site)
        assert names(events) == [("a.csv", Failed), ("b.csv", Sent)]
        assert "a.csv is there with other content" in events[0].reason
        assert content(site.upload, "a.csv") == b"theirs"
        assert content(site.extract, "a.csv") == b"ours"
        with site.ledger.read() as db:
            report = pass_report(db, began)
        assert [one["name"] for one in report["sent"]] == ["b.csv"]
        assert report["failed"] == [{"name": "a.csv", "reason": events[0].reason}]
        assert report["waiting"] == []

    def test_failures_are_counted_until_the_file_changes(self, site: Site):
        put(site.extract, "a.csv", b"ours")
        put(site.upload, "a.csv", b"theirs")
        moved(site)
        moved(site)
        (seen,) = look(site)
        assert seen.failures == 2
        assert seen.failed_ago is not None
        put(site.extract, "a.csv", b"changed", replace=True)
        (seen,) = look(site)
        assert (seen.failures, seen.failed_ago) == (0, None)
        site.upload.remove("a.csv")
        assert names(moved(site)) == [("a.csv", Sent)]

    def test_a_name_that_is_no_text_is_named_and_left(self, site: Site):
        put(site.extract, "good.csv", b"x")
        Path(os.fsdecode(bytes(site.extract.path) + b"/bad\xff.csv")).write_bytes(b"x")
        events = moved(site)
        assert names(events) == [("'bad\\udcff.csv'", Failed), ("good.csv", Sent)]

    def test_one_that_somebody_else_took_is_no_failure(self, site: Site, monkeypatch: pytest.MonkeyPatch):
        put(site.extract, "a.csv", b"x")
        found = look(site)
        site.extract.remove("a.csv")
        monkeypatch.setattr(foreign, "look", lambda _: found)
        assert moved(site) == []


class TestCrashes:
    """A repeat after a crash at any point ends in one file there and none here."""

    @pytest.mark.parametrize(
        "point",
        [
            (foreign.foreign, "begin"),
            (LocalFolder, "place"),
            (foreign.foreign, "record_delivered"),
            (foreign, "take_away"),
        ],
        ids=lambda point: point[1],
    )
    def test_after_a_crash_the_next_pass_goes_on(self, site: Site, monkeypatch: pytest.MonkeyPatch, point: tuple):
        put(site.extract, "a.csv", b"x")

        def crash(*_: object, **__: object):
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(*point, crash)
            with pytest.raises(KeyboardInterrupt):
                moved(site)
        assert names(moved(site)) == [("a.csv", Sent)]
        assert (site.extract.names(), site.upload.names()) == ([], ["a.csv"])
        assert moved(site) == []

    def test_a_file_that_dacs_has_taken_is_not_sent_again_when_only_its_source_is_left(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ):
        put(site.extract, "a.csv", b"x")
        with monkeypatch.context() as patched:
            patched.setattr(foreign, "take_away", lambda *_, **__: (_ for _ in ()).throw(FolderError("denied")))
            assert names(moved(site)) == [("a.csv", Failed)]
        site.upload.remove("a.csv")
        assert names(moved(site)) == [("a.csv", Sent)]
        assert (site.extract.names(), site.upload.names()) == ([], [])
        with site.ledger.read() as db:
            assert db.execute(sa.select(sa.func.count()).select_from(foreign_files)).scalar() == 1

    def test_a_late_worker_moves_nothing(self, site: Site):
        put(site.extract, "a.csv", b"x")
        late = site.lease(TRANSFERS, "late")
        late.release()
        acquire(site.ledger, TRANSFERS, "next", term=60, grace=0)
        with pytest.raises(LeaseLostError):
            list(transfer(site, late))
        assert site.upload.names() == []
        assert site.extract.names() == ["a.csv"]


class TestOurOwn:
    """Our own files are never touched, whatever the patterns say."""

    def test_names_of_batches_are_left_alone_in_every_state(self, make_site):
        site = make_site(foreign_file_patterns="*")
        code = ENTITIES[0].incremental_code
        with site.ledger.write() as db:
            life.create_chosen(db, SyncBatch.parse("delta-1"), codes=[code], first={})
        mine = [f"{code}_0001_00.csv", f"{code}_0001_01.csv", f"{code}_0001_00_T01_P002.csv"]
        others = [f"{code}_0002_00.csv", f"{code}_0001_00.csv.bak", "C1-BILL_0001_00.csv"]
        for name in (*mine, *others):
            put(site.extract, name, b"x")
        assert sorted(name for name, _ in names(moved(site))) == sorted(others)
        with site.ledger.write() as db:
            life.abort(db, "delta-1")
        assert moved(site) == []
        assert site.extract.names() == sorted(mine)

    def test_recorded_names_are_left_alone_though_the_template_has_changed(self, world, make_site):
        world.worker.initial(shards=1, new=False, wait=30)
        folder = Path(world.settings.folder("extract"))
        (folder / "C1-DCTIL_0001_00.csv").write_bytes(b"left behind")
        template = "{batchCode}-{batchNumber}-{rerunNumber}.csv"
        site = make_site(data_dir=world.settings.data_dir, file_name_template=template, foreign_file_patterns="*")
        assert moved(site) == []

    def test_temporary_names_are_left_alone(self, make_site):
        site = make_site(foreign_file_patterns="*")
        with site.extract.create() as file:
            file.write(b"x")
            assert moved(site) == []


def test_own_delivered_files_stay_under_the_prefix_too(make_world):
    world = make_world(settings={"sent_prefix": "Sent-"})
    world.initial()
    world.sandbox.ccs.change(5)
    world.sync()
    world.assert_quiet()
    kept = world.site.extract.names()
    assert kept
    assert all(name.startswith("Sent-C1-D") for name in kept)


def test_a_look_has_the_precision_of_the_ledger(site: Site):
    put(site.extract, "a.csv", b"x")
    assert look(site)[0].look == look(site)[0].look
    assert isinstance(look(site)[0].look, Look)
    assert look(site)[0].rest > 0
