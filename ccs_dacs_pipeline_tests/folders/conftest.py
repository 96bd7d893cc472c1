"""The folders that every test of the interface runs on: a further kind is one more method of `Places`."""

import logging
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import boto3
import pytest
from moto.server import ThreadedMotoServer

from ccs_dacs_pipeline.folders import Folder, LocalFolder
from ccs_dacs_pipeline.folders.bucket import Bucket, Upload
from ccs_dacs_pipeline.folders.objects import ObjectFolder
from ccs_dacs_pipeline_tests.folders.sftp_servers import AsyncsshServed, OpensshServed, asyncssh_server, openssh_server
from ccs_dacs_pipeline_tests.folders.strict_storage import Storage, strict_storage

KINDS = [
    "local",
    "other-file-system",
    "sftp-asyncssh",
    "sftp-openssh",
    "s3-moto",
    "s3-strict",
    "s3-unconditional",
]


STARTED = datetime.now(UTC)


class MotoBucket(Bucket):
    """A bucket of moto, which says of each upload that it was begun in 2010."""

    def uploads(self, prefix: str) -> Iterator[Upload]:
        return (replace(upload, begun=STARTED) for upload in super().uploads(prefix))


@dataclass
class Places:
    """Makes empty folders of each kind, on servers that start when first asked for."""

    stack: ExitStack
    tmp: Path
    opened: list[Folder] = field(default_factory=list)

    def folder(self, kind: str, name: str, tmp_path: Path) -> Folder:
        """Returns an empty folder of the kind; `tmp_path` is the test's own."""
        made = getattr(self, f"_{kind.replace('-', '_')}")(name, tmp_path)
        self.opened.append(made)
        return made

    def close_folders(self) -> None:
        while self.opened:
            self.opened.pop().close()

    def _local(self, name: str, tmp_path: Path) -> Folder:
        return LocalFolder(tmp_path / name)

    def _other_file_system(self, name: str, tmp_path: Path) -> Folder:
        memory = Path("/dev/shm")
        if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
            pytest.skip("there is no second file system at /dev/shm")
        return LocalFolder(Path(self.stack.enter_context(TemporaryDirectory(dir=memory))) / name)

    def _sftp_asyncssh(self, name: str, tmp_path: Path) -> Folder:
        return self.asyncssh.folder(tmp_path / name)

    def _sftp_openssh(self, name: str, tmp_path: Path) -> Folder:
        return self.openssh.folder(tmp_path / name)

    def _s3_moto(self, name: str, tmp_path: Path) -> Folder:
        return ObjectFolder(self.moto, f"{uuid.uuid4().hex}/{name}")

    def _s3_strict(self, name: str, tmp_path: Path) -> Folder:
        return self.strict.folder(f"{uuid.uuid4().hex}/{name}")

    def _s3_unconditional(self, name: str, tmp_path: Path) -> Folder:
        return self.unconditional.folder(f"{uuid.uuid4().hex}/{name}")

    @cached_property
    def asyncssh(self) -> AsyncsshServed:
        return self.stack.enter_context(asyncssh_server(self._made("asyncssh")))

    @cached_property
    def openssh(self) -> OpensshServed:
        return self.stack.enter_context(openssh_server(self._made("openssh")))

    @cached_property
    def moto(self) -> Bucket:
        """A bucket of moto's server."""
        logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
        server.start()
        self.stack.callback(server.stop)
        host, port = server.get_host_and_port()
        bucket = MotoBucket("utility", f"http://{host}:{port}", "us-east-1", "key", "secret")
        boto3.client(
            "s3",
            endpoint_url=bucket.endpoint,
            region_name=bucket.region,
            aws_access_key_id=bucket.access_key,
            aws_secret_access_key=bucket.secret_key,
        ).create_bucket(Bucket=bucket.name)
        return bucket

    @cached_property
    def strict(self) -> Storage:
        return self.stack.enter_context(strict_storage(self._made("strict")))

    @cached_property
    def unconditional(self) -> Storage:
        return self.stack.enter_context(strict_storage(self._made("unconditional"), conditional=False))

    def _made(self, name: str) -> Path:
        path = self.tmp / name
        path.mkdir()
        return path


@pytest.fixture(scope="session")
def all_places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Places]:
    with ExitStack() as stack:
        yield Places(stack, tmp_path_factory.mktemp("servers"))


@pytest.fixture
def places(all_places: Places) -> Iterator[Places]:
    """All kinds of folders; those a test asks for are closed at its end."""
    yield all_places
    all_places.close_folders()


@pytest.fixture
def made(places: Places, tmp_path: Path) -> Callable[[str, str], Folder]:
    """Makes an empty folder from its kind and its name."""
    return lambda kind, name: places.folder(kind, name, tmp_path)


@pytest.fixture(params=KINDS)
def folder(request: pytest.FixtureRequest, made: Callable[[str, str], Folder]) -> Folder:
    """An empty folder of each kind."""
    return made(request.param, "folder")


@pytest.fixture(params=KINDS)
def upload(request: pytest.FixtureRequest, made: Callable[[str, str], Folder]) -> Folder:
    """An empty upload folder of each kind; of the local ones one is on the extract folder's file system."""
    return made(request.param, "upload")


@pytest.fixture
def extract(made: Callable[[str, str], Folder]) -> Folder:
    """An empty extract folder."""
    return made("local", "extract")
