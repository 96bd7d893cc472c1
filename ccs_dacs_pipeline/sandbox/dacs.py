"""The simulated DACS: watches the upload folder, stages and upserts rows, answers them, and notes every foul.

Written from record-layouts.md and sync-lifecycle.md. What the pipeline must never do is kept as a `Violation`; a row
that DACS refuses is answered negatively, or counted where it carries no External Reference Id.
"""

import hashlib
import os
import threading
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from ccs_dacs_pipeline.sandbox.answers import Answer, Postman
from ccs_dacs_pipeline.sandbox.ccs import share_of
from ccs_dacs_pipeline.sandbox.config import SandboxConfig
from ccs_dacs_pipeline.sandbox.entities import ENTITIES, DacsEntity, by_name
from ccs_dacs_pipeline.sandbox.upload_files import (
    FIRST_DATA_COLUMN,
    MANIFEST_NAME,
    Figures,
    FileName,
    FileNames,
    MalformedFileError,
    Manifest,
    RowRules,
    inspect,
    read_manifest,
    read_rows,
)

ON_PURPOSE = "on_purpose"
UNKNOWN_PARENT = "unknown_parent"
PROCESSED_FOLDER = "processed"
MESSAGE_CATEGORY, MESSAGE_NUMBER = 11508, 17055
_RANKS = {entity.dacs: rank for rank, entity in enumerate(ENTITIES)}


class Violation(NamedTuple):
    """Something the pipeline must never do: the rule, the file, and what was seen there (no values)."""

    rule: str
    file: str
    detail: str


class Refusal(NamedTuple):
    """Why an entity's last row was not taken, and whether an answer said so."""

    rule: str
    answered: bool


@dataclass
class _Stage:
    """What DACS knows of one entity."""

    held: dict[str, bytes] = field(default_factory=dict)
    """Last accepted line by External Id."""
    changed: dict[str, str] = field(default_factory=dict)
    """Largest Change Date Time seen by External Id."""
    refused: dict[str, Refusal] = field(default_factory=dict)
    """Entities whose last row, not counting stale ones, was refused."""
    counts: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    """Refused rows by rule, `on_purpose` among them."""


@dataclass
class _Seen:
    """A file that appeared in the upload folder."""

    path: Path
    first_scan: int
    stamp: tuple[int, int]
    appeared: int
    name: FileName | None = None
    figures: Figures | None = None
    sha256: str = ""
    present: bool = True


