"""The manifest (record-layouts.md, File names)."""

import json

import pytest

from ccs_dacs_pipeline.dacs.manifest import Manifest, ManifestError, ManifestFile, parse_manifest, render_manifest

FILES = (
    ManifestFile("C1-DCTEX_0018_00.csv", "contact", 2, 120, "ab" * 32),
    ManifestFile("C1-DMSEX_0018_00.csv", "metered_service", 1, 80, "cd" * 32),
)
RENDERED = render_manifest("delta-18", "delta", 0, "assumed-tail", FILES)


def test_a_manifest_has_the_documented_members():
    assert json.loads(RENDERED) == {
        "batch": "delta-18",
        "mode": "delta",
        "rerun": 0,
        "profile": "assumed-tail",
        "files": [
            {"name": "C1-DCTEX_0018_00.csv", "entity": "contact", "rows": 2, "bytes": 120, "sha256": "ab" * 32},
            {"name": "C1-DMSEX_0018_00.csv", "entity": "metered_service", "rows": 1, "bytes": 80, "sha256": "cd" * 32},
        ],
    }


def test_a_manifest_is_read_back_as_it_was_rendered():
    assert parse_manifest(RENDERED) == Manifest("delta-18", "delta", 0, "assumed-tail", FILES)


def test_the_same_batch_gives_the_same_bytes():
    assert render_manifest("delta-18", "delta", 0, "assumed-tail", list(FILES)) == RENDERED


def test_members_of_a_later_version_are_ignored():
    later = json.loads(RENDERED) | {"signature": "x"}
    assert parse_manifest(json.dumps(later).encode()) == parse_manifest(RENDERED)


@pytest.mark.parametrize(
    ("member", "value", "named"),
    [("files", None, "files"), ("mode", "full", "mode"), ("rerun", "0", "rerun"), ("rerun", -1, "rerun")],
)
def test_a_wrong_member_is_named(member: str, value: object, named: str):
    with pytest.raises(ManifestError, match=named):
        parse_manifest(json.dumps(json.loads(RENDERED) | {member: value}).encode())


def test_a_wrong_member_of_a_file_is_named_with_its_place():
    broken = json.loads(RENDERED)
    broken["files"][1]["sha256"] = "canary"
    with pytest.raises(ManifestError, match=r"files\.1\.sha256") as caught:
        parse_manifest(json.dumps(broken).encode())
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("data", [b"", RENDERED[:-20], b"[]", b"\xff"])
def test_what_is_no_manifest_is_refused(data: bytes):
    with pytest.raises(ManifestError):
        parse_manifest(data)
