"""A preflight of what a site has configured: each line says what was tried, what came of it, and what is to be done.

Nothing that it does has a lasting effect: a file in each folder comes and goes, an absent folder with it, and the
transition that it asks CCS for is of a sync request that does not exist. Only an absent ledger on SQLite stays, as an
empty file.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import uuid
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, build_opener
from zoneinfo import available_timezones

import sqlalchemy as sa

from ccs_dacs_pipeline.ccs import Answer, CcsClient, CcsError, OAuth, Permanent, Rejected, SyncStatus
from ccs_dacs_pipeline.dacs.names import FileNameError
from ccs_dacs_pipeline.dacs.zip_file import member_of
from ccs_dacs_pipeline.entities import ENTITIES, LayoutError
from ccs_dacs_pipeline.folders import FileExists, FolderError, LocalFolder
from ccs_dacs_pipeline.folders.url import local_path
from ccs_dacs_pipeline.ledger import Ledger, LedgerError
from ccs_dacs_pipeline.ledger.store import known_versions
from ccs_dacs_pipeline.settings import SettingsError, variable
from ccs_dacs_pipeline.sync import home
from ccs_dacs_pipeline.sync.site import Site, configured_folder, connection, inbox_caller, require_two
from ccs_dacs_pipeline.sync.traces import as_before

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ccs_dacs_pipeline.ccs import Connection
    from ccs_dacs_pipeline.entities import Entity
    from ccs_dacs_pipeline.folders import Folder
    from ccs_dacs_pipeline.settings import Settings

_FOLDERS: tuple[Literal["extract"], Literal["upload"]] = ("extract", "upload")
State = Literal["ok", "wrong", "not tried"]
_CALL_SECONDS = 15.0
_MAX_SKEW_SECONDS = 60.0
# A part that is written, and its copy on the way to another file system.
_FILES_OF_ROOM = 2
_NO_REQUEST = "0" * 14
_ANSWER_BYTES = 64 * 1024
_NOT_LET_IN = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)


@dataclass(frozen=True)
class Line:
    """One thing that was looked at.

    Attributes:
        check: what it is about.
        tried: what was done to see it.
        state: what came of it, in a word.
        result: what came of it.
        todo: what is to be done, empty when nothing is.
    """

    check: str
    tried: str
    state: State
    result: str
    todo: str = ""


class _Wrong(Exception):
    """What was found is not as it must be."""


class _NotTried(Exception):
    """There is nothing to try, or something before it is wrong."""


_ERRORS = (_Wrong, CcsError, FolderError, LedgerError, SettingsError, LayoutError, FileNameError)


def _line(check: str, tried: str, todo: str, work: Callable[[], str]) -> Line:
    try:
        return Line(check, tried, "ok", work())
    except _NotTried as reason:
        return Line(check, tried, "not tried", str(reason))
    except _ERRORS as error:
        return Line(check, tried, "wrong", str(error), todo)
    except (KeyboardInterrupt, SystemExit):
        raise
    # Without its text, which may repeat a secret. A panic of a library in Rust is no `Exception`.
    except BaseException as error:  # noqa: BLE001 - whatever it meets, a preflight goes on to its end
        return Line(check, tried, "wrong", f"It cannot be done ({type(error).__name__}).", todo)


def wrong_settings(error: SettingsError) -> Line:
    """Returns the line of settings that cannot be loaded; nothing else can be tried then."""
    return Line("settings", "loaded", "wrong", str(error), "Mend each variable that is named, then look again.")


def examine(settings: Settings) -> Iterator[Line]:
    """Looks at everything that a site has configured, and yields a line for each."""
    with Site(settings) as site:
        yield _line(
            "settings", "what CCS and the inbox need", "Set each variable that is named.", lambda: _complete(settings)
        )
        yield _line(
            "layout profile",
            "read and checked",
            f"Mend the profile, or {variable('layout_profile')} (docs/profiles.md).",
            lambda: _profile(site),
        )
        yield _line(
            "file name template",
            "checked",
            f"Mend {variable('file_name_template')}.",
            lambda: _example_name(site),
        )
        yield _line("time zone", "looked up", "Install the package tzdata.", lambda: _zone(settings))
        yield from _ccs_lines(settings)
        for name in _FOLDERS:
            yield _line(
                f"{name} folder",
                "a file created, not replaced by a second one of its name, read and removed",
                f"Check {variable(name + '_url')}, and that this user may read, write and remove files there.",
                partial(_probe, settings, name),
            )
        yield _line(
            "frames folder",
            "a file created, read and removed",
            f"Check {variable('frames_url')}, and that this user may read, write and remove files there.",
            lambda: _frames(settings),
        )
        yield _line(
            "Dagster's home",
            f"a file created and removed, {home.FILE} read",
            f"Set DAGSTER_HOME, or {variable('data_dir')}, to a folder that this user may write, and take what is "
            f"lacking in its {home.FILE} from the project's own.",
            lambda: _home(settings),
        )
        yield _line("free space", "room on local disks", "Make room there.", lambda: _room(settings))
        yield _line(
            "ledger",
            "a transaction begun, its version read",
            f"Check {variable('ledger_url')}, and that the database runs.",
            lambda: _ledger(settings),
        )
        yield _line(
            "inbox",
            "GET /health",
            f"Check {variable('inbox_url')}, start `ccs-dacs acks serve`, and look at the proxy before it.",
            lambda: _inbox(settings.inbox_url),
        )


def _complete(settings: Settings) -> str:
    problems = []
    try:
        CcsClient(connection(settings)).close()  # reads the file of the certificate authority
    except (SettingsError, ValueError) as error:
        problems.append(str(error))
    try:
        if settings.acknowledgements == "expected":
            inbox_caller(settings)
    except SettingsError as error:
        problems.append(str(error))
    if problems:
        raise _Wrong(" ".join(problems))
    return "complete"


def _profile(site: Site) -> str:
    columns = ", ".join(f"{name} {len(layout.columns)}" for name, layout in site.profile.entities.items())
    return f"{site.profile.name}; columns: {columns}"


def _example_name(site: Site) -> str:
    return site.names.name(batch_code=ENTITIES[0].initial_code, batch_number=1, rerun=0)


def _zone(settings: Settings) -> str:
    return f"{settings.base_time_zone}, now {datetime.now(settings.zone):%z}; {len(available_timezones())} are known"


def _ccs_lines(settings: Settings) -> Iterator[Line]:
    """Yields the lines about CCS; what needs an answer of it is not tried without one."""
    try:
        full = connection(settings)
        seconds = min(full.call_seconds, _CALL_SECONDS)
        quick = replace(full, tries=1, call_seconds=seconds, retry_seconds=seconds, page_size=1)
        client = CcsClient(quick, concurrency=1)
    except Exception:  # noqa: BLE001 - the line of the settings says what it is
        yield from (Line(name, "", "not tried", "The settings are not complete.") for name in _ccs_checks())
        return
    with client:
        answer = _health(client)
        reachable, authenticated = _reachable(answer, quick), _authenticated(answer, quick)
        yield reachable
        yield authenticated
        # A site may not offer the health check: who says so may still have the services.
        answered = not isinstance(answer, Exception) or _status(answer) >= HTTPStatus.BAD_REQUEST
        if not answered or authenticated.state == "wrong":
            yield from (Line(name, "", "not tried", "CCS could not be asked.") for name in _ccs_checks()[2:])
            return
        yield from _service_lines(client, settings)


def _ccs_checks() -> list[str]:
    searches = [f"search {entity.service}" for entity in ENTITIES]
    return ["CCS", "authentication", "clock", *searches, "search syncRequests", "transition"]


def _health(client: CcsClient) -> dict[str, Any] | Exception:
    try:
        return client.health()
    except Exception as error:  # noqa: BLE001 - its line raises it again
        return error


def _reachable(answer: dict[str, Any] | Exception, reached: Connection) -> Line:
    def judge() -> str:
        if isinstance(answer, Exception):
            if _is_about_token(answer, reached):
                raise _NotTried("There is no token to ask CCS with.")
            if _status(answer) in _NOT_LET_IN:
                return "it answers"
            raise answer
        if answer.get("healthOverallResponse") != HTTPStatus.OK:
            raise _Wrong("It answers and says that it is not well (healthOverallResponse is not 200).")
        return "it answers, healthOverallResponse 200"

    todo = f"Check {variable('ccs_base_url')}, the network, the proxy and the certificate on the way, and CCS itself."
    return _line("CCS", "health check", todo, judge)


def _authenticated(answer: dict[str, Any] | Exception, reached: Connection) -> Line:
    def judge() -> str:
        if not isinstance(answer, Exception):
            return "the user is let in"
        if _is_about_token(answer, reached) or _status(answer) in _NOT_LET_IN:
            raise answer
        raise _NotTried("CCS does not answer as it must.")

    todo = f"Check {variable('ccs_auth')} and its settings, and the rights of that user in CCS."
    return _line("authentication", "health check", todo, judge)


def _status(error: Exception) -> int:
    """The status that an error came with, 0 without an answer."""
    return error.status or 0 if isinstance(error, Permanent) else 0


def _is_about_token(error: Exception, reached: Connection) -> bool:
    auth = reached.auth
    if not isinstance(auth, OAuth) or not isinstance(error, CcsError):
        return False
    return error.reason.startswith("no token") or error.call.endswith(urlsplit(auth.token_url).path)


def _service_lines(client: CcsClient, settings: Settings) -> Iterator[Line]:
    yield _line("clock", "the date of CCS's answer", "Let both machines' clocks follow NTP.", lambda: _skew(client))
    for entity in ENTITIES:
        yield _line(
            f"search {entity.service}",
            "limit 0 and limit 1",
            f"Define the service in CCS (docs/interfaces.md), or mend {variable('ccs_search_root')}.",
            partial(_search, client, settings, entity),
        )
    yield _line(
        "search syncRequests",
        "pending ones of each kind, limit 0 and limit 1",
        f"Define the service in CCS (docs/interfaces.md), or mend {variable('ccs_search_root')}.",
        lambda: _search_requests(client),
    )
    yield _line(
        "transition",
        "PATCH of a sync request that does not exist",
        "Let the gateway pass PATCH to /rest/apis/common/sync/syncRequest/, and give the user the right to it.",
        lambda: _transition(client),
    )


def _skew(client: CcsClient) -> str:
    try:
        theirs = client.clock()
    except Permanent:
        raise _NotTried("The health check does not answer.") from None
    if theirs is None:
        raise _NotTried("The answer has no date.")
    skew = (theirs - datetime.now(UTC)).total_seconds()
    if abs(skew) > _MAX_SKEW_SECONDS:
        raise _Wrong(f"CCS's clock differs from this machine's by {skew:+.0f} s; {_MAX_SKEW_SECONDS:.0f} s at most.")
    return f"differs by {skew:+.0f} s"


def _search(client: CcsClient, settings: Settings, entity: Entity) -> str:
    total = client.count(entity, settings.low_id, settings.high_id)
    found = client.search_range(entity, settings.low_id, settings.high_id, limit=1).frame.height
    if found != min(total, 1):
        raise _Wrong(f"It counts {total:,} entities and gives {found:,} when 1 is asked for: `limit` is not obeyed.")
    return f"{total:,} entities"


def _search_requests(client: CcsClient) -> str:
    counted = []
    for entity in ENTITIES:
        kind, pending = entity.business_object, SyncStatus.PENDING
        total = client.count_sync_requests(business_object=kind, status=pending)
        found = len(next(client.sync_requests(business_object=kind, status=pending), []))
        if found > 1:
            raise _Wrong(f"It gives {found:,} sync requests when 1 is asked for: `limit` is not obeyed.")
        counted.append(f"{entity.name} {total:,}")
    return f"pending: {', '.join(counted)}"


def _transition(client: CcsClient) -> str:
    try:
        found = next(client.sync_requests(ids=[_NO_REQUEST]), [])
    except CcsError:
        raise _NotTried(f"Whether there is no sync request {_NO_REQUEST} cannot be seen without the search.") from None
    if found:
        raise _NotTried(f"There is a sync request {_NO_REQUEST}, which must not be touched.")
    try:
        client.transition(_NO_REQUEST, Answer.positive())
    except Rejected as error:
        return f"refused with {error.status} as a business error, as it must be"
    raise _Wrong(f"It takes a transition of the sync request {_NO_REQUEST}, which does not exist.")


def _probe(settings: Settings, which: Literal["extract", "upload"]) -> str:
    with closing(configured_folder(settings, which)) as folder:
        found = _tried(folder, shared=True)
        if which == "upload":
            _compare(settings, folder)
        return found


def _compare(settings: Settings, upload: Folder) -> None:
    """Raises `SettingsError` when the upload folder is the extract folder, about which its own line says the rest."""
    with suppress(FolderError), closing(configured_folder(settings, "extract")) as extract:
        require_two(upload, extract)


def _frames(settings: Settings) -> str:
    return _tried(_frames_folder(settings), shared=False)


def _frames_folder(settings: Settings) -> LocalFolder:
    return LocalFolder(local_path(settings.folder("frames"), setting=variable("frames_url")))


def _home(settings: Settings) -> str:
    folder = LocalFolder(settings.dagster_home)
    with as_before(folder) as absent, folder.create() as discarded:
        discarded.write(b"one")
    file = folder.path / home.FILE
    if absent or not file.exists():
        missing = "is absent" if absent else f"has no {home.FILE}"
        return f"{folder.path} {missing}: the first command that runs a job makes it; services need it before"
    try:
        lacks = home.lacking(file)
    except (OSError, ValueError) as error:
        raise _Wrong(f"{file} cannot be read as YAML ({type(error).__name__}).") from None
    if lacks:
        raise _Wrong(f"{file} lacks {'; '.join(lacks)}.")
    return f"{folder.path}: all of it; {home.FILE} has what the project's own has"


def _tried(folder: Folder, *, shared: bool) -> str:
    """Tries a folder and says what came of it; a shared one must not let one writer replace another one's file."""
    name = f"ccs-dacs-doctor-{uuid.uuid4().hex}"
    sha256 = hashlib.sha256(b"one").hexdigest()
    with as_before(folder) as absent:
        try:
            _store(folder, name, b"one")
            if shared:
                _store_again(folder, name)
            if folder.names(name) != [name] or folder.sha256(name) != sha256:
                raise _Wrong(f"{folder.url} does not hold the file that was stored there.")
            if folder.url.startswith("sftp:"):
                _try_command(folder, name, sha256)
            folder.remove(name)
            if folder.size(name) is not None:
                raise _Wrong(f"{folder.url} still holds a file that was removed.")
        finally:
            with suppress(FolderError):
                folder.remove(name)
    return f"{folder.url}: all of it{'; it is absent, and made by the first file' if absent else ''}"


