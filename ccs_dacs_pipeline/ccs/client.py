"""One call to CCS: authenticated, bounded in time and size, repeated where that is safe.

The only module that knows the HTTP library. Two things the library leaves open are bounded here: its time-outs are per
read, so a slow drip would never end; and it would follow a decompression wherever that leads (ccs-rest.md, Trust).
"""

import json
import re
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, NoReturn, Self
from urllib.parse import urlsplit

import httpcore
import httpx
import stamina

from ccs_dacs_pipeline.ccs.connection import BasicAuth, Connection, OAuth, origin
from ccs_dacs_pipeline.ccs.errors import (
    BadAnswer,
    CcsError,
    Permanent,
    Problem,
    Rejected,
    RetryAfterTooLong,
    Transient,
    TransitionUnknown,
)
from ccs_dacs_pipeline.ccs.pages import Malformed, decode_object

BACKOFF_BASE = 3
MAX_BACKOFF = 30.0
ERROR_BYTES = 64 * 1024
"""How much is read of the body of an error."""
DETAIL_LENGTH = 300
TOKEN_MARGIN = 30.0
"""Seconds before its end at which a token is no longer used."""
TOKEN_SECONDS = 300.0
"""How long a token is used that came without `expires_in`."""
IDLE_SECONDS = 5.0
"""How long an idle connection is kept: one that a firewall has dropped unnoticed would leave a transition unknown."""
MOST_COOKIES = 50
"""With more than a gateway ever sets all are dropped: names that are new in every answer would swell every call."""
_BUSINESS_ERRORS = (
    httpx.codes.BAD_REQUEST,
    httpx.codes.CONFLICT,
    httpx.codes.GONE,
    # Mostly of a gateway, but of this one body: another answer may be shorter.
    httpx.codes.REQUEST_ENTITY_TOO_LARGE,
    httpx.codes.UNPROCESSABLE_ENTITY,
)
_TOKEN_REFUSALS = (
    httpx.codes.BAD_REQUEST,
    httpx.codes.UNAUTHORIZED,
    httpx.codes.FORBIDDEN,
    httpx.codes.NOT_FOUND,
)
# RFC 6749, 5.2. Nothing else is repeated of what an endpoint says about a credential.
_OAUTH_ERRORS = (
    "invalid_request",
    "invalid_client",
    "invalid_grant",
    "unauthorized_client",
    "unsupported_grant_type",
    "invalid_scope",
)
_HEADERS = {"Accept": "application/json", "Accept-Encoding": "gzip", "User-Agent": "ccs-dacs"}
LONGEST_WAIT = 1e9
"""Seconds; a longer `Retry-After` is read as this, which still is a date."""


