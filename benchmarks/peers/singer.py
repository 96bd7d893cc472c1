"""The Singer pair as it is run: the tap's process piped into the target's."""

import json
import subprocess
import sys
from pathlib import Path

from common import Arguments, arguments

HERE = Path(__file__).parent


def main() -> None:
    """Runs the pair once.

    Raises:
        SystemExit: one of them failed.
    """
    given = arguments()
    files = given.out / "files"
    files.mkdir(parents=True)
    tap_config = {"url": given.url, "user": given.user, "page_size": given.page_size}
    tap = _start(given, "singer_tap.py", tap_config, stdout=subprocess.PIPE)
    target_config = {"out": str(files), "validate_records": False}
    target = _start(given, "singer_target.py", target_config, stdin=tap.stdout, stdout=subprocess.DEVNULL)
    if tap.stdout:
        tap.stdout.close()  # so that a target that ends early ends the tap
    codes = [target.wait(), tap.wait()]
    if any(codes):
        sys.exit(f"tap and target ended with {codes}")


def _start(given: Arguments, script: str, config: dict[str, object], **pipes: object) -> "subprocess.Popen[bytes]":
    path = given.out / f"{script}.json"
    path.write_text(json.dumps(config))
    command = [sys.executable, str(HERE / script), "--config", str(path)]
    return subprocess.Popen(command, **pipes)


if __name__ == "__main__":
    main()
