"""Who is called and with what credential (ccs-rest.md: Authentication, Trust)."""

import base64
import datetime as dt
import ipaddress
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

import ccs_dacs_pipeline.ccs as ccs_room
from ccs_dacs_pipeline.ccs import (
    Answer,
    BasicAuth,
    CcsClient,
    Connection,
    OAuth,
    Permanent,
    Rejected,
    Transient,
)

from .conftest import Start
from .servers import PERSONS, Request, Server, in_turn, reply

COUNT = reply({"totalNumberOfRecords": 5})
SECRET = "s3cret-canary"


def count(client: CcsClient) -> int:
    return client.count(PERSONS, "0", "9")


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def test_secrets_never_show_in_repr() -> None:
    for auth in (BasicAuth("user", SECRET), OAuth("https://id.example.com/token", "id", SECRET)):
        assert SECRET not in repr(Connection("https://ccs.example.com", auth))


def test_basic_goes_with_every_call(start: Start) -> None:
    client, server = start(in_turn(COUNT, reply(status=204)), auth=BasicAuth("üser", SECRET))
    count(client)
    client.transition("1", Answer.positive())
    assert [request.headers["authorization"] for request in server.requests] == [basic("üser", SECRET)] * 2


def test_cookies_do_not_grow_without_end(start: Start) -> None:
    answers = [reply({"totalNumberOfRecords": 5}, headers={"Set-Cookie": f"c{number}=x"}) for number in range(120)]
    client, server = start(in_turn(*answers))
    for _ in answers:
        count(client)
    sent = [request.headers.get("cookie", "").count("=") for request in server.requests]
    assert sent[:4] == [0, 1, 2, 3]
    assert max(sent) == 50


def test_a_refused_password_is_not_tried_again_and_not_shown(start: Start) -> None:
    client, server = start(in_turn(reply(status=401)), auth=BasicAuth("user", SECRET))
    with pytest.raises(Permanent, match=f"check the credential for {server.url}") as error:
        count(client)
    assert SECRET not in str(error.value)
    assert len(server.requests) == 1


class TokenServer(Server):
    """Hands out the tokens t1, t2, ... and takes whichever is said to be good."""

    def __init__(self, **members: object) -> None:
        super().__init__(self._token)
        self.members = {"token_type": "Bearer", "expires_in": 3600, **members}
        self.given = 0

    def _token(self, _: Request) -> bytes:
        self.given += 1
        return reply({"access_token": f"t{self.given}", **self.members})


def guarded(*good: str) -> Callable[[Request], bytes]:
    """A CCS that takes some tokens only."""
    return lambda request: (
        COUNT if request.headers.get("authorization") in {f"Bearer {token}" for token in good} else reply(status=401)
    )


