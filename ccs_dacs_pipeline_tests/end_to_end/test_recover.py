"""The ledger is lost, or an older copy of it restored (docs/decisions/0016-recovery.md)."""

from __future__ import annotations

import shutil
import signal
import sqlite3
from contextlib import closing
from importlib import resources
from pathlib import Path

import pytest
import sqlalchemy as sa

from ccs_dacs_pipeline import entities
from ccs_dacs_pipeline.cli.console import Problem
from ccs_dacs_pipeline.folders import LocalFolder
from ccs_dacs_pipeline.ledger.acknowledgements import Acknowledgement, store
from ccs_dacs_pipeline.ledger.schema import metadata, sent
from ccs_dacs_pipeline.partitions import shards_of
from ccs_dacs_pipeline.sync import start
from ccs_dacs_pipeline.sync.claim import claim
from ccs_dacs_pipeline_tests import steps, workers
from ccs_dacs_pipeline_tests.conditions import settle_down
from ccs_dacs_pipeline_tests.conftest import WAIT
from ccs_dacs_pipeline_tests.workers import Point


def lose_ledger(world) -> None:
    """Empties every table: the inbox of this test holds the database open, as a new file would be."""
    with world.site.ledger.write() as db:
        for table in reversed(metadata.sorted_tables):
            db.execute(sa.delete(table))


def recover(world, *, dry_run: bool = False) -> dict:
    return world.worker.recover(dry_run=dry_run, wait=5)


def uploaded(world) -> list[str]:
    return sorted(path.name for path in Path(world.settings.folder("upload")).iterdir() if path.is_file())


def test_what_was_claimed_is_sent_anew_and_every_counter_goes_on(world, monkeypatch):
    world.initial(shards=2)
    world.sandbox.ccs.change(20, seed=3)
    world.sync()
    world.sandbox.ccs.change(20, seed=4)

    def die_after_claim(*arguments: object, **options: object) -> None:
        claim(*arguments, **options)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    with monkeypatch.context() as dying:
        dying.setattr("ccs_dacs_pipeline.sync.start.claim", die_after_claim)
        with pytest.raises(BaseException):  # noqa: B017, PT011 - the process that does this is gone
            world.worker.sync(wait=5)
    claimed = world.request_states()["AWAITINGACK"]
    with world.site.ledger.read() as db:
        before = dict(db.execute(sa.select(sent.c.entity_id, sent.c.moment)).all())
    lose_ledger(world)

    looked = recover(world, dry_run=True)
    assert len(looked["unknown"]) == claimed > 0
    assert looked["batches"] == []
    assert world.status()["batches"] == []
    figures = recover(world)
    assert figures["ledgerWasEmpty"]
    assert figures["numbers"] == {"initial": 1, "delta": 2}
    assert figures["fileNumbers"]["C1-DCTIL"] == figures["fileNumbers"]["C1-DCTEX"] == 1
    assert figures["batches"] == ["delta-3"]
    with world.site.ledger.read() as db:
        known = dict(db.execute(sa.select(sent.c.entity_id, sent.c.moment)).all())
    assert known
    assert all(known[one] <= before[one] for one in known)

    names = uploaded(world)
    assert world.sync()["batches"][0]["key"] == "delta-3"
    assert set(names) < set(uploaded(world))
    world.initial()
    assert "MANIFEST_initial-2_00.json" in uploaded(world)
    world.assert_quiet()
    assert recover(world)["unknown"] == []


def test_rows_that_were_delivered_are_sent_again_after_those_before(world):
    """DACS has them and answers again; nothing goes backwards there."""
    world.initial()
    world.sandbox.ccs.change(15, seed=5)
    world.worker.sync(wait=5)
    lose_ledger(world)
    world.sandbox.dacs.wait_until_idle(WAIT)  # its answers come to an inbox that does not know what they are about
    figures = recover(world)
    assert sum(figures["changeDateTimes"].values()) > 0
    world.sync()
    assert world.status()["acknowledgements"]["parked"] == 0
    world.assert_quiet()


def test_an_answer_that_is_parked_settles_its_request(make_world):
    world = make_world(sandbox={"upload_folder": None})  # nobody answers but this test
    person = next(iter(world.sandbox.ccs.records("person")))[0]
    request = world.sandbox.ccs.touch("person", person)
    world.worker.sync(wait=5)
    lose_ledger(world)
    with world.site.ledger.write() as db:
        store(db, [Acknowledgement(request, has_error=False, payload={"hasError": False})])
    assert world.status()["acknowledgements"]["parked"] == 1
    recover(world)
    world.worker.sync(wait=5)
    world.worker.deliver_acknowledgements(wait=5)
    assert world.status()["requests"] == {"positive": 1}
    assert world.request_states() == {"SYNCHRONIZED": 1}


