"""A bucket of S3-compatible object storage: how it is reached, its listing, and its unfinished multipart uploads.

Objects are read and copied by obstore. Its writer completes a multipart upload whatever is there by then, it does not
know the uploads that a killed writer left, its listing fails as a whole on one key that it does not like, and it gives
a removal up when the storage has closed the connection meanwhile. So uploads that may not overwrite, listings, removals
and aborting uploads are requests made here, signed by hand (AWS Signature Version 4), their bodies sent whole.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote_plus, urlsplit
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from obstore.exceptions import AlreadyExistsError
from obstore.store import S3Store

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from email.message import Message
    from pathlib import Path

    from obstore.store import ClientConfig, S3Credential

_CONNECT_SECONDS = 10
# Without a byte for so long, a request has failed.
_QUIET_SECONDS = 60
# A whole file is read by one request.
_READ_TIME = timedelta(hours=2)
_RETRIES = 4
_RETRY_TIME = timedelta(seconds=60)
# Seconds before each further attempt.
_WAITS = (0.2, 1.0, 5.0)


class AnswerUnreadable(OSError):
    """An answer of the storage is not what such an answer looks like."""


@dataclass(frozen=True)
class Upload:
    """A multipart upload that is not finished.

    Attributes:
        key: the object it would become.
        id: the storage's name for it.
        begun: when it was begun.
    """

    key: str
    id: str
    begun: datetime


@dataclass(frozen=True)
class Listed:
    """An object as a listing tells of it.

    Attributes:
        key: its key.
        size: its size in bytes.
        modified: when it was put.
    """

    key: str
    size: int
    modified: datetime


@dataclass(frozen=True)
class Bucket:
    """A bucket, and what opens it. Connections are kept for the next request until `close`.

    Attributes:
        name: its name.
        endpoint: origin of the storage, without trailing slash.
        region: the region that requests are signed for.
        access_key: id of the access key.
        secret_key: the access key's secret.
        in_path: whether its name goes into the path, or else into the host name.
        ca_file: additional certificate authority, PEM.
    """

    name: str
    endpoint: str
    region: str
    access_key: str
    secret_key: str = field(repr=False)
    in_path: bool = True
    ca_file: Path | None = None
    # Open, and waiting for the next request: a handshake for each part would cost more than many a part.
    _idle: list[http.client.HTTPConnection] = field(default_factory=list, init=False, repr=False, compare=False)

    @property
    def base_url(self) -> str:
        """URL of the bucket, without trailing slash."""
        if self.in_path:
            return f"{self.endpoint}/{self.name}"
        scheme, _, host = self.endpoint.partition("://")
        return f"{scheme}://{self.name}.{host}"

    def store(self) -> S3Store:
        """Opens the bucket for obstore, which sends each body whole: with length and signed SHA-256, no trailer."""
        options: ClientConfig = {
            "allow_http": True,
            "connect_timeout": timedelta(seconds=_CONNECT_SECONDS),
            "read_timeout": timedelta(seconds=_QUIET_SECONDS),
            "timeout": _READ_TIME,
        }
        if self.ca_file is not None:
            options["root_certificate"] = self.ca_file.read_bytes()
        return S3Store(
            self.name,
            endpoint=self.endpoint if self.in_path else self.base_url,
            region=self.region,
            virtual_hosted_style_request=not self.in_path,
            # In full, since obstore would fill gaps from the environment's AWS variables, a foreign token among them.
            credential_provider=self._credential,
            skip_signature=False,
            unsigned_payload=False,
            copy_if_not_exists="multipart",
            # One object by one plain request: more storages have that than the deletion of a list.
            disable_bulk_delete=True,
            client_options=options,
            retry_config={"max_retries": _RETRIES, "retry_timeout": _RETRY_TIME},
        )

    def begin(self, key: str) -> Upload:
        """Begins a multipart upload of the object `key`; nothing of it is visible until it is complete.

        Raises, as all that follow:
            AlreadyExistsError: the storage has the object already, and was told not to overwrite.
            OSError: the storage cannot be reached, or refuses.
        """
        body, _ = self._ask("POST", key, {"uploads": ""})
        return Upload(key, _text(body, "UploadId"), datetime.now(UTC))

    def send(self, upload: Upload, number: int, data: bytes | bytearray) -> str:
        """Sends a part, from 1; returns its ETag. A part that is sent twice is stored once."""
        _, headers = self._ask("PUT", upload.key, {"partNumber": str(number), "uploadId": upload.id}, body=data)
        return headers.get("ETag", "")

    def complete(self, upload: Upload, etags: Sequence[str], *, overwrite: bool) -> None:
        """Makes the parts an object, at once; unless `overwrite`, on the condition that none of the key is there."""
        parts = "".join(
            f"<Part><PartNumber>{number}</PartNumber><ETag>{escape(etag)}</ETag></Part>"
            for number, etag in enumerate(etags, start=1)
        )
        body = f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()
        answer, _ = self._ask(
            "POST",
            upload.key,
            {"uploadId": upload.id},
            body=body,
            condition={} if overwrite else {"if-none-match": "*"},
        )
        # A failure while the parts are put together comes after the status of success.
        if b"<Error>" in answer:
            raise OSError(answer.decode(errors="replace"))

    def uploads(self, prefix: str) -> Iterator[Upload]:
        """Yields the unfinished uploads of keys that begin with `prefix`; the first thousand, as storages list them."""
        answer, _ = self._ask("GET", "", {"encoding-type": "url", "prefix": prefix, "uploads": ""})
        page = _parsed(answer)
        for element in page.iterfind("{*}Upload"):
            key, upload, begun = (element.findtext(f"{{*}}{name}", "") for name in ("Key", "UploadId", "Initiated"))
            try:
                yield Upload(_decoded(page, key), upload, datetime.fromisoformat(begun))
            except ValueError as error:
                raise AnswerUnreadable("time") from error

    def objects(self, prefix: str) -> Iterator[Listed]:
        """Yields the objects whose keys begin with `prefix` and have no further `/`, page by page."""
        query = {"delimiter": "/", "encoding-type": "url", "list-type": "2", "prefix": prefix}
        while True:
            answer, _ = self._ask("GET", "", query)
            page = _parsed(answer)
            for element in page.iterfind("{*}Contents"):
                key, size, at = (element.findtext(f"{{*}}{name}", "") for name in ("Key", "Size", "LastModified"))
                try:
                    yield Listed(_decoded(page, key), int(size), datetime.fromisoformat(at))
                except ValueError as error:
                    raise AnswerUnreadable("size or time") from error
            token = page.findtext("{*}NextContinuationToken", "")
            if page.findtext("{*}IsTruncated") != "true" or not token:
                return
            query["continuation-token"] = token

    def remove(self, key: str) -> None:
        """Removes an object; most storages take an absent one for removed."""
        self._ask("DELETE", key, {})

    def abort(self, upload: Upload) -> None:
        """Ends an unfinished upload and removes its parts; one that is gone is fine."""
        with suppress(FileNotFoundError):
            self._ask("DELETE", upload.key, {"uploadId": upload.id})

    def close(self) -> None:
        """Closes the connections that wait for a request; another request opens a new one."""
        with suppress(IndexError):
            while True:
                self._idle.pop().close()

    def _credential(self) -> S3Credential:
        return {
            "access_key_id": self.access_key,
            "secret_access_key": self.secret_key,
            "token": None,
            "expires_at": None,
        }

    def _ask(
        self,
        method: str,
        key: str,
        query: Mapping[str, str],
        *,
        body: bytes | bytearray = b"",
        condition: Mapping[str, str] | None = None,
    ) -> tuple[bytes, Message]:
        """Makes one request, again after a lost connection or an answer of 5xx; returns body and headers."""
        parts = urlsplit(f"{self.base_url}/{quote(key, safe='/-_.~')}")
        pairs = "&".join(
            f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in sorted(query.items())
        )
        digest = hashlib.sha256(body).hexdigest()
        for wait in (*_WAITS, None):
            # A storage that is not told what a body is may look whether it is a form.
            kind = {"content-type": "application/octet-stream"} if body else {}
            headers = self._signed(method, kind | {"host": parts.netloc}, parts.path, pairs, digest)
            headers |= dict(condition or {})
            try:
                target = f"{parts.path}?{pairs}" if pairs else parts.path
                status, reason, answered, answer = self._once(method, target, parts.netloc, body, headers)
            except (OSError, http.client.HTTPException) as error:
                self.close()  # what one connection met, as a storage that has restarted, the others may meet too
                if wait is None or isinstance(error, ssl.SSLCertVerificationError):
                    raise OSError(f"no answer ({type(error).__name__})") from error
            else:
                # Sent on to another address, nothing is done; to follow would be to trust what no setting names.
                if status < http.HTTPStatus.MULTIPLE_CHOICES:
                    return answer, answered
                self.close()
                if wait is None or status < http.HTTPStatus.INTERNAL_SERVER_ERROR:
                    raise _refusal(status, f"{status} {reason} {answer.decode(errors='replace')}")
            time.sleep(wait)
        raise AssertionError  # the last attempt returns or raises

    def _once(
        self, method: str, target: str, host: str, body: bytes | bytearray, headers: dict[str, str]
    ) -> tuple[int, str, Message, bytes]:
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._connection(host)
        kept = False
        try:
            connection.request(method, target, body=body, headers=headers)
            answer = connection.getresponse()
            content = answer.read()
            kept = not answer.will_close
        finally:
            if kept:
                self._idle.append(connection)
            else:
                connection.close()
        return answer.status, answer.reason, answer.headers, content

    def _connection(self, host: str) -> http.client.HTTPConnection:
        if self.base_url.startswith("http://"):
            return http.client.HTTPConnection(host, timeout=_QUIET_SECONDS)
        trust = ssl.create_default_context()
        if self.ca_file is not None:
            trust.load_verify_locations(self.ca_file)
        return http.client.HTTPSConnection(host, timeout=_QUIET_SECONDS, context=trust)

    def _signed(self, method: str, head: Mapping[str, str], path: str, query: str, digest: str) -> dict[str, str]:
        """Returns `head` and the rest of the signed headers of a request whose body has the SHA-256 `digest`."""
        at = datetime.now(UTC)
        stamp, day = at.strftime("%Y%m%dT%H%M%SZ"), at.strftime("%Y%m%d")
        headers = {**head, "x-amz-content-sha256": digest, "x-amz-date": stamp}
        names = ";".join(headers)
        canonical = "\n".join(
            [method, path, query, *(f"{name}:{value}" for name, value in headers.items()), "", names, digest]
        )
        scope = f"{day}/{self.region}/s3/aws4_request"
        text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        key = f"AWS4{self.secret_key}".encode()
        for word in scope.split("/"):
            key = hmac.digest(key, word.encode(), "sha256")
        signature = hmac.digest(key, text.encode(), "sha256").hex()
        credential = f"Credential={self.access_key}/{scope}, SignedHeaders={names}, Signature={signature}"
        return headers | {"authorization": f"AWS4-HMAC-SHA256 {credential}"}


def _parsed(body: bytes) -> ElementTree.Element:
    try:
        # The storage is the site's own, and expat bounds what entities expand to.
        return ElementTree.fromstring(body)  # noqa: S314
    except ElementTree.ParseError as error:
        raise AnswerUnreadable("no XML") from error


def _text(body: bytes, name: str) -> str:
    return _parsed(body).findtext(f"{{*}}{name}", "")


def _decoded(page: ElementTree.Element, key: str) -> str:
    """Returns a key of a listing; a storage may have passed over that it was asked to encode them."""
    is_encoded = page.findtext("{*}EncodingType") == "url"
    return unquote_plus(key, errors="surrogateescape") if is_encoded else key


def _refusal(status: int, text: str) -> Exception:
    if status == http.HTTPStatus.NOT_FOUND:
        return FileNotFoundError(text)
    if status in {http.HTTPStatus.PRECONDITION_FAILED, http.HTTPStatus.CONFLICT}:
        return AlreadyExistsError(text)
    return OSError(text)
