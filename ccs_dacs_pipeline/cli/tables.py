"""Reports as a person reads them on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from rich.console import Console

Figures = dict[str, Any]
_NAMES = ("batch", "entity", "state")


def _print(console: Console, title: str, columns: list[str], rows: list[list[Any]]) -> None:
    table = Table(title=title, title_justify="left", expand=False)
    numeric = [all(isinstance(row[place], int) for row in rows) for place in range(len(columns))]
    for column, right in zip(columns, numeric, strict=True):
        justify: Literal["left", "right"] = "right" if right and rows else "left"
        table.add_column(column, justify=justify, overflow="fold", no_wrap=column in _NAMES)
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    console.print(table)


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_cell(number)}" for name, number in value.items()) or "-"
    if isinstance(value, list):
        return "\n".join(str(one) for one in value) or "-"
    return "-" if value is None else str(value)


def batches(console: Console, figures: Figures) -> None:
    """Prints batches with rows and files."""
    rows = [[b["key"], b["state"], b["rerun"], b["rows"], b["files"], b["reason"]] for b in figures["batches"]]
    if rows:
        _print(console, "Batches", ["batch", "state", "rerun", "rows", "files", "reason"], rows)
    else:
        console.print("No batches.")


def transferred(console: Console, figures: Figures) -> None:
    """Prints the foreign files of one pass: sent, failed, still being written; others chose their names."""
    rows = [[escape(one["name"]), "sent", one["bytes"], f"{one['seconds']:.3f} s"] for one in figures["sent"]]
    rows += [[escape(one["name"]), "FAILED", None, escape(one["reason"])] for one in figures["failed"]]
    rows += [[escape(name), "being written", None, None] for name in figures["waiting"]]
    if rows:
        _print(console, "Foreign files", ["file", "state", "bytes", "seconds or reason"], rows)
    else:
        console.print("No foreign files.")


def preflight(console: Console, figures: Figures) -> None:
    """Prints what was looked at, and what is to be done."""
    states = {"ok": "ok", "wrong": "WRONG", "not tried": "-"}
    rows = [
        [one["check"], states[one["state"]], one["tried"], escape(f"{one['result']}\n{one['todo']}".rstrip())]
        for one in figures["checks"]
    ]
    _print(console, "Preflight", ["check", "state", "tried", "result, and what to do"], rows)
    console.print("All is well." if figures["healthy"] else "[red]Something is wrong.[/red]")


def batch(console: Console, figures: Figures) -> None:
    """Prints all about one batch."""
    batches(console, figures)
    names = ["batch", "entity", "fetched", "written", "quarantined", "not_eligible", "cleaned", "unknown_references"]
    _print(console, "Entities", names, [[line[name] for name in names] for line in figures["entities"]])
    requests = [[key, by_outcome] for key, by_outcome in figures["requests"].items() if by_outcome]
    if requests:
        _print(console, "Requests", ["batch", "outcomes"], requests)
    _equations(console, figures["equations"])
    lines = [[line["at"], line["batch"], line["event"], line["detail"]] for line in figures["journal"]]
    _print(console, "Journal", ["at", "batch", "event", "detail"], lines)


def _equations(console: Console, found: list[Figures]) -> None:
    rows = [[one["batch"], one["name"], one["left"], one["right"], one["holds"]] for one in found]
    _print(console, "Control equations", ["batch", "equation", "left", "right", "holds"], rows)


def settled(console: Console, figures: Figures) -> None:
    """Prints what a delivery of acknowledgements did."""
    stored = figures["acknowledgements"]
    rows = [[figures["due"], figures["stillDue"], stored["stored"], stored["delivered"], stored["parked"]]]
    _print(console, "Acknowledgements", ["were due", "still due", "stored", "delivered", "parked"], rows)


def status(console: Console, figures: Figures) -> None:
    """Prints the status report."""
    gate = figures["gate"]
    console.print("Gate: open" if gate["open"] else f"Gate: closed, held by {gate['heldBy']}")
    batches(console, figures)
    for title, name in (("Requests", "requests"), ("Acknowledgements", "acknowledgements")):
        _print(console, title, ["what", "how many"], [[what, number] for what, number in figures[name].items()])
    for name in ("overdue", "suspect", "refused", "quarantined"):
        if figures[name]:
            columns = list(figures[name][0])
            rows = [[line[column] for column in columns] for line in figures[name]]
            _print(console, name.capitalize(), columns, rows)


def quarantine(console: Console, figures: Figures) -> None:
    """Prints quarantined records."""
    found = figures["quarantined"]
    if found:
        _print(console, "Quarantined", list(found[0]), [list(line.values()) for line in found])
    else:
        console.print("Nothing is quarantined.")


def recovered(console: Console, figures: Figures) -> None:
    """Prints what was found of a lost ledger, and what could not be."""
    names = {
        "numbers": "batch numbers go on above",
        "fileNumbers": "file numbers go on above",
        "changeDateTimes": "Change Date Times found",
        "batches": "batches that send the requests' entities anew",
    }
    rows = [["requests that nobody knew", len(figures["unknown"])]]
    rows += [[text, figures[name]] for name, text in names.items()]
    _print(console, "Looked only" if figures["dryRun"] else "Recovered", ["what", "figures"], rows)
    if figures["batches"]:
        console.print("`ccs-dacs sync`, or the sensor, takes these batches to delivery.")
    for line in figures["notKnown"]:
        console.print(f"Not known: {line}", markup=False)


def reconciliation(console: Console, figures: Figures) -> None:
    """Prints the control equations, in all and per batch."""
    names = {
        "entity": "entity",
        "eligible": "eligible",
        "written": "written",
        "quarantined": "quarantined",
        "delivered": "delivered",
        "acknowledgedYes": "yes",
        "acknowledgedNo": "no",
        "awaiting": "awaiting",
        "difference": "difference",
    }
    rows = [[line[name] for name in names] for line in figures["entities"]]
    _print(console, "Reconciliation over all batches", list(names.values()), rows)
    _equations(console, [{"batch": b["key"], **one} for b in figures["batches"] for one in b["equations"]])
    console.print("All equations hold." if figures["holds"] else "NOT all equations hold.")


def comparison(console: Console, figures: Figures) -> None:
    """Prints the demo's last table: what CCS has against what DACS holds."""
    names = {
        "entity": "entity",
        "eligible": "CCS eligible",
        "written": "written",
        "quarantined": "quarantined",
        "delivered": "delivered",
        "acknowledgedYes": "yes",
        "acknowledgedNo": "no",
        "lastNegative": "last no",
        "heldEqual": "held equal",
        "difference": "difference",
    }
    rows = [[line[name] for name in names] for line in figures["entities"]]
    _print(console, "CCS against DACS", list(names.values()), rows)
    for violation in figures["violations"]:
        console.print(f"DACS saw a violation: {violation}", markup=False)
    console.print("difference = eligible - quarantined - last answered no (last no) - held with equal content")
    console.print("All figures add up." if figures["holds"] else "The figures do NOT add up.")
