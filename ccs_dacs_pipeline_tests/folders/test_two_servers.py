"""Extract and upload folder on two SFTP servers: one entered by a password, the other one by a key."""

from pathlib import Path
from typing import Any

import pytest

from ccs_dacs_pipeline.settings import load_settings
from ccs_dacs_pipeline.sync.doctor import Line, examine
from ccs_dacs_pipeline.sync.site import Site, folder_access
from ccs_dacs_pipeline_tests.folders.conftest import Places
from ccs_dacs_pipeline_tests.folders.files import content, put


@pytest.fixture
def settings(places: Places, tmp_path: Path) -> dict[str, Any]:
    """What both servers need, each with settings of its own alone."""
    by_password, by_key = places.asyncssh, places.openssh
    return {
        "data_dir": tmp_path / "data",
        "extract_url": by_password.url(tmp_path / "extract"),
        "extract_sftp_password": by_password.access.password,
        "extract_sftp_known_hosts": by_password.access.known_hosts,
        "upload_url": by_key.url(tmp_path / "upload"),
        "upload_sftp_key_file": by_key.access.key_file,
        "upload_sftp_key_passphrase": by_key.access.key_passphrase,
        "upload_sftp_known_hosts": by_key.access.known_hosts,
    }


def look(settings: dict[str, Any]) -> dict[str, Line]:
    both = ("extract folder", "upload folder")
    return {line.check: line for line in examine(load_settings(**settings)) if line.check in both}


def test_each_folder_is_entered_with_its_own(settings: dict[str, Any], tmp_path: Path):
    with Site(load_settings(**settings)) as site:
        put(site.extract, "name", b"extract")
        put(site.upload, "name", b"upload")
        assert content(site.extract, "name") == (tmp_path / "extract" / "name").read_bytes() == b"extract"
        assert content(site.upload, "name") == (tmp_path / "upload" / "name").read_bytes() == b"upload"


def test_the_preflight_enters_both(settings: dict[str, Any]):
    assert {check: line.state for check, line in look(settings).items()} == {
        "extract folder": "ok",
        "upload folder": "ok",
    }


def test_an_absent_folder_of_a_server_is_said_to_be_absent_and_stays_so(settings: dict[str, Any], tmp_path: Path):
    (tmp_path / "there").mkdir()
    for name in ("extract", "upload"):
        settings[f"{name}_url"] += "/typo/folder"
    settings["extract_url"] = settings["extract_url"].replace("/extract/", "/there/")
    for line in look(settings).values():
        assert (line.state, "it is absent" in line.result) == ("ok", True)
    assert list((tmp_path / "there").iterdir()) == []
    assert not (tmp_path / "upload").exists()
    for name in ("there", "upload"):
        (tmp_path / name / "typo" / "folder").mkdir(parents=True)
    assert not any("it is absent" in line.result for line in look(settings).values())
    assert (tmp_path / "upload" / "typo" / "folder").exists()


def test_what_is_shared_holds_for_the_folder_without_its_own(settings: dict[str, Any]):
    for part in ("password", "known_hosts"):
        settings[f"sftp_{part}"] = settings.pop(f"extract_sftp_{part}")
    assert [line.state for line in look(settings).values()] == ["ok", "ok"]
    own = folder_access(load_settings(**settings), "upload")
    assert own.sftp_password is None  # which is meant for the other server


def test_shared_known_hosts_hold_for_a_folder_with_its_own_key(settings: dict[str, Any]):
    settings["sftp_known_hosts"] = settings.pop("upload_sftp_known_hosts")
    assert [line.state for line in look(settings).values()] == ["ok", "ok"]


def test_a_folders_own_command_goes_over_the_shared_one(settings: dict[str, Any]):
    loaded = load_settings(**settings, sftp_sha256_command="shared", upload_sftp_sha256_command="own")
    told = [folder_access(loaded, "extract").sftp_sha256_command, folder_access(loaded, "upload").sftp_sha256_command]
    assert told == ["shared", "own"]


@pytest.mark.parametrize("command", ["", " "])
def test_an_empty_command_is_none(settings: dict[str, Any], command: str):
    loaded = load_settings(**settings, sftp_sha256_command=command)
    assert folder_access(loaded, "upload").sftp_sha256_command is None


def test_the_preflight_tries_the_servers_command(settings: dict[str, Any]):
    settings["upload_sftp_sha256_command"] = "sha256sum"
    assert [line.state for line in look(settings).values()] == ["ok", "ok"]


@pytest.mark.parametrize(
    ("changed", "wrong", "named"),
    [
        ({"extract_sftp_password": "canary-wrong"}, "extract folder", "CCS_DACS_EXTRACT_SFTP_PASSWORD"),
        ({"upload_sftp_sha256_command": "false"}, "upload folder", "unset CCS_DACS_SFTP_SHA256_COMMAND, or the folder"),
        ({"upload_sftp_key_passphrase": "canary-wrong"}, "upload folder", "CCS_DACS_UPLOAD_SFTP_KEY_PASSPHRASE"),
        (
            {"upload_sftp_key_file": None, "upload_sftp_key_passphrase": None},
            "upload folder",
            "neither password nor key is set. Set CCS_DACS_SFTP_PASSWORD or",
        ),
    ],
)
def test_the_preflight_names_the_setting_in_force(
    settings: dict[str, Any], changed: dict[str, Any], wrong: str, named: str
):
    lines = look(settings | changed)
    assert {check for check, line in lines.items() if line.state == "wrong"} == {wrong}
    assert named in lines[wrong].result
    assert "canary" not in lines[wrong].result
