"""dlt as its guides show it: rest_api source, a Python map per row, tab-separated files on a filesystem destination.

Tuned as dlt's performance guide recommends: resources in parallel, normalizing in processes, no inference of types
(columns are declared, nothing nested), no compression, pages as large as CCS gives without strain.
"""

from typing import Any

import dlt
from common import Arguments, arguments, configure, declared, pipeline
from dlt.sources.helpers.rest_client.paginators import BasePaginator
from dlt.sources.rest_api import RESTAPIConfig, rest_api_resources
from requests import Request, Response
from rows import ENTITIES, Entity

HAS_MORE = b'"hasMore":true'
HEAD_BYTES = 300


class KeysetPaginator(BasePaginator):
    """Asks for what follows the last id of the page before."""

    def __init__(self, id_member: str) -> None:
        super().__init__()
        self._id_member = id_member
        self._after: str | None = None

    def update_state(self, response: Response, data: list[Any] | None = None) -> None:
        """Reads whether more follows from the answer's head, without decoding the answer a second time."""
        self._has_next_page = HAS_MORE in response.content[:HEAD_BYTES]
        self._after = data[-1][self._id_member] if data else None

    def update_request(self, request: Request) -> None:
        """Puts the last id into the body."""
        request.json = {**request.json, "filters": {"afterId": self._after}}


def resource(entity: Entity, page_size: int) -> dict[str, Any]:
    """The configuration of one entity's resource."""
    return {
        "name": entity.name,
        "columns": declared(entity),
        "max_table_nesting": 0,
        "parallelized": True,
        "write_disposition": "append",
        "endpoint": {
            "path": entity.path,
            "method": "POST",
            "json": {"filters": {}, "limit": page_size},
            "data_selector": entity.list_member,
            "paginator": KeysetPaginator(entity.id_member),
        },
        "processing_steps": [{"map": entity.map}],
    }


@dlt.source(name="ccs", max_table_nesting=0)
def ccs(given: Arguments) -> Any:  # noqa: ANN401 -- as dlt's decorator takes it
    """All entities of CCS."""
    config: RESTAPIConfig = {
        "client": {
            "base_url": given.url,
            "auth": {"type": "http_basic", "username": given.user, "password": given.user},
        },
        "resources": [resource(entity, given.page_size) for entity in ENTITIES],
    }
    yield from rest_api_resources(config)


def main() -> None:
    """Runs the pipeline once."""
    given = arguments()
    configure(given, quoting="quote_minimal")
    pipeline(given).run(ccs(given), loader_file_format="csv")


if __name__ == "__main__":
    main()
