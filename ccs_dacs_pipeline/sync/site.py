"""One configured site: everything a sync needs of the outside, opened from the settings."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import stamina.instrumentation

from ccs_dacs_pipeline.ccs import BasicAuth, CcsClient, Connection, OAuth
from ccs_dacs_pipeline.dacs.inbox import BasicCaller, BearerCaller, Caller
from ccs_dacs_pipeline.dacs.names import FileNameTemplate
from ccs_dacs_pipeline.entities import ENTITIES, Eligibility, LayoutProfile, load_profile
from ccs_dacs_pipeline.folders import Folder, FolderAccess, open_folder
from ccs_dacs_pipeline.frames import FrameStore
from ccs_dacs_pipeline.ledger import Ledger
from ccs_dacs_pipeline.ledger.leases import Lease, acquire
from ccs_dacs_pipeline.settings import SettingsError, variable

if TYPE_CHECKING:
    from pydantic import SecretStr

    from ccs_dacs_pipeline.settings import Settings


# Dagster ends a sensor's tick after 60 s, in which four calls must have their place.
_LOOK_SECONDS = 14.0
_log = logging.getLogger(__name__)
_SEARCHES = (*(entity.service for entity in ENTITIES), "syncRequests")


def _log_retry(details: stamina.instrumentation.RetryDetails) -> None:
    """Says which call to CCS has failed, why, and when it is tried again."""
    _log.warning("%s; try %d in %.1f s", details.caused_by, details.retry_num + 1, details.wait_for)


@dataclass
class Site:
    """Ledger, CCS, folders, frames and layout of one site. Opened when first used, closed once; thread safe."""

    settings: Settings
    _opened: list[object] = field(default_factory=list, init=False, repr=False)

    @cached_property
    def ledger(self) -> Ledger:
        """The ledger, migrated."""
        ledger = Ledger(self.settings.ledger)
        ledger.migrate()
        self._opened.append(ledger)
        return ledger

    @cached_property
    def ccs(self) -> CcsClient:
        """The client of CCS.

        Raises:
            SettingsError: a setting that it needs is missing.
        """
        return self._client(connection(self.settings), self.settings.ccs_concurrency)

    @cached_property
    def ccs_at_a_look(self) -> CcsClient:
        """A client that tries each call once and not for long, for a sensor: the next tick comes soon.

        Raises: as `ccs`.
        """
        bounds = connection(self.settings)
        seconds = min(bounds.call_seconds, _LOOK_SECONDS)
        return self._client(replace(bounds, call_seconds=seconds, retry_seconds=seconds, tries=1), 1)

    def _client(self, bounds: Connection, concurrency: int) -> CcsClient:
        # What stamina finds by itself may print retries to standard output, among reports.
        stamina.instrumentation.set_on_retry_hooks([_log_retry])
        client = CcsClient(bounds, concurrency=concurrency)
        self._opened.append(client)
        return client

    @cached_property
    def profile(self) -> LayoutProfile:
        """The layout profile."""
        return load_profile(self.settings.layout_profile, datetime_format=self.settings.datetime_format)

    @cached_property
    def names(self) -> FileNameTemplate:
        """The template of extract file names."""
        return FileNameTemplate.parse(self.settings.file_name_template)

    @cached_property
    def frames(self) -> FrameStore:
        """The frames between assets."""
        return FrameStore(self.settings.folder("frames"))

    @cached_property
    def extract(self) -> Folder:
        """The extract folder."""
        return self._folder("extract")

    @cached_property
    def upload(self) -> Folder:
        """DACS's upload folder.

        Raises:
            SettingsError: it is the extract folder: what is delivered is removed there.
        """
        folder = self._folder("upload")
        require_two(folder, self.extract)
        return folder

    @cached_property
    def eligibility(self) -> Eligibility:
        """Which entities the site sends."""
        return Eligibility(
            person_types=self.settings.eligible_person_types,
            sp_types=self.settings.eligible_sp_types,
            sa_types=self.settings.eligible_sa_types,
            sa_statuses=self.settings.eligible_sa_statuses,
            divisions=self.settings.eligible_divisions,
        )

    def lease(self, name: str, holder: str) -> Lease:
        """Takes a lease of the ledger for `holder`, or takes it again.

        Raises:
            LeaseHeldError: another worker has it.
        """
        settings = self.settings
        return acquire(self.ledger, name, holder, term=settings.lease_seconds, grace=settings.ccs_call_seconds)

    def wall_clock(self) -> datetime:
        """The present time in the base time zone, whole seconds, without zone: as a Change Date Time is written."""
        return datetime.now(self.settings.zone).replace(tzinfo=None, microsecond=0)

    def close(self) -> None:
        """Closes what was opened."""
        while self._opened:
            self._opened.pop().close()  # type: ignore[attr-defined]
        for name in ("ledger", "ccs", "ccs_at_a_look", "extract", "upload"):
            self.__dict__.pop(name, None)

    def _folder(self, name: Literal["extract", "upload"]) -> Folder:
        folder = configured_folder(self.settings, name)
        self._opened.append(folder)
        return folder

    def __enter__(self) -> Site:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def connection(settings: Settings) -> Connection:
    """Returns how CCS is reached.

    Raises:
        SettingsError: a setting that the chosen authentication needs is missing.
    """
    base_url = settings.required("ccs_base_url", why="reaching CCS")
    auth: BasicAuth | OAuth | None = None
    if settings.ccs_auth == "basic":
        why = "Basic authentication at CCS"
        auth = BasicAuth(settings.required("ccs_username", why=why), settings.required("ccs_password", why=why))
    elif settings.ccs_auth == "oauth":
        why = "OAuth at CCS"
        auth = OAuth(
            token_url=settings.required("ccs_token_url", why=why),
            client_id=settings.required("ccs_client_id", why=why),
            client_secret=settings.required("ccs_client_secret", why=why),
            scope=settings.ccs_scope or "",
            credentials_in_form=settings.ccs_credentials_in_form,
        )
    return Connection(
        base_url=base_url,
        auth=auth,
        ca_file=settings.ccs_ca_file,
        page_size=settings.ccs_page_size,
        call_seconds=settings.ccs_call_seconds,
        language=settings.ccs_language,
        search_paths={name: f"{settings.ccs_search_root}/{name}/search" for name in _SEARCHES},
    )


def configured_folder(settings: Settings, name: Literal["extract", "upload"]) -> Folder:
    """Returns one of the two folders, whatever the other one is.

    Raises:
        FolderError: the setting names no folder.
    """
    return open_folder(settings.folder(name), setting=variable(f"{name}_url"), access=folder_access(settings, name))


def require_two(upload: Folder, extract: Folder) -> None:
    """Refuses one folder for both: what is delivered is removed from the extract folder.

    Raises:
        SettingsError: they are the same.
        FolderError: it cannot be seen.
    """
    if upload.is_same(extract):
        raise SettingsError(
            "CCS_DACS_UPLOAD_URL and CCS_DACS_EXTRACT_URL name one folder, from which each file would be removed "
            "once it is delivered: set them to two."
        )


def folder_access(settings: Settings, name: Literal["extract", "upload"]) -> FolderAccess:
    """Returns what opens a folder that is not local: on SFTP by its own password or key, or else by the shared ones."""

    def revealed(secret: SecretStr | None) -> str | None:
        return secret.get_secret_value() if secret else None

    # All or none of them, so that no server is offered what is meant for another one.
    own = any(getattr(settings, f"{name}_sftp_{part}") for part in ("password", "key_file", "key_passphrase"))
    sftp = f"{name}_sftp" if own else "sftp"
    command = getattr(settings, f"{name}_sftp_sha256_command") or settings.sftp_sha256_command or ""
    return FolderAccess(
        sftp_settings=variable(sftp),
        sftp_password=revealed(getattr(settings, f"{sftp}_password")),
        sftp_key_file=getattr(settings, f"{sftp}_key_file"),
        sftp_key_passphrase=revealed(getattr(settings, f"{sftp}_key_passphrase")),
        sftp_known_hosts=getattr(settings, f"{name}_sftp_known_hosts") or settings.sftp_known_hosts,
        # An empty one would run the file itself.
        sftp_sha256_command=command.strip() or None,
        s3_endpoint=settings.s3_endpoint,
        s3_region=settings.s3_region,
        s3_access_key=settings.s3_access_key,
        s3_secret_key=revealed(settings.s3_secret_key),
        s3_addressing=settings.s3_addressing,
        s3_ca_file=settings.s3_ca_file,
    )


def inbox_caller(settings: Settings) -> Caller:
    """Returns what callers of the inbox must present.

    Raises:
        SettingsError: it is not set.
    """
    why = "the acknowledgement inbox"
    if settings.required("ack_auth", why=why) == "bearer":
        return BearerCaller(settings.required("ack_token", why=why))
    return BasicCaller(settings.required("ack_username", why=why), settings.required("ack_password", why=why))
