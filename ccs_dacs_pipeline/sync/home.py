"""What the dagster.yaml of DAGSTER_HOME lacks of the project's own. Read without Dagster, which would make tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

# Its types would be a package of their own, for one call.
import yaml  # type: ignore[import-untyped] # its types are a package of their own, for one call

FILE = "dagster.yaml"
_LIMITS = "tag_concurrency_limits"
# Where a limit may stand: as in the project's file, and in the two forms that Dagster had before.
_PLACES_OF_LIMITS = (("concurrency", "runs"), ("run_queue",), ("run_coordinator", "config"))
_QUEUE = "QueuedRunCoordinator"


def lacking(file: Path) -> list[str]:
    """Returns what `file` lacks of the project's own: the ends of runs that hang, and the limits of the lanes.

    Other figures than the project's are a site's own affair, but for the limits: more than one run in a lane would
    send changes of one entity out of order.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not YAML in UTF-8.
    """
    found, wanted = _mapping(file), _mapping(_projects_own())
    monitored, monitoring = _within(found, "run_monitoring"), _within(wanted, "run_monitoring")
    lacks = [f"run_monitoring.{name}" for name, value in monitoring.items() if not _is_set(monitored.get(name), value)]
    if _within(found, "run_coordinator").get("class", _QUEUE) != _QUEUE:
        lacks.append(f"run_coordinator {_QUEUE}")
    limits = [limit for place in _PLACES_OF_LIMITS for limit in _limits(found, place)]
    lacks += [
        f"limit {lane['limit']} of {lane['key']} {lane['value']}"
        for lane in _limits(wanted, _PLACES_OF_LIMITS[0])
        if not any(_covers(limit, lane) for limit in limits)
    ]
    return lacks


def _projects_own() -> Path:
    """The project's file: of the checkout, else the copy that the wheel carries."""
    package = Path(__file__).parents[1]
    carried = package / FILE
    return carried if carried.exists() else package.parent / FILE


def _mapping(file: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError:
        # Without its text, which may repeat a password of the file.
        raise ValueError(f"{file} is not YAML") from None
    return document if isinstance(document, dict) else {}


def _within(document: dict[str, Any], *names: str) -> dict[str, Any]:
    for name in names:
        inner = document.get(name)
        document = inner if isinstance(inner, dict) else {}
    return document


def _is_set(found: object, wanted: object) -> bool:
    """Whether a figure is there at all, and a switch as it is wanted."""
    return found == wanted if isinstance(wanted, bool) else bool(found)


def _limits(document: dict[str, Any], place: tuple[str, ...]) -> list[dict[str, Any]]:
    found = _within(document, *place).get(_LIMITS)
    return [limit for limit in found if isinstance(limit, dict)] if isinstance(found, list) else []


def _covers(limit: dict[str, Any], lane: dict[str, Any]) -> bool:
    """Whether a limit is that of the lane, or one of all lanes: its value is absent, or no text."""
    value = limit.get("value")
    is_of_lane = value == lane["value"] or not isinstance(value, str)
    return limit.get("key") == lane["key"] and limit.get("limit") == lane["limit"] and is_of_lane