def _clock() -> float:
    """Seconds that run on while the machine sleeps: a call that was begun before ends as soon as it wakes."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


_deadline: ContextVar[float | None] = ContextVar("deadline", default=None)


class _Fault(Exception):
    """One try failed in a way that another may not.

    Attributes:
        reason: what happened.
        sent: whether the call may have reached CCS, and so may have had its effect.
        repeatable: whether even a call with an effect may be repeated after this.
        retry_after: the seconds that CCS asked to wait.
    """

    def __init__(
        self, call: str, reason: str, *, sent: bool, repeatable: bool = False, retry_after: float | None = None
    ) -> None:
        super().__init__(f"{call}: {reason}")
        self.reason = reason
        self.sent = sent
        self.repeatable = repeatable
        self.retry_after = retry_after


@dataclass(frozen=True)
class _Call:
    method: str
    url: str
    content: bytes | None = field(default=None, repr=False)
    content_type: str = "application/json"

    def __str__(self) -> str:
        return f"{self.method} {urlsplit(self.url).path}"


@dataclass(frozen=True)
class _Reply:
    status: int
    headers: httpx.Headers
    body: bytes = field(repr=False)


class HttpClient:
    """Calls one CCS. Thread safe; a context manager.

    Args:
        connection: where CCS is, and the bounds of a call.
        concurrency: calls under way at once, at most.

    Raises:
        ValueError: the file of the certificate authority cannot be used.
    """

    def __init__(self, connection: Connection, *, concurrency: int) -> None:
        self._connection = connection
        context = _tls_context(connection)
        self._http = _Http(context, concurrency)
        self._tokens = _Tokens(connection.auth, context) if isinstance(connection.auth, OAuth) else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()
        if self._tokens:
            self._tokens.close()

    def name(self, method: str, path: str) -> str:
        """A call as errors name it: the method and the path, with the context path of CCS."""
        return str(_Call(method, self._connection.url(path)))

    def read(self, method: str, path: str, document: object = None) -> bytes:
        """A call without effect: transient faults are repeated (ccs-rest.md, Limits). Returns the decoded body.

        Raises:
            Transient: every try failed, or the time was used up.
            RetryAfterTooLong: CCS asked to wait longer than is waited.
            Permanent: CCS refuses the call.
            BadAnswer: the answer is too large or in an encoding that was not asked for.
        """
        return self._reply(method, path, document).body

    def clock(self, method: str, path: str) -> datetime | None:
        """What time it is at CCS: the `Date` of its answer to a call without effect, `None` where it has none.

        Raises: as `read`.
        """
        return _http_date(self._reply(method, path, None).headers.get("Date", ""))

    def _reply(self, method: str, path: str, document: object) -> _Reply:
        call = self._call(method, path, document)
        try:
            return self._repeat(call, lambda _: True)
        except _Fault as fault:
            raise Transient(str(call), fault.reason) from None

    def write(self, method: str, path: str, document: object, *, guard: Callable[[], object]) -> None:
        """A call with an effect, which it has at most once: repeated only after a 401 or 429, or for want of a token.

        `guard` is called just before each sending; what it raises ends the call.

        Raises:
            TransitionUnknown: the call may have reached CCS, and no answer says what came of it.
            Transient: CCS has not taken the call.
            RetryAfterTooLong: CCS has not taken the call and asked to wait longer than is waited.
            Permanent: CCS refuses the call; `Rejected` for a business error.
        """
        call = self._call(method, path, document)
        try:
            self._repeat(call, lambda fault: fault.repeatable, guard)
        except BadAnswer as error:
            raise TransitionUnknown(error.call, f"{error.reason}; read the state before any repeat") from None
        except _Fault as fault:
            if fault.sent:
                raise TransitionUnknown(str(call), f"{fault.reason}; read the state before any repeat") from None
            raise Transient(str(call), fault.reason) from None

    def _call(self, method: str, path: str, document: object) -> _Call:
        # Escaped, so that half a surrogate pair in a text of DACS does not break the encoding.
        content = None if document is None else json.dumps(document).encode()
        return _Call(method, self._connection.url(path), content)

    def _repeat(
        self, call: _Call, repeatable: Callable[[_Fault], bool], guard: Callable[[], object] = lambda: None
    ) -> _Reply:
        """Tries a call until it is answered, the tries or the time are used up, or a fault is not repeatable."""
        bounds = self._connection
        start = _clock()
        end = start + bounds.retry_seconds
        backoff = 0.0
        tries = 0

        def wait(error: Exception) -> bool | float:
            if not isinstance(error, _Fault) or not repeatable(error):
                return False
            left = end - _clock()
            if error.retry_after is None:
                return backoff < left
            if error.retry_after > bounds.max_retry_after:
                _refuse_to_wait(call, error.retry_after, f"is ever waited ({bounds.max_retry_after:.0f} s)")
            if tries < bounds.tries and error.retry_after >= left:
                _refuse_to_wait(call, error.retry_after, f"the {max(0, left):.0f} s left for this call")
            return error.retry_after

        try:
            for attempt in stamina.retry_context(
                on=wait,
                attempts=bounds.tries,
                timeout=bounds.retry_seconds,
                wait_initial=bounds.backoff_seconds,
                wait_max=MAX_BACKOFF,
                wait_jitter=bounds.backoff_seconds,
                wait_exp_base=BACKOFF_BASE,
            ):
                backoff, tries = attempt.next_wait, attempt.num
                with attempt:
                    return self._try(call, min(_clock() + bounds.call_seconds, end), guard)
        except _Fault as fault:
            fault.reason += f"; gave up after {tries} of {bounds.tries} tries in {_clock() - start:.1f} s"
            raise
        raise AssertionError("every try returns or raises")

    def _try(self, call: _Call, deadline: float, guard: Callable[[], object]) -> _Reply:
        """One try, and one more with a new token where the first one's was refused."""
        token = self._tokens.current(deadline) if self._tokens else None
        guard()
        reply = self._exchange(call, token, deadline)
        if reply.status == httpx.codes.UNAUTHORIZED and self._tokens and token:
            token = self._tokens.renew(token, deadline)
            guard()
            reply = self._exchange(call, token, deadline)
        _accept(call, reply)
        return reply

    def _exchange(self, call: _Call, token: str | None, deadline: float) -> _Reply:
        auth = self._connection.auth
        headers = {"Accept-Language": self._connection.language}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        basic = httpx.BasicAuth(auth.username, auth.password) if isinstance(auth, BasicAuth) else None
        return _exchange(
            self._http,
            call,
            headers=headers,
            auth=basic,
            deadline=deadline,
            max_bytes=self._connection.max_response_bytes,
        )


