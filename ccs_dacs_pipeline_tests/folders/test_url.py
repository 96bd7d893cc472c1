"""From a setting to its folder (interface.md, Settings)."""

from pathlib import Path

import pytest

from ccs_dacs_pipeline.folders import FolderError, LocalFolder, open_folder


@pytest.mark.parametrize(
    "value", ["/srv/my files/upload", "file:///srv/my%20files/upload", "file://localhost/srv/my%20files/upload"]
)
def test_a_path_and_a_file_url_name_the_same_folder(value: str):
    folder = open_folder(value, setting="UPLOAD_URL")
    assert isinstance(folder, LocalFolder)
    assert folder.path == Path("/srv/my files/upload")
    assert folder.url == "file:///srv/my%20files/upload"


def test_a_relative_path_is_taken_from_the_working_directory(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert open_folder("./data/upload", setting="UPLOAD_URL").url == (tmp_path / "data/upload").as_uri()


@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        "sftp://user:canary@host/path",
        "s3://canary/prefix",
        "ftp://user:canary@host/",
        "file://canary/path",
        "file://",
        "file:///path?canary",
    ],
)
def test_any_other_value_is_refused_with_the_settings_name_and_without_secrets(value: str):
    with pytest.raises(FolderError, match="UPLOAD_URL") as caught:
        open_folder(value, setting="UPLOAD_URL")
    assert "canary" not in str(caught.value)
