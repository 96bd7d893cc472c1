"""The house and its rooms: who may know whom (design.md, Rooms), and what no project file may hold."""

import ast
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import ccs_dacs_pipeline

NAME = ccs_dacs_pipeline.__name__
PACKAGE = Path(ccs_dacs_pipeline.__file__).parent
PROJECT = PACKAGE.parent
WITHOUT_DAGSTER = ["entities", "ccs", "dacs", "folders", "ledger", "sync", "frames", "settings", "partitions"]
MODULES = sorted(path for path in PACKAGE.rglob("*.py"))


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__")


def modules_of(room: str) -> list[Path]:
    found = [path for path in MODULES if path.relative_to(PACKAGE).with_suffix("").parts[0] == room]
    assert found, f"there is no room {room}"
    return found


@cache
def imports(path: Path) -> frozenset[str]:
    """Returns the full names of what a module imports, wherever in it: `a.b.c` for `from a.b import c`."""
    found = set[str]()
    parents = dotted(path).split(".") if path.name == "__init__.py" else dotted(path).split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = parents[: len(parents) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            found.update(f"{origin}.{alias.name}" for alias in node.names)
    return frozenset(found)


def importers(library: str, paths: list[Path]) -> list[str]:
    return [dotted(path) for path in paths if any(is_within(name, library) for name in imports(path))]


def is_within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


@pytest.mark.parametrize("room", WITHOUT_DAGSTER)
def test_a_room_of_business_rules_names_no_dagster(room: str):
    assert importers("dagster", modules_of(room)) == []


def test_importing_the_rooms_of_business_rules_loads_no_dagster():
    """Says what `ast` cannot see: what comes in through another module."""
    names = {
        room: [dotted(path) for path in modules_of(room) if "migrations" not in path.parts] for room in WITHOUT_DAGSTER
    }
    program = """if True:
        import importlib, json, sys
        for room, modules in json.loads(sys.argv[1]).items():
            for module in modules:
                importlib.import_module(module)
            loaded = sorted(name for name in sys.modules if name.partition(".")[0].startswith("dagster"))
            if loaded:
                sys.exit(f"{room} loads {loaded[:3]}")
        """
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(names)], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_sandbox_shares_no_code_with_the_pipeline():
    """A mistake in one must not be mirrored in the other."""
    own = f"{NAME}.sandbox"
    shared = {
        dotted(path): sorted(name for name in imports(path) if is_within(name, NAME) and not is_within(name, own))
        for path in modules_of("sandbox")
    }
    assert {module: names for module, names in shared.items() if names} == {}


def test_only_the_command_line_knows_the_sandbox():
    outside = [path for path in MODULES if path not in {*modules_of("sandbox"), *modules_of("cli")}]
    assert importers(f"{NAME}.sandbox", outside) == []


@pytest.mark.parametrize("room", ["ccs", "sandbox"])
def test_httpx_is_imported_in_one_module_of_a_room_that_needs_it(room: str):
    assert len(importers("httpx", modules_of(room))) == 1


def test_no_other_room_imports_httpx():
    outside = [path for path in MODULES if path not in {*modules_of("ccs"), *modules_of("sandbox")}]
    assert importers("httpx", outside) == []


@pytest.mark.parametrize("room", WITHOUT_DAGSTER)
def test_a_room_of_business_rules_knows_no_module_that_knows_dagster(room: str):
    above = [dotted(path) for path in MODULES if any(is_within(name, "dagster") for name in imports(path))]
    known = {module: importers(module, modules_of(room)) for module in above}
    assert {module: by for module, by in known.items() if by} == {}


def project_files() -> list[Path]:
    """Returns the files that are in git or could be added: what is ignored is not the project's."""
    git = shutil.which("git")
    if git is None or not (PROJECT / ".git").exists():
        pytest.skip("this is no git work tree, so what belongs to the project is not known")
    listed = subprocess.run(
        [git, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [path for name in listed.stdout.split("\0") if name and (path := PROJECT / name).is_file()]


def pip(*arguments: str) -> str:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def index_addresses() -> Iterator[str]:
    """Yields host (with its port) or path of pip's own index and of each configured one, without any credential."""
    own = re.findall(r"\(default\s+(https?://\S+?)\)", pip("install", "--help"))
    assert own, "pip no longer says in its help what its own index is"
    configured = re.findall(r"\.(?:index-url|extra-index-url|find-links)='(.*)'", pip("config", "list"))
    urls = [url for value in (*own, *configured) for url in re.split(r"\s+|\\n", value) if "/" in url]
    for parts in map(urlsplit, urls):
        address = parts.netloc.rpartition("@")[2] or parts.path.rstrip("/")
        if address:
            yield address


def test_no_project_file_names_a_package_index():
    """Any mirror must serve: an address in a file would bind the project to one."""
    addresses = sorted(set(index_addresses()))
    pattern = re.compile("|".join(map(re.escape, addresses)), re.IGNORECASE)
    naming = [path for path in project_files() if pattern.search(path.read_text(encoding="utf-8", errors="replace"))]
    assert [str(path.relative_to(PROJECT)) for path in naming] == []


def test_locked_requirements_hold_names_versions_and_hashes_alone():
    """design.md, Libraries: no index and no find-links line, no URL."""
    for path in sorted((PROJECT / "requirements").glob("*.txt")):
        lines = path.read_text(encoding="utf-8").splitlines()
        assert [line for line in lines if "://" in line or re.match(r"\s*(-i|-f|--(?!hash=))", line)] == [], path.name
        assert any("--hash=sha256:" in line for line in lines), path.name
