"""Jobs: what a run does. A sync is the whole asset graph for one batch; answers go to CCS many at a time."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from ccs_dacs_pipeline.assets.acknowledgement import batch_events
from ccs_dacs_pipeline.assets.foreign_file import materialization
from ccs_dacs_pipeline.assets.work import explained, holder_of, lane
from ccs_dacs_pipeline.ledger.leases import ACKNOWLEDGEMENTS, TRANSFERS, LeaseHeldError
from ccs_dacs_pipeline.sync.foreign import Failed, transfer
from ccs_dacs_pipeline.sync.settle import settle
from ccs_dacs_pipeline.sync.tidy import tidy

INITIAL_SYNC = "initial_sync"
INCREMENTAL_SYNC = "incremental_sync"
DELIVER_ACKNOWLEDGEMENTS = "deliver_acknowledgements"
TRANSFER_FILES = "transfer_files"

# Limits of the run queue in dagster.yaml go by this tag: one delta lane, one lane for acknowledgements.
LANE_TAG = "ccs_dacs/lane"


def sync_jobs(assets: list[dg.AssetsDefinition]) -> list[Any]:
    """Returns the two sync jobs over the asset graph.

    In-process, since six small steps take 7 s so and 43 s in processes of their own, and a killed worker leaves no
    orphan step behind (docs/decisions/0003-in-process-executor.md).
    """
    selection = dg.AssetSelection.assets(*assets)
    return [
        dg.define_asset_job(
            INITIAL_SYNC,
            selection=selection,
            executor_def=dg.in_process_executor,
            description="One shard of a snapshot: all eligible entities of its key range, published with the whole.",
            tags={LANE_TAG: "initial"},
        ),
        dg.define_asset_job(
            INCREMENTAL_SYNC,
            selection=selection,
            executor_def=dg.in_process_executor,
            description="One delta or resync batch: pending sync requests claimed, their entities sent.",
            tags={LANE_TAG: "incremental"},
        ),
    ]


@dg.op(required_resource_keys={"site"}, description="Removes frames of ended batches and abandoned temporary files.")
def remove_what_nobody_needs(context: dg.OpExecutionContext) -> None:
    """Frees the room of batches that ended longer ago than FRAMES_KEEP."""
    with explained():
        context.add_output_metadata(vars(tidy(context.resources.site)))


@dg.job(
    name="tidy_up",
    executor_def=dg.in_process_executor,
    description="Removes the frames of batches that ended long ago, and what killed writers left behind.",
    tags={LANE_TAG: "tidy"},
)
def tidy_up() -> None:
    """One pass over frames and folders."""
    remove_what_nobody_needs()


@dg.op(
    required_resource_keys={"site"},
    out=dg.Out(dg.Nothing),
    description="Takes every answer that is due to CCS, and settles its request.",
)
def take_answers_to_ccs(
    context: dg.OpExecutionContext,
) -> Iterator[dg.AssetMaterialization | dg.AssetCheckEvaluation | dg.Output[None]]:
    """Settles requests under the acknowledgements lane; another pass under way does the same work, so this one ends."""
    site = context.resources.site
    try:
        with lane(site, ACKNOWLEDGEMENTS, holder_of(context), wait=False) as lease:
            settled = settle(site, lease, look=True)
    except LeaseHeldError as error:
        context.log.info(f"Another pass takes the answers to CCS: {error}")
        yield dg.Output(None)
        return
    yield from batch_events(site, sorted(settled.batches))
    if settled.still_due:
        raise dg.Failure(
            f"{len(settled.still_due)} answers cannot be told to CCS, which refuses them or loses them each time, for "
            f"example that of sync request {settled.still_due[0]}. Look at it in CCS. They stay due, and the next pass "
            "tells them again.",
            allow_retries=False,
        )
    figures = {**settled.by_settlement, "batches": len(settled.batches), "due": len(settled.still_due)}
    yield dg.Output(None, metadata=figures)


@dg.job(
    name=DELIVER_ACKNOWLEDGEMENTS,
    executor_def=dg.in_process_executor,
    description="Takes stored acknowledgements and our own answers to CCS, for all batches at once.",
    tags={LANE_TAG: "acknowledgements"},
)
def deliver_acknowledgements() -> None:
    """One pass over every answer that is due."""
    take_answers_to_ccs()


@dg.op(
    required_resource_keys={"site"},
    out=dg.Out(dg.Nothing),
    description="Moves every foreign file that stands still, the oldest first; one that fails stays and is named.",
)
def move_foreign_files(context: dg.OpExecutionContext) -> Iterator[dg.AssetMaterialization | dg.Output[None]]:
    """Moves files under the lane of transfers; another pass under way does the same work, so this one ends."""
    site = context.resources.site
    failed: list[Failed] = []
    sent = 0
    try:
        with explained(), lane(site, TRANSFERS, holder_of(context), wait=False) as lease:
            for one in transfer(site, lease):
                if isinstance(one, Failed):
                    failed.append(one)
                    context.log.error(f"{one.name} stays in the extract folder: {one.reason}")
                else:
                    sent += 1
                    yield materialization(site, one)
    except LeaseHeldError as error:
        context.log.info(f"Another pass moves the files: {error}")
    if failed:
        names = ", ".join(one.name for one in failed)
        raise dg.Failure(
            f"{len(failed)} files stay in the extract folder, {sent} were sent: {names}. The first: {failed[0].reason}",
            allow_retries=False,
        )
    yield dg.Output(None, metadata={"sent": sent})


@dg.job(
    name=TRANSFER_FILES,
    executor_def=dg.in_process_executor,
    description="Moves the files of CCS's own batches from the extract to the upload folder (FOREIGN_FILE_PATTERNS).",
    tags={LANE_TAG: "transfers"},
)
def transfer_files() -> None:
    """One pass over the foreign files of the extract folder."""
    move_foreign_files()
