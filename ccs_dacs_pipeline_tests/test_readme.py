"""The README's table of settings is the one that `Settings` gives, and its commands are those there are."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import typer
from pydantic import SecretStr
from pydantic_core import PydanticUndefined, to_json

from ccs_dacs_pipeline.cli.app import app
from ccs_dacs_pipeline.settings import PREFIX, Settings

PROJECT = Path(__file__).parents[1]
README = (PROJECT / "README.md").read_text(encoding="utf-8")
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


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{path.name}" for path in (PROJECT / "docs").glob("*.md"))])
def test_links_lead_somewhere(page: str):
    text = (PROJECT / page).read_text(encoding="utf-8")
    targets = [part.partition(")")[0].partition("#")[0] for part in text.split("](")[1:]]
    local = [target for target in targets if target and "://" not in target]
    assert [one for one in local if not ((PROJECT / page).parent / one).exists()] == []
