"""Layout profiles (record-layouts.md, Profiles to ship, File dialect, Value maps)."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING

import pytest

from ccs_dacs_pipeline.entities import ENTITIES, LayoutError, load_profile
from ccs_dacs_pipeline.entities.profile import SHIPPED
from ccs_dacs_pipeline_tests.entities import oracle

if TYPE_CHECKING:
    from pathlib import Path

SHIPPED_TEXT = (resources.files("ccs_dacs_pipeline.entities") / "layouts" / "assumed-tail.toml").read_text(
    encoding="utf-8"
)

NAME = '{ name = "Name", source = "name", required = true, max_length = 254, mark = "D" }'


def site(folder: Path, *changes: tuple[str, str]) -> str:
    """Path of a copy of the default profile with changes."""
    text = SHIPPED_TEXT
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    path = folder / "site.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("entity", "columns"),
    [("contact", oracle.CONTACT), ("metered_service_point", oracle.MSP), ("metered_service", oracle.MS)],
)
def test_the_default_has_the_contracts_columns(
    entity: str, columns: dict[str, tuple[object, bool, int | None]]
) -> None:
    layout = load_profile("assumed-tail").entities[entity]
    assert [(c.name, c.required, c.max_length) for c in layout.columns] == [
        (name, required, limit) for name, (_, required, limit) in columns.items()
    ]
    assert layout.id_column == "External Id"


@pytest.mark.parametrize(
    ("entity", "documented"), [("contact", 13), ("metered_service_point", 12), ("metered_service", 11)]
)
def test_core_is_the_documented_columns_of_the_default(entity: str, documented: int) -> None:
    core, default = load_profile("core"), load_profile("assumed-tail")
    columns = default.entities[entity].columns
    assert core.entities[entity].columns == columns[:documented]
    assert [column.mark for column in columns] == ["D"] * documented + ["A"] * (len(columns) - documented)
    assert (core.dialect, core.value_maps) == (default.dialect, default.value_maps)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_profiles_say_their_source(name: str) -> None:
    profile = load_profile(name)
    assert profile.name == name
    assert "Oracle's public user guides" in profile.source
    assert "assumed" in profile.source


def test_the_default_dialect() -> None:
    dialect = load_profile("assumed-tail").dialect
    assert (dialect.separator, dialect.header, dialect.line_end, dialect.encoding) == ("\t", False, "\n", "utf-8")
    assert dialect.datetime_format == "ouaf"
    assert load_profile("core", datetime_format="xsd").dialect.datetime_format == "xsd"


def test_a_copy_of_a_shipped_profile_is_the_same(tmp_path: Path) -> None:
    assert load_profile(site(tmp_path)) == load_profile("assumed-tail")


def test_a_sites_profile_says_everything_a_site_may_change(tmp_path: Path) -> None:
    path = site(
        tmp_path,
        ('separator = "\\t"', 'separator = "|"'),
        ("header = false", "header = true"),
        ('line_end = "\\n"', 'line_end = "\\r\\n"'),
        ('encoding = "utf-8"', 'encoding = "iso8859-1"'),
        ('codes = { C = "D1CN", D = "D1DC" }', 'codes = { "01" = "D1CN" }'),
        (NAME, '{ name = "Nom", source = "name", required = true, max_length = 99, mark = "A" }'),
    )
    profile = load_profile(path)
    dialect = profile.dialect
    assert (dialect.separator, dialect.header, dialect.line_end, dialect.encoding) == ("|", True, "\r\n", "iso8859-1")
    assert profile.value_maps["sp_source_status"].codes == {"01": "D1CN"}
    column = profile.entities["contact"].columns[5]
    assert (column.name, column.max_length, column.mark) == ("Nom", 99, "A")


@pytest.mark.parametrize(
    ("old", "new", "column", "reason"),
    [
        (
            'source = "name"',
            'source = "nom"',
            "contact column Name",
            "there is no source nom; choose one of external_ref",
        ),
        (NAME, f"{NAME}, {NAME}", "contact column Name", "there twice"),
        ('source = "email"', 'source = "home_phone"', "contact column Home Phone", "same source home_phone"),
        (f"    {NAME},\n", "", "contact", "the required column with the source name is missing"),
        ('"external_id", required = true', '"external_id"', "contact column External Id", "required = true"),
        ("max_length = 254", 'max_length = "254"', "contact column Name, max_length", "valid integer"),
        ("max_length = 254", "max_length = 0", "contact column Name, max_length", "greater than 0"),
        ("max_length = 254", "max_lenght = 254", "contact column Name, max_lenght", "not permitted"),
        ('name = "Name"', 'name = "Na\\tme"', "contact column Na\tme", "control character"),
        ('name = "Name"', 'name = "*"', "contact column *", "pattern"),
        ('name = "Name"', 'name = "^Name$"', "contact column ^Name$", "pattern"),
        ('value_map = "person_type"', 'value_map = "people"', "contact column Contact Type", "add [value_maps.people]"),
        (
            'source = "latitude"',
            'source = "latitude", value_map = "division"',
            "metered_service_point column Latitude",
            "map",
        ),
        ("[entities.metered_service]", "[entities.meter]", "entity meter", "no such entity"),
        ('separator = "\\t"', 'separator = "ab"', "dialect.separator", "one control character"),
        ('separator = "\\t"', 'separator = "-"', "dialect.separator", "one control character"),
        ('line_end = "\\n"', 'line_end = ";"', "dialect.line_end", "Input should be"),
        ('encoding = "utf-8"', 'encoding = "utf-16"', "dialect.encoding", "choose utf-8 or a single-byte encoding"),
        ('encoding = "utf-8"', 'encoding = "utf-8-sig"', "dialect.encoding", "choose utf-8"),
        ('encoding = "utf-8"', 'encoding = "klingon"', "dialect.encoding", "unknown encoding"),
        ('encoding = "utf-8"', 'encoding = "shift_jis"', "dialect.encoding", "single-byte"),
        ('encoding = "utf-8"', 'encoding = "cp864"', "dialect.encoding", "single-byte"),
        ('encoding = "utf-8"', 'encoding = "idna"', "dialect.encoding", "single-byte"),
        ('encoding = "utf-8"', 'encoding = "undefined"', "dialect.encoding", "single-byte"),
        ('encoding = "utf-8"', 'encoding = "utf-8\\u0000"', "dialect.encoding", "single-byte"),
        ('"ouaf"\n', '"iso"\n', "dialect.datetime_format", "Input should be 'ouaf' or 'xsd'"),
        ('unlisted = "quarantine"', 'unlisted = "drop"', "value_maps.person_type.unlisted", "'pass' or 'quarantine'"),
        ('P = "Person"', '"P " = "Person"', "value map person_type", "can never be met"),
        ('P = "Person"', 'P = ""', "value map person_type", "give a code"),
        ('CELL = "mobile"', 'CELL = "cell"', "value map contact_detail_type", "business, email, home, mobile"),
        ("[value_maps.contact_detail_type]", "[value_maps.phones]", "value map contact_detail_type", "missing"),
        ('unlisted = "pass"', 'unlisted = "quarantine"', "value map contact_detail_type", "fills no column"),
        ('version = "1"', "version = 1", "version", "valid string"),
        ("[dialect]", "[dialect", None, "not a TOML file"),
    ],
)
def test_a_faulty_profile_is_refused_with_path_column_and_reason(
    tmp_path: Path, old: str, new: str, column: str | None, reason: str
) -> None:
    path = site(tmp_path, (old, new))
    with pytest.raises(LayoutError) as raised:
        load_profile(path)
    assert raised.value.path == path
    assert raised.value.column == column
    assert reason in raised.value.reason
    assert path in str(raised.value)


def test_a_columns_name_must_be_encodable_for_the_header(tmp_path: Path) -> None:
    path = site(tmp_path, ('encoding = "utf-8"', 'encoding = "ascii"'), ('name = "Name"', 'name = "Prénom"'))
    with pytest.raises(LayoutError, match="column Prénom: its name holds a character that ascii has not"):
        load_profile(path)


def test_a_missing_entity_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    path.write_text(SHIPPED_TEXT[: SHIPPED_TEXT.index("[entities.metered_service]")], encoding="utf-8")
    with pytest.raises(LayoutError, match=r"entity metered_service: its table is missing"):
        load_profile(str(path))


def test_a_sites_own_profile_may_have_any_file_name(tmp_path: Path) -> None:
    path = tmp_path / "layout"
    path.write_text(SHIPPED_TEXT, encoding="utf-8")
    assert load_profile(str(path)) == load_profile("assumed-tail")


@pytest.mark.parametrize(
    ("name", "reason"), [("tail", "core or assumed-tail"), ("/no/such/profile.toml", "cannot be read: No such file")]
)
def test_an_unknown_profile_is_refused(name: str, reason: str) -> None:
    with pytest.raises(LayoutError, match=reason):
        load_profile(name)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_bytes(b"name = '\xff'")
    with pytest.raises(LayoutError, match="not a TOML file in UTF-8"):
        load_profile(str(tmp_path / "site.toml"))


@pytest.mark.parametrize(
    "shape", ["entities = 3", "entities = { contact = 3 }", "dialect = 3", "[entities.contact]\ncolumns = [3]", ""]
)
def test_a_profile_of_another_shape_is_refused(tmp_path: Path, shape: str) -> None:
    (tmp_path / "site.toml").write_text(shape, encoding="utf-8")
    with pytest.raises(LayoutError):
        load_profile(str(tmp_path / "site.toml"), datetime_format="xsd")


def test_every_source_is_in_the_default_profile() -> None:
    profile = load_profile("assumed-tail")
    for entity in ENTITIES:
        assert {column.source for column in profile.entities[entity.name].columns} == set(entity.sources)
