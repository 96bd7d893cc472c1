"""The folders that every test of the interface runs on: a further kind is one more branch here."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from ccs_dacs_pipeline.folders import Folder, LocalFolder


@pytest.fixture(params=["local"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    """An empty folder."""
    assert request.param == "local"
    return LocalFolder(tmp_path / "folder")


@pytest.fixture(params=["linked", "copied"])
def upload(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LocalFolder]:
    """An empty upload folder, on the extract folder's file system and on another one."""
    if request.param == "linked":
        yield LocalFolder(tmp_path / "upload")
        return
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system at /dev/shm")
    with TemporaryDirectory(dir=memory) as path:
        yield LocalFolder(Path(path))


@pytest.fixture
def extract(tmp_path: Path) -> LocalFolder:
    """An empty extract folder."""
    return LocalFolder(tmp_path / "extract")
