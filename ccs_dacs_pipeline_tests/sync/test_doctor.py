"""The preflight names what is wrong: the sandbox, a folder, the ledger or a setting is broken, one at a time."""

from __future__ import annotations

import json
import re
import shutil
import socket
import threading
from collections import namedtuple
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from ccs_dacs_pipeline.cli.services import served
from ccs_dacs_pipeline.dacs.inbox import BearerCaller, inbox
from ccs_dacs_pipeline.folders import LocalFolder
from ccs_dacs_pipeline.ledger import Ledger
from ccs_dacs_pipeline.sandbox import Sandbox, SandboxConfig
from ccs_dacs_pipeline.settings import load_settings
from ccs_dacs_pipeline.sync.doctor import Line, examine
from ccs_dacs_pipeline_tests.canaries import Canaries
from ccs_dacs_pipeline_tests.folders.files import public_directory, read_only

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from starlette.types import ASGIApp, Receive, Scope, Send

SEARCHES = ["search persons", "search servicePoints", "search serviceAgreements", "search syncRequests"]
CCS = ["CCS", "authentication", "clock", *SEARCHES, "transition"]
PROJECT = Path(__file__).parents[2]
CHECKS = [
    *("settings", "layout profile", "file name template", "time zone"),
    *CCS,
    *("extract folder", "upload folder", "frames folder", "Dagster's home", "free space", "ledger", "inbox"),
]
STORAGE = {"s3_access_key": "key", "s3_secret_key": "hushpw"}
TRANSITION = "/rest/apis/common/sync/syncRequest/"


def answering(part: str, status: int, body: object = "gateway") -> Callable[[ASGIApp], ASGIApp]:
    """A middleware that answers by itself whatever has `part` in its path."""

    def middleware(app: ASGIApp) -> ASGIApp:
        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http" or part not in scope["path"]:
                await app(scope, receive, send)
                return
            content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
            await send({"type": "http.response.start", "status": status, "headers": []})
            await send({"type": "http.response.body", "body": content})

        return answer

    return middleware


@contextmanager
def greeting() -> Iterator[int]:
    """A service that answers one caller as an SSH server does; yields its port."""

    def answer() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(1000)
            connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


@pytest.fixture
def look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., dict[str, Line]]]:
    """Looks at a site whose CCS is a sandbox; keyword arguments change sandbox, middleware and settings."""
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    canaries = Canaries()
    password = canaries.plant("CCS_PASSWORD")

    def look(*, middleware: Any = None, sandbox: dict[str, Any] | None = None, **settings: Any) -> dict[str, Line]:
        config = SandboxConfig(persons=20, password=password, **sandbox or {})
        with Sandbox(config, middleware=middleware) as running:
            defaults = {
                "data_dir": tmp_path,
                "ccs_base_url": running.base_url,
                "ccs_username": "sandbox",
                "ccs_password": password,
                "ccs_call_seconds": 5,
                "acknowledgements": "none",
                "max_file_bytes": 1024,
            }
            lines = list(examine(load_settings(**defaults | settings)))
            assert not running.dacs.violations
        assert [line.check for line in lines] == CHECKS
        assert canaries.in_text(repr(lines)) == []
        assert all(line.todo for line in lines if line.state == "wrong")
        return {line.check: line for line in lines}

    return look


def wrong(lines: dict[str, Line]) -> list[str]:
    return [check for check, line in lines.items() if line.state == "wrong"]


def test_a_site_that_is_well_has_no_wrong_line_and_is_left_as_it_was(
    look: Callable[..., dict[str, Line]], tmp_path: Path
):
    lines = look()
    assert {check: line.state for check, line in lines.items()} == dict.fromkeys(CHECKS, "ok") | {"inbox": "not tried"}
    assert {path.name for path in tmp_path.rglob("*")} <= {f"ledger.sqlite{end}" for end in ("", "-wal", "-shm")}


def test_another_form_of_answers_and_oauth_are_well_too(look: Callable[..., dict[str, Line]]):
    lines = look(sandbox={"plural_style": "list", "envelope": True, "page_cap": 1, "expects_acknowledgement": False})
    assert wrong(lines) == []