class _Tokens:
    """The OAuth token that is good now, fetched by one thread at a time from its own origin, with its own client."""

    def __init__(self, auth: OAuth, context: ssl.SSLContext) -> None:
        self._auth = auth
        self._http = _Http(context, 1)
        self._lock = threading.Lock()
        self._token: str | None = None
        self._good_until = 0.0

    def close(self) -> None:
        self._http.close()

    def current(self, deadline: float) -> str:
        """The token, a new one where there is none or it ends soon."""
        return self._get(deadline, refused=None)

    def renew(self, refused: str, deadline: float) -> str:
        """Another token than the refused one, which another thread may have fetched already."""
        return self._get(deadline, refused)

    def _get(self, deadline: float, refused: str | None) -> str:
        call = self._call()
        if not self._lock.acquire(timeout=max(0.0, deadline - _clock())):
            raise _Fault(str(call), "no token in time", sent=False, repeatable=True)
        try:
            if self._token is None or self._token == refused or _clock() >= self._good_until:
                self._token = None
                self._token, self._good_until = self._fetch(call, deadline)
            return self._token
        finally:
            self._lock.release()

    def _call(self) -> _Call:
        form = {"grant_type": "client_credentials"}
        if self._auth.scope:
            form["scope"] = self._auth.scope
        if self._auth.credentials_in_form:
            form |= {"client_id": self._auth.client_id, "client_secret": self._auth.client_secret}
        content = str(httpx.QueryParams(form)).encode()
        return _Call("POST", self._auth.token_url, content, "application/x-www-form-urlencoded")

    def _fetch(self, call: _Call, deadline: float) -> tuple[str, float]:
        """A new token, and the moment up to which it is used. A fault here leaves the call itself unsent."""
        asked = _clock()
        basic = httpx.BasicAuth(self._auth.client_id, self._auth.client_secret)
        auth = None if self._auth.credentials_in_form else basic
        try:
            reply = _exchange(self._http, call, headers={}, auth=auth, deadline=deadline, max_bytes=ERROR_BYTES)
            if reply.status in _TOKEN_REFUSALS:
                raise Permanent(str(call), _token_refusal(reply), reply.status)
            body = _accept(call, reply)
        except _Fault as fault:
            raise _Fault(
                str(call),
                f"no token from {origin(call.url)}: {fault.reason}",
                sent=False,
                repeatable=True,
                retry_after=fault.retry_after,
            ) from None
        except Permanent as error:  # not `Rejected`, which would read as CCS's word on the call itself
            raise Permanent(str(call), f"no token: {error.reason}", error.status) from None
        try:
            document = decode_object(body)
        except Malformed as error:
            raise Permanent(str(call), f"no token: {error}; check CCS_DACS_CCS_TOKEN_URL") from None
        return _access_token(call, document), asked + _usable_seconds(document)


