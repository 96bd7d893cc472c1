"""The commands as an operator runs them: processes of their own, against a sandbox (interface.md, Commands).

Where a command is refused before it does anything, its entry point is called in this process instead, which is quicker.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import httpx
import pytest
import typer
from typer.testing import CliRunner

from ccs_dacs_pipeline.cli import dev
from ccs_dacs_pipeline.cli.app import app, main
from ccs_dacs_pipeline.ledger import life, report
from ccs_dacs_pipeline.sandbox import Sandbox, SandboxConfig
from ccs_dacs_pipeline.settings import PREFIX, load_settings
from ccs_dacs_pipeline.sync import start
from ccs_dacs_pipeline.sync.site import Site, inbox_caller
from ccs_dacs_pipeline_tests.canaries import Canaries
from ccs_dacs_pipeline_tests.folders.files import umask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

COMMAND = [sys.executable, "-m", "ccs_dacs_pipeline.cli"]
TIMEOUT = 60
BATCH = {"key", "mode", "state", "rerun", "created", "rows", "files"}
ENTITIES = ["contact", "metered_service_point", "metered_service"]


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output, which must be one JSON document and nothing else."""
        return json.loads(self.out)

    @property
    def said(self) -> str:
        """Standard error on one line, as it was before it was wrapped."""
        return " ".join(self.err.split())


@dataclass
class Operator:
    """Somebody at a terminal, with settings of a site; sees neither secrets nor personal values."""

    environment: dict[str, str]
    canaries: Canaries = field(default_factory=Canaries)
    sandbox: Sandbox | None = None

    def start(self, *words: str, **settings: str) -> subprocess.Popen[str]:
        """Starts a command; `settings` are changed for it alone, an empty one is left out."""
        mine = self.environment | {f"{PREFIX}{name}": value for name, value in settings.items()}
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith((PREFIX, "DAGSTER", "COV"))
        }
        environment |= {name: value for name, value in mine.items() if value} | {f"{PREFIX}ENV_FILE": ""}
        pipe = subprocess.PIPE
        return subprocess.Popen([*COMMAND, *words], env=environment, stdout=pipe, stderr=pipe, text=True)

    def end(self, process: subprocess.Popen[str]) -> Done:
        """Waits for a command's end."""
        try:
            out, err = process.communicate(timeout=TIMEOUT)
        finally:
            process.kill()
        assert self.canaries.in_text(out, err) == []
        assert "Traceback" not in err, err
        return Done(process.returncode, out, err)

    def run(self, *words: str, **settings: str) -> Done:
        """Runs a command to its end."""
        return self.end(self.start(*words, **settings))

    @contextmanager
    def serving(self, *words: str, **settings: str) -> Iterator[subprocess.Popen[str]]:
        """Runs a service while the block runs; it must end well when it is asked to."""
        process = self.start(*words, **settings)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            self.end(process)

    @property
    def world(self) -> Sandbox:
        """The sandbox, where there is one."""
        assert self.sandbox is not None
        return self.sandbox

    def with_site(self, work: Callable[[Site], Any]) -> Any:
        """Does something with the site that the settings describe, in this process."""
        names = {name.removeprefix(PREFIX).lower(): value for name, value in self.environment.items()}
        with Site(load_settings(**names)) as site:
            return work(site)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def settings_of(folder: Path, **values: str) -> dict[str, str]:
    defaults = {"DATA_DIR": str(folder), "LEASE_SECONDS": "5", "CCS_CALL_SECONDS": "5"}
    return {f"{PREFIX}{name}": value for name, value in (defaults | values).items()}


@contextmanager
def a_site(folder: Path, **values: Any) -> Iterator[Operator]:
    """A sandbox whose secrets and people's names are canaries, and an operator whose settings point to it."""
    canaries = Canaries()
    secrets = {name: canaries.plant(name) for name in ("CCS_PASSWORD", "ACK_TOKEN")}
    defaults = {"persons": 60, "poll_seconds": 0.02, "negative_share": 0.0, "upload_folder": folder / "upload"}
    config = SandboxConfig(
        **defaults | {"password": secrets["CCS_PASSWORD"], "inbox_token": secrets["ACK_TOKEN"]} | values
    )
    with Sandbox(config) as sandbox:
        for person, _ in list(sandbox.ccs.records("person"))[:3]:
            sandbox.ccs.edit("person", person, lambda one: one.update(canaries.planted({"names": one["names"]})))
        reach = {"CCS_BASE_URL": sandbox.base_url, "CCS_USERNAME": "sandbox", "ACK_AUTH": "bearer"}
        yield Operator(settings_of(folder, **reach, **secrets), canaries, sandbox)


