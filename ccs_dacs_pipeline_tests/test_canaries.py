"""The canaries are found wherever a careless program could leave them: else their absence would prove nothing."""

import base64
import gzip
import json
import sqlite3
import zipfile
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import dagster as dg
import pytest

from ccs_dacs_pipeline_tests.canaries import Canaries, Sighting

WAYS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "in upper case": str.upper,
    "in capitals": str.title,
    "escaped as JSON": lambda value: json.dumps({"name": f'"\t{value}'}),
    "quoted in a URL": lambda value: quote(f"https://ccs.example.com/?name= {value}"),
    "in a Basic header": lambda value: "Basic " + base64.b64encode(f"user:{value}".encode()).decode(),
}


@pytest.mark.parametrize("write", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("lead", ["", "x", "xx"])
def test_a_canary_is_found_in_text(write: Callable[[str], str], lead: str):
    canaries = Canaries()
    canaries.plant("other")
    value = canaries.plant("name", f"{lead}{{}}, Zo\u00eb")
    assert canaries.in_text("nothing", f"a line with {write(value)} in it") == [Sighting("name", "text 1")]


def write_gzip(path: Path, value: str) -> None:
    path.write_bytes(gzip.compress(value.encode()))


def write_zip(path: Path, value: str) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inner.gz", gzip.compress(value.encode()))


def write_cell(path: Path, value: str | bytes) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("CREATE TABLE snapshots (id INTEGER, body BLOB)")
        db.execute("INSERT INTO snapshots VALUES (1, ?)", [value])


FILES: dict[str, Callable[[Path, str], object]] = {
    "a log": lambda path, value: path.write_text(f"INFO {value}\n"),
    "a gzip file": write_gzip,
    "an archive in an archive": write_zip,
    "text of a database": write_cell,
    "a compressed cell of a database": lambda path, value: write_cell(path, zlib.compress(value.encode())),
    "the name of a file": lambda path, value: path.with_name(value).touch(),
    "the name of a folder": lambda path, value: path.with_name(value).mkdir(),
}


@pytest.mark.parametrize("write", FILES.values(), ids=FILES)
def test_a_canary_is_found_in_files(tmp_path: Path, write: Callable[[Path, str], object]):
    canaries = Canaries()
    (tmp_path / "deep").mkdir()
    write(tmp_path / "deep" / "file", canaries.plant("name"))
    assert {one.label for one in canaries.under(tmp_path)} == {"name"}
    assert all("deep" in one.place for one in canaries.under(tmp_path))


def test_a_canary_is_found_in_what_dagster_keeps_of_a_run(tmp_path: Path):
    canaries = Canaries()
    values = {
        place: canaries.plant(place) for place in ("metadata", "log", "exception", "tag", "output", "description")
    }

    @dg.op(description=values["description"])
    def leaking(context: dg.OpExecutionContext) -> None:
        context.log.info(values["log"])
        print(values["output"])  # noqa: T201 - what a library prints goes to the compute logs
        context.log_event(dg.AssetObservation("person", metadata={"name": values["metadata"]}))
        raise ValueError(values["exception"])

    @dg.job
    def leak() -> None:
        leaking()

    with dg.DagsterInstance.local_temp(str(tmp_path), overrides={"telemetry": {"enabled": False}}) as instance:
        leak.execute_in_process(instance=instance, raise_on_error=False, tags={"name": values["tag"]})
        assert {one.label for one in canaries.under(tmp_path)} == values.keys()


def test_where_there_is_none_none_is_found(tmp_path: Path):
    canaries = Canaries()
    assert canaries.in_text("anything") == []
    canaries.plant("name")
    (tmp_path / "x").write_bytes(b"\x78\x9cno zlib")
    assert canaries.under(tmp_path) == []
    assert canaries.in_text("", "Basic dXNlcjpwYXNzd29yZA==") == []


def test_the_personal_values_of_an_entity_become_canaries_and_nothing_else():
    canaries = Canaries()
    person = {
        "personId": "5775933103",
        "names": {"namesList": [{"nameType": "PRIM", "firstName": "John", "lastName": None}]},
        "emailAddress": "john.reddy@example.com",
    }
    planted = canaries.planted(person)
    assert isinstance(planted, dict)
    assert planted["personId"] == "5775933103"
    assert planted["names"]["namesList"][0]["nameType"] == "PRIM"
    assert planted["names"]["namesList"][0]["lastName"] is None
    assert [one.label for one in canaries.in_text(json.dumps(planted))] == ["emailAddress", "firstName"]
    assert person["emailAddress"] == "john.reddy@example.com"


def test_every_secret_of_a_site_is_planted():
    canaries = Canaries()
    planted = canaries.settings()
    assert {one.label for one in canaries.in_text(*planted.values())} == planted.keys()