def test_oauth(tmp_path: Path):
    with Sandbox(SandboxConfig(persons=5, auth="oauth")) as sandbox:
        for secret, broken in (("sandbox", []), ("other", ["authentication"])):
            settings = load_settings(
                data_dir=tmp_path,
                ccs_base_url=sandbox.base_url,
                ccs_auth="oauth",
                ccs_token_url=f"{sandbox.base_url}/oauth/token",
                ccs_client_id="sandbox",
                ccs_client_secret=secret,
                acknowledgements="none",
                max_file_bytes=1024,
            )
            lines = {line.check: line for line in examine(settings)}
            assert wrong(lines) == broken
    assert lines["CCS"].state == "not tried"
    lines = {line.check: line for line in examine(settings)}
    assert wrong(lines) == ["authentication"]
    assert "cannot be reached" in lines["authentication"].result


EMPTY = {"limit": 0, "hasMore": False, "totalNumberOfRecords": 0}


class TestCcs:
    """Each broken state of CCS is named by its own line, and by no other."""

    @pytest.mark.parametrize(
        ("middleware", "broken", "said"),
        [
            pytest.param(answering("/rest/", 503), ["CCS"], "answered 503", id="down"),
            pytest.param(answering("/rest/", 302), ["CCS"], "redirect", id="moved"),
            pytest.param(answering("/rest/", 403), ["authentication"], "give this user the right", id="no right"),
            pytest.param(answering("healthCheck", 404), ["CCS"], "refused with 404", id="no health check"),
            pytest.param(answering("healthCheck", 200, {"healthOverallResponse": 500}), ["CCS"], "not well", id="ill"),
            pytest.param(answering("healthCheck", 200, "<html>"), ["CCS"], "JSON", id="a page instead"),
            *(
                pytest.param(answering(f"{name.split()[1]}/search", 404), [name], "refused with 404", id=f"no {name}")
                for name in SEARCHES
            ),
            pytest.param(
                answering("persons/search", 403), ["search persons"], "refused with 403", id="no right to one"
            ),
            pytest.param(
                answering("persons/search", 200, {"totalNumberOfRecords": 0, "personList": []}),
                ["search persons"],
                "hasMore",
                id="no hasMore",
            ),
            pytest.param(
                answering("persons/search", 200, {**EMPTY, "totalNumberOfRecords": 5, "personList": []}),
                ["search persons"],
                "counts 5 entities and gives 0",
                id="a count without entities",
            ),
            pytest.param(
                answering(
                    "persons/search",
                    200,
                    {**EMPTY, "totalNumberOfRecords": 2, "personList": [{"personId": f"000000000{n}"} for n in (1, 2)]},
                ),
                ["search persons"],
                "`limit` is not obeyed",
                id="no limit",
            ),
            pytest.param(answering("persons/search", 200, "<html>"), ["search persons"], "JSON", id="a page for one"),
            pytest.param(answering("syncRequests", 200, {"a": 1}), [SEARCHES[3]], "totalNumberOf", id="another form"),
            pytest.param(answering(TRANSITION, 404), ["transition"], "refused with 404", id="no transition"),
            pytest.param(answering(TRANSITION, 405), ["transition"], "refused with 405", id="no PATCH"),
            pytest.param(answering(TRANSITION, 403), ["transition"], "refused with 403", id="no right to PATCH"),
            pytest.param(answering(TRANSITION, 204, ""), ["transition"], "does not exist", id="takes anything"),
        ],
    )
    def test_a_broken_state(self, look: Callable[..., dict[str, Line]], middleware: Any, broken: list[str], said: str):
        lines = look(middleware=middleware)
        assert wrong(lines) == broken
        assert said in lines[broken[0]].result

    def test_nothing_listens(self, look: Callable[..., dict[str, Line]]):
        lines = look(ccs_base_url="http://127.0.0.1:1")
        assert wrong(lines) == ["CCS"]
        assert "cannot be reached" in lines["CCS"].result
        assert {lines[check].state for check in CCS[1:]} == {"not tried"}

    def test_a_wrong_password(self, look: Callable[..., dict[str, Line]]):
        lines = look(ccs_password="wrong")
        assert wrong(lines) == ["authentication"]
        assert lines["CCS"].state == "ok"
        assert {lines[check].state for check in CCS[2:]} == {"not tried"}

    @pytest.mark.parametrize(("skew", "broken"), [(300, ["clock"]), (-300, ["clock"]), (10, [])])
    def test_another_clock(self, look: Callable[..., dict[str, Line]], skew: float, broken: list[str]):
        lines = look(sandbox={"clock_skew_seconds": skew})
        assert wrong(lines) == broken
        found = re.search(r"by ([+-][0-9]+) s", lines["clock"].result)
        assert found
        assert abs(int(found[1]) - skew) < 5

    def test_pending_requests_are_left_as_they_are(self, tmp_path: Path):
        with Sandbox(SandboxConfig(persons=20)) as sandbox:
            sandbox.ccs.change(10)
            before = sandbox.ccs.summary()
            settings = load_settings(
                data_dir=tmp_path, ccs_base_url=sandbox.base_url, ccs_username="sandbox", ccs_password="sandbox"
            )
            lines = {line.check: line for line in examine(settings)}
            assert "business error" in lines["transition"].result
            assert sandbox.ccs.summary() == before