@dataclass(frozen=True)
class Story:
    """Both syncs told once: the operator, and what each command said."""

    operator: Operator
    told: dict[str, Done]

    def __getitem__(self, command: str) -> Done:
        return self.told[command]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """An initial sync, changes, an incremental sync, answers through an inbox process, and every report."""
    folder = tmp_path_factory.mktemp("story")
    port = free_port()
    with a_site(folder, inbox_url=f"http://127.0.0.1:{port}") as operator:
        told: dict[str, Done] = {}

        def tell(*commands: str) -> None:
            started = {command: operator.start(*command.split()) for command in commands}
            told.update({command: operator.end(process) for command, process in started.items()})

        with operator.serving("acks", "serve", "--port", str(port)):
            tell("initial --json")
            operator.world.dacs.wait_until_idle(TIMEOUT)
            operator.world.ccs.change(10, seed=3)
            tell("sync --json")
            operator.world.dacs.wait_until_idle(TIMEOUT)
            tell("acks deliver --json")
        tell("status --json", "reconcile --json", "batch list --json", "batch show delta-1 --json", "reconcile")
        yield Story(operator, told)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Operator]:
    """A site of a test's own; nothing is synchronized, and the gate is open."""
    with a_site(tmp_path) as operator:
        yield operator


@pytest.fixture
def nowhere(tmp_path: Path) -> Operator:
    """An operator whose settings name a data folder and no CCS."""
    return Operator(settings_of(tmp_path))


