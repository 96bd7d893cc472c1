"""The command line's commands. Each is a thin shell: usage here, the work in `work.py` and the rooms."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from ccs_dacs_pipeline.ccs import CcsError
from ccs_dacs_pipeline.cli import demo as demo_story
from ccs_dacs_pipeline.cli import dev as dev_services
from ccs_dacs_pipeline.cli import tables, work
from ccs_dacs_pipeline.cli.console import UsageProblem, errors, output
from ccs_dacs_pipeline.dacs.names import FileNameError
from ccs_dacs_pipeline.entities import ENTITIES, LayoutError
from ccs_dacs_pipeline.ledger.report import reconcile as reconcile_figures
from ccs_dacs_pipeline.ledger.report import status as status_figures
from ccs_dacs_pipeline.partitions import KeyRefusedError
from ccs_dacs_pipeline.settings import SettingsError, load_settings

WAIT_SECONDS = 300.0

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Synchronizes CCS with DACS.", pretty_exceptions_enable=False
)
batch_app = typer.Typer(no_args_is_help=True, help="Batches, and what an operator can do with them.")
acks_app = typer.Typer(no_args_is_help=True, help="The acknowledgement inbox, and taking answers to CCS.")
quarantine_app = typer.Typer(no_args_is_help=True, help="Records that break a rule, and what becomes of them.")
app.add_typer(batch_app, name="batch")
app.add_typer(quarantine_app, name="quarantine")
app.add_typer(acks_app, name="acks")

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Wait = Annotated[float, typer.Option("--wait", min=0, help="Seconds to wait while another pass holds the lane.")]
Key = Annotated[str, typer.Argument(help="delta-18, resync-3, or initial-7 for a whole snapshot.")]
EntityName = Annotated[str, typer.Argument(metavar="ENTITY", help=", ".join(one.name for one in ENTITIES))]
Ids = Annotated[list[str], typer.Argument(metavar="ID...", help="Ids of its records.")]
Host = Annotated[str, typer.Option(help="Address to listen on.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")]


def main() -> None:
    """Runs the command line: exit code 0 on success, 1 on failure of the work, 2 on wrong usage or settings."""
    try:
        app()
    except (SettingsError, LayoutError, FileNameError, KeyRefusedError, UsageProblem) as error:
        errors.print(str(error), style="red", markup=False)
        sys.exit(2)
    except work.FAILURES as error:
        errors.print(str(error), style="red", markup=False)
        if isinstance(error, CcsError):
            errors.print("`ccs-dacs doctor` looks at the way to CCS and at all that is configured.", markup=False)
        sys.exit(1)


def _emit(figures: dict[str, Any], *, as_json: bool, table: Callable[[Console, dict[str, Any]], None]) -> None:
    if as_json:
        sys.stdout.write(json.dumps(figures, indent=2) + "\n")
    else:
        table(output, figures)


@app.command()
def initial(
    shards: Annotated[int | None, typer.Option(min=1, max=9999, help="Coarse key ranges (default 1).")] = None,
    new: Annotated[bool, typer.Option("--new", help="Abort an unfinished snapshot and start afresh.")] = False,
    wait: Wait = WAIT_SECONDS,
    as_json: Json = False,
) -> None:
    """An initial synchronization, to its end; resumes an unfinished one."""
    with work.opened() as worker:
        figures = worker.initial(shards=shards, new=new, wait=wait)
    _emit(figures, as_json=as_json, table=tables.batches)


@app.command()
def sync(
    refused: Annotated[bool, typer.Option("--refused", help="Also try again what CCS has refused.")] = False,
    wait: Wait = WAIT_SECONDS,
    as_json: Json = False,
) -> None:
    """One incremental pass over what is pending, to delivery."""
    with work.opened() as worker:
        figures = worker.sync(wait=wait, refused=refused)
    _emit(figures, as_json=as_json, table=tables.batches)


@app.command()
def resync(
    entity: Annotated[str, typer.Option(help=", ".join(one.name for one in ENTITIES))],
    ids: Annotated[Path | None, typer.Option(help="File with one id a line.", exists=True, dir_okay=False)] = None,
    low: Annotated[str | None, typer.Option(help="Lowest id of a range.")] = None,
    high: Annotated[str | None, typer.Option(help="Highest id of a range.")] = None,
    wait: Wait = WAIT_SECONDS,
    as_json: Json = False,
) -> None:
    """Sends chosen entities anew."""
    chosen = work.chosen_entities(entity, ids, low, high)
    with work.opened() as worker:
        figures = worker.resync(entity, chosen, wait=wait)
    _emit(figures, as_json=as_json, table=tables.batches)


@batch_app.command("list")
def batch_list(as_json: Json = False) -> None:
    """All batches."""
    with work.opened_site(load_settings()) as site:
        figures = {"batches": work.all_batches(site)}
    _emit(figures, as_json=as_json, table=tables.batches)


@batch_app.command("show")
def batch_show(key: Key, as_json: Json = False) -> None:
    """One batch: files, figures of its entities, requests, equations, journal."""
    with work.opened_site(load_settings()) as site:
        figures = work.one_batch(site, key)
    _emit(figures, as_json=as_json, table=tables.batch)


@batch_app.command("resume")
def batch_resume(key: Key, wait: Wait = WAIT_SECONDS, as_json: Json = False) -> None:
    """Lets a stopped or unfinished batch go on, to delivery."""
    with work.opened() as worker:
        figures = worker.resume(key, wait=wait)
    _emit(figures, as_json=as_json, table=tables.batches)


@batch_app.command("abort")
def batch_abort(key: Key, wait: Wait = WAIT_SECONDS, as_json: Json = False) -> None:
    """Gives a batch up for good; its claimed requests are answered with an error."""
    with work.opened() as worker:
        figures = worker.abort(key, wait=wait)
    _emit(figures, as_json=as_json, table=tables.batches)


@batch_app.command("replay")
def batch_replay(key: Key, wait: Wait = WAIT_SECONDS, as_json: Json = False) -> None:
    """Sends a delivered batch again: same rows, new file names."""
    with work.opened() as worker:
        figures = worker.replay(key, wait=wait)
    _emit(figures, as_json=as_json, table=tables.batches)


@quarantine_app.command("list")
def quarantine_list(as_json: Json = False) -> None:
    """The records that are quarantined now."""
    with work.opened_site(load_settings()) as site:
        figures = {"quarantined": work.quarantined(site)}
    _emit(figures, as_json=as_json, table=tables.quarantine)


@quarantine_app.command("release")
def quarantine_release(entity: EntityName, ids: Ids, wait: Wait = WAIT_SECONDS, as_json: Json = False) -> None:
    """Sends quarantined records anew, as a resync; what still breaks a rule stays quarantined."""
    work.check_records(entity, ids)
    with work.opened() as worker:
        figures = worker.release(entity, ids, wait=wait)
    _emit(figures, as_json=as_json, table=tables.batches)


@quarantine_app.command("reject")
def quarantine_reject(entity: EntityName, ids: Ids, as_json: Json = False) -> None:
    """Accepts that quarantined records are not sent; the journal keeps it."""
    work.check_records(entity, ids)
    with work.opened_site(load_settings()) as site:
        figures = {"quarantined": work.reject(site, entity, ids)}
    _emit(figures, as_json=as_json, table=tables.quarantine)


@acks_app.command("serve")
def acks_serve(host: Host = "127.0.0.1", port: Port = 8089) -> None:
    """The acknowledgement inbox: POST /acknowledgements, GET /health."""
    work.serve_inbox(load_settings(), host, port)


@acks_app.command("deliver")
def acks_deliver(wait: Wait = WAIT_SECONDS, as_json: Json = False) -> None:
    """One pass that takes stored acknowledgements to CCS."""
    with work.opened() as worker:
        figures = worker.deliver_acknowledgements(wait=wait)
    _emit(figures, as_json=as_json, table=tables.settled)


@app.command()
def transfer(wait: Wait = WAIT_SECONDS, as_json: Json = False) -> None:
    """One pass that moves the files of CCS's own batches; exit code 1 when one of them fails."""
    with work.opened() as worker:
        figures = worker.transfer(wait=wait)
    _emit(figures, as_json=as_json, table=tables.transferred)
    if figures["failed"]:
        raise typer.Exit(1)