def _token_refusal(reply: _Reply) -> str:
    """Why the endpoint gives no token, in its own word where that is one of the standard's, and what to look after."""
    word = None
    with suppress(Malformed):
        word = decode_object(reply.body).get("error")
    told = f" ({word})" if word in _OAUTH_ERRORS else ""
    return (
        f"refused with {reply.status}{told}: check CCS_DACS_CCS_TOKEN_URL, CCS_DACS_CCS_CLIENT_ID, "
        "CCS_DACS_CCS_CLIENT_SECRET, CCS_DACS_CCS_SCOPE and CCS_DACS_CCS_CREDENTIALS_IN_FORM"
    )


def _access_token(call: _Call, document: dict[str, Any]) -> str:
    token = document.get("access_token")
    # What is not plain printable text would show up in the HTTP library's complaint about the header.
    if not isinstance(token, str) or not re.fullmatch("[!-~]+", token):
        raise Permanent(
            str(call),
            "the answer holds no usable access_token: check CCS_DACS_CCS_TOKEN_URL and CCS_DACS_CCS_SCOPE",
        )
    return token


def _usable_seconds(document: dict[str, Any]) -> float:
    """How long a token is used: `expires_in` but for a margin, at most half of it."""
    text = str(document.get("expires_in"))
    seconds = float(text) if re.fullmatch(r"[0-9]{1,9}(\.[0-9]+)?", text) else TOKEN_SECONDS
    return seconds - min(TOKEN_MARGIN, seconds / 2)


def _tls_context(connection: Connection) -> ssl.SSLContext:
    """Verifies certificates against the default authorities, and the site's own beside them."""
    context = httpx.create_ssl_context(trust_env=False)
    if connection.ca_file:
        try:
            context.load_verify_locations(cafile=connection.ca_file)
        except OSError as error:  # ssl.SSLError is one
            raise ValueError(
                f"the certificate authority in {connection.ca_file} cannot be used ({type(error).__name__}): "
                "CCS_DACS_CCS_CA_FILE must name a readable PEM file"
            ) from None
    return context


class _Http:
    """Requests to one origin: no proxy, netrc or redirect, since only the configured origins are called.

    The library's transport without its client, which looks for all of these: a third of the time of a small call.
    """

    def __init__(self, context: ssl.SSLContext, connections: int) -> None:
        self._transport = _BoundedTransport(context, connections)
        self._cookies = httpx.Cookies()
        self._has_cookies = False

    @contextmanager
    def stream(self, request: httpx.Request) -> Iterator[httpx.Response]:
        """Yields the answer, its body yet to be read; the connection is free again after the block."""
        # Asking an empty jar takes a tenth of the time of a small call.
        if self._has_cookies:
            self._cookies.set_cookie_header(request)
        response = self._transport.handle_request(request)
        response.request = request
        try:
            if "Set-Cookie" in response.headers:
                self._cookies.extract_cookies(response)
                if len(self._cookies) > MOST_COOKIES:
                    self._cookies.clear()
                self._has_cookies = True
            yield response
        finally:
            response.close()

    def close(self) -> None:
        """Closes the connections."""
        self._transport.close()


def _exchange(
    http: _Http,
    call: _Call,
    *,
    headers: dict[str, str],
    auth: httpx.BasicAuth | None,
    deadline: float,
    max_bytes: int,
) -> _Reply:
    """One request and its answer, all within the deadline."""
    if call.content is not None:
        headers = {**headers, "Content-Type": call.content_type}
    seconds = max(0.0, deadline - _clock())
    request = httpx.Request(
        call.method,
        call.url,
        headers=_HEADERS | headers,
        content=call.content,
        extensions={"timeout": httpx.Timeout(seconds).as_dict()},
    )
    if auth:
        request = next(auth.auth_flow(request))
    bound = _deadline.set(deadline)
    try:
        with http.stream(request) as response:
            if response.is_success:
                body = _body(call, response, max_bytes)
            else:
                body = b""
                with suppress(httpx.TransportError, CcsError, _Fault):
                    body = _body(call, response, ERROR_BYTES)
            return _Reply(response.status_code, response.headers, body)
    except httpx.TransportError as error:
        raise _fault(call, error, seconds) from None
    finally:
        _deadline.reset(bound)