@pytest.fixture
def refuse(
    nowhere: Operator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Done]:
    """Calls the entry point in this process, for a command that is to be refused; nothing is set but what is given."""

    def call(*words: str, **settings: str) -> Done:
        for name, value in (
            nowhere.environment | {f"{PREFIX}{name}": value for name, value in settings.items()}
        ).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["ccs-dacs", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return Done(ended.value.code, said.out, said.err)

    return call


def commands() -> Iterator[list[str]]:
    def below(group: Any, words: list[str]) -> Iterator[list[str]]:
        yield words
        for name, command in getattr(group, "commands", {}).items():
            yield from below(command, [*words, name])

    yield from below(typer.main.get_command(app), [])


class TestHelp:
    """Every command explains itself."""

    def test_every_command_of_the_contract_is_there(self):
        named = {" ".join(words) for words in commands()}
        assert named >= {
            *("demo", "sandbox", "initial", "resync", "sync", "acks serve", "acks deliver", "status", "reconcile"),
            *("transfer", "doctor"),
            *(f"batch {name}" for name in ("list", "show", "resume", "abort", "replay")),
            *(f"quarantine {name}" for name in ("list", "release", "reject")),
            "recover",
        }

    @pytest.mark.parametrize("words", list(commands()), ids=lambda words: " ".join(words) or "ccs-dacs")
    def test_every_command_says_what_it_does(self, words: list[str]):
        done = CliRunner().invoke(app, [*words, "--help"])
        assert done.exit_code == 0
        assert "Usage:" in done.output

    def test_an_unknown_command_is_wrong_usage(self, refuse: Callable[..., Done]):
        assert refuse("synchronise").code == 2


class TestReports:
    """What both syncs and the reports print."""

    def test_every_command_of_the_story_succeeds(self, story: Story):
        assert {command: done.err for command, done in story.told.items() if done.code} == {}

    def test_standard_output_is_the_report_alone(self, story: Story):
        """Progress, and the log lines of Dagster, go elsewhere or nowhere."""
        for command, done in story.told.items():
            if command.endswith("--json"):
                assert isinstance(done.json, dict)
            assert "dagster" not in done.out.lower()
            assert "dagster" not in done.err.lower()

    def test_initial_says_what_became_of_the_snapshot(self, story: Story):
        (shard,) = story["initial --json"].json["batches"]
        assert shard.keys() >= BATCH
        assert (shard["key"], shard["mode"], shard["state"]) == ("initial-1-01of01", "initial", "settled")
        assert shard["rerun"] == 0
        assert shard["rows"] > 60

    def test_sync_says_which_batches_it_made(self, story: Story):
        (batch,) = story["sync --json"].json["batches"]
        assert batch.keys() >= BATCH
        assert (batch["key"], batch["mode"]) == ("delta-1", "delta")
        assert len(batch["files"]) == 3

    def test_acks_deliver_leaves_nothing_due(self, story: Story):
        figures = story["acks deliver --json"].json
        assert figures["stillDue"] == 0
        assert figures["acknowledgements"]["delivered"] == figures["acknowledgements"]["stored"] > 0

    def test_status_has_the_members_of_the_contract(self, story: Story):
        figures = story["status --json"].json
        assert figures["gate"] == {"open": True, "heldBy": None}
        assert [one["key"] for one in figures["batches"]] == ["initial-1-01of01", "delta-1"]
        assert all(one.keys() >= BATCH for one in figures["batches"])
        assert set(figures["requests"]) == {"positive"}
        assert figures["acknowledgements"].keys() >= {"stored", "delivered", "parked", "contradicting", "duplicates"}
        assert [figures[name] for name in ("overdue", "suspect", "quarantined")] == [[], [], []]

    def test_reconcile_has_the_members_of_the_contract(self, story: Story):
        figures = story["reconcile --json"].json
        assert figures["holds"] is True
        assert [one["entity"] for one in figures["entities"]] == ENTITIES
        members = {"entity", "eligible", "written", "quarantined", "delivered", "acknowledgedYes", "acknowledgedNo"}
        for one in figures["entities"]:
            assert one.keys() >= members | {"awaiting", "difference"}
            assert one["difference"] == 0
        for batch in figures["batches"]:
            assert all(one.keys() == {"name", "left", "right", "holds"} for one in batch["equations"])

    def test_without_json_a_table_is_printed(self, story: Story):
        assert "All equations hold." in story["reconcile"].out
        assert all(name in story["reconcile"].out for name in ENTITIES)

    def test_batch_list_and_show(self, story: Story):
        keys = [one["key"] for one in story["batch list --json"].json["batches"]]
        assert keys == ["initial-1-01of01", "delta-1"]
        shown = story["batch show delta-1 --json"].json
        assert shown.keys() >= {"batches", "entities", "requests", "equations", "journal"}
        assert [one["event"] for one in shown["journal"]][:2] == ["batch created", "claimed"]

    def test_nothing_is_amiss_at_dacs(self, story: Story):
        assert story.operator.world.dacs.violations == []
        assert all(one.holds for one in story.operator.world.compare().values())


class TestWrongSettings:
    """Exit code 2 and the name of the setting."""

    @pytest.mark.parametrize(
        ("words", "settings", "named"),
        [
            ("status", {"CCS_PAGE_SIZE": "0"}, "CCS_DACS_CCS_PAGE_SIZE"),
            ("status", {"PAGE_SIZE": "100"}, "did you mean CCS_DACS_CCS_PAGE_SIZE?"),
            ("sync", {}, "CCS_DACS_CCS_BASE_URL is not set"),
            ("initial", {}, "CCS_DACS_CCS_BASE_URL is not set"),
            ("acks deliver", {"CCS_BASE_URL": "http://127.0.0.1:1"}, "CCS_DACS_CCS_USERNAME is not set"),
            ("initial", {"CCS_BASE_URL": "ftp://ccs", "CCS_AUTH": "none"}, "CCS_BASE_URL"),
            (
                "sync",
                {"EXTRACT_URL": "sftp://host/in", "CCS_BASE_URL": "http://[::1]:1", "CCS_AUTH": "none"},
                "CCS_DACS_EXTRACT_URL: not an sftp:// URL with user, host and path",
            ),
            (
                "initial",
                {"LAYOUT_PROFILE": "tail", "CCS_BASE_URL": "http://[::1]:1", "CCS_AUTH": "none"},
                "profile tail",
            ),
            (
                "initial",
                {
                    "EXTRACT_URL": "/tmp/ccs/out/",
                    "UPLOAD_URL": "file:///tmp/ccs/out",
                    "CCS_BASE_URL": "http://[::1]:1",
                    "CCS_AUTH": "none",
                },
                "CCS_DACS_UPLOAD_URL and CCS_DACS_EXTRACT_URL name one folder",
            ),
            (
                "initial",
                {"FRAMES_URL": "sftp://a@b/c", "CCS_BASE_URL": "http://[::1]:1", "CCS_AUTH": "none"},
                "CCS_DACS_FRAMES_URL: sftp:// cannot be used here",
            ),
            ("status", {"LEDGER_URL": "no URL at all"}, "CCS_DACS_LEDGER_URL"),
            ("status", {"LEDGER_URL": "postgresql://u:hushpw@127.0.0.1:abc/x"}, "CCS_DACS_LEDGER_URL"),
            ("status", {"LEDGER_URL": "postgresql://u:hushpw/x"}, "CCS_DACS_LEDGER_URL"),
            ("status", {"LEDGER_URL": "sqlite:///ledger.sqlite?timeout=hushpw"}, "CCS_DACS_LEDGER_URL"),
            ("acks serve", {}, "CCS_DACS_ACK_AUTH is not set"),
        ],
        ids=lambda value: value if isinstance(value, str) else "+".join(value) or "nothing set",
    )
    def test_they_are_named_and_nothing_is_done(self, refuse: Callable[..., Done], words, settings, named):
        done = refuse(*words.split(), **settings)
        assert (done.code, done.out) == (2, "")
        assert named in done.said
        assert "hushpw" not in done.said

    @pytest.mark.parametrize("home", ["file/home", "broken"])
    def test_a_home_of_dagster_that_cannot_be_used(
        self, refuse: Callable[..., Done], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, home: str
    ):
        (tmp_path / "file").touch()
        (tmp_path / "broken").mkdir()
        (tmp_path / "broken" / "dagster.yaml").write_text("storage: {unknown: 1}\n")
        monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / home))
        done = refuse("sync", CCS_BASE_URL="http://127.0.0.1:1", CCS_AUTH="none")
        assert (done.code, done.out) == (2, "")
        assert f"{tmp_path / home} " in done.said
        assert "DAGSTER_HOME" in done.said

    def test_a_new_home_of_dagster_is_nothing_for_others(
        self, refuse: Callable[..., Done], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ):
        monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
        with umask(0o022):
            refuse("sync", CCS_BASE_URL="http://127.0.0.1:1", CCS_AUTH="none")
        assert (tmp_path / "home").stat().st_mode & 0o777 == 0o750

    def test_a_process_ends_with_two_as_well(self, nowhere: Operator):
        done = nowhere.run("status", CCS_PAGE_SIZE="0")
        assert (done.code, done.out) == (2, "")
        assert done.said.startswith("CCS_DACS_CCS_PAGE_SIZE:")

    def test_a_snapshot_that_cannot_begin_does_not_hold_the_gate(self, refuse: Callable[..., Done], nowhere: Operator):
        reach = {"CCS_BASE_URL": "http://127.0.0.1:1", "CCS_AUTH": "none", "UPLOAD_URL": "s3://bucket/in"}
        done = refuse("initial", **reach)
        assert done.code == 2
        assert "CCS_DACS_UPLOAD_URL: object storage needs CCS_DACS_S3_ACCESS_KEY" in done.said

        def batches(site: Site) -> list[object]:
            with site.ledger.read() as db:
                return [*life.listed(db), *filter(None, [life.gate_holder(db)])]

        assert nowhere.with_site(batches) == []