def _store_again(folder: Folder, name: str) -> None:
    with suppress(FileExists):
        _store(folder, name, b"two")
        raise _Wrong(f"{folder.url} lets a second file replace the first of its name: files could be lost there.")


def _try_command(folder: Folder, name: str, sha256: str) -> None:
    from ccs_dacs_pipeline.folders.sftp import SftpFolder  # noqa: PLC0415 - as in folders/url.py

    if isinstance(folder, SftpFolder) and not folder.is_told(name, sha256):
        raise _Wrong(
            f"{folder.url}: the server's command does not print the SHA-256 of the file that was stored there, so that "
            f"each file is read back. Mend or unset {variable('sftp_sha256_command')}, or the folder's own."
        )


def _store(folder: Folder, name: str, data: bytes) -> None:
    with folder.create() as file:
        file.write(data)
        file.commit(name, replace=False)


def _room(settings: Settings) -> str:
    wanted = _FILES_OF_ROOM * int(settings.max_file_bytes)
    free = {str(path): shutil.disk_usage(path).free for path in _local_places(settings)}
    short = [f"{path} has {room // 1024**2:,} MiB" for path, room in free.items() if room < wanted]
    if short:
        raise _Wrong(
            f"{'; '.join(short)}, less than {wanted // 1024**2:,} MiB: {_FILES_OF_ROOM} files of "
            f"{variable('max_file_bytes')}."
        )
    return "; ".join(f"{path}: {room // 1024**2:,} MiB" for path, room in free.items())