def oauth(tokens: Server, **settings: object) -> OAuth:
    return OAuth(f"{tokens.url}/oauth/token", "client", SECRET, "scope one", **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("in_form", [False, True])
def test_a_token_is_fetched_once_and_each_origin_sees_its_own_credential_only(start: Start, in_form: bool) -> None:
    with TokenServer() as tokens:
        client, server = start(guarded("t1"), auth=oauth(tokens, credentials_in_form=in_form))
        assert [count(client), count(client)] == [5, 5]
    (request,) = tokens.requests
    form = parse_qs(request.body.decode())
    assert (request.method, request.path) == ("POST", "/oauth/token")
    assert request.headers["content-type"] == "application/x-www-form-urlencoded"
    assert form["grant_type"] == ["client_credentials"]
    assert form["scope"] == ["scope one"]
    assert form.get("client_secret", []) == ([SECRET] if in_form else [])
    assert request.headers.get("authorization") == (None if in_form else basic("client", SECRET))
    assert SECRET not in str([(request.headers, request.body) for request in server.requests])


def test_a_token_is_used_until_shortly_before_its_end(start: Start) -> None:
    with TokenServer(expires_in="0") as tokens:
        client, _ = start(guarded("t1", "t2"), auth=oauth(tokens))
        assert [count(client), count(client)] == [5, 5]
        assert tokens.given == 2


def test_a_guard_is_asked_again_before_the_repeat_with_a_new_token(start: Start) -> None:
    with TokenServer() as tokens:
        client, server = start(lambda request: reply(status=401), auth=oauth(tokens))
        asked: list[int] = []
        with pytest.raises(Permanent):
            client.transition("1", Answer.positive(), guard=lambda: asked.append(tokens.given))
    assert asked == [1, 2]
    assert len(server.requests) == 2


def test_after_a_401_one_new_token_is_fetched_and_the_call_repeated_once(start: Start) -> None:
    with TokenServer() as tokens:
        client, server = start(guarded("t1"), auth=oauth(tokens))
        count(client)
        server.answer = guarded("t2")
        assert count(client) == 5
        assert tokens.given == 2
        server.answer = guarded()
        with pytest.raises(Permanent, match="refused with 401"):
            count(client)
        assert tokens.given == 3
        assert len(server.requests) == 1 + 2 + 2


def test_a_transition_too_is_repeated_once_with_a_new_token(start: Start) -> None:
    with TokenServer() as tokens:
        client, server = start(guarded("t2"), auth=oauth(tokens))
        client.transition("1", Answer.positive())
        assert [request.headers["authorization"] for request in server.requests] == ["Bearer t1", "Bearer t2"]


def test_many_threads_that_meet_a_401_fetch_one_token(start: Start) -> None:
    with TokenServer() as tokens:
        arrived = threading.Barrier(4)

        def answer(request: Request) -> bytes:
            if request.headers["authorization"] == "Bearer t1":
                arrived.wait(5)
                return reply(status=401)
            return COUNT

        client, _ = start(answer, concurrency=4, auth=oauth(tokens))
        counts: list[int] = []
        threads = [threading.Thread(target=lambda: counts.append(count(client))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert counts == [5] * 4
        assert tokens.given == 2


def test_a_token_endpoint_that_is_down_for_a_while_is_survived_by_a_transition_too(start: Start) -> None:
    with TokenServer() as tokens:
        tokens.answer = in_turn(reply(status=503), reply(status=503), reply({"access_token": "t1"}))
        client, server = start(guarded("t1"), auth=oauth(tokens))
        client.transition("1", Answer.positive())
        assert len(server.requests) == 1


def test_a_token_endpoint_that_stays_down_leaves_a_transition_unsent(start: Start) -> None:
    with Server(in_turn(reply(status=503))) as tokens:
        client, server = start(guarded("t1"), auth=oauth(tokens))
        with pytest.raises(Transient, match=f"no token from {tokens.url}: answered 503; gave up after 5 of 5 tries"):
            client.transition("1", Answer.positive())
        assert server.requests == []


@pytest.mark.parametrize(
    "answer",
    [
        reply({"error": "invalid_client"}, status=400),
        reply({"error": "invalid_client"}, status=401),
        reply(b"<html>Sign in</html>"),
        reply({"token_type": "Bearer"}),
        reply({"access_token": f"{SECRET}\r\nX-Injected: yes"}),
        reply(status=302, headers={"Location": "http://127.0.0.1:1/"}),
    ],
    ids=["400", "401", "html", "no token", "unusable token", "redirect"],
)
def test_without_a_token_the_call_is_not_made_and_the_error_is_not_ccs_s_own(start: Start, answer: bytes) -> None:
    with Server(in_turn(answer)) as tokens:
        client, server = start(guarded("t1"), auth=oauth(tokens))
        with pytest.raises(Permanent, match="POST /oauth/token: ") as error:
            client.transition("1", Answer.positive())
        assert not isinstance(error.value, Rejected)
        assert SECRET not in str(error.value)
        assert server.requests == []


@pytest.mark.parametrize(
    ("answer", "refusal"),
    [
        (reply({"error": "invalid_scope", "error_description": SECRET}, status=400), "400 (invalid_scope)"),
        (reply({"error": SECRET}, status=400), "400"),
        (reply({"error": ["invalid_client"]}, status=401), "401"),
        (reply(b"<html>Not found</html>", status=404), "404"),
    ],
)
def test_a_refused_token_names_the_settings_of_the_token_endpoint(start: Start, answer: bytes, refusal: str) -> None:
    with Server(in_turn(answer)) as tokens:
        client, _ = start(guarded("t1"), auth=oauth(tokens))
        with pytest.raises(Permanent) as error:
            client.health()
    assert str(error.value) == (
        f"POST /oauth/token: no token: refused with {refusal}: check CCS_DACS_CCS_TOKEN_URL, "
        "CCS_DACS_CCS_CLIENT_ID, CCS_DACS_CCS_CLIENT_SECRET, CCS_DACS_CCS_SCOPE and CCS_DACS_CCS_CREDENTIALS_IN_FORM"
    )


@pytest.mark.parametrize(
    ("base_url", "auth", "fault"),
    [
        ("https://ccs.example.com", None, "for loopback hosts only"),
        ("http://ccs.example.com", BasicAuth("u", SECRET), "unencrypted: use https in CCS_DACS_CCS_BASE_URL"),
        ("http://ccs.example.com", OAuth("https://id.example.com", "i", SECRET), "use https in CCS_DACS_CCS_BASE_URL"),
        ("https://ccs.example.com", OAuth("http://id.example.com", "i", SECRET), "use https in CCS_DACS_CCS_TOKEN_URL"),
        ("ftp://ccs.example.com", BasicAuth("u", SECRET), "must be an http or https URL"),
        ("ccs.example.com", BasicAuth("u", SECRET), "must be an http or https URL"),
        (
            "https://ccs.example.com:99999",
            BasicAuth("u", SECRET),
            r"base_url \(CCS_DACS_CCS_BASE_URL\) must be an http",
        ),
        ("https://ccs.example.com:x", BasicAuth("u", SECRET), r"base_url \(CCS_DACS_CCS_BASE_URL\) must be an http"),
        ("https://ccs..example.com", BasicAuth("u", SECRET), r"base_url \(CCS_DACS_CCS_BASE_URL\) must be an http"),
        ("https://" + "c" * 64, BasicAuth("u", SECRET), r"base_url \(CCS_DACS_CCS_BASE_URL\) must be an http"),
        ("https://[::1", BasicAuth("u", SECRET), r"base_url \(CCS_DACS_CCS_BASE_URL\) must be an http"),
        ("https://ccs.example.com/a b", BasicAuth("u", SECRET), r"base_url \(CCS_DACS_CCS_BASE_URL\) must be an http"),
        ("https://ccs.example.com\n", BasicAuth("u", SECRET), r"base_url \(CCS_DACS_CCS_BASE_URL\) must be an http"),
        (f"https://u:{SECRET}@ccs.example.com", BasicAuth("u", SECRET), "no user name, query or fragment"),
        (f"https://ccs.example.com?key={SECRET}", BasicAuth("u", SECRET), "no user name, query or fragment"),
    ],
)
def test_a_connection_that_would_give_a_credential_away_is_refused(
    base_url: str, auth: BasicAuth | OAuth | None, fault: str
) -> None:
    with pytest.raises(ValueError, match=fault) as error:
        Connection(base_url, auth)
    assert SECRET not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"search_paths": {"persons": ".evil.example.com/"}}, "search path of persons must begin with /"),
        ({"page_size": 0}, "page_size must be more than 0, not 0"),
        ({"call_seconds": -1}, "call_seconds must be more than 0"),
    ],
)
def test_an_unusable_setting_is_named(settings: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        Connection("https://ccs.example.com", BasicAuth("u", SECRET), **settings)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.8.8", "[::1]"])
def test_loopback_hosts_need_neither_encryption_nor_credential(host: str) -> None:
    Connection(f"http://{host}:8080", None)
    Connection(f"http://{host}:8080", BasicAuth("u", SECRET))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    """A private authority's file, and the context of a server on 127.0.0.1 with a certificate of it."""
    folder = tmp_path_factory.mktemp("authority")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = folder / "authority.pem"
    file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file = folder / "key.pem"
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file, key_file)
    return file, context


