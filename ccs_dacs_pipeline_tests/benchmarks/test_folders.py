"""The benchmark of the folders runs, and its figures have the members that the docs are drawn from."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from benchmarks.__main__ import main
from ccs_dacs_pipeline_tests.folders.sftp_servers import SSHD

if TYPE_CHECKING:
    from pathlib import Path


def lines_can_be_laid() -> bool:
    """Whether this user may make network namespaces, as root in most containers may not."""
    made = subprocess.run(["unshare", "--net", "true"], check=False, capture_output=True)
    return shutil.which("tc") is not None and made.returncode == 0


@pytest.mark.skipif(SSHD is None, reason="sshd is not installed (Debian's package openssh-server)")
def test_rates_of_every_kind_beside_their_peers(tmp_path: Path) -> None:
    out = tmp_path / "folders.json"
    words = ["folders", "--megabytes", "2", "--runs", "1", "--extract-gib", "0.003", "--json", str(out)]
    assert main([*words, "--folder", str(tmp_path)]) == 0
    figures = json.loads(out.read_text())
    rates = {one["name"]: one["rate"] for one in figures["results"] if "rate" in one}
    assert list(rates) == [
        "sftp openssh",
        "sftp openssh verified",
        "sftp unread",
        "sftp published",
        "sftp published asking",
        "s3 boto3",
        "s3 boto3 plain",
        "s3 published",
    ]
    assert all(rate > 0 for rate in rates.values())
    assert set(figures["ratios"]) == {
        "sftp unread / openssh",
        "sftp published / openssh",
        "sftp published / openssh verified",
        "sftp published asking / openssh",
        "s3 published / boto3",
        "s3 published / boto3 plain",
    }
    assert [one["name"] for one in figures["results"] if "move_ms" in one] == [
        "local 1 MiB",
        "local 2 MiB",
        "local 8 MiB",
    ]
    extracts = {one["name"]: one for one in figures["results"] if "sizes" in one}
    assert list(extracts) == ["plain", "zip", "plain, 0.003 GiB"]
    assert extracts["plain"]["sizes"] == [extracts["plain"]["content"]]
    assert extracts["plain"]["rows"] == extracts["zip"]["rows"] < extracts["plain, 0.003 GiB"]["rows"]
    assert sum(extracts["zip"]["sizes"]) < extracts["zip"]["content"] == extracts["plain"]["content"]


@pytest.mark.skipif(SSHD is None, reason="sshd is not installed (Debian's package openssh-server)")
@pytest.mark.skipif(
    not lines_can_be_laid(),
    reason="a line of a given rate needs a root that may make network namespaces, and Debian's package iproute2",
)
def test_a_line_carries_no_more_than_its_rate(tmp_path: Path) -> None:
    out = tmp_path / "folders.json"
    words = ["folders", "--megabytes", "8", "--runs", "1", "--lines", "160", "320", "--json", str(out)]
    assert main([*words, "--folder", str(tmp_path)]) == 0
    figures = json.loads(out.read_text())
    rates = {one["name"]: one["rate"] for one in figures["results"] if one["name"].startswith("sftp at")}
    names = ("openssh", "openssh verified", "published", "published asking")
    assert list(rates) == [f"sftp at {mbit} Mbit/s {name}" for mbit in (160, 320) for name in names]
    assert all(0 < rate * 8 * 1.048_576 < float(name.split()[2]) * 1.05 for name, rate in rates.items())
    assert {f"sftp at {mbit} Mbit/s published / openssh" for mbit in (160, 320)} < set(figures["ratios"])
