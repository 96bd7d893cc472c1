"""A simulated CCS and DACS for demos and tests, over real HTTP and real files.

Written from the contract alone: nothing here comes from the rest of the package, so that a mistake in one is not
mirrored in the other.
"""

from ccs_dacs_pipeline.sandbox.ccs import BusinessError, ChangeSummary, SimulatedCcs, SyncRequest
from ccs_dacs_pipeline.sandbox.comparison import Eligibility, EntityComparison, compare
from ccs_dacs_pipeline.sandbox.config import SandboxConfig
from ccs_dacs_pipeline.sandbox.dacs import Refusal, SimulatedDacs, Violation
from ccs_dacs_pipeline.sandbox.server import Sandbox, serve

__all__ = [
    "BusinessError",
    "ChangeSummary",
    "Eligibility",
    "EntityComparison",
    "Refusal",
    "Sandbox",
    "SandboxConfig",
    "SimulatedCcs",
    "SimulatedDacs",
    "SyncRequest",
    "Violation",
    "compare",
    "serve",
]
