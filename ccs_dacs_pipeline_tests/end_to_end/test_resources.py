"""Disks that are full or may not be written, and a database that is locked or restarted (faults.md, Files, Process).

Each ends the pass with an error that says what to do, leaves nothing torn, and the next pass goes on once it is mended.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from ccs_dacs_pipeline.folders import FolderDenied, FolderFull
from ccs_dacs_pipeline.ledger import LedgerError, store
from ccs_dacs_pipeline_tests import steps
from ccs_dacs_pipeline_tests.conditions import Watcher, broken, settle_down
from ccs_dacs_pipeline_tests.ledger.databases import empty_database

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDERS = ["frames", "extract", "upload"]


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[None]:
    """Mounts a file system in memory, where that may be done."""
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=False, capture_output=True
    )
    if done.returncode:
        pytest.skip("mounting a file system takes root's rights")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


@pytest.mark.parametrize("name", FOLDERS)
def test_a_full_disk_is_told_and_the_work_goes_on_once_there_is_room(make_world, name):
    world = make_world(sandbox={"persons": 400})
    folder = Path(world.settings.folder(name))
    with mounted(folder, "size=48k"), Watcher(Path(world.settings.folder("upload"))) as watcher:
        with steps.quick_site(world.settings) as site:
            with pytest.raises(FolderFull, match=f"{folder}.*No space left.*make room there"):
                steps.initial(site)
            remount(folder, "size=64m")
            steps.initial(site)
            world.sandbox.ccs.change(20, seed=1)
            settle_down(world, site)
        assert broken(world, watcher) == []
        assert list(folder.glob(".ccs-dacs-*")) == []


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_that_may_only_be_read_is_told_and_the_work_goes_on_once_it_may_be_written(make_world, name):
    world = make_world()
    folder = Path(world.settings.folder(name))
    with mounted(folder, "size=64m"), Watcher(Path(world.settings.folder("upload"))) as watcher:
        with steps.quick_site(world.settings) as site:
            remount(folder, "ro")
            with pytest.raises(FolderDenied, match=f"{folder}.*Let the user of this process"):
                steps.initial(site)
            remount(folder, "rw")
            world.sandbox.ccs.change(20, seed=1)
            settle_down(world, site)
        assert broken(world, watcher) == []


def test_a_ledger_on_a_full_disk_is_told_and_goes_on_once_there_is_room(make_world, tmp_path):
    with mounted(tmp_path / "ledger", "size=64m"):
        world = make_world(settings={"ledger_url": f"sqlite:///{tmp_path}/ledger/ledger.db"})
        with steps.quick_site(world.settings) as site:
            steps.initial(site)
            world.sandbox.ccs.change(40, seed=1)
            filler = tmp_path / "ledger" / "filler"
            fill(filler)
            with pytest.raises(LedgerError, match="has space, then run the same again"):
                steps.incremental(site)
            filler.unlink()
            settle_down(world, site)
        assert broken(world) == []
        world.site.close()


def test_dagsters_storage_on_a_full_disk_is_told_and_the_command_goes_on_once_there_is_room(make_world):
    world = make_world()
    home = world.settings.data_path / "dagster"
    command = [sys.executable, "-m", "ccs_dacs_pipeline.cli", "initial"]
    environment = world.environment()
    with mounted(home, "size=64m"):
        fill(home / "filler")
        failed = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
        assert failed.returncode
        assert "Traceback" not in failed.stderr
        assert str(home) in failed.stderr
        (home / "filler").unlink()
        started = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
        assert started.returncode == 0, started.stderr
        world.sandbox.ccs.change(5, seed=1)
        fill(home / "filler")
        failed = subprocess.run([*command[:-1], "sync"], env=environment, check=False, capture_output=True, text=True)
        assert failed.returncode == 1
        assert "Traceback" not in failed.stderr
        assert "Dagster cannot write its records" in failed.stderr


def fill(path: Path) -> None:
    """Takes all room that is left."""
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 4096)
        except OSError:
            os.fsync(file.fileno())


def test_a_ledger_that_is_locked_for_long_is_told_and_the_work_goes_on(make_world, monkeypatch):
    monkeypatch.setattr(store, "_BUSY_MILLISECONDS", 200)
    world = make_world()
    with steps.quick_site(world.settings) as site:
        steps.initial(site)
        world.sandbox.ccs.change(20, seed=1)
        with closing(sqlite3.connect(sa.make_url(world.settings.ledger).database)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(LedgerError, match=r"locked.*run the same again"):
                steps.incremental(site)
        settle_down(world, site)
    assert broken(world) == []


@pytest.mark.postgres
def test_a_database_that_is_restarted_in_mid_work_is_told_and_the_work_goes_on(make_world, tmp_path):
    with empty_database("postgres", tmp_path) as url:
        name = f"ledger {tmp_path.name}"
        named = sa.make_url(url).update_query_dict({"application_name": name})
        world = make_world(settings={"ledger_url": named.render_as_string(hide_password=False)})
        with steps.quick_site(world.settings) as site:
            steps.initial(site)
            world.sandbox.ccs.change(20, seed=1)
            transition, ended = site.ccs.transition, []

            def restart_once(*args: object, **options: object) -> None:
                if not ended:
                    ended.append(end_sessions(url, name))
                transition(*args, **options)

            site.ccs.transition = restart_once  # type: ignore[method-assign]
            # Idle connections are looked at before use: what is between two transactions is not even told.
            steps.incremental(site)
            assert ended[0] > 0
            with pytest.raises(LedgerError, match="run the same again"):
                end_within(site, url, name)
            settle_down(world, site)
        assert broken(world) == []
        world.site.close()


def end_within(site: steps.Site, url: str, name: str) -> None:
    """Ends the sessions while a transaction is open."""
    with site.ledger.write() as db:
        db.execute(sa.text("SELECT 1"))
        end_sessions(url, name)
        db.execute(sa.text("SELECT 1"))


def end_sessions(url: str, name: str) -> int:
    """Ends every session under a name, as a restart of the server does; returns how many."""
    engine = sa.create_engine(sa.make_url(url).set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
    with engine.connect() as db:
        mine = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = :name"
        number = int(db.execute(sa.text(mine), {"name": name}).scalar_one())
    engine.dispose()
    return number