class TestWrongUsage:
    """Exit code 2 and what to write instead."""

    @pytest.mark.parametrize(
        ("options", "reason"),
        [
            (["--entity", "person", "--low", "0000000000", "--high", "9999999999"], "An entity is contact"),
            (["--entity", "contact"], "Give either --ids FILE, or both --low and --high"),
            (["--entity", "contact", "--low", "12", "--high", "9999999999"], "'12' is no id"),
            (["--entity", "contact", "--low", "2000000000", "--high", "1000000000"], "--low is above --high"),
            (["--entity", "contact", "--ids", "{ids}"], "'12345' is no id: ids are 10 digits"),
        ],
        ids=["entity", "neither", "no id", "upside down", "file"],
    )
    def test_of_resync(self, refuse: Callable[..., Done], tmp_path: Path, options: list[str], reason: str):
        ids = tmp_path / "ids.txt"
        ids.write_text("5775933103\n12345\n", encoding="utf-8-sig")  # a byte order mark is no part of an id
        done = refuse("resync", *(one.format(ids=ids) for one in options))
        assert (done.code, done.out) == (2, "")
        assert reason in done.said

    @pytest.mark.parametrize("command", ["release", "reject"])
    def test_of_quarantine(self, refuse: Callable[..., Done], command: str):
        assert "An entity is contact" in refuse("quarantine", command, "person", "5775933103").said
        done = refuse("quarantine", command, "contact", "12345")
        assert (done.code, done.out) == (2, "")
        assert "'12345' is no id: ids are 10 digits" in done.said

    def test_of_quarantine_without_a_record(self, refuse: Callable[..., Done]):
        assert refuse("quarantine", "list", "--json").json == {"quarantined": []}
        done = refuse("quarantine", "reject", "contact", "5775933103")
        assert (done.code, done.out) == (1, "")
        assert "are not quarantined" in done.said

    @pytest.mark.parametrize("words", ["acks serve", "sandbox", "dev"])
    def test_a_port_that_is_none(self, refuse: Callable[..., Done], words: str):
        done = refuse(*words.split(), "--port", "70000", ACK_AUTH="bearer", ACK_TOKEN="t")
        assert (done.code, done.out) == (2, "")
        assert "--port" in done.said

    @pytest.mark.parametrize("command", ["show", "resume", "abort", "replay"])
    @pytest.mark.parametrize(
        ("key", "reason"),
        [
            ("delta-x", "names look like initial-7, delta-18 or resync-3"),
            ("initial-1-01of02", "name the whole snapshot, initial-1"),
        ],
    )
    def test_a_key_that_is_none(
        self,
        refuse: Callable[..., Done],
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
        command: str,
        key: str,
        reason: str,
    ):
        monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
        done = refuse("batch", command, key, CCS_BASE_URL="http://127.0.0.1:1", CCS_AUTH="none")
        assert (done.code, done.out) == (2, "")
        assert reason in done.said