def test_certificates_are_verified_always_and_a_private_authority_can_be_added(
    authority: tuple[Path, ssl.SSLContext],
) -> None:
    file, context = authority
    with Server(in_turn(COUNT), context) as server:
        refused = pytest.raises(
            Permanent, match=f"certificate of {server.url} cannot be verified.*CCS_DACS_CCS_CA_FILE"
        )
        with CcsClient(Connection(server.url, BasicAuth("u", SECRET))) as client, refused:
            count(client)
        assert server.requests == []
        with CcsClient(Connection(server.url, BasicAuth("u", SECRET), ca_file=file)) as client:
            assert count(client) == 5


def test_a_slow_drip_over_tls_ends_with_the_time_of_the_call(authority: tuple[Path, ssl.SSLContext]) -> None:
    file, context = authority
    with Server(lambda _: server.drip(b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 1000), context) as server:
        connection = Connection(server.url, None, ca_file=file, call_seconds=0.3, tries=1)
        with CcsClient(connection) as client, pytest.raises(Transient, match=r"within 0\.3 s"):
            count(client)


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_an_authority_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "authority.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ValueError, match=r"authority.pem cannot be used .*CCS_DACS_CCS_CA_FILE"):
        CcsClient(Connection("https://ccs.example.com", BasicAuth("u", SECRET), ca_file=file))


def test_one_module_alone_knows_the_http_library() -> None:
    modules = Path(ccs_room.__file__).parent.glob("*.py")
    assert [module.name for module in modules if "import http" in module.read_text()] == ["client.py"]