class SimulatedDacs:
    """Digital Asset Cloud Service in memory. All public methods may be called from any thread."""

    def __init__(self, config: SandboxConfig) -> None:
        self.config = config
        self._names = FileNames(config.file_name_template)
        self._rules = {
            entity.dacs: RowRules(entity.layout(config.layout), config.datetime_format, config.zone)
            for entity in ENTITIES
        }
        self._progress = threading.Condition(threading.RLock())
        self._stages: dict[DacsEntity, _Stage] = {entity.dacs: _Stage() for entity in ENTITIES}
        self._files: dict[str, _Seen] = {}
        self._manifests: dict[str, Manifest] = {}
        self._violations: list[Violation] = []
        self._answers: list[Answer] = []
        self._postman = Postman(config, self._notify)
        self._stopping = threading.Event()
        self._scans = 0
        self._quiet_scan = 0
        self._failure: BaseException | None = None
        self._thread: threading.Thread | None = None

    # Life

    def start(self) -> None:
        """Begins to watch the upload folder, made when it is not there, and to post answers."""
        self._postman.start()
        if self.config.upload_folder is not None:
            self.config.upload_folder.mkdir(parents=True, exist_ok=True)
            self._thread = threading.Thread(target=self._run, name="sandbox-dacs", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Ends watching and posting, after the file that is being read."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
        self._postman.stop()

    def _run(self) -> None:
        assert self.config.upload_folder is not None  # noqa: S101 - started with a folder only
        try:
            while not self._stopping.is_set():
                self._scan(self.config.upload_folder)
                self._stopping.wait(self.config.poll_seconds)
        except BaseException as error:
            self._failure = error  # told to whoever waits
            self._notify()
            raise

    def _notify(self) -> None:
        with self._progress:
            self._progress.notify_all()

    # What others may look at

    @property
    def violations(self) -> list[Violation]:
        """Everything seen so far that must not happen, in order."""
        with self._progress:
            return list(self._violations)

    @property
    def answers(self) -> list[Answer]:
        """Every answer given, in order, whether posted yet or not."""
        with self._progress:
            return list(self._answers)

    @property
    def manifests(self) -> list[Manifest]:
        """Every manifest read, in order."""
        with self._progress:
            return list(self._manifests.values())

    def held(self, entity: DacsEntity) -> dict[str, dict[str, str]]:
        """What DACS holds: External Id to the last accepted row, by column name."""
        return {id_: self._row(entity, line) for id_, line in self.held_lines(entity).items()}

    def held_lines(self, entity: DacsEntity) -> Mapping[str, bytes]:
        """What DACS holds as lines of the file, for many entities."""
        with self._progress:
            return dict(self._stages[entity].held)

    def refusals(self, entity: DacsEntity) -> dict[str, Refusal]:
        """Entities whose last row was refused."""
        with self._progress:
            return dict(self._stages[entity].refused)

    def page(self, entity: DacsEntity, after: str = "", limit: int = 1000) -> tuple[list[dict[str, str]], int, bool]:
        """Held rows in id order after an id: the rows, how many are held in all, whether more follow."""
        with self._progress:
            held = self._stages[entity].held
            ids = sorted(held)
            start = bisect_right(ids, after)
            rows = [self._row(entity, held[id_]) for id_ in ids[start : start + limit]]
        return rows, len(ids), start + limit < len(ids)

    def _row(self, entity: DacsEntity, line: bytes) -> dict[str, str]:
        columns = by_name(entity).layout(self.config.layout)
        return {column.name: value for column, value in zip(columns, line.decode().split("\t"), strict=True)}

    def summary(self) -> dict[str, Any]:
        """Counts by entity, of answers, files and violations."""
        with self._progress:
            figures = ("staged", "upserted", "stale", "negative")
            return {
                "entities": {
                    name: {figure: stage.counts[figure] for figure in figures}
                    | {"held": len(stage.held), "rejected": dict(stage.rejected)}
                    for name, stage in self._stages.items()
                },
                "files": sum(seen.figures is not None for seen in self._files.values()),
                "manifests": len(self._manifests),
                "answers": {"given": len(self._answers)} | self._postman.counts(),
                "violations": [violation._asdict() for violation in self._violations],
            }

    def wait_until(self, predicate: Callable[["SimulatedDacs"], object], timeout: float = 30) -> None:
        """Waits until a predicate of this DACS holds; it is asked whenever something happens.

        Raises:
            TimeoutError: It does not hold within `timeout` seconds; the message tells the state.
            RuntimeError: The watching itself has failed.
        """
        deadline = time.monotonic() + timeout
        with self._progress:
            while not predicate(self):
                if self._failure is not None:
                    raise RuntimeError("sandbox: DACS stopped watching the upload folder") from self._failure
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError(f"sandbox: DACS did not get there within {timeout} s; it is at {self.summary()}")
                self._progress.wait(left)

    def wait_until_idle(self, timeout: float = 30) -> None:
        """Waits until a look at the upload folder begun after this call found nothing new, and no answer is pending."""
        begun = self._scans
        watching = self._thread is not None

        def idle(_: SimulatedDacs) -> bool:
            return (not watching or self._quiet_scan > begun) and not self._postman.counts()["pending"]

        self.wait_until(idle, timeout)

    # The folder

    def _scan(self, folder: Path) -> None:
        """One look at the folder: contacts, then service points, then agreements, then manifests."""
        with self._progress:
            self._scans += 1
        # Until two listings agree: a single one may show a file and miss another that became visible before it.
        names: set[str] = set()
        while (listed := {entry.name for entry in os.scandir(folder) if entry.is_file()}) != names:
            names = listed
        new = [seen for name in names if not name.startswith(".") and (seen := self._meet(folder / name))]
        with self._progress:
            for name, seen in self._files.items():
                seen.present = name in names
        data = [seen for seen in new if seen.name]
        data.sort(key=lambda seen: (_RANKS[seen.name.entity.dacs] if seen.name else 0, seen.appeared, seen.path.name))
        manifests = [seen for seen in new if MANIFEST_NAME.fullmatch(seen.path.name)]
        for seen in data:
            self._guarded(seen, self._process)
        for seen in sorted(manifests, key=lambda seen: seen.appeared):
            self._guarded(seen, self._check_manifest)
        with self._progress:
            if not new:
                self._quiet_scan = self._scans
            self._progress.notify_all()

    def _meet(self, path: Path) -> _Seen | None:
        """Takes note of a file; gives it when it is to be read."""
        try:
            status = path.stat()
        except FileNotFoundError:
            return None
        stamp = (status.st_size, status.st_mtime_ns)
        known = self._files.get(path.name)
        if known is not None and known.present and known.stamp == stamp:
            return None
        seen = _Seen(path, self._scans, stamp, status.st_ctime_ns, self._names.parse(path.name))
        if known is not None:
            return self._meet_again(known, seen)
        with self._progress:
            self._files[path.name] = seen
        if seen.name is None and not MANIFEST_NAME.fullmatch(path.name):
            self._violate("file_name", seen, "the name fits none of the patterns; the file is not read")
            return None
        return seen

    def _meet_again(self, known: _Seen, seen: _Seen) -> _Seen | None:
        """A file that was read is there anew: published again when it is the same, at fault when not."""
        was_present, known.present, known.stamp = known.present, True, seen.stamp
        if known.sha256 != _sha256(seen.path):
            self._violate("file_changed", seen, "its content differs from what was read under this name before")
            return None
        return known if not was_present and known.name else None

    def _guarded(self, seen: _Seen, read: Callable[[_Seen], None]) -> None:
        """Reads a file, and keeps what is wrong with it."""
        try:
            read(seen)
        except MalformedFileError as error:
            self._violate("malformed_file", seen, str(error))
        except OSError as error:
            self._violate("unreadable_file", seen, type(error).__name__)
            return
        status = seen.path.stat()
        if (status.st_size, status.st_mtime_ns) != seen.stamp:
            self._violate("file_changed", seen, "it changed while it was read")
        if self.config.move_processed:
            target = seen.path.parent / PROCESSED_FOLDER
            target.mkdir(exist_ok=True)
            seen.path.replace(target / seen.path.name)

    def _violate(self, rule: str, seen: _Seen, detail: str) -> None:
        with self._progress:
            self._violations.append(Violation(rule, seen.path.name, detail))
            self._progress.notify_all()

    # Rows

    def _process(self, seen: _Seen) -> None:
        """Stages every row of a file, then commits once."""
        assert seen.name is not None  # noqa: S101 - only named files get here
        name, again = seen.name, seen.figures is not None
        seen.sha256 = _sha256(seen.path)
        seen.figures = inspect(seen.path, len(name.entity.layout(self.config.layout)))
        for fault in seen.figures.dialect_faults:
            self._violate("dialect", seen, fault)
        work = _FileWork(self, name, repeated=again or name.rerun > 0)
        for values in read_rows(seen.path):
            work.take(values)
        if work.backwards:
            self._violate(
                "change_date_time",
                seen,
                f"goes backwards for {work.backwards} entities; an older change came after a newer",
            )
        with self._progress:
            work.commit()
            self._answers.extend(work.answers)
            self._progress.notify_all()
        self._postman.send(work.answers)

    # Manifests

    def _check_manifest(self, seen: _Seen) -> None:
        """Checks every figure of a manifest against the files that were there before it."""
        seen.sha256 = _sha256(seen.path)
        manifest = read_manifest(seen.path)
        with self._progress:
            self._manifests[seen.path.name] = manifest
        listed = {file.name for file in manifest.files}
        found: list[_Seen] = []
        for file in manifest.files:
            known = self._files.get(file.name)
            if known is None or known.name is None:
                self._violate(
                    "manifest_file_missing", seen, f"{file.name} is listed and was not there before the manifest"
                )
                continue
            found.append(known)
            if known.figures is None:
                continue  # malformed, and told as that
            told = (file.entity, file.rows, file.size, file.sha256)
            true = (known.name.entity.dacs, known.figures.rows, known.stamp[0], known.sha256)
            for figure, expected, actual in zip(("entity", "rows", "bytes", "sha256"), told, true, strict=True):
                if expected != actual:
                    self._violate(
                        "manifest_figure", seen, f"{figure} of {file.name} is {expected}, the file has {actual}"
                    )
        self._check_order(seen, found)
        runs = {known.name.series[:3] for known in found if known.name}
        for name, known in list(self._files.items()):
            if known.name and known.name.series[:3] in runs and name not in listed:
                self._violate("manifest_incomplete", seen, f"{name} is of the same batch and is not listed")

    def _check_order(self, seen: _Seen, files: list[_Seen]) -> None:
        """Parents before children, parts in their order and ascending through them."""
        by_rank = sorted(files, key=lambda known: _RANKS[known.name.entity.dacs] if known.name else 0)
        for before, after in pairwise(by_rank):
            if before.name and after.name and before.name.entity is not after.name.entity:
                earliest = min(
                    known.first_scan for known in files if known.name and known.name.entity is after.name.entity
                )
                if before.first_scan > earliest:
                    self._violate(
                        "file_order", seen, f"{before.path.name} appeared after files of {after.name.entity.dacs}"
                    )
        parts = sorted(
            (known.name.series, known.name.part, known.figures) for known in files if known.name and known.figures
        )
        for (series, _, left), (next_series, part, right) in pairwise(parts):
            if series == next_series and left.last_id >= right.first_id:
                self._violate(
                    "dialect", seen, f"External Ids do not ascend into part {part} of {series[0]}_{series[1]}"
                )


class _FileWork:
    """The rows of one file on their way to a commit; `SimulatedDacs` reads on undisturbed until then."""

    def __init__(self, dacs: SimulatedDacs, name: FileName, *, repeated: bool) -> None:
        self._config = dacs.config
        self._stages = dacs._stages  # noqa: SLF001 - one machine in two classes
        self._rules = dacs._rules[name.entity.dacs]  # noqa: SLF001
        self._entity = name.entity
        self._initial = name.initial
        self._repeated = repeated
        self._stage = self._stages[name.entity.dacs]
        self._parents = tuple(
            (index, self._stages[parent].held)
            for index, column in enumerate(name.entity.layout(self._config.layout))
            for parent_column, parent in name.entity.parents
            if column.name == parent_column
        )
        self._held: dict[str, bytes] = {}
        self._refused: dict[str, Refusal] = {}
        self._counts: Counter[str] = Counter()
        self._rejected: Counter[str] = Counter()
        self.answers: list[Answer] = []
        self.backwards = 0

    def take(self, values: list[str]) -> None:
        """Stages one row: validates it, and decides whether it is held and how it is answered."""
        self._counts["staged"] += 1
        reference, changed, _, id_ = values[: FIRST_DATA_COLUMN + 1]
        broken = self._rules.broken(values, initial=self._initial)
        last = self._stage.changed.get(id_, "")
        stale = not self._initial and not broken and changed < last
        if not broken:
            self._stage.changed[id_] = max(changed, last)
        if stale:
            self._counts["stale"] += 1
            self.backwards += not self._repeated
        rule = broken or self._refusal(reference, values, stale=stale)
        if rule:
            self._rejected[rule] += 1
        if not stale:
            self._refused.pop(id_, None)
            if rule:
                self._refused[id_] = Refusal(rule, answered=bool(reference))
            else:
                self._held[id_] = "\t".join(values).encode()
        if reference and not self._initial:
            self._counts["negative"] += bool(rule)
            self.answers.append(self._answer(reference, id_, rule))

    def _refusal(self, reference: str, values: list[str], *, stale: bool) -> str | None:
        if reference and share_of(self._config.seed, "negative", reference) < self._config.negative_share:
            return ON_PURPOSE
        if not stale:
            for index, held in self._parents:
                if values[index] and values[index] not in held:
                    return UNKNOWN_PARENT
        return None

    def _answer(self, reference: str, id_: str, rule: str | None) -> Answer:
        """An acknowledgement, as sync-lifecycle.md has it."""
        answer: Answer = {
            "syncRequestId": reference,
            "hasError": rule is not None,
            "ackId": f"{self._entity.staging_object}-{reference}",
        }
        if rule is None:
            own_id = f"{int(share_of(self._config.seed, self._entity.dacs, id_) * 10**12):012}"
            return answer | {
                "externalIds": {"entityIdList": [{"entity": self._entity.external_entity, "externalPk1": own_id}]}
            }
        return answer | {
            "exceptionInfo": [
                {
                    "sequence": 1,
                    "messageCategory": MESSAGE_CATEGORY,
                    "messageNumber": MESSAGE_NUMBER,
                    "comments": f"{self._entity.staging_object}: {rule}",
                    "messageParameters": [{"parameterSequence": 1, "messageParameterValue": rule}],
                }
            ]
        }

    def commit(self) -> None:
        """Makes the file's rows what DACS holds."""
        stage = self._stage
        stage.held.update(self._held)
        for id_ in self._held.keys() & stage.refused.keys():
            del stage.refused[id_]
        stage.refused.update(self._refused)
        self._counts["upserted"] = len(self._held)
        stage.counts.update(self._counts)
        stage.rejected.update(self._rejected)


def _sha256(path: Path) -> str:
    """Digest of a file that may be large."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