def test_on_a_ledger_that_is_whole_nothing_is_done(world):
    world.initial()
    world.sandbox.ccs.change(10)
    world.sync()
    before = world.status()
    figures = recover(world)
    assert not figures["ledgerWasEmpty"]
    assert figures["unknown"] == figures["batches"] == figures["notKnown"] == []
    assert sum(figures["changeDateTimes"].values()) == 0
    assert world.status() == before


def test_files_that_nobody_publishes_are_told(world, tmp_path):
    world.sandbox.ccs.change(5)
    (tmp_path / "no-folder").write_text("")
    world.site.upload = LocalFolder(tmp_path / "no-folder" / "upload")
    with pytest.raises(Exception, match="no-folder"):
        world.worker.sync(wait=5)
    del world.site.upload
    lose_ledger(world)
    figures = recover(world)
    assert any("C1-DCTEX_0001_00.csv" in line for line in figures["notKnown"])
    assert any("CCS_DACS_FIRST_BATCH_NUMBERS" in line for line in figures["notKnown"])
    world.sync()
    assert "C1-DCTEX_0002_00.csv" in uploaded(world)


def take_files_away(world) -> None:
    """DACS takes every extract file out of its folder; the manifests, which it does not know, stay."""
    for path in Path(world.settings.folder("upload")).glob("C1-*"):
        path.unlink()


def test_file_numbers_are_found_in_manifests_where_dacs_took_the_files_away(world):
    world.initial()
    world.sandbox.ccs.change(20, seed=3)
    world.sync()
    take_files_away(world)
    lose_ledger(world)
    figures = recover(world)
    assert figures["fileNumbers"]["C1-DCTIL"] == figures["fileNumbers"]["C1-DCTEX"] == 1
    assert not any("CCS_DACS_FIRST_BATCH_NUMBERS" in line for line in figures["notKnown"])
    world.sandbox.ccs.change(20, seed=4)
    world.sync()
    assert "C1-DCTEX_0002_00.csv" in uploaded(world)


def test_sources_that_were_kept_count_as_the_files_that_dacs_took_away(make_world):
    world = make_world(settings={"sent_prefix": "Sent-", "manifest": "off"})
    world.sandbox.ccs.change(20, seed=3)
    world.sync()
    take_files_away(world)
    lose_ledger(world)
    figures = recover(world)
    assert figures["fileNumbers"]["C1-DCTEX"] == 1
    assert sum(figures["changeDateTimes"].values()) > 0


def test_change_date_times_are_read_from_zipped_files(make_world):
    world = make_world(
        sandbox={"upload_folder": None},
        settings={"file_name_template": "{batchCode}_{batchNumber}_{rerunNumber}.csv.zip"},
    )
    world.sandbox.ccs.change(20, seed=3)
    world.worker.sync(wait=5)
    with world.site.ledger.read() as db:
        before = dict(db.execute(sa.select(sent.c.entity_id, sent.c.moment)).all())
    lose_ledger(world)
    recover(world)
    with world.site.ledger.read() as db:
        assert dict(db.execute(sa.select(sent.c.entity_id, sent.c.moment)).all()) == before


def test_a_profile_without_change_date_times_has_none_to_find(make_world, tmp_path):
    profile = tmp_path / "own.toml"
    lines = (resources.files(entities) / "layouts" / "core.toml").read_text().splitlines(keepends=True)
    profile.write_text("".join(line for line in lines if "change_date_time" not in line))
    world = make_world(sandbox={"upload_folder": None}, settings={"layout_profile": str(profile)})
    world.sandbox.ccs.change(5)
    world.worker.sync(wait=5)
    lose_ledger(world)
    figures = recover(world)
    assert sum(figures["changeDateTimes"].values()) == 0
    assert figures["batches"] == ["delta-2"]


def test_while_a_snapshot_holds_the_gate_it_says_what_to_do(make_world):
    """As after an older copy, which has a snapshot unfinished that is delivered long since."""
    world = make_world(sandbox={"upload_folder": None})
    world.sandbox.ccs.change(5)
    world.worker.sync(wait=5)
    lose_ledger(world)
    start.start_snapshot(world.site, 1, 1)
    with pytest.raises(Problem, match=r"batch abort initial-1.*recover` again"):
        recover(world)
    world.worker.abort("initial-1", wait=5)
    assert recover(world)["batches"] == ["delta-2"]


