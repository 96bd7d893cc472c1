"""The source: Oracle Utilities Customer Cloud Service over REST.

Knows nothing of Dagster, the ledger, or what becomes of the entities. `CcsClient` is the way in.
"""

from ccs_dacs_pipeline.ccs.answer import Answer, ExceptionInfo, MessageParameter
from ccs_dacs_pipeline.ccs.connection import BasicAuth, Connection, OAuth
from ccs_dacs_pipeline.ccs.errors import (
    BadAnswer,
    CcsError,
    IncompleteRange,
    Permanent,
    Problem,
    Rejected,
    RetryAfterTooLong,
    Transient,
    TransitionUnknown,
)
from ccs_dacs_pipeline.ccs.pages import EntityPage, Searchable, SearchService
from ccs_dacs_pipeline.ccs.ranges import plan_ranges
from ccs_dacs_pipeline.ccs.services import CcsClient
from ccs_dacs_pipeline.ccs.sync_requests import SyncRequest, SyncStatus

__all__ = [
    "Answer",
    "BadAnswer",
    "BasicAuth",
    "CcsClient",
    "CcsError",
    "Connection",
    "EntityPage",
    "ExceptionInfo",
    "IncompleteRange",
    "MessageParameter",
    "OAuth",
    "Permanent",
    "Problem",
    "Rejected",
    "RetryAfterTooLong",
    "SearchService",
    "Searchable",
    "SyncRequest",
    "SyncStatus",
    "Transient",
    "TransitionUnknown",
    "plan_ranges",
]
