"""README and docs are those of the code: the table of settings, the commands, the ledger's tables, pages and links."""

import ast
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import typer
from pydantic import SecretStr
from pydantic_core import PydanticUndefined, to_json

from ccs_dacs_pipeline.cli.app import app
from ccs_dacs_pipeline.entities import ENTITIES, Entity
from ccs_dacs_pipeline.ledger.schema import metadata
from ccs_dacs_pipeline.settings import PREFIX, Settings

PROJECT = Path(__file__).parents[1]
README = (PROJECT / "README.md").read_text(encoding="utf-8")
PAGES = ["README.md", *(f"docs/{path.name}" for path in (PROJECT / "docs").glob("*.md"))]
BEGIN, END = "<!-- settings: begin -->\n", "<!-- settings: end -->"


def settings_table() -> str:
    """Renders every setting: variable, meaning, default."""
    rows = [
        f"| `{PREFIX}{name.upper()}` | {field.description} | {default_of(field.default)} |\n"
        for name, field in Settings.model_fields.items()
    ]
    return "".join(["| variable | meaning | default |\n", "|---|---|---|\n", *rows])


def default_of(value: Any) -> str:
    """Returns a default as it would be written into the environment; a dash for none."""
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if value is PydanticUndefined or value is None or value in ("", frozenset(), {}):
        return "-"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, timedelta):
        return f"`{to_json(value).decode().strip(chr(34))}`"
    return f"`{value}`"


def test_the_table_of_settings_is_the_one_of_the_code():
    written = README.partition(BEGIN)[2].partition(END)[0]
    right = settings_table()
    assert written == right, f"README.md, between {BEGIN.strip()} and {END}, must read:\n{right}"


def test_env_example_names_settings_only():
    lines = (PROJECT / ".env.example").read_text(encoding="utf-8").splitlines()
    names = [line.lstrip("# ").partition("=")[0] for line in lines if line.lstrip("# ").startswith(PREFIX)]
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields} | {f"{PREFIX}SECRETS_DIR"}
    assert names
    assert set(names) <= known


def test_every_command_is_told():
    groups = typer.main.get_command(app).commands
    names = [
        f"{name} {inner}".strip() for name, one in groups.items() for inner in getattr(one, "commands", {"": None})
    ]
    assert [name for name in names if f"`ccs-dacs {name}" not in README and f"`{name} " not in README] == []


def test_status_says_of_itself_what_the_readme_says_of_it():
    told = dict(re.findall(r"^\| `ccs-dacs (\w+)` \| (.+) \|$", README, re.MULTILINE))
    status = typer.main.get_command(app).commands["status"]
    assert status.help.removesuffix(".").lower() == told["status"]


@pytest.mark.parametrize("entity", ENTITIES, ids=lambda entity: entity.source)
def test_every_member_that_ccs_gives_is_told(entity: Entity):
    page = (PROJECT / "docs/interfaces.md").read_text(encoding="utf-8")
    section = page.partition(f"\n**{entity.source_label}s** become")[2].partition("\n\n**")[0].partition("\n#")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("|")]
    told = {member for row in rows for name in re.findall("`([^`]+)`", row) for member in name.split(".")}
    assert told == {*members(pl.Struct(entity.schema)), *entity.plural_members.values()}


def members(dtype: object) -> Iterator[str]:
    """Yields the names of all members of a record, however deep."""
    if isinstance(dtype, pl.List):
        yield from members(dtype.inner)
    elif isinstance(dtype, pl.Struct):
        for field in dtype.fields:
            yield field.name
            yield from members(field.dtype)


def test_every_table_of_the_ledger_is_told():
    page = (PROJECT / "docs/architecture.md").read_text(encoding="utf-8")
    section = page.partition("\n## The ledger\n")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("|")]
    told = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert told == metadata.tables.keys()


@pytest.mark.parametrize("page", [*PAGES, ".env.example"])
def test_what_goes_into_an_environment_file_has_no_comment_behind_a_value(page: str):
    """For systemd it would be a part of the value."""
    lines = (PROJECT / page).read_text(encoding="utf-8").splitlines()
    written = [line for line in lines if re.match(rf"(# ?)?{PREFIX}\w+=", line)]
    assert [line for line in written if re.search(r"=(\S*\s{2,}|.*\s#)", line)] == []


def test_texts_that_the_program_shows_name_pages_that_are_there():
    """Docstrings and comments may name the source of a rule, wherever that is kept."""
    missing = [
        f"{path.name}: {page}"
        for path in (PROJECT / "ccs_dacs_pipeline").rglob("*.py")
        for text in shown_texts(path)
        for page in re.findall(r"[\w./-]+\.md\b", text)
        if not (PROJECT / page).is_file()
    ]
    assert missing == []


def shown_texts(path: Path) -> list[str]:
    """Returns the strings of a module but for those that stand as statements."""
    nodes = list(ast.walk(ast.parse(path.read_bytes())))
    standing = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    constants = [node for node in nodes if isinstance(node, ast.Constant) and id(node) not in standing]
    return [node.value for node in constants if isinstance(node.value, str)]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str):
    text = (PROJECT / page).read_text(encoding="utf-8")
    targets = [part.partition(")")[0].partition("#")[0] for part in text.split("](")[1:]]
    local = [target for target in targets if target and "://" not in target]
    assert [one for one in local if not ((PROJECT / page).parent / one).exists()] == []
