"""A small S3-compatible storage over TLS that refuses what Oracle's object storage refuses.

That is: bodies in chunks, with trailers or without a signed SHA-256, and wrong signatures (botocore
works out the right one).
"""

import hashlib
import ssl
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import ClassVar
from urllib.parse import parse_qsl, quote_plus, unquote, urlsplit
from xml.etree import ElementTree

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ccs_dacs_pipeline.folders.bucket import Bucket
from ccs_dacs_pipeline.folders.objects import ObjectFolder

BUCKET, REGION = "utility", "us-phoenix-1"
ACCESS_KEY, SECRET_KEY = "canary-access", "canary-secret"


@dataclass
class Stored:
    """An object."""

    data: bytes
    at: datetime = field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))

    @property
    def etag(self) -> str:
        return f'"{hashlib.md5(self.data).hexdigest()}"'


@dataclass
class Pending:
    """A multipart upload that is not complete."""

    key: str
    parts: dict[int, bytes] = field(default_factory=dict)
    at: datetime = field(default_factory=lambda: datetime.now(UTC))


class Refused(Exception):
    """What the storage answers instead of doing the work."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(code)
        self.status, self.code = status, code


@dataclass
class Storage:
    """What is stored, and how the storage behaves.

    Attributes:
        conditional: whether If-None-Match is honoured.
        drop: connections of body-carrying requests to cut still, each in the middle.
        denied: whether every write is refused.
        missing: whether there is no such bucket.
        elsewhere: the origin that every request is sent on to, empty for none.
        page: how many objects a listing holds at most.
        hang_up: whether a connection takes one request only, and is closed without a word when the next one arrives.
        connections: how many were made.
    """

    port: int = 0
    ca_file: Path = Path()
    conditional: bool = True
    drop: int = 0
    denied: bool = False
    page: int = 1000
    missing: bool = False
    elsewhere: str = ""
    hang_up: bool = False
    connections: int = 0
    objects: dict[str, Stored] = field(default_factory=dict)
    uploads: dict[str, Pending] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def endpoint(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def bucket(self, secret_key: str = SECRET_KEY) -> Bucket:
        return Bucket(BUCKET, self.endpoint, REGION, ACCESS_KEY, secret_key, ca_file=self.ca_file)

    def folder(self, prefix: str) -> ObjectFolder:
        return ObjectFolder(self.bucket(), prefix)


class Handler(BaseHTTPRequestHandler):
    """Answers requests in path style."""

    protocol_version = "HTTP/1.1"
    storage: ClassVar[Storage]

    def log_message(self, *_: object) -> None:
        pass

    def setup(self) -> None:
        super().setup()
        with self.storage.lock:
            self.storage.connections += 1

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
            if self.storage.hang_up and not self.close_connection:
                self.rfile.read(1)
                self.close_connection = True
        except (ConnectionError, ssl.SSLError):
            self.close_connection = True

    def do_GET(self) -> None:
        self._answer()

    do_PUT = do_POST = do_DELETE = do_HEAD = do_GET  # noqa: N815 - the base class looks for these names

    def _answer(self) -> None:
        url = urlsplit(self.path)
        self.query = dict(parse_qsl(url.query, keep_blank_values=True))
        self.key = unquote(url.path).removeprefix(f"/{BUCKET}").removeprefix("/")
        length = int(self.headers.get("Content-Length", 0))
        if length and self._cut():
            self.rfile.read(length // 2)
            self.close_connection = True
            return
        body = self.rfile.read(length)
        if self.storage.elsewhere:
            error = b"<Error><Code>PermanentRedirect</Code></Error>"
            self._send(307, error, {"Location": f"{self.storage.elsewhere}{self.path}"})
            return
        try:
            self._check(body)
            with self.storage.lock:
                self.storage.requests.append(f"{self.command} {url.query}")
                self._work(body)
        except Refused as error:
            self._send(error.status, f"<Error><Code>{error.code}</Code></Error>".encode())

    def _cut(self) -> bool:
        with self.storage.lock:
            cut = self.storage.drop > 0
            self.storage.drop -= cut
            return cut

    def _check(self, body: bytes) -> None:
        encodings = f"{self.headers.get('Content-Encoding', '')} {self.headers.get('Transfer-Encoding', '')}"
        if "chunked" in encodings or "x-amz-trailer" in self.headers or "x-amz-sdk-checksum-algorithm" in self.headers:
            raise Refused(501, "NotImplemented")
        copied = "x-amz-copy-source" in self.headers  # has no body
        if self.command in {"PUT", "POST"} and not copied and "Content-Length" not in self.headers:
            raise Refused(411, "MissingContentLength")
        if self.headers.get("x-amz-content-sha256") != hashlib.sha256(body).hexdigest():
            raise Refused(400, "XAmzContentSHA256Mismatch")
        _, _, rest = self.headers.get("Authorization", "").partition(" ")
        given = dict(part.strip().split("=", 1) for part in rest.split(","))
        request = AWSRequest(self.command, f"{self.storage.endpoint}{self.path}")
        names = given["SignedHeaders"].split(";")
        if "content-type" in self.headers and "content-type" not in names:
            raise Refused(403, "AccessDenied")  # Signature Version 4: it must be signed where it is sent
        for name in names:
            request.headers[name] = self.headers[name]
        request.context["timestamp"] = self.headers["x-amz-date"]
        auth = S3SigV4Auth(Credentials(ACCESS_KEY, SECRET_KEY), "s3", REGION)
        text = auth.string_to_sign(request, auth.canonical_request(request))
        if auth.signature(text, request) != given["Signature"]:
            raise Refused(403, "SignatureDoesNotMatch")
        if self.storage.missing:
            raise Refused(404, "NoSuchBucket")
        if self.storage.denied and self.command != "GET":
            raise Refused(403, "AccessDenied")

    def _work(self, body: bytes) -> None:
        match self.command:
            case "PUT":
                self._put(body)
            case "POST":
                self._post(body)
            case "DELETE":
                gone = self.storage.uploads if "uploadId" in self.query else self.storage.objects
                gone.pop(self.query.get("uploadId", self.key), None)  # type: ignore[arg-type]
                self._send(204)
            case _ if "uploads" in self.query:
                self._list_uploads()
            case _ if not self.key:
                self._list()
            case _:
                self._get()

    def _put(self, body: bytes) -> None:
        if source := self.headers.get("x-amz-copy-source"):
            body = self._stored(unquote(source).removeprefix("/").removeprefix(f"{BUCKET}/")).data
        if upload := self.query.get("uploadId"):
            self._upload(upload).parts[int(self.query["partNumber"])] = body
        else:
            self._create(body)
        etag = Stored(body).etag
        if source:
            self._send(200, f"<CopyResult><ETag>{etag}</ETag></CopyResult>".encode())
        else:
            self._send(200, headers={"ETag": etag})

    def _post(self, body: bytes) -> None:
        if "delete" in self.query:
            keys = [one.text for one in ElementTree.fromstring(body).iterfind(".//{*}Key")]
            for key in keys:
                self.storage.objects.pop(str(key), None)
            deleted = "".join(f"<Deleted><Key>{key}</Key></Deleted>" for key in keys)
            self._send(200, f"<DeleteResult>{deleted}</DeleteResult>".encode())
        elif "uploads" in self.query:
            upload = uuid.uuid4().hex
            self.storage.uploads[upload] = Pending(self.key)
            self._send(
                200,
                f"<InitiateMultipartUploadResult><UploadId>{upload}</UploadId></InitiateMultipartUploadResult>".encode(),
            )
        else:
            parts = self._upload(self.query["uploadId"]).parts
            stored = self._create(b"".join(data for _, data in sorted(parts.items())))
            del self.storage.uploads[self.query["uploadId"]]
            self._send(
                200,
                f"<CompleteMultipartUploadResult><ETag>{stored.etag}</ETag></CompleteMultipartUploadResult>".encode(),
            )

    def _create(self, body: bytes) -> Stored:
        if self.storage.conditional and self.headers.get("If-None-Match") == "*" and self.key in self.storage.objects:
            raise Refused(412, "PreconditionFailed")
        self.storage.objects[self.key] = stored = Stored(body)
        return stored

    def _get(self) -> None:
        stored = self._stored(self.key)
        headers = {"ETag": stored.etag, "Last-Modified": format_datetime(stored.at, usegmt=True)}
        data, status = stored.data, 200
        if given := self.headers.get("Range"):
            first, _, last = given.removeprefix("bytes=").partition("-")
            data = data[int(first) : int(last or len(data)) + 1]
            headers["Content-Range"] = f"bytes {first}-{int(first) + len(data) - 1}/{len(stored.data)}"
            status = 206
        self._send(status, data, headers)

    def _list(self) -> None:
        prefix, start = self.query.get("prefix", ""), int(self.query.get("continuation-token", "0 ").removesuffix(" "))
        keys = [
            key
            for key in sorted(self.storage.objects)
            if key.startswith(prefix) and self.query.get("delimiter", "\0") not in key.removeprefix(prefix)
        ]
        encoded = self.query.get("encoding-type") == "url"
        found = "".join(
            f"<Contents><Key>{quote_plus(key, safe='/*') if encoded else key}</Key>"
            f"<LastModified>{one.at:%Y-%m-%dT%H:%M:%S.000Z}</LastModified>"
            f"<ETag>{one.etag}</ETag><Size>{len(one.data)}</Size></Contents>"
            for key in keys[start : start + self.storage.page]
            if (one := self.storage.objects[key])
        )
        end = start + self.storage.page
        rest = f"<NextContinuationToken>{end} </NextContinuationToken>" if end < len(keys) else ""
        rest += "<EncodingType>url</EncodingType>" if encoded else ""
        more = "true" if end < len(keys) else "false"
        self._send(200, f"<ListBucketResult><IsTruncated>{more}</IsTruncated>{rest}{found}</ListBucketResult>".encode())

    def _list_uploads(self) -> None:
        found = "".join(
            f"<Upload><Key>{one.key}</Key><UploadId>{name}</UploadId><Initiated>{one.at:%Y-%m-%dT%H:%M:%S.000Z}</Initiated></Upload>"
            for name, one in self.storage.uploads.items()
            if one.key.startswith(self.query.get("prefix", ""))
        )
        name = 'ListMultipartUploadsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
        self._send(200, f"<{name}>{found}</ListMultipartUploadsResult>".encode())

    def _stored(self, key: str) -> Stored:
        if key not in self.storage.objects:
            raise Refused(404, "NoSuchKey")
        return self.storage.objects[key]

    def _upload(self, name: str) -> Pending:
        if name not in self.storage.uploads:
            raise Refused(404, "NoSuchUpload")
        return self.storage.uploads[name]

    def _send(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextmanager
def strict_storage(folder: Path, *, conditional: bool = True) -> Iterator[Storage]:
    """Serves an empty storage over TLS, by a certificate of an authority of its own."""
    storage = Storage(conditional=conditional)
    storage.ca_file, key_file = _certificate(folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"storage": storage}))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(storage.ca_file, key_file)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    storage.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    server.daemon_threads = True
    thread.start()
    try:
        yield storage
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _certificate(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    ca_key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)

    def built(name: str, signer: str, public: ec.EllipticCurvePublicKey, *, authority: bool) -> x509.Certificate:
        names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, one)]) for one in (name, signer)]
        builder = (
            x509.CertificateBuilder()
            .subject_name(names[0])
            .issuer_name(names[1])
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        )
        return builder.sign(ca_key, hashes.SHA256())

    chain = [
        built("127.0.0.1", "test authority", key.public_key(), authority=False),
        built("test authority", "test authority", ca_key.public_key(), authority=True),
    ]
    pem, key_file = folder / "storage.pem", folder / "storage.key"
    pem.write_bytes(b"".join(one.public_bytes(serialization.Encoding.PEM) for one in chain))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return pem, key_file
