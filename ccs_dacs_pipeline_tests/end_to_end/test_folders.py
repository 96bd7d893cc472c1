"""Both syncs with extract and upload folders of different kinds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ccs_dacs_pipeline_tests.folders.conftest import all_places, places  # noqa: F401 - fixtures

if TYPE_CHECKING:
    from pathlib import Path

    from ccs_dacs_pipeline_tests.folders.conftest import Places
    from ccs_dacs_pipeline_tests.folders.sftp_servers import Served


@pytest.mark.parametrize("kind", ["asyncssh", "openssh"])
def test_dacs_reads_what_was_uploaded_by_sftp(make_world, places: Places, tmp_path: Path, kind: str):  # noqa: F811
    """DACS watches the directory behind the server."""
    served: Served = getattr(places, kind)
    access = served.access
    world = make_world(
        sandbox={"upload_folder": tmp_path / "dacs"},
        settings={
            "upload_url": served.url(tmp_path / "dacs"),
            "sftp_password": access.password,
            "sftp_key_file": access.key_file,
            "sftp_key_passphrase": access.key_passphrase,
            "sftp_known_hosts": access.known_hosts,
        },
    )
    world.initial(shards=2)
    world.sandbox.ccs.change(10, seed=3)
    world.sync()
    world.assert_quiet()
    names = {path.name for path in (tmp_path / "dacs").iterdir()}
    assert {"MANIFEST_initial-1_00.json", "MANIFEST_delta-1_00.json"} <= names
    assert not any(name.startswith(".") for name in names)
    assert world.site.extract.names() == []


def test_dacs_reads_what_was_extracted_into_object_storage(make_world, places: Places):  # noqa: F811
    bucket = places.moto
    world = make_world(
        settings={
            "extract_url": f"s3://{bucket.name}/extract",
            "s3_endpoint": bucket.endpoint,
            "s3_region": bucket.region,
            "s3_access_key": bucket.access_key,
            "s3_secret_key": bucket.secret_key,
        },
    )
    world.initial()
    world.sandbox.ccs.change(10, seed=3)
    world.sync()
    world.assert_quiet()
    assert world.site.extract.url == "s3://utility/extract"
    assert world.site.extract.names() == []