class TestSync:
    """One incremental pass."""

    def test_nothing_pending_is_a_success(self, story: Story):
        done = story.operator.run("sync", "--json")
        assert (done.code, done.json) == (0, {"batches": [], "held": None})
        assert done.said == "nothing pending"

    def test_two_at_once_send_nothing_twice(self, site: Operator):
        touched = site.world.ccs.change(20, seed=7).sync_requests
        ended = [site.end(one) for one in [site.start("sync", "--json") for _ in range(2)]]
        assert [(one.code, one.err) for one in ended if one.code] == []
        keys = [batch["key"] for one in ended for batch in one.json["batches"]]
        assert keys == list(dict.fromkeys(keys))
        assert site.world.dacs.violations == []
        histories = [request.history for request in site.world.ccs.sync_requests()]
        assert len(histories) >= len(touched)
        assert all(history.count("AWAITINGACK") == 1 for history in histories)
        assert not any("SYNCHRONIZED" in history for history in histories)

    def test_a_failure_of_the_work_names_the_way_out_and_an_abort_ends_it(self, site: Operator):
        for person, _ in list(site.world.ccs.records("person"))[:30]:
            site.world.ccs.edit("person", person, lambda one: one.update(personOrBusiness="X "))
        failed = site.run("sync", "--json")
        assert (failed.code, failed.out) == (1, "")
        assert "30 of 30 person records are bad" in failed.said
        assert "`ccs-dacs batch resume delta-1`" in failed.said
        aborted = site.run("batch", "abort", "delta-1", "--json")
        assert aborted.code == 0
        assert aborted.json["batches"][0]["state"] == "aborted"
        assert site.world.ccs.summary()["sync_requests"]["ERROR"] == 30
        assert list((Path(site.environment[f"{PREFIX}DATA_DIR"]) / "upload").iterdir()) == []

    def test_another_file_of_its_name_stops_a_batch_until_it_is_moved_away(self, site: Operator):
        site.world.ccs.change(3, kinds=["person_phone"])
        other = Path(site.environment[f"{PREFIX}DATA_DIR"]) / "upload" / "C1-DCTEX_0001_00.csv"
        other.write_text("of somebody else")
        failed = site.run("sync")
        assert failed.code == 1
        for way_out in ("resume", "abort"):
            assert f"`ccs-dacs batch {way_out} delta-1`" in " ".join(failed.said.split())
        (stopped,) = site.run("batch", "list", "--json").json["batches"]
        assert (stopped["state"], "batch resume delta-1" in stopped["reason"]) == ("stopped", True)
        other.unlink()
        resumed = site.run("batch", "resume", "delta-1", "--json")
        assert (resumed.code, resumed.json["batches"][0]["state"]) == (0, "delivered")

    def test_an_abort_stands_though_ccs_cannot_be_told(self, site: Operator):
        site.world.ccs.change(5, kinds=["person_phone"])
        Path(site.environment[f"{PREFIX}DATA_DIR"], "upload", "C1-DCTEX_0001_00.csv").write_text("of somebody else")
        assert site.run("sync").code == 1
        away = {"CCS_BASE_URL": "http://127.0.0.1:1", "CCS_CALL_SECONDS": "1"}
        aborted = site.run("batch", "abort", "delta-1", "--json", **away)
        assert (aborted.code, aborted.json["batches"][0]["state"]) == (0, "aborted")
        assert "delta-1 is aborted. Its answers stay due, and go with `ccs-dacs acks deliver`" in aborted.said
        assert site.run("acks", "deliver", "--json").json["stillDue"] == 0

    def test_a_run_that_is_interrupted_says_how_it_goes_on(self, nowhere: Operator):
        with socket.create_server(("127.0.0.1", 0)) as silent:
            silent.settimeout(TIMEOUT)
            url = f"http://127.0.0.1:{silent.getsockname()[1]}"
            begun = nowhere.start("initial", CCS_BASE_URL=url, CCS_AUTH="none")
            with silent.accept()[0]:
                begun.send_signal(signal.SIGTERM)
                done = nowhere.end(begun)
        assert done.code == 1
        assert "interrupted; the same command goes on where it ended" in " ".join(done.said.split())

    def test_a_folder_that_fails_is_explained_in_its_own_words(self, site: Operator):
        nobody = {"S3_ENDPOINT": "http://127.0.0.1:1", "S3_ACCESS_KEY": "key", "S3_SECRET_KEY": "secret"}
        done = site.run("initial", UPLOAD_URL="s3://bucket/upload", **nobody)
        assert done.code == 1
        said = " ".join(done.said.split())
        assert "failed: s3://bucket/upload/C1-DCTIL_0001_00.csv: the storage failed or cannot be reached" in said
        assert "Look after CCS_DACS_S3_ENDPOINT" in said


