"""What every asset does round its own step: read the partition key, refuse a wrong kind, hold the lease meanwhile."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import dagster as dg

from ccs_dacs_pipeline.ccs import BadAnswer, IncompleteRange, Permanent
from ccs_dacs_pipeline.folders import SourceDiffers, SourceMissing, TargetDiffers
from ccs_dacs_pipeline.ledger.leases import INCREMENTAL, Lease, LeaseHeldError
from ccs_dacs_pipeline.ledger.life import Batch, BatchStateError, get
from ccs_dacs_pipeline.partitions import SYNC_BATCH, KeyRefusedError, Mode, SyncBatch
from ccs_dacs_pipeline.settings import SettingsError
from ccs_dacs_pipeline.sync.mapping import BreakerError
from ccs_dacs_pipeline.sync.site import Site
from ccs_dacs_pipeline.sync.stored import StoredDataError

PARTITIONS = dg.DynamicPartitionsDefinition(name=SYNC_BATCH)
OWNERS = ["team:integration"]

# A command that runs several jobs in its own process holds the lane over all of them under this name.
HOLDER_TAG = "ccs_dacs/holder"
_POLL_SECONDS = 0.2
# These stay as they are however often a step is repeated: an operator must act first.
_LASTING = (
    BatchStateError,
    BreakerError,
    StoredDataError,
    SettingsError,
    Permanent,
    BadAnswer,
    IncompleteRange,
    SourceDiffers,
    SourceMissing,
    TargetDiffers,
)
_JOB_OF = {Mode.INITIAL: "initial_sync", Mode.DELTA: "incremental_sync", Mode.RESYNC: "incremental_sync"}


@dataclass(frozen=True)
class Work:
    """A step's batch and the lease under which its effects are allowed."""

    key: SyncBatch
    lease: Lease
    site: Site

    @property
    def batch(self) -> Batch:
        """The batch as the ledger has it now.

        Raises:
            BatchStateError: the ledger has none of this key.
        """
        with self.site.ledger.read() as db:
            return get(db, self.key)


@contextmanager
def working(context: dg.AssetExecutionContext, *, whole_snapshot: bool = False) -> Iterator[Work]:
    """Holds the lease of the run's batch while a step does its work, and turns lasting errors into final failures.

    Args:
        context: the step's context; its resource `site` is the site.
        whole_snapshot: whether the step is about all shards of a snapshot, not the one alone.
    """
    site: Site = context.resources.site
    key = batch_key(context)
    name = INCREMENTAL if key.mode is not Mode.INITIAL else key.owner if whole_snapshot else str(key)
    with explained(), lane(site, name, holder_of(context), wait=True) as lease:
        yield Work(key, lease, site)


def batch_key(context: dg.AssetExecutionContext) -> SyncBatch:
    """Returns the batch of a run; without a key, or with one that its job is not for, the run ends and says why."""
    if not context.has_partition_key:
        raise dg.Failure(
            "This run has no partition, and so no batch to work on. Start it for a partition of sync_batch; new ones "
            "are begun by `ccs-dacs initial`, by `ccs-dacs sync`, or by the sensor for pending sync requests.",
            allow_retries=False,
        )
    try:
        key = SyncBatch.parse(context.partition_key)
    except KeyRefusedError as error:
        raise dg.Failure(str(error), allow_retries=False) from None
    right = _JOB_OF[key.mode]
    if context.job_name in _JOB_OF.values() and context.job_name != right:
        raise dg.Failure(f"{key} is a partition of the job {right}, not of {context.job_name}.", allow_retries=False)
    return key


def holder_of(context: dg.OpExecutionContext | dg.AssetExecutionContext) -> str:
    """Returns who holds the leases of this step: the command that runs it, else the run."""
    return context.run.tags.get(HOLDER_TAG, context.run.run_id)


@contextmanager
def lane(site: Site, name: str, holder: str, *, wait: bool) -> Iterator[Lease]:
    """Holds a lease during the block; one that the holder had before is left to it.

    Args:
        site: the site.
        name: what is leased.
        holder: who holds it.
        wait: whether to wait for another holder, at most until a dead one's term has passed.

    Raises:
        LeaseHeldError: another worker goes on holding it.
    """
    settings = site.settings
    patience = settings.lease_seconds + settings.ccs_call_seconds if wait else 0.0
    deadline = time.monotonic() + patience
    while True:
        try:
            lease = site.lease(name, holder)
            break
        except LeaseHeldError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(_POLL_SECONDS)
    try:
        with lease.kept():
            yield lease
    finally:
        if not lease.had_before:
            lease.release()


@contextmanager
def explained() -> Iterator[None]:
    """Ends a run for good where a repeat cannot help; the sensor alone resumes what can be resumed."""
    try:
        yield
    except _LASTING as error:
        raise dg.Failure(str(error), allow_retries=False) from error