def _body(call: _Call, response: httpx.Response, max_bytes: int) -> bytes:
    """The decoded body, never more of it than may be."""
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip"):
        raise BadAnswer(str(call), f"the answer is encoded as {encoding[:20]}, though only gzip was offered")
    raw = response.iter_raw()
    chunks: list[bytes] = []
    size = 0
    for chunk in raw if encoding == "identity" else _gunzip(call, raw, max_bytes):
        chunks.append(chunk)
        size += len(chunk)
        if size > max_bytes:
            raise BadAnswer(
                str(call),
                f"the answer is larger than {max_bytes:,} bytes: ask for smaller pages (CCS_DACS_CCS_PAGE_SIZE)",
            )
    return b"".join(chunks)


def _gunzip(call: _Call, chunks: Iterable[bytes], max_bytes: int) -> Iterator[bytes]:
    """The decompressed chunks, each of at most one byte more than may be: a small body can expand hugely."""
    gzip = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    for chunk in chunks:
        try:
            yield gzip.decompress(chunk, max_bytes + 1)  # one byte too many stops the caller before anything is left
        except zlib.error:
            raise _Fault(str(call), "the answer's compression is broken", sent=True) from None
        if gzip.unused_data:
            raise BadAnswer(str(call), "the answer goes on after the end of its compression")
    if not gzip.eof:
        raise _Fault(str(call), "the answer's compression is cut off", sent=True)


def _fault(call: _Call, error: httpx.TransportError, seconds: float) -> Exception:
    """A failed exchange in our words: the library's may quote what was sent or received."""
    if _is_certificate_error(error):
        return Permanent(
            str(call),
            f"the certificate of {origin(call.url)} cannot be verified: check the host name, or add its authority "
            "with CCS_DACS_CCS_CA_FILE",
        )
    unsent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
    if isinstance(error, httpx.TimeoutException):
        what = f"no complete answer from {origin(call.url)} within {seconds:.1f} s"
    elif unsent:
        what = f"{origin(call.url)} cannot be reached"
    else:
        what = f"the connection to {origin(call.url)} broke before the answer was complete"
    return _Fault(str(call), f"{what} ({type(error).__name__})", sent=not unsent)


def _is_certificate_error(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, ssl.SSLCertVerificationError):
        error = error.__cause__ or error.__context__
    return error is not None


def _accept(call: _Call, reply: _Reply) -> bytes:
    """The body of a good answer; every other is raised as what it means."""
    status = reply.status
    if httpx.codes.is_success(status):
        return reply.body
    if httpx.codes.is_redirect(status):
        raise Permanent(str(call), _redirect_reason(call, reply), status)
    if status in (httpx.codes.REQUEST_TIMEOUT, httpx.codes.TOO_MANY_REQUESTS) or httpx.codes.is_server_error(status):
        busy = status == httpx.codes.TOO_MANY_REQUESTS
        wait = _retry_after(reply.headers)
        raise _Fault(str(call), f"answered {status}", sent=not busy, repeatable=busy, retry_after=wait)
    problem = _problem(reply.body)
    reason = ": ".join(text for text in (f"refused with {status}", str(problem), _way_out(call, status)) if text)
    raise (Rejected if _is_business_error(status, problem) else Permanent)(str(call), reason, status, problem)


def _is_business_error(status: int, problem: Problem) -> bool:
    """Whether this one call is refused, not by a gateway or a missing right or service every call of its kind."""
    return status in _BUSINESS_ERRORS or (status == httpx.codes.NOT_FOUND and problem != Problem())


def _way_out(call: _Call, status: int) -> str:
    match status:
        case httpx.codes.UNAUTHORIZED:
            return f"check the credential for {origin(call.url)} (CCS_DACS_CCS_AUTH and its settings)"
        case httpx.codes.FORBIDDEN:
            return f"give this user the right to the service at {origin(call.url)}"
        case httpx.codes.NOT_FOUND:
            return f"check CCS_DACS_CCS_BASE_URL and that the service is defined at {origin(call.url)}"
    return ""