class TestGate:
    """What an unfinished snapshot holds up."""

    def test_while_a_snapshot_holds_it_sync_succeeds_and_resync_says_what_to_do(self, site: Operator):
        site.with_site(lambda one: start.start_snapshot(one, 1, 1))
        everyone = ("--entity", "contact", "--low", "0000000000", "--high", "9999999999")
        started = [site.start("sync", "--json"), site.start("resync", *everyone)]
        held, resync = map(site.end, started)
        assert (held.code, held.json) == (0, {"batches": [], "held": "initial-1"})
        assert held.said == "held by snapshot 1"
        assert resync.code == 1
        assert "snapshot 1 holds the gate" in resync.said
        assert "`ccs-dacs batch abort initial-1`" in resync.said

    def test_a_batch_that_is_replayed_or_resumed_meanwhile_waits_and_says_for_what(self, site: Operator):
        site.world.ccs.change(3, kinds=["person_phone"])
        assert site.run("sync").code == 0
        site.with_site(lambda one: start.start_snapshot(one, 1, 1))
        for word in ("replay", "resume"):
            done = site.run("batch", word, "delta-1", "--json")
            assert (done.code, done.json["batches"][0]["state"]) == (0, "held"), done.err
            assert done.said == (
                "delta-1 is held by snapshot 1, and goes on with the next `ccs-dacs sync` after that is finished "
                "(`ccs-dacs initial`) or given up (`ccs-dacs batch abort initial-1`)."
            )
        site.with_site(lambda one: start.give_up(one, "initial-1"))
        (sent,) = site.run("sync", "--json").json["batches"]
        assert (sent["key"], sent["state"], sent["rerun"]) == ("delta-1", "delivered", 1)


class TestResyncAndReplay:
    """Sending again."""

    def test_a_resync_sends_the_ids_of_a_file_and_is_replayed_under_new_names(self, story: Story, tmp_path: Path):
        chosen = [person for person, _ in story.operator.world.ccs.records("person")][-3:]
        ids = tmp_path / "ids.txt"
        ids.write_text("\n".join(chosen))
        sent = story.operator.run("resync", "--entity", "contact", "--ids", str(ids), "--json")
        (batch,) = sent.json["batches"]
        assert (sent.code, batch["mode"], batch["rows"]) == (0, "resync", 3)
        ids.write_text(f"0000000001\n{chosen[0]}\n")
        partly = story.operator.run("resync", "--entity", "contact", "--ids", str(ids), "--json")
        assert (partly.code, partly.json["batches"][0]["rows"]) == (0, 1)
        assert partly.said == "1 contact of resync-2 not sent, for example 0000000001: CCS does not have it."
        nobody = story.operator.run("resync", "--entity", "contact", "--low", "0000000000", "--high", "0000000001")
        assert nobody.code == 1
        assert "CCS has no contact whose id is from 0000000000 to 0000000001" in nobody.said
        replayed = story.operator.run("batch", "replay", batch["key"], "--json").json["batches"][0]
        assert replayed["rerun"] == 1
        assert replayed["files"] == [name.replace("_00.csv", "_01.csv") for name in batch["files"]]


