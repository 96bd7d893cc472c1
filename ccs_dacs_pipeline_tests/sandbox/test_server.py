"""The room's walls, and serving in the foreground."""

import ast
import signal
import subprocess
import sys
from importlib.resources import files

import httpx
import pytest

from ccs_dacs_pipeline.sandbox import Sandbox, SandboxConfig


def test_the_sandbox_shares_no_code_with_the_pipeline() -> None:
    for module in files("ccs_dacs_pipeline.sandbox").iterdir():
        if not module.name.endswith(".py"):
            continue
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not getattr(node, "level", 0), f"{module.name}: a relative import"
            for name in names:
                assert not name.startswith("ccs_dacs_pipeline") or name.startswith("ccs_dacs_pipeline.sandbox"), (
                    module.name
                )


def test_there_is_no_address_before_the_start() -> None:
    with pytest.raises(RuntimeError, match="start"):
        _ = Sandbox(SandboxConfig(persons=1)).base_url


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_serving_in_the_foreground_prints_its_address_first_and_ends_on_a_signal(ending) -> None:
    code = "from ccs_dacs_pipeline.sandbox import SandboxConfig, serve; serve(SandboxConfig(persons=5))"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        base_url = process.stdout.readline().strip()
        assert httpx.get(f"{base_url}/sandbox/ccs/summary", trust_env=False).json()["entities"]["person"] == 5
        process.send_signal(ending)
        assert process.wait(10) == 0