def _local_places(settings: Settings) -> list[Path]:
    """Returns the local folders that files go to, or what is there of their paths."""
    places = [settings.data_path]
    for name in _FOLDERS:
        # A line of its own names what is wrong with a folder.
        with suppress(FolderError), closing(configured_folder(settings, name)) as folder:
            if isinstance(folder, LocalFolder):
                places.append(folder.path)
    with suppress(FolderError):
        places.append(_frames_folder(settings).path)
    if member_of(settings.file_name_template):
        places.append(Path(tempfile.gettempdir()))
    present = (next(path for path in (place, *place.parents) if path.exists()) for place in places)
    return list(dict.fromkeys(present))


def _ledger(settings: Settings) -> str:
    try:
        with Ledger(settings.ledger) as ledger:
            with ledger.write():
                pass
            version, (newest, *older) = ledger.version, known_versions()
    except (OSError, ImportError, ValueError, sa.exc.ArgumentError) as error:
        # Without the error's own text, which may repeat a part of the URL.
        raise _Wrong(f"It cannot be opened ({type(error).__name__}).") from None
    if version is None:
        return "reachable and empty; the first command makes its tables"
    if version in older:
        raise _Wrong(
            f"It is of version {version}, not {newest}: `ccs-dacs status` brings it there, once no older program runs."
        )
    if version != newest:
        raise _Wrong(f"It is of version {version}, which a newer program has made; this one knows {newest}.")
    return f"reachable, of version {version}"


def _inbox(url: str) -> str:
    if not url:
        raise _NotTried(f"{variable('inbox_url')} is not set.")
    try:
        with build_opener(ProxyHandler({})).open(f"{url.rstrip('/')}/health", timeout=_CALL_SECONDS) as answer:
            document = json.loads(answer.read(_ANSWER_BYTES))
    except HTTPError as error:
        error.close()
        raise _Wrong(f"It answers {error.code}.") from None
    except (OSError, ValueError, HTTPException) as error:
        raise _Wrong(f"It cannot be reached, or another service answers ({type(error).__name__}).") from None
    if document != {"status": "ok"}:
        raise _Wrong("Another service answers there.")
    return "it answers, its ledger too"