class TestServices:
    """Commands that run until they are stopped."""

    def test_the_inbox_takes_an_acknowledgement(self, nowhere: Operator):
        token, port = nowhere.canaries.plant("ACK_TOKEN"), free_port()
        with nowhere.serving("acks", "serve", "--port", str(port), ACK_AUTH="bearer", ACK_TOKEN=token) as inbox:
            assert inbox.stderr is not None
            assert inbox.stderr.readline().strip().endswith(f"http://127.0.0.1:{port}/acknowledgements")
            transport = httpx.HTTPTransport(retries=5)
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", transport=transport) as client:
                assert client.get("/health").json() == {"status": "ok"}
                item = {"syncRequestId": "85810617092033", "hasError": False}
                assert client.post("/acknowledgements", json=item).status_code == 401
                answer = client.post("/acknowledgements", json=item, headers={"Authorization": f"Bearer {token}"})
        assert answer.json() == {"accepted": 0, "duplicates": 0, "parked": 1, "refused": []}

        def parked(site: Site) -> int:
            with site.ledger.read() as db:
                return report.status(db, site.settings.ack_timeout)["acknowledgements"]["parked"]

        assert nowhere.with_site(parked) == 1

    def test_a_caller_that_goes_away_in_mid_body_leaves_no_traceback(self, nowhere: Operator):
        port = free_port()
        with nowhere.serving("acks", "serve", "--port", str(port), ACK_AUTH="bearer", ACK_TOKEN="t") as inbox:
            assert inbox.stderr is not None
            inbox.stderr.readline()
            lines = ("POST /acknowledgements HTTP/1.1", "Host: inbox", "Authorization: Bearer t", "Content-Length: 100")
            with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT) as caller:
                caller.sendall("\r\n".join([*lines, "", "["]).encode())
            assert httpx.get(f"http://127.0.0.1:{port}/health").json() == {"status": "ok"}

    def test_an_inbox_whose_port_is_taken_fails_and_names_it(self, nowhere: Operator):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            done = nowhere.run("acks", "serve", "--port", str(port), ACK_AUTH="bearer", ACK_TOKEN="t")
        assert (done.code, done.out) == (1, "")
        assert f"cannot listen on 127.0.0.1:{port} (Address already in use" in done.said

    def test_the_sandbox_says_its_address_first_and_serves(self, nowhere: Operator):
        with nowhere.serving("sandbox", "--persons", "20") as sandbox:
            assert sandbox.stdout is not None
            url = sandbox.stdout.readline().strip()
            assert httpx.get(f"{url}/sandbox/ccs/summary").json()["entities"]["person"] == 20

    def test_the_development_services_need_not_be_started_in_the_projects_folder(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ):
        started: list[list[str]] = []
        monkeypatch.setattr(subprocess, "Popen", started.append)
        monkeypatch.setattr(dev, "_supervise", lambda _: None)
        monkeypatch.chdir(tmp_path)
        with patch.dict(os.environ):
            settings = load_settings(data_dir=tmp_path, ccs_base_url="http://127.0.0.1:1")
            dev.run(settings, persons=1, seed=1, host="127.0.0.1", port=1)
        _, words = started
        assert "location_name: ccs_dacs_pipeline" in Path(words[words.index("-w") + 1]).read_text()

    def test_the_inbox_of_a_ccs_that_is_set_has_no_credential_that_others_know(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ):
        monkeypatch.setattr(subprocess, "Popen", lambda _: None)
        monkeypatch.setattr(dev, "_supervise", lambda _: None)
        callers = []
        for _ in range(2):
            with patch.dict(os.environ):
                settings = load_settings(data_dir=tmp_path, ccs_base_url="http://127.0.0.1:1")
                dev.run(settings, persons=1, seed=1, host="127.0.0.1", port=1)
                callers.append(inbox_caller(load_settings()))
        assert callers[0] != callers[1]

    def test_the_development_services_do_without_the_command_dg(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
        done = subprocess.run([*dev.dagster_command(), "--version"], check=True, capture_output=True, text=True)
        assert "dagster, version" in done.stdout


WITHOUT_CCS = {"CCS_AUTH": "none", "CCS_BASE_URL": "http://127.0.0.1:1", "FOREIGN_QUIET_SECONDS": "1"}


class TestTransfer:
    """One pass over the foreign files (interface.md, Foreign files)."""

    @pytest.fixture
    def folders(self, tmp_path: Path) -> tuple[Path, Path]:
        made = tmp_path / "extract", tmp_path / "upload"
        for folder in made:
            folder.mkdir()
        return made

    def test_files_are_moved_and_told(self, nowhere: Operator, folders: tuple[Path, Path]):
        extract, upload = folders
        (extract / "a.xml").write_text("<a/>")
        done = nowhere.run("transfer", "--json", FOREIGN_FILE_PATTERNS="*.xml", **WITHOUT_CCS)
        assert done.code == 0, done.said
        assert "waiting 1 s" in done.said
        (sent,) = done.json["sent"]
        assert (sent["name"], sent["bytes"]) == ("a.xml", 4)
        assert sent.keys() == {"name", "bytes", "sha256", "seconds"}
        assert (done.json["failed"], done.json["waiting"]) == ([], [])
        assert [path.name for path in upload.iterdir()] == ["a.xml"]
        assert list(extract.iterdir()) == []

    def test_one_that_fails_is_named_and_the_others_go_on(self, nowhere: Operator, folders: tuple[Path, Path]):
        extract, upload = folders
        for name in ("a.xml", "b[red].xml"):
            (extract / name).write_text("<a/>")
        (upload / "a.xml").write_text("<other/>")
        done = nowhere.run("transfer", FOREIGN_FILE_PATTERNS="*.xml", **WITHOUT_CCS)
        assert done.code == 1
        assert "a.xml is there with other content" in " ".join(done.out.split())
        assert "b[red].xml" in done.out
        assert [path.name for path in extract.iterdir()] == ["a.xml"]

    def test_a_name_that_is_no_text_is_named(self, nowhere: Operator, folders: tuple[Path, Path]):
        extract, _ = folders
        (extract / "good.xml").write_text("<a/>")
        Path(os.fsdecode(bytes(extract) + b"/bad\xff.xml")).write_text("<a/>")
        done = nowhere.run("transfer", "--json", FOREIGN_FILE_PATTERNS="*.xml", **WITHOUT_CCS)
        assert done.code == 1
        assert [one["name"] for one in done.json["sent"]] == ["good.xml"]
        assert [one["name"] for one in done.json["failed"]] == ["'bad\\udcff.xml'"]

    def test_without_patterns_it_says_what_is_missing(self, nowhere: Operator):
        done = nowhere.run("transfer", **WITHOUT_CCS)
        assert done.code == 2
        assert "CCS_DACS_FOREIGN_FILE_PATTERNS is not set" in done.said


class TestDoctor:
    """The preflight (what it names is tested with the work itself)."""

    def test_a_site_that_is_well(self, site: Operator):
        done = site.run("doctor", "--json", MAX_FILE_BYTES="1024")
        assert done.code == 0, done.out
        assert done.json["healthy"] is True
        for line in done.json["checks"]:
            assert line.keys() == {"check", "tried", "state", "result", "todo"}
            assert line["state"] in {"ok", "not tried"}

    def test_what_is_wrong_is_shown_with_what_to_do(self, site: Operator):
        done = site.run("doctor", MAX_FILE_BYTES="1024", CCS_USERNAME="somebody")
        assert done.code == 1
        shown = " ".join(done.out.split())
        assert "WRONG" in shown
        assert "401" in shown
        assert "Something is wrong." in shown

    def test_urls_that_are_none_are_lines_too(self, refuse: Callable[..., Done]):
        done = refuse(
            "doctor",
            "--json",
            LEDGER_URL="postgresql://u:hushpw@127.0.0.1:abc/x",
            INBOX_URL="http://127.0.0.1:80x",
            UPLOAD_URL="sftp://u:hush[pw]hushpw@host/x",
        )
        assert done.code == 1
        wrong = {line["check"] for line in done.json["checks"] if line["state"] == "wrong"}
        assert {"ledger", "inbox", "upload folder"} <= wrong
        assert "hushpw" not in done.out + done.err

    def test_a_wrong_setting_is_a_line_of_its_own(self, refuse: Callable[..., Done]):
        done = refuse("doctor", "--json", MANIFEST="perhaps")
        assert done.code == 1
        (line,) = done.json["checks"]
        assert (line["check"], line["state"]) == ("settings", "wrong")
        assert line["result"].startswith("CCS_DACS_MANIFEST: ")