def _redirect_reason(call: _Call, reply: _Reply) -> str:
    """Why a redirect is refused: no credential leaves for another origin, and within one no service is expected to."""
    try:
        target = origin(str(httpx.URL(call.url).join(reply.headers.get("Location", ""))))
    except httpx.InvalidURL:
        target = "an unreadable address"
    return (
        f"{origin(call.url)} redirects to {target} ({reply.status}); redirects are never followed: set "
        "CCS_DACS_CCS_BASE_URL or CCS_DACS_CCS_TOKEN_URL to the address that answers itself"
    )


def _retry_after(headers: httpx.Headers) -> float | None:
    """The seconds to wait; `None` where the header is missing or unreadable.

    A date counts from the answer's own `Date`, so that clocks that differ do not matter.
    """
    text = headers.get("Retry-After", "").strip()
    if re.fullmatch("[0-9]+", text):
        return min(float(text), LONGEST_WAIT)
    moment = _http_date(text)
    if moment is None:
        return None
    now = _http_date(headers.get("Date", "")) or datetime.now(UTC)
    return min(max(0.0, (moment - now).total_seconds()), LONGEST_WAIT)


def _http_date(text: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):  # the last: an offset beyond all numbers
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _refuse_to_wait(call: _Call, seconds: float, limit: str) -> NoReturn:
    until = datetime.now(UTC) + timedelta(seconds=seconds)
    raise RetryAfterTooLong(
        str(call),
        f"CCS asks to wait {seconds:.0f} s, until {until:%Y-%m-%d %H:%M:%S} UTC, which is longer than {limit}: "
        "start again after that time",
        seconds,
        until,
    )


def _problem(body: bytes) -> Problem:
    """The problem that an error's body describes, wrapped or bare; an empty one where it is no such JSON."""
    try:
        document = decode_object(body)
    except Malformed:
        return Problem()
    inner = document.get("problemDetailDocument", document)
    if not isinstance(inner, dict):
        return Problem()
    message = re.search(r"/message/([0-9]{1,9})/([0-9]{1,9})/?$", str(inner.get("problemType")).strip())
    return Problem(
        title=_line(inner.get("title")),
        detail=_line(inner.get("detail")),
        category=int(message[1]) if message else None,
        number=int(message[2]) if message else None,
    )


def _line(text: object) -> str | None:
    """A text as one line of bounded length, as log and UI show it."""
    return " ".join(text.split())[:DETAIL_LENGTH] or None if isinstance(text, str) else None


def _seconds_left(given: float | None, time_out: type[httpcore.TimeoutException]) -> float | None:
    """What is left of the call's time; `given` outside a call, as when connections are closed."""
    deadline = _deadline.get()
    if deadline is None:
        return given
    left = deadline - _clock()
    if left <= 0:
        raise time_out("the call's time is used up")
    return left


class _BoundedStream(httpcore.NetworkStream):
    """A connection whose every read and write ends with the call's time, in the headers as well as in the body."""

    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _seconds_left(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _seconds_left(timeout, httpcore.WriteTimeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        left = _seconds_left(timeout, httpcore.ConnectTimeout)
        return _BoundedStream(self._stream.start_tls(ssl_context, server_hostname, left))

    def get_extra_info(self, info: str) -> Any:  # noqa: ANN401 -- as the library declares it
        return self._stream.get_extra_info(info)


class _BoundedBackend(httpcore.NetworkBackend):
    """Opens bounded connections."""

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        left = _seconds_left(timeout, httpcore.ConnectTimeout)
        return _BoundedStream(httpcore.SyncBackend().connect_tcp(host, port, left, local_address, socket_options))


class _BoundedTransport(httpx.HTTPTransport):
    """The library's transport over bounded connections, as many at once as are worked with."""

    def __init__(self, context: ssl.SSLContext, connections: int) -> None:
        super().__init__(verify=context, trust_env=False)
        self._pool = httpcore.ConnectionPool(
            ssl_context=context,
            max_connections=connections,
            max_keepalive_connections=connections,
            keepalive_expiry=IDLE_SECONDS,
            network_backend=_BoundedBackend(),
        )