@app.command()
def status(as_json: Json = False) -> None:
    """Batches, requests by state, gate, overdue, suspect, refused, quarantine."""
    settings = load_settings()
    with work.opened_site(settings) as site, site.ledger.read() as db:
        figures = status_figures(db, settings.ack_timeout)
    _emit(figures, as_json=as_json, table=tables.status)


@app.command()
def recover(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only look, and say what would be done.")] = False,
    wait: Wait = WAIT_SECONDS,
    as_json: Json = False,
) -> None:
    """After the loss of the ledger: goes on from what CCS, manifests and folders tell."""
    with work.opened() as worker:
        figures = worker.recover(dry_run=dry_run, wait=wait)
    _emit(figures, as_json=as_json, table=tables.recovered)


@app.command()
def reconcile(as_json: Json = False) -> None:
    """The control equations, per batch and in all; exit code 1 when one does not hold."""
    with work.opened_site(load_settings()) as site, site.ledger.read() as db:
        figures = reconcile_figures(db, [entity.name for entity in ENTITIES])
    _emit(figures, as_json=as_json, table=tables.reconciliation)
    if not figures["holds"]:
        raise typer.Exit(1)


@app.command()
def doctor(as_json: Json = False) -> None:
    """A preflight of everything that is configured; exit code 1 when something is wrong."""
    lines = work.preflight()
    healthy = all(line.state != "wrong" for line in lines)
    figures = {"healthy": healthy, "checks": [dataclasses.asdict(line) for line in lines]}
    _emit(figures, as_json=as_json, table=tables.preflight)
    if not healthy:
        raise typer.Exit(1)


