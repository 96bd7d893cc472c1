"""What a sandbox is asked to be: its size, its manners, and where its two halves meet the outside."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from ccs_dacs_pipeline.sandbox.entities import Layout

_SHARES = ("negative_share", "discard_share", "awkward_share", "bad_share")
_DEMO = "sandbox"  # every demo credential: the sandbox holds invented data and is meant for loopback


@dataclass(frozen=True)
class SandboxConfig:
    """A simulated CCS and DACS; every default suits a demo on one machine.

    Raises:
        ValueError: A value is out of its range; the message names it.
    """

    persons: int = 1000
    """People and businesses; service points and agreements follow in proportion (about 1.05 and 1.2 each)."""
    seed: int = 1
    host: str = "127.0.0.1"
    port: int = 0
    """0 takes a free port."""
    auth: Literal["none", "basic", "oauth"] = "basic"
    username: str = _DEMO
    password: str = field(default=_DEMO, repr=False)
    client_id: str = _DEMO
    client_secret: str = field(default=_DEMO, repr=False)
    token_seconds: int = 3600
    """Life of an OAuth token, told as `expires_in`."""
    plural_style: Literal["wrapped", "list"] = "wrapped"
    """Plural members as an object round one list, or as the list itself."""
    envelope: bool = False
    """Wraps every search answer in one outer element that names the service."""
    latency_seconds: float = 0
    """Added to every call of CCS."""
    clock_skew_seconds: float = 0
    """How far CCS's clock is ahead, as the `Date` of its answers tells it."""
    page_cap: int = 10_000
    """Largest page served, whatever is asked: a page smaller than asked is legal."""
    awkward_share: float = 0.01
    """Share of records with awkward but legal values."""
    bad_share: float = 0.0
    """Share of records that break a rule and have to be quarantined."""
    discard_share: float = 0.0
    """Share of sync requests that CCS discards at the first transition."""
    expects_acknowledgement: bool = True
    """Without it the first transition ends in SYNCHRONIZED."""
    time_zone: str = "UTC"
    """Base time zone of CCS, in which DACS reads dates and times."""
    upload_folder: Path | None = None
    """Watched by DACS; none: nothing is read."""
    move_processed: bool = False
    """Moves read files to the sub-folder `processed` instead of remembering them."""
    poll_seconds: float = 0.2
    layout: Layout = "assumed-tail"
    datetime_format: Literal["ouaf", "xsd"] = "ouaf"
    file_name_template: str = "{batchCode}_{batchNumber}_{rerunNumber}.csv"
    negative_share: float = 0.02
    """Share of rows with an External Reference Id that DACS refuses on purpose."""
    inbox_url: str | None = None
    """Base URL of the pipeline's inbox, to which `/acknowledgements` is added; none: answers are kept."""
    inbox_username: str | None = None
    inbox_password: str | None = field(default=None, repr=False)
    inbox_token: str | None = field(default=None, repr=False)
    """Bearer token for the inbox; wins over user name and password."""

    def __post_init__(self) -> None:
        for name in _SHARES:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"sandbox: {name} is {getattr(self, name)}; it must lie between 0 and 1")
        if self.persons < 0:
            raise ValueError(f"sandbox: persons is {self.persons}; it must be 0 or more")
        if self.page_cap < 1:
            raise ValueError(f"sandbox: page_cap is {self.page_cap}; it must be 1 or more")
        if self.poll_seconds <= 0 or self.latency_seconds < 0:
            raise ValueError("sandbox: poll_seconds must be above 0 and latency_seconds 0 or more")
        try:
            ZoneInfo(self.time_zone)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise ValueError(f"sandbox: time_zone {self.time_zone!r} is unknown; use an IANA name") from error

    @property
    def zone(self) -> ZoneInfo:
        """The base time zone."""
        return ZoneInfo(self.time_zone)
