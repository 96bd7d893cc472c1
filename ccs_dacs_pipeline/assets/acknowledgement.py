"""The assets `upload/acknowledgement` and `upload/reconciliation`: how requests ended, and whether figures add up."""

from collections.abc import Iterable, Iterator
from typing import Any

import dagster as dg

from ccs_dacs_pipeline.assets import delivery
from ccs_dacs_pipeline.assets.work import OWNERS, PARTITIONS, explained, holder_of, lane, working
from ccs_dacs_pipeline.checks import equation_check_result, equation_check_spec
from ccs_dacs_pipeline.ledger.leases import ACKNOWLEDGEMENTS, LeaseHeldError
from ccs_dacs_pipeline.ledger.life import Batch, get, owned
from ccs_dacs_pipeline.ledger.report import Equation, equations, outcomes, settlements
from ccs_dacs_pipeline.partitions import Mode, SyncBatch
from ccs_dacs_pipeline.sync.settle import settle
from ccs_dacs_pipeline.sync.site import Site

KEY = dg.AssetKey(["upload", "acknowledgement"])
RECONCILIATION = dg.AssetKey(["upload", "reconciliation"])


def acknowledgement_asset() -> dg.AssetsDefinition:
    """Returns the asset of the answers of a batch."""

    @dg.asset(
        key=KEY,
        deps=[delivery.KEY],
        partitions_def=PARTITIONS,
        group_name="upload",
        kinds={"oracle"},
        owners=OWNERS,
        required_resource_keys={"site"},
        description=(
            "How the requests of a batch ended in CCS: DACS's answers, our own errors, and what still awaits an "
            "answer. A snapshot and a resync have none."
        ),
    )
    def acknowledgement(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        site: Site = context.resources.site
        with working(context) as work:
            batch = work.batch
        if work.key.mode is Mode.DELTA:
            _settle(context, site)
        _report_siblings(context, site, batch, KEY)
        return dg.MaterializeResult(metadata=_answers(site, batch))

    return acknowledgement


def _settle(context: dg.AssetExecutionContext, site: Site) -> None:
    try:
        with explained(), lane(site, ACKNOWLEDGEMENTS, holder_of(context), wait=False) as lease:
            settle(site, lease)
    except LeaseHeldError as error:
        context.log.info(f"The answers are left to the pass that is under way: {error}")


def _answers(site: Site, batch: Batch) -> dict[str, Any]:
    with site.ledger.read() as db:
        current = get(db, batch.key)
        return {
            "state": current.state,
            **{f"requests {name}": number for name, number in outcomes(db, current).items()},
            **{f"written {name}": number for name, number in settlements(db, current).items()},
        }


def reconciliation_asset() -> dg.AssetsDefinition:
    """Returns the asset that says whether a batch's figures add up."""

    @dg.asset(
        key=RECONCILIATION,
        deps=[KEY],
        partitions_def=PARTITIONS,
        group_name="upload",
        kinds={"table"},
        owners=OWNERS,
        required_resource_keys={"site"},
        check_specs=[equation_check_spec(RECONCILIATION)],
        description="The control equations of the batch (docs/architecture.md, The ledger).",
    )
    def reconciliation(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        site: Site = context.resources.site
        with working(context) as work:
            batch = work.batch
        found = _equations(site, batch)
        _report_siblings(context, site, batch, RECONCILIATION)
        check = equation_check_result(RECONCILIATION, found)
        return dg.MaterializeResult(metadata=_table(found), check_results=[check])

    return reconciliation


def _equations(site: Site, batch: Batch) -> list[Equation]:
    with site.ledger.read() as db:
        return equations(db, get(db, batch.key))


def _table(found: list[Equation]) -> dict[str, Any]:
    records = [
        dg.TableRecord({"equation": one.name, "left": one.left, "right": one.right, "holds": one.holds})
        for one in found
    ]
    schema = dg.TableSchema(
        [
            dg.TableColumn("equation", "string"),
            dg.TableColumn("left", "int"),
            dg.TableColumn("right", "int"),
            dg.TableColumn("holds", "bool"),
        ]
    )
    return {"equations": dg.MetadataValue.table(records, schema), "holds": all(one.holds for one in found)}


def _report_siblings(context: dg.AssetExecutionContext, site: Site, batch: Batch, key: dg.AssetKey) -> None:
    """Reports an asset for the other shards too: the run that publishes a snapshot speaks for the whole of it.

    As events of this run, since a backfill over the shards counts only what its own runs report.
    """
    if batch.key.mode is not Mode.INITIAL:
        return
    with site.ledger.read() as db:
        shards = owned(db, batch.key.owner)
    for shard in shards:
        if shard.key != batch.key:
            for event in _events(site, shard, key):
                context.log_event(event)


def _materialization(site: Site, batch: Batch, key: dg.AssetKey) -> dg.AssetMaterialization:
    metadata = _answers(site, batch) if key == KEY else _table(_equations(site, batch))
    return dg.AssetMaterialization(key, partition=str(batch.key), metadata=metadata)


def batch_events(site: Site, keys: Iterable[str]) -> Iterator[dg.AssetMaterialization | dg.AssetCheckEvaluation]:
    """Yields answers and equations of batches that a pass over all batches has touched, as events of its own run.

    Of its run, since Dagster takes a check of one partition without a run only once.
    """
    for key in keys:
        with site.ledger.read() as db:
            batch = get(db, SyncBatch.parse(key))
        for asset in (KEY, RECONCILIATION):
            yield from _events(site, batch, asset)


def _events(site: Site, batch: Batch, key: dg.AssetKey) -> Iterator[dg.AssetMaterialization | dg.AssetCheckEvaluation]:
    """Yields an asset of a batch and, of the reconciliation, its check."""
    yield _materialization(site, batch, key)
    if key == RECONCILIATION:
        check = equation_check_result(RECONCILIATION, _equations(site, batch))
        yield dg.AssetCheckEvaluation(
            asset_key=RECONCILIATION,
            check_name=check.check_name or "",
            passed=check.passed,
            metadata={name: dg.MetadataValue.text(str(value)) for name, value in check.metadata.items()},
            partition=str(batch.key),
            blocking=True,
        )
