"""Where CCS is, how it is entered, and what a call may take (ccs-rest.md: Conventions, Limits, Trust)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import SplitResult, urlsplit


@dataclass(frozen=True)
class BasicAuth:
    """User name and password; the password never shows in `repr`."""

    username: str
    password: str = field(repr=False)


@dataclass(frozen=True)
class OAuth:
    """OAuth 2.0 client credentials; the secret never shows in `repr`.

    Attributes:
        token_url: where tokens are fetched, the second of the two origins that are ever called.
        client_id: client id.
        client_secret: client secret.
        scope: scope to ask for; empty asks for none.
        credentials_in_form: whether id and secret go in the form instead of a Basic header.
    """

    token_url: str
    client_id: str
    client_secret: str = field(repr=False)
    scope: str = ""
    credentials_in_form: bool = False


@dataclass(frozen=True)
class Connection:
    """One CCS environment, and the bounds of a call to it.

    Attributes:
        base_url: origin and context path of CCS, before `/rest/apis`.
        auth: how to authenticate; `None` for loopback hosts only.
        ca_file: a certificate authority (PEM) that is trusted beside the default ones.
        page_size: entities per page.
        call_seconds: the longest that one try may take, from connecting to the last byte of the answer.
        max_response_bytes: the largest answer, decoded.
        tries: how often a call without effect is tried.
        retry_seconds: the longest that a call may take with all its tries and waits.
        backoff_seconds: the wait before the first repeat; each further one is three times longer, at most 30 s.
        max_retry_after: the longest `Retry-After` that is obeyed, in seconds.
        language: `Accept-Language`.
        search_paths: paths of searches that a site has put elsewhere, by service (`persons`, `syncRequests`, ...).

    Raises:
        ValueError: a URL, path or bound is unusable, or a credential would cross a network in the clear.
    """

    base_url: str
    auth: BasicAuth | OAuth | None
    ca_file: Path | None = None
    page_size: int = 2000
    call_seconds: float = 60
    max_response_bytes: int = 64 * 1024 * 1024
    tries: int = 5
    retry_seconds: float = 120
    backoff_seconds: float = 1
    max_retry_after: float = 120
    language: str = "en"
    search_paths: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        base = _checked_url(self.base_url, "base_url (CCS_DACS_CCS_BASE_URL)")
        if self.auth is None and not _is_loopback(base):
            raise ValueError(
                f"CCS at {origin(self.base_url)} needs a credential: authentication 'none' is for loopback hosts only; "
                "set CCS_DACS_CCS_AUTH to basic or oauth"
            )
        if base.scheme != "https" and not _is_loopback(base):
            raise ValueError(
                f"CCS at {origin(self.base_url)} would be sent credentials unencrypted: use https in "
                "CCS_DACS_CCS_BASE_URL (plain http is for loopback hosts only)"
            )
        if isinstance(self.auth, OAuth):
            token = _checked_url(self.auth.token_url, "token_url (CCS_DACS_CCS_TOKEN_URL)")
            if token.scheme != "https" and not _is_loopback(token):
                raise ValueError(
                    f"the token URL at {origin(self.auth.token_url)} would be sent the client secret unencrypted: use "
                    "https in CCS_DACS_CCS_TOKEN_URL (plain http is for loopback hosts only)"
                )
        for service, path in self.search_paths.items():
            if not path.startswith("/"):
                raise ValueError(
                    f"the search path of {service} must begin with /, as /rest/apis/cm/dacs/{service}/search"
                )
        for name in ("page_size", "call_seconds", "max_response_bytes", "tries", "retry_seconds"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be more than 0, not {getattr(self, name)}")

    def url(self, path: str) -> str:
        """The URL of a path that begins with `/rest/apis`."""
        return self.base_url.rstrip("/") + path

    def search_path(self, service: str) -> str:
        """The path of a service's search: the site's own, else the default of ccs-rest.md."""
        return self.search_paths.get(service, f"/rest/apis/cm/dacs/{service}/search")


def origin(url: str) -> str:
    """Scheme, host and port of a URL, the port only where it is written."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _checked_url(url: str, name: str) -> SplitResult:
    """The parts of a URL without user, query and fragment; the message never repeats them (they may be secret)."""
    fault = (
        f"{name} must be an http or https URL with a host, at most a port up to 65535, and no blanks, as "
        "https://ccs.example.com/context"
    )
    try:
        parts = urlsplit(url)
        _ = parts.port  # judged when it is read
        _ = (parts.hostname or "").encode("idna")  # no label empty or too long, which looking it up would stumble over
    except ValueError:
        raise ValueError(fault) from None
    if parts.scheme not in ("http", "https") or not parts.hostname or re.search(r"[\s\x00-\x1f\x7f]", url):
        raise ValueError(fault)
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError(f"{name} must hold no user name, query or fragment: credentials have settings of their own")
    return parts


def _is_loopback(parts: SplitResult) -> bool:
    host = parts.hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
