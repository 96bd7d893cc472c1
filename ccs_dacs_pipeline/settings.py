"""Every setting of a site, typed, documented, in one place.

Values come from the environment (prefix ``CCS_DACS_``), a ``.env`` file and files in a secrets directory, in this
order (interface.md, Settings). Loading never touches network or database. A value that is wrong is refused at once; one
that is merely missing is refused by the work that needs it, so that the Dagster code location always loads.
"""

from __future__ import annotations

import difflib
import os
import re
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal
from zoneinfo import ZoneInfo, available_timezones

from dotenv import dotenv_values
from pydantic import (
    AfterValidator,
    BeforeValidator,
    ByteSize,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from ccs_dacs_pipeline.entities import ENTITIES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pydantic_core import ErrorDetails

PREFIX = "CCS_DACS_"
GIB = 1024**3
# Read by the tests and by this module itself, not settings of a site.
_OTHER_NAMES = ("SECRETS_DIR", "ENV_FILE")
_TEST_PREFIX = "TEST_"
# What is left of one where a path is expected: its second slash has no meaning there.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
# Pydantic's own texts for these repeat a part of the value, or do not say what to write.
_REASONS = {
    "byte_size": "is no size; write a number of bytes, or one with a unit such as 64 MiB",
    "byte_size_unit": "is no size; write a number of bytes, or one with a unit such as 64 MiB",
    "time_delta_parsing": "is no duration; write one of ISO 8601 such as P2D or PT36H",
}


class SettingsError(Exception):
    """A setting is wrong or missing. The message names it and says what to do; it never holds a value."""


def variable(name: str) -> str:
    """Returns the environment variable of the setting ``name``."""
    return f"{PREFIX}{name.upper()}"


def _split(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _none_if_empty(value: object) -> object:
    return None if value == "" else value


def _split_numbers(value: object) -> object:
    if not isinstance(value, str):
        return value
    pairs = [part.partition("=") for part in value.split(",") if part.strip()]
    numbers = {code.strip(): number.strip() for code, _, number in pairs}
    if len(numbers) < len(pairs):
        raise ValueError("names a batch code twice; give each its number once")
    return numbers


CommaList = Annotated[frozenset[str], NoDecode, BeforeValidator(_split)]
# At most 9 digits: that many are read back from a file's name, and every database holds them.
CodeNumbers = Annotated[
    dict[str, Annotated[int, Field(ge=1, le=999_999_999)]], NoDecode, BeforeValidator(_split_numbers)
]


def _local(path: Path) -> Path:
    """Returns the path with the home that a leading ~ stands for; raises `ValueError` when it is none."""
    if _URL.match(str(path)):
        raise ValueError("is a URL; write the path of a file or folder of this machine")
    try:
        return path.expanduser()
    except RuntimeError:
        raise ValueError("begins with a ~ whose home is not known; write the path in full") from None


LocalPath = Annotated[Path, AfterValidator(_local)]
# An empty path would be the present folder.
OptionalFile = Annotated[LocalPath | None, BeforeValidator(_none_if_empty)]


def named_dagster_home() -> Path | None:
    """Returns DAGSTER_HOME, absolute; None where it is not set.

    Raises:
        SettingsError: it is no path of this machine.
    """
    name = os.environ.get("DAGSTER_HOME")
    try:
        return _local(Path(name)).absolute() if name else None
    except ValueError as error:
        raise SettingsError(f"DAGSTER_HOME {error}") from None


class Settings(BaseSettings):
    """The settings of one site. Field names are the variables of interface.md without the prefix, in lower case."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_file=".env", extra="ignore", frozen=True, hide_input_in_errors=True
    )

    ccs_base_url: str | None = Field(None, description="origin and context path of CCS, before `/rest/apis`")
    ccs_auth: Literal["basic", "oauth", "none"] = Field(
        "basic", description="`basic`, `oauth` (client credentials) or `none` (loopback only)"
    )
    ccs_username: str | None = Field(None, description="user of Basic authentication")
    ccs_password: SecretStr | None = Field(None, description="password of Basic authentication")
    ccs_token_url: str | None = Field(None, description="token endpoint of OAuth")
    ccs_client_id: str | None = Field(None, description="client id of OAuth")
    ccs_client_secret: SecretStr | None = Field(None, description="client secret of OAuth")
    ccs_scope: str | None = Field(None, description="scope of OAuth")
    ccs_credentials_in_form: bool = Field(False, description="OAuth credentials in the form, not in a Basic header")
    ccs_ca_file: OptionalFile = Field(None, description="additional certificate authority (PEM)")
    ccs_language: str = Field("en", pattern="^[A-Za-z0-9*,;=. -]+$", description="`Accept-Language` of every call")
    ccs_page_size: int = Field(2000, ge=1, le=10_000, description="entities per page")
    ccs_concurrency: int = Field(4, ge=1, le=64, description="pages under way at once")
    ccs_call_seconds: float = Field(60, gt=0, le=600, description="total time of one call, seconds")
    ccs_search_root: str = Field(
        "/rest/apis/cm/dacs", pattern=r"^(/[^/?#\s]+)*$", description="path before `/persons/search` and the like"
    )

    data_dir: LocalPath = Field(Path("data"), description="where the embedded defaults live (ledger, frames, folders)")
    extract_url: str = Field("", description="extract folder (default: `DATA_DIR/extract`)")
    upload_url: str = Field("", description="DACS's upload folder (default: `DATA_DIR/upload`)")
    frames_url: str = Field("", description="frames between assets (default: `DATA_DIR/frames`)")
    sftp_password: SecretStr | None = Field(None, description="password of the user in `sftp://` URLs")
    sftp_key_file: OptionalFile = Field(None, description="private key of the user in `sftp://` URLs")
    sftp_key_passphrase: SecretStr | None = Field(None, description="passphrase of the private key")
    sftp_known_hosts: OptionalFile = Field(None, description="known host keys (default: `~/.ssh/known_hosts`)")
    sftp_sha256_command: str | None = Field(
        None, description="command of the server that prints a file's SHA-256, asked instead of reading files back"
    )
    extract_sftp_password: SecretStr | None = Field(None, description="the extract folder's own, over `SFTP_PASSWORD`")
    extract_sftp_key_file: OptionalFile = Field(None, description="the extract folder's own, over `SFTP_KEY_FILE`")
    extract_sftp_key_passphrase: SecretStr | None = Field(
        None, description="the extract folder's own, over `SFTP_KEY_PASSPHRASE`"
    )
    extract_sftp_known_hosts: OptionalFile = Field(
        None, description="the extract folder's own, over `SFTP_KNOWN_HOSTS`"
    )
    extract_sftp_sha256_command: str | None = Field(
        None, description="the extract folder's own, over `SFTP_SHA256_COMMAND`"
    )
    upload_sftp_password: SecretStr | None = Field(None, description="the upload folder's own, over `SFTP_PASSWORD`")
    upload_sftp_key_file: OptionalFile = Field(None, description="the upload folder's own, over `SFTP_KEY_FILE`")
    upload_sftp_key_passphrase: SecretStr | None = Field(
        None, description="the upload folder's own, over `SFTP_KEY_PASSPHRASE`"
    )
    upload_sftp_known_hosts: OptionalFile = Field(None, description="the upload folder's own, over `SFTP_KNOWN_HOSTS`")
    upload_sftp_sha256_command: str | None = Field(
        None, description="the upload folder's own, over `SFTP_SHA256_COMMAND`"
    )
    s3_endpoint: str | None = Field(None, description="origin of the object storage (default: AWS in `S3_REGION`)")
    s3_region: str = Field("us-east-1", pattern="^[a-z0-9-]+$", description="region of the object storage")
    s3_access_key: str | None = Field(None, description="id of the access key, for `s3://` URLs")
    s3_secret_key: SecretStr | None = Field(None, description="secret of the access key")
    s3_addressing: Literal["path", "virtual"] = Field(
        "path", description="bucket in the `path`, or in the host name (`virtual`)"
    )
    s3_ca_file: OptionalFile = Field(None, description="additional certificate authority of the storage (PEM)")
    frames_keep: timedelta = Field(
        timedelta(days=14),
        ge=timedelta(),
        le=timedelta(days=3650),
        description="how long the frames of ended batches stay",
    )
    ledger_url: SecretStr = Field(SecretStr(""), description="SQLAlchemy URL (default: SQLite in `DATA_DIR`)")
    lease_seconds: float = Field(60, ge=1, le=3600, description="term of a lease in the ledger, seconds")

    layout_profile: str = Field("assumed-tail", description="`core`, `assumed-tail`, or a path to a site's own")
    datetime_format: Literal["ouaf", "xsd"] | None = Field(None, description="over the profile's date-time format")
    base_time_zone: str = Field("UTC", description="the CCS environment's base time zone")
    file_name_template: str = Field("{batchCode}_{batchNumber}_{rerunNumber}.csv", description="extract file names")
    first_batch_numbers: CodeNumbers = Field({}, description="first batch numbers, `C1-DCTIL=100,...`")
    max_file_bytes: ByteSize = Field(ByteSize(512 * 1024**2), ge=1024, lt=GIB, description="split size of a file")
    manifest: Literal["on", "off"] = Field("on", description="publish a manifest after the files")

    acknowledgements: Literal["expected", "none"] = Field("expected", description="whether DACS answers")
    ack_timeout: timedelta = Field(
        timedelta(days=2),
        ge=timedelta(),
        le=timedelta(days=3650),
        description="ISO 8601 duration until an answer is overdue",
    )
    ack_max_bytes: ByteSize = Field(ByteSize(8 * 1024**2), ge=1024, description="largest body the inbox takes")
    ack_auth: Literal["basic", "bearer"] | None = Field(None, description="what callers of the inbox present")
    ack_username: str | None = Field(None, description="user of the inbox")
    ack_password: SecretStr | None = Field(None, description="password of the inbox")
    ack_token: SecretStr | None = Field(None, description="bearer token of the inbox")
    inbox_url: str = Field(
        "",
        pattern=r"^(https?://[^\s@?#]+)?$",
        description="where the inbox is reached, for `doctor`; empty = not asked",
    )
    message_category: int = Field(11508, ge=1, description="message category of our own errors in CCS")
    message_number: int = Field(17055, ge=1, description="message number of our own errors in CCS")

    sensors: Literal["on", "off"] = Field(
        "off", description="`on`: sensors and schedule run without being turned on in the UI"
    )
    delta_max_requests: int = Field(5000, ge=1, le=1_000_000, description="requests per delta batch")
    breaker_share: float = Field(0.05, ge=0, le=1, description="share of bad records that stops a batch")
    eligible_person_types: CommaList = Field(frozenset(), description="eligible person types, empty = all")
    eligible_sp_types: CommaList = Field(frozenset(), description="eligible service point types, empty = all")
    eligible_sa_types: CommaList = Field(frozenset(), description="eligible agreement types, empty = all")
    eligible_sa_statuses: CommaList = Field(frozenset(), description="eligible agreement statuses, empty = all")
    eligible_divisions: CommaList = Field(frozenset(), description="eligible divisions, empty = all")
    low_id: str = Field("0000000000", pattern="^[0-9]{10}$", description="lowest id of the snapshot")
    high_id: str = Field("9999999999", pattern="^[0-9]{10}$", description="highest id of the snapshot")

    foreign_file_patterns: CommaList = Field(
        frozenset(), description="name patterns of foreign files to move, `C1-BILL*,*.xml`; empty = off"
    )
    foreign_quiet_seconds: float = Field(
        30, ge=0, le=86_400, description="how long size and time of a foreign file must stand still, seconds"
    )
    sent_prefix: str = Field(
        "",
        pattern="^([A-Za-z0-9_][A-Za-z0-9_.-]{0,30})?$",
        description="prefix under which delivered files stay in the extract folder; empty = remove them",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Orders the sources: arguments, environment, `.env`, secret files."""
        return init_settings, env_settings, dotenv_settings, file_secret_settings

    @field_validator("base_time_zone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        if value not in available_timezones():
            raise ValueError("is no IANA time zone; write one such as America/Los_Angeles")
        return value

    @field_validator("first_batch_numbers")
    @classmethod
    def _known_codes(cls, value: dict[str, int]) -> dict[str, int]:
        codes = sorted(code for entity in ENTITIES for code in (entity.initial_code, entity.incremental_code))
        if not value.keys() <= set(codes):
            raise ValueError(f"takes the batch codes {', '.join(codes)} alone, as C1-DCTIL=100")
        return value

    @field_validator("foreign_file_patterns")
    @classmethod
    def _plain_names(cls, value: frozenset[str]) -> frozenset[str]:
        if any("/" in pattern or pattern.startswith(".") for pattern in value):
            raise ValueError("takes patterns of visible file names, without '/' or leading '.'")
        return value

    @model_validator(mode="after")
    def _ordered_range(self) -> Settings:
        if self.low_id > self.high_id:
            raise ValueError(f"{variable('low_id')} is above {variable('high_id')}; swap them")
        return self

    @property
    def zone(self) -> ZoneInfo:
        """The base time zone."""
        return ZoneInfo(self.base_time_zone)

    @property
    def data_path(self) -> Path:
        """The data folder, absolute."""
        return self.data_dir.absolute()

    @property
    def dagster_home(self) -> Path:
        """Dagster's own folder, absolute: DAGSTER_HOME, by default under the data folder."""
        return named_dagster_home() or self.data_path / "dagster"

    def folder(self, name: Literal["extract", "upload", "frames"]) -> str:
        """Returns the URL or path of a folder, with its default under the data folder."""
        configured: str = getattr(self, f"{name}_url")
        return configured or str(self.data_path / name)

    @property
    def ledger(self) -> str:
        """The SQLAlchemy URL of the ledger. Holds a password where the site's does: never print it."""
        return self.ledger_url.get_secret_value() or f"sqlite:///{self.data_path / 'ledger.sqlite'}"

    def required(self, name: str, *, why: str) -> str:
        """Returns a setting that some work cannot do without.

        Raises:
            SettingsError: when it is not set; names the variable and what needs it.
        """
        value = getattr(self, name)
        text = value.get_secret_value() if isinstance(value, SecretStr) else str(value or "")
        if not text:
            raise SettingsError(f"{variable(name)} is not set, and {why} needs it: set it in the environment or .env.")
        return text


def load_settings(**values: object) -> Settings:
    """Loads the settings; arguments win over the environment.

    Raises:
        SettingsError: names each wrong setting and the reason, without its value.
    """
    env_file = _env_file()
    written = _read(env_file) if env_file else {}
    secrets_dir = _secrets_dir(written)
    secrets = _secrets(secrets_dir) if secrets_dir else []
    _refuse_unknown([*os.environ, *written, *secrets, *map(variable, values)])
    try:
        return Settings(_secrets_dir=secrets_dir, _env_file=env_file, **values)  # type: ignore[arg-type]
    except ValidationError as error:
        found = error.errors(include_input=False, include_url=False)
        raise SettingsError("; ".join(_explained(one) for one in found)) from None


def _env_file() -> Path | None:
    """The `.env` file: the one that `CCS_DACS_ENV_FILE` names (empty = none), else `.env` here where there is one."""
    name = variable("env_file")
    configured = os.environ.get(name)
    path = Path(".env" if configured is None else configured)
    if configured and not path.is_file():
        raise SettingsError(f"{name} names no file: write the path of one, or leave it out to read .env.")
    return path if configured != "" and path.is_file() else None


def _read(env_file: Path) -> dict[str, str | None]:
    try:
        return dotenv_values(env_file, encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{env_file} cannot be read ({type(error).__name__}): it must be UTF-8 text.") from None


def _secrets_dir(written: Mapping[str, str | None]) -> Path | None:
    name = variable("secrets_dir")
    configured = os.environ.get(name) or written.get(name)
    if configured and not Path(configured).is_dir():
        raise SettingsError(f"{name} names no directory: create it, or leave the variable out.")
    return Path(configured) if configured else None


def _secrets(folder: Path) -> list[str]:
    """The names of the secret files; one that cannot be read would be passed over, or end in the library's error."""
    names = sorted(path.name for path in folder.iterdir() if path.name.upper().startswith(PREFIX))
    for name in names:
        try:
            (folder / name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(
                f"{name} in the directory of {variable('secrets_dir')} cannot be read ({type(error).__name__}): make "
                "it a file of UTF-8 text that this user may read."
            ) from None
    return names


def _refuse_unknown(names: Iterable[str]) -> None:
    """A misspelt name would silently leave a default in force; what has another prefix is none of ours."""
    known = {name.upper() for name in (*Settings.model_fields, *_OTHER_NAMES)}
    for name in sorted({name.upper() for name in names if name.upper().startswith(PREFIX)}):
        if name.removeprefix(PREFIX) not in known and not name.removeprefix(PREFIX).startswith(_TEST_PREFIX):
            near = difflib.get_close_matches(name.removeprefix(PREFIX), known, n=1)
            hint = f"did you mean {variable(near[0])}?" if near else "see the table of settings in README.md."
            raise SettingsError(f"{name} is no setting: {hint}")


def _explained(found: ErrorDetails) -> str:
    """Says what is wrong with a setting; a rule of our own over several of them names them itself."""
    own = str(found["ctx"]["error"]) if found["type"] == "value_error" else found["msg"]
    reason = _REASONS.get(found["type"], own)
    return f"{variable(str(found['loc'][0]))}: {reason}" if found["loc"] else reason