@app.command()
def demo(
    persons: Annotated[int, typer.Option(min=1, help="Persons of the simulated utility.")] = 1000,
    changes: Annotated[int, typer.Option(min=0, help="Changes after the initial sync.")] = 100,
    seed: Annotated[int, typer.Option(help="Seed of the simulated utility.")] = 1,
    shards: Annotated[int, typer.Option(min=1, help="Shards of the snapshot.")] = 2,
    as_json: Json = False,
) -> None:
    """The whole story on a temporary sandbox, ending in the reconciliation table."""
    figures = demo_story.run(persons=persons, changes=changes, seed=seed, shards=shards)
    _emit(figures, as_json=as_json, table=tables.comparison)
    if not figures["holds"]:
        raise typer.Exit(1)


@app.command()
def sandbox(
    persons: Annotated[int, typer.Option(min=1, help="Persons of the simulated utility.")] = 1000,
    seed: Annotated[int, typer.Option(help="Seed of the simulated utility.")] = 1,
    host: Host = "127.0.0.1",
    port: Port = 0,
    upload: Annotated[Path | None, typer.Option(help="Upload folder that the simulated DACS watches.")] = None,
    inbox: Annotated[str | None, typer.Option(help="Where the simulated DACS posts acknowledgements.")] = None,
    latency: Annotated[float, typer.Option(min=0, help="Seconds added to every call of CCS.")] = 0.0,
) -> None:
    """Serves the simulated CCS and DACS until stopped."""
    dev_services.serve_sandbox(
        load_settings(),
        persons=persons,
        seed=seed,
        host=host,
        port=port,
        upload=upload,
        inbox=inbox,
        latency=latency,
    )


@app.command()
def dev(
    persons: Annotated[int, typer.Option(min=1, help="Persons of the simulated utility.")] = 1000,
    seed: Annotated[int, typer.Option(help="Seed of the simulated utility.")] = 1,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the Dagster UI.")] = 3000,
    host: Host = "127.0.0.1",
) -> None:
    """Sandbox, inbox, Dagster UI and daemon with the sensors on, until stopped."""
    dev_services.run(load_settings(), persons=persons, seed=seed, host=host, port=port)
