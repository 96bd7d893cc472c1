"""Services for development: the sandbox alone, or with inbox, Dagster UI and daemon."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ccs_dacs_pipeline.cli import work
from ccs_dacs_pipeline.cli.console import Problem, say
from ccs_dacs_pipeline.folders.url import local_path
from ccs_dacs_pipeline.sandbox import Sandbox, SandboxConfig, serve
from ccs_dacs_pipeline.settings import load_settings, variable

if TYPE_CHECKING:
    from ccs_dacs_pipeline.settings import Settings

_INBOX_PORT = 8089
_GRACE_SECONDS = 30
_POLL_SECONDS = 0.5


def serve_sandbox(
    settings: Settings,
    *,
    persons: int,
    seed: int,
    host: str,
    port: int,
    upload: Path | None,
    inbox: str | None,
    latency: float = 0.0,
) -> None:
    """Serves the simulated CCS and DACS until stopped; DACS watches the site's upload folder unless told otherwise."""
    config = _config(settings, persons, seed, host, port, upload or _watched(settings), inbox)
    config = replace(config, latency_seconds=latency)
    try:
        serve(config)
    except OSError as error:
        raise Problem(
            f"The sandbox cannot listen on {host}:{port}, or watch its folder ({error.strerror}): choose another."
        ) from None


def _watched(settings: Settings) -> Path:
    """The site's upload folder, which must be a local one for the simulated DACS to watch it."""
    return local_path(settings.folder("upload"), setting=variable("upload_url"))


def _config(
    settings: Settings, persons: int, seed: int, host: str, port: int, upload: Path, inbox: str | None
) -> SandboxConfig:
    def secret(name: str) -> str | None:
        value = getattr(settings, name)
        return value.get_secret_value() if value else None

    return SandboxConfig(
        persons=persons,
        seed=seed,
        host=host,
        port=port,
        upload_folder=upload,
        inbox_url=inbox,
        inbox_username=settings.ack_username,
        inbox_password=secret("ack_password"),
        inbox_token=secret("ack_token"),
        time_zone=settings.base_time_zone,
    )


def run(settings: Settings, *, persons: int, seed: int, host: str, port: int) -> None:
    """Runs sandbox, inbox, Dagster UI and daemon until stopped, with the sensors on.

    What the settings leave open is pointed at the sandbox; a CCS that is set is used instead of it.

    Raises:
        Problem: a service ended by itself.
    """
    mine = {"sensors": "on", "data_dir": str(settings.data_path)}
    if settings.ack_auth is None:
        # One that nobody can know: behind the inbox may be a CCS that is set.
        mine |= {"ack_auth": "bearer", "ack_token": secrets.token_urlsafe()}
    os.environ.update({variable(name): value for name, value in mine.items()})
    os.environ |= {"DAGSTER_HOME": str(work.dagster_home(settings)), "VIRTUAL_ENV": sys.prefix}
    with ExitStack() as stack:
        if settings.ccs_base_url is None:
            upload, inbox = _watched(settings), f"http://{host}:{_INBOX_PORT}"
            config = _config(load_settings(), persons, seed, host, 0, upload, inbox)
            sandbox = stack.enter_context(Sandbox(config))
            reach = {"base_url": sandbox.base_url, "username": config.username, "password": config.password}
            os.environ.update({variable(f"ccs_{name}"): value for name, value in reach.items()})
            say(f'Sandbox: {sandbox.base_url}; changes: POST {sandbox.base_url}/sandbox/ccs/changes {{"count": 10}}')
        command = [sys.executable, "-m", "ccs_dacs_pipeline.cli"]
        workspace = str(work.project_file("workspace.yaml"))  # named, so that any folder will do to start in
        services = {
            "inbox": [*command, "acks", "serve", "--host", host, "--port", str(_INBOX_PORT)],
            "Dagster": [*dagster_command(), "dev", "-w", workspace, "--host", host, "--port", str(port)],
        }
        say(f"Dagster UI: http://{host}:{port}")
        _supervise({name: subprocess.Popen(words) for name, words in services.items()})  # noqa: S603 - our own words


def dagster_command() -> list[str]:
    """Returns Dagster's command for development: `dg`, or its older one where that is not installed, as at a site."""
    found = shutil.which("dg", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    return [found] if found else [sys.executable, "-m", "dagster"]


def _supervise(services: dict[str, subprocess.Popen[bytes]]) -> None:
    """Waits until the command is interrupted, or a service ends by itself, then stops all.

    Raises:
        Problem: a service ended by itself; names it.
    """
    for ending in (signal.SIGTERM, signal.SIGHUP):  # a closed terminal too leaves nothing running
        signal.signal(ending, signal.default_int_handler)
    try:
        while all(process.poll() is None for process in services.values()):
            time.sleep(_POLL_SECONDS)
        ended = next(name for name, process in services.items() if process.poll() is not None)
        raise Problem(f"The service {ended} ended by itself: see its last lines above. Is its port in use?")
    except KeyboardInterrupt:
        say("Stopping.")
    finally:
        for process in services.values():
            process.send_signal(signal.SIGINT)
        for process in services.values():
            try:
                process.wait(_GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
