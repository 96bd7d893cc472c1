"""Sync requests as CCS lists them (ccs-rest.md, Sync requests)."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from itertools import pairwise
from typing import Annotated, Any

from pydantic import AwareDatetime, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from ccs_dacs_pipeline.ccs.pages import Malformed, decode_list

LIST_MEMBER = "syncRequestList"


class SyncStatus(StrEnum):
    """The states of a sync request."""

    PENDING = "PENDING"
    AWAITINGACK = "AWAITINGACK"
    SYNCHRONIZED = "SYNCHRONIZED"
    ERROR = "ERROR"
    DISCARDED = "DISCARDED"
    CANCELED = "CANCELED"

    @property
    def final(self) -> bool:
        """Whether CCS takes no further transition of a request in this state."""
        return self not in (SyncStatus.PENDING, SyncStatus.AWAITINGACK)


def _trimmed(code: object) -> object:
    return code.strip() if isinstance(code, str) else code


def _from_iso(value: object) -> object:
    """A timestamp read as ISO 8601 alone: pydantic by itself would read digits as seconds since 1970."""
    return datetime.fromisoformat(value.strip()) if isinstance(value, str) else value


Timestamp = Annotated[AwareDatetime, BeforeValidator(_from_iso)]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(str_strip_whitespace=True, populate_by_name=True))
class SyncRequest:
    """One sync request, its codes trimmed.

    Attributes:
        id: sync request id, 14 digits, not chronological.
        business_object: `C1-DACSContactSyncRequest`, ...
        status: its present state.
        maintenance_object: `PERSON`, ...
        pk_value1: the id of the entity that changed.
        created: when CCS made it, with offset.
        status_changed: when it came to its present state, where CCS says so.
    """

    id: Annotated[str, Field(alias="syncRequestId", min_length=1)]
    business_object: Annotated[str, Field(alias="businessObject", min_length=1)]
    status: Annotated[SyncStatus, BeforeValidator(_trimmed), Field(alias="boStatus")]
    maintenance_object: Annotated[str, Field(alias="maintenanceObject")]
    pk_value1: Annotated[str, Field(alias="pkValue1", min_length=1)]
    created: Annotated[Timestamp, Field(alias="createDateTime")]
    status_changed: Annotated[Timestamp | None, Field(alias="statusDateTime")] = None


_REQUESTS = TypeAdapter(list[SyncRequest])


def decode_sync_requests(body: bytes) -> tuple[list[SyncRequest], bool]:
    """The sync requests of a page, and whether more follow.

    Raises:
        Malformed: the answer is not as the contract says.
    """
    records, has_more = decode_list(body, LIST_MEMBER)
    try:
        return _REQUESTS.validate_python(records), has_more
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        member = ".".join(str(part) for part in first["loc"][1:])
        raise Malformed(
            f"{LIST_MEMBER} holds {error.error_count()} unusable members, the first is {member}: {first['type']}"
        ) from None


def check_sync_requests(requests: Sequence[SyncRequest], filters: Mapping[str, Any]) -> None:
    """Checks that a page holds what was asked for, each request once and in ascending order.

    A search that ignores a filter must not go unnoticed: a request taken for pending would be stepped on from
    whatever state it is in.

    Args:
        requests: the requests of one page.
        filters: the `filters` of the search.

    Raises:
        Malformed: a request is out of order, double, or not one that was asked for.
    """
    ids = [filters.get("afterId", ""), *(request.id for request in requests)]
    if any(low >= high for low, high in pairwise(ids)):
        raise Malformed("the page holds a sync request twice, out of order, or not after afterId")
    asked = set(filters.get("ids", ids))
    wanted_object, wanted_status = filters.get("businessObject"), filters.get("boStatus")
    strangers = [
        request.id
        for request in requests
        if request.id not in asked
        or wanted_object not in (None, request.business_object)
        or wanted_status not in (None, request.status)
    ]
    if strangers:
        raise Malformed(f"the page holds {len(strangers)} sync requests that do not match the filters")