@pytest.mark.parametrize("published", [False, True], ids=["nothing published", "a file published"])
def test_sources_of_every_shard_are_restored_where_the_extract_folder_is_lost(world, monkeypatch, published):
    with steps.quick_site(world.settings) as site:
        start.start_snapshot(site, 1, 3)
        for shard in shards_of(1, 3):
            with steps.held(site, str(shard)) as lease:
                steps.to_files(site, shard, lease)
        if published:
            with monkeypatch.context() as dying:
                dying.setattr("ccs_dacs_pipeline.sync.publish.take_away", die)
                with pytest.raises(KeyboardInterrupt):
                    steps.initial(site)
    for source in Path(world.settings.folder("extract")).iterdir():
        source.unlink()
        if source.name.startswith("C1-DMSIL"):
            source.write_text("cut off")
    world.initial()
    assert list(Path(world.settings.folder("extract")).iterdir()) == []
    world.assert_quiet()


def die(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


class TestFramesAreLost:
    """What the message names as the way out leads there."""

    def lose_frames(self, world) -> None:
        shutil.rmtree(world.settings.folder("frames"))

    def test_of_a_sealed_delta(self, world, tmp_path):
        world.initial()
        person = next(iter(world.sandbox.ccs.records("person")))[0]
        world.sandbox.ccs.touch("person", person)
        (tmp_path / "no-folder").write_text("")
        world.site.upload = LocalFolder(tmp_path / "no-folder" / "upload")
        with pytest.raises(Problem, match="no-folder"):
            world.worker.sync(wait=5)
        del world.site.upload
        self.lose_frames(world)
        with pytest.raises(Problem, match=r"batch abort delta-1`.*resync"):
            world.worker.sync(wait=5)
        world.worker.abort("delta-1", wait=5)
        world.worker.resync("contact", [person], wait=5)
        world.sandbox.dacs.wait_until_idle(WAIT)
        world.assert_quiet()

    def test_of_a_snapshot_that_is_replayed(self, world):
        world.initial()
        self.lose_frames(world)
        with pytest.raises(Problem, match=r"batch abort initial-1`"):
            world.worker.replay("initial-1", wait=5)
        world.worker.abort("initial-1", wait=5)
        assert world.status()["gate"]["open"]
        world.initial()
        world.assert_quiet()


class TestOlderCopy:
    """A copy of the ledger's file that knows a batch as created, restored after the batch's later life."""

    @pytest.fixture
    def copy(self, world, tmp_path) -> Path:
        """Made where a worker was killed before its first transition."""
        with steps.quick_site(world.settings) as site:
            steps.initial(site)
        world.sandbox.ccs.change(20, seed=6)
        killed = workers.start(world, "sync", point=Point("created", "ccs_dacs_pipeline.sync.start:claim"))
        assert workers.ended(killed) == -signal.SIGKILL
        workers.forget_dead(world)
        copy_database(ledger_file(world), tmp_path / "copy.sqlite")
        return tmp_path / "copy.sqlite"

    @pytest.mark.parametrize("answered", [False, True], ids=["delivered", "settled"])
    def test_requests_of_its_later_life_are_not_moved_and_what_awaits_an_answer_is_adopted(self, world, copy, answered):
        with steps.quick_site(world.settings) as site:
            steps.incremental(site)
            if answered:
                settle_down(world, site)
            world.sandbox.dacs.wait_until_idle()
            names, histories = uploaded(world), request_histories(world)
            copy_database(copy, ledger_file(world))
            steps.incremental(site)
            assert uploaded(world) == names
            assert request_histories(world) == histories
            figures = recover(world)
            assert len(figures["unknown"]) == (0 if answered else len(histories))
            world.sandbox.ccs.change(10, seed=7)
            settle_down(world, site)
        world.assert_quiet()
        assert world.status()["suspect"] == []
        assert {states.count("SYNCHRONIZED") for states in request_histories(world).values()} == {1}

    def test_the_others_go_with_another_batch_under_names_of_their_own(self, world, copy):
        request = world.sandbox.ccs.sync_requests()[0]
        world.sandbox.ccs.set_state(request.sync_request_id, "CANCELED")
        world.sandbox.ccs.touch(request.entity.ccs, request.pk_value1)
        with steps.quick_site(world.settings) as site:
            assert [str(key) for key in steps.incremental(site)] == ["delta-1", "delta-2"]
            settle_down(world, site)
        assert "C1-DCTEX_0001_00.csv" not in uploaded(world)
        assert request_histories(world)[request.sync_request_id] == ["PENDING", "CANCELED"]
        world.assert_quiet()


def ledger_file(world) -> Path:
    return Path(sa.make_url(world.settings.ledger).database)


def copy_database(source: Path, target: Path) -> None:
    """Copies a whole database, as `sqlite3 SOURCE ".backup TARGET"` does, into one that others have open too."""
    with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(target)) as new:
        old.backup(new)


def request_histories(world) -> dict[str, list[str]]:
    """The states that each sync request of CCS has been in."""
    return {one.sync_request_id: list(one.history) for one in world.sandbox.ccs.sync_requests()}