class TestHere:
    """What is wrong on this side."""

    @pytest.mark.parametrize(
        ("settings", "broken", "said"),
        [
            ({"ccs_base_url": ""}, ["settings"], "CCS_DACS_CCS_BASE_URL is not set"),
            ({"ccs_base_url": "http://ccs.example.com"}, ["settings"], "https"),
            ({"ccs_username": ""}, ["settings"], "CCS_DACS_CCS_USERNAME is not set"),
            ({"acknowledgements": "expected"}, ["settings"], "CCS_DACS_ACK_AUTH is not set"),
            ({"ccs_ca_file": "/nowhere.pem"}, ["settings"], "CCS_CA_FILE"),
            ({"layout_profile": "/nowhere.toml"}, ["layout profile"], "/nowhere.toml"),
            ({"file_name_template": "{batchCode}.csv"}, ["file name template"], "lacks"),
            ({"upload_url": "ftp://example.com/x"}, ["upload folder"], "unknown scheme"),
            ({"inbox_url": "http://127.0.0.1:1"}, ["inbox"], "cannot be reached"),
            ({"ledger_url": "postgresql://nobody:x@127.0.0.1:1/x"}, ["ledger"], "CCS_DACS_LEDGER_URL"),
            ({"ledger_url": "no url"}, ["ledger"], "cannot be opened"),
            ({"ledger_url": "postgresql://u:hushpw@127.0.0.1:hushpw/x"}, ["ledger"], "cannot be opened (ValueError)"),
            ({"ledger_url": "sqlite:///x.sqlite?timeout=hushpw"}, ["ledger"], "cannot be opened (ValueError)"),
            ({"inbox_url": "http://127.0.0.1:80x"}, ["inbox"], "InvalidURL"),
            ({"upload_url": "sftp:/u:hushpw@host/x"}, ["upload folder"], "begins like a URL"),
            (
                {"upload_url": "s3://bucket/x", **STORAGE, "s3_endpoint": "https://host:99999"},
                ["upload folder"],
                "65535",
            ),
            ({"upload_url": "s3://bucket/x", **STORAGE, "s3_ca_file": __file__}, ["upload folder"], "S3_CA_FILE"),
            ({"extract_url": "ftp://x/y"}, ["extract folder"], "CCS_DACS_EXTRACT_URL: unknown scheme"),
            ({"frames_url": "sftp://a@b/c"}, ["frames folder"], "CCS_DACS_FRAMES_URL: sftp:// cannot be used here"),
            ({"frames_url": f"{__file__}/x"}, ["frames folder"], f"{__file__}/x: "),
        ],
    )
    def test_a_wrong_setting(
        self, look: Callable[..., dict[str, Line]], settings: dict[str, str], broken: list[str], said: str
    ):
        lines = look(**settings)
        assert wrong(lines) == broken
        assert said in lines[broken[0]].result
        assert "hushpw" not in repr(lines)

    @pytest.mark.parametrize(
        ("home", "said"), [("/proc/x", "/proc/x"), ("~nobody-of-that-name/x", "DAGSTER_HOME begins with a ~")]
    )
    def test_a_home_of_dagster_that_cannot_be_used(
        self, look: Callable[..., dict[str, Line]], monkeypatch: pytest.MonkeyPatch, home: str, said: str
    ):
        monkeypatch.setenv("DAGSTER_HOME", home)
        lines = look()
        assert wrong(lines) == ["Dagster's home"]
        assert said in lines["Dagster's home"].result
        assert "DAGSTER_HOME" in lines["Dagster's home"].todo

    def test_absent_folders_are_said_to_be_absent_and_stay_so(
        self, look: Callable[..., dict[str, Line]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        (tmp_path / "there").mkdir()
        monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "typo" / "home"))
        names = ("extract", "upload", "frames")
        monkeypatch.chdir(tmp_path)
        lines = look(**{f"{name}_url": str(tmp_path / "typo" / name) for name in names} | {"upload_url": "there"})
        assert wrong(lines) == []
        absent = [check for check, line in lines.items() if "is absent" in line.result]
        assert absent == ["extract folder", "frames folder", "Dagster's home"]
        assert (tmp_path / "there").exists()
        assert not (tmp_path / "typo").exists()

    def test_a_wrong_extract_folder_leaves_the_upload_folder_its_room(
        self, look: Callable[..., dict[str, Line]], tmp_path: Path
    ):
        for name in ("upload", "frames"):
            (tmp_path / name).mkdir()
        room = look(extract_url="ftp://x/y")["free space"].result
        assert f"{tmp_path / 'upload'}: " in room
        assert f"{tmp_path / 'frames'}: " in room

    def test_another_service_where_the_inbox_should_be(self, look: Callable[..., dict[str, Line]]):
        with greeting() as port:
            lines = look(inbox_url=f"http://127.0.0.1:{port}")
        assert wrong(lines) == ["inbox"]
        assert "or another service answers (BadStatusLine)" in lines["inbox"].result
        assert "CCS_DACS_INBOX_URL" in lines["inbox"].todo

    def test_settings_that_are_missing_for_ccs_and_for_the_inbox_are_named_together(
        self, look: Callable[..., dict[str, Line]]
    ):
        said = look(ccs_username="", acknowledgements="expected")["settings"].result
        assert "CCS_DACS_CCS_USERNAME" in said
        assert "CCS_DACS_ACK_AUTH" in said

    def test_both_folders_the_same(self, look: Callable[..., dict[str, Line]], tmp_path: Path):
        lines = look(upload_url=str(tmp_path / "extract"))
        assert wrong(lines) == ["upload folder"]
        assert "name one folder" in lines["upload folder"].result

    @pytest.mark.parametrize("which", ["extract", "upload"])
    def test_a_folder_that_cannot_be_written(self, look: Callable[..., dict[str, Line]], which: str):
        with public_directory() as folder, public_directory() as data:
            data.chmod(0o777)  # what else is written is written by the same user, who is not root there
            with read_only(folder):
                lines = look(**{f"{which}_url": str(folder), "data_dir": data})
        assert wrong(lines) == [f"{which} folder"]
        assert "Permission denied" in lines[f"{which} folder"].result

    def test_a_folder_that_lets_files_be_replaced(
        self, look: Callable[..., dict[str, Line]], monkeypatch: pytest.MonkeyPatch
    ):
        place = LocalFolder.place
        monkeypatch.setattr(LocalFolder, "place", lambda *arguments, **_: place(*arguments, replace=True))
        lines = look()
        assert wrong(lines) == ["extract folder", "upload folder"]
        assert "replace the first" in lines["upload folder"].result

    def test_a_full_disk(self, look: Callable[..., dict[str, Line]], monkeypatch: pytest.MonkeyPatch):
        usage = namedtuple("usage", "free")
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(2047))
        lines = look()
        assert wrong(lines) == ["free space"]

    @pytest.mark.parametrize(("version", "said"), [("0001", "`ccs-dacs status`"), ("9999", "newer program")])
    def test_a_ledger_of_another_version(
        self, look: Callable[..., dict[str, Line]], tmp_path: Path, version: str, said: str
    ):
        with Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}") as ledger:
            ledger.migrate()
            with ledger.write() as db:
                db.execute(sa.text("UPDATE alembic_version SET version_num = :version"), {"version": version})
        lines = look()
        assert wrong(lines) == ["ledger"]
        assert said in lines["ledger"].result

    def test_an_inbox_that_is_well_and_one_that_is_none(self, look: Callable[..., dict[str, Line]], tmp_path: Path):
        with Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}") as ledger:
            ledger.migrate()
            with served(inbox(ledger, BearerCaller("token"), max_bytes=1000)) as url:
                assert look(inbox_url=url)["inbox"].state == "ok"
        with Sandbox(SandboxConfig(persons=1)) as other:
            lines = look(inbox_url=other.base_url)
        assert wrong(lines) == ["inbox"]
        assert "answers 404" in lines["inbox"].result


