"""Puts hand-written files into an upload folder as the contract asks: under a temporary name first, then renamed."""

import hashlib
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

from ccs_dacs_pipeline.sandbox import Sandbox
from ccs_dacs_pipeline.sandbox.comparison import UnmappableError, expected_row
from ccs_dacs_pipeline.sandbox.entities import ENTITIES

MOMENT = "2026-03-01-10.00.00"


def contact(id_: str = "5775933103", *, request: str = "", changed: str = MOMENT, **values: str) -> str:
    """One line of a contact file, incremental unless `changed` is empty."""
    row = {
        "contact_type": "Person",
        "name": "John Reddy",
        "home_phone": "(415) 555-0199 x12",
        "mobile_phone": "",
        "phone": "",
        "email": "john.reddy@example.com",
        "life_support_sensitive_load": "false",
        "life_support_sensitive_load_description": "",
        "purged": "false",
    } | values
    return "\t".join([request, changed, "F1IC" if changed else "F1IL", id_, *row.values()])


def service_point(id_: str = "3996166619", *, request: str = "", changed: str = MOMENT, **values: str) -> str:
    """One line of a service point file."""
    row = {
        "metered_sp_type": "E-RES",
        "sp_source_status": "D1CN",
        "division": "CA",
        "external_premise_id": "2242620736",
        "time_zone": "America/Los_Angeles",
        "country": "USA",
        "postal": "94105",
        "address_1": "1 Main St",
        **{f"address_{line}": "" for line in (2, 3, 4)},
        "city": "San Francisco",
        "county": "San Francisco",
        "state": "CA",
        "latitude": "37.789",
        "longitude": "-122.394",
    } | values
    return "\t".join([request, changed, "F1IC" if changed else "F1IL", id_, *row.values()])


def service(id_: str = "4410297731", *, request: str = "", changed: str = MOMENT, **values: str) -> str:
    """One line of a metered service file."""
    row = {
        "metered_service_type": "E-RES",
        "external_contact_id": "5775933103",
        "external_account_id": "2710098812",
        "start_date_time": "2020-01-01-00.00.00",
        "end_date_time": "",
        "division": "CA",
        "sa_status": "20",
        "external_sp_id": "3996166619",
    } | values
    return "\t".join([request, changed, "F1IC" if changed else "F1IL", id_, *row.values()])


def put(folder: Path, name: str, content: bytes) -> None:
    """Makes a file visible at once."""
    hidden = folder / f".{name}"
    hidden.write_bytes(content)
    hidden.rename(folder / name)


def publish(folder: Path, name: str, *lines: str) -> dict[str, Any]:
    """Publishes lines as a file; gives its entry for a manifest."""
    content = "".join(f"{line}\n" for line in lines).encode()
    put(folder, name, content)
    entity = next(entity.dacs for entity in ENTITIES if name.startswith(entity.file_prefix))
    return {
        "name": name,
        "entity": entity,
        "rows": len(lines),
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def manifest(folder: Path, batch: str, mode: str, files: list[dict[str, Any]], rerun: int = 0) -> None:
    """Publishes a manifest."""
    body = {"batch": batch, "mode": mode, "rerun": rerun, "profile": "assumed-tail", "files": files}
    put(folder, f"MANIFEST_{batch}_{rerun:02}.json", json.dumps(body).encode())


def load_all(sandbox: Sandbox) -> None:
    """Publishes every mappable record of CCS as a snapshot, and waits until DACS has read it."""
    folder = sandbox.config.upload_folder
    assert folder is not None
    now = sandbox.ccs.now()
    files = []
    for entity in ENTITIES:
        lines = []
        for _, text in sandbox.ccs.records(entity.ccs):
            try:
                row = expected_row(entity, json.loads(text, parse_float=Decimal), sandbox.config, now)
            except UnmappableError:
                continue
            lines.append("\t".join(["", "", "F1IL", *row]))
        files.append(publish(folder, f"{entity.file_prefix}IL_0001_00.csv", *lines))
    manifest(folder, "initial-1", "initial", files)
    sandbox.dacs.wait_until_idle()