OWN = (PROJECT / "dagster.yaml").read_text()
OLDER_FORM = """
run_monitoring:
  {enabled: true, start_timeout_seconds: 60, cancel_timeout_seconds: 60, max_runtime_seconds: 60,
  free_slots_after_run_end_seconds: 60}
run_queue:
  tag_concurrency_limits: [{key: ccs_dacs/lane, value: {applyLimitPerUniqueValue: true}, limit: 1}]
"""


class TestDagsterHome:
    """Dagster's folder and the dagster.yaml in it."""

    @pytest.mark.parametrize("text", [OWN, OLDER_FORM], ids=["the project's own", "the older form"])
    def test_one_that_is_well(self, look: Callable[..., dict[str, Line]], tmp_path: Path, text: str):
        (tmp_path / "dagster").mkdir()
        (tmp_path / "dagster" / "dagster.yaml").write_text(text)
        lines = look()
        assert lines["Dagster's home"].state == "ok", lines["Dagster's home"]
        assert [path.name for path in (tmp_path / "dagster").iterdir()] == ["dagster.yaml"]

    def test_one_without_its_file_says_who_needs_it(self, look: Callable[..., dict[str, Line]], tmp_path: Path):
        lines = look()
        assert lines["Dagster's home"].state == "ok"
        assert "services need it before" in lines["Dagster's home"].result
        assert not (tmp_path / "dagster").exists()

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("storage: {password: hushpw\n", "cannot be read as YAML"),
            ("- hushpw\n", "run_monitoring.enabled"),
            ("", "limit 1 of ccs_dacs/lane incremental"),
            (OWN.replace("enabled: true", "enabled: false"), "lacks run_monitoring.enabled."),
            (OWN.replace("  max_runtime_seconds: 43200\n", ""), "lacks run_monitoring.max_runtime_seconds."),
            (OWN.replace('value: "transfers"', 'value: "t"'), "lacks limit 1 of ccs_dacs/lane transfers."),
            (OWN.replace("limit: 1", "limit: 2", 1), "lacks limit 1 of ccs_dacs/lane incremental."),
            (OWN.replace("QueuedRunCoordinator", "DefaultRunCoordinator"), "run_coordinator QueuedRunCoordinator"),
        ],
    )
    def test_a_file_that_lacks_what_the_projects_has(
        self, look: Callable[..., dict[str, Line]], tmp_path: Path, text: str, said: str
    ):
        (tmp_path / "dagster").mkdir()
        (tmp_path / "dagster" / "dagster.yaml").write_text(text)
        lines = look()
        assert wrong(lines) == ["Dagster's home"]
        assert said in lines["Dagster's home"].result
        assert "hushpw" not in repr(lines)
