"""Settings: the table of interface.md, the four sources, and what is refused."""

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from pydantic import SecretStr

from ccs_dacs_pipeline.settings import PREFIX, Settings, SettingsError, load_settings, variable
from ccs_dacs_pipeline_tests.canaries import Canaries

# interface.md, Settings. A default of None means: required by the work that needs it, or the profile's.
DEFAULTS: dict[str, object] = {
    "CCS_BASE_URL": None,
    "CCS_AUTH": "basic",
    "CCS_USERNAME": None,
    "CCS_PASSWORD": None,
    "CCS_TOKEN_URL": None,
    "CCS_CLIENT_ID": None,
    "CCS_CLIENT_SECRET": None,
    "CCS_SCOPE": None,
    "CCS_CA_FILE": None,
    "CCS_PAGE_SIZE": 2000,
    "CCS_CONCURRENCY": 4,
    "EXTRACT_URL": "",
    "UPLOAD_URL": "",
    "DATA_DIR": Path("data"),
    "FRAMES_URL": "",
    "LEDGER_URL": SecretStr(""),
    "LAYOUT_PROFILE": "assumed-tail",
    "DATETIME_FORMAT": None,
    "BASE_TIME_ZONE": "UTC",
    "FILE_NAME_TEMPLATE": "{batchCode}_{batchNumber}_{rerunNumber}.csv",
    "MAX_FILE_BYTES": 512 * 1024**2,
    "ACKNOWLEDGEMENTS": "expected",
    "ACK_TIMEOUT": timedelta(days=2),
    "ACK_MAX_BYTES": 8 * 1024**2,
    "MANIFEST": "on",
    "ACK_AUTH": None,
    "ACK_USERNAME": None,
    "ACK_PASSWORD": None,
    "ACK_TOKEN": None,
    "DELTA_MAX_REQUESTS": 5000,
    "BREAKER_SHARE": 0.05,
    "ELIGIBLE_PERSON_TYPES": frozenset(),
    "ELIGIBLE_SP_TYPES": frozenset(),
    "ELIGIBLE_SA_TYPES": frozenset(),
    "ELIGIBLE_SA_STATUSES": frozenset(),
    "ELIGIBLE_DIVISIONS": frozenset(),
    "LOW_ID": "0000000000",
    "HIGH_ID": "9999999999",
    # interface.md, Foreign files; record-layouts.md, File names; ccs-rest.md, Sync requests.
    "FOREIGN_FILE_PATTERNS": frozenset(),
    "FOREIGN_QUIET_SECONDS": 30,
    "SENT_PREFIX": "",
    "FIRST_BATCH_NUMBERS": {},
    "MESSAGE_CATEGORY": 11508,
    "MESSAGE_NUMBER": 17055,
}
SECRETS = ["CCS_PASSWORD", "CCS_CLIENT_SECRET", "LEDGER_URL", "ACK_PASSWORD", "ACK_TOKEN"]
WRONG = {
    "CCS_AUTH": ["", "digest", "BASIC"],
    "CCS_PAGE_SIZE": ["0", "-1", "10001", "many", "2000.5", ""],
    "CCS_CONCURRENCY": ["0", "65", "x"],
    "CCS_CREDENTIALS_IN_FORM": ["perhaps"],
    "CCS_CALL_SECONDS": ["0", "601", "nan", "inf", "soon"],
    "CCS_SEARCH_ROOT": ["cm/dacs", "/cm/dacs/", "/cm?a=b", "/cm dacs"],
    "LEASE_SECONDS": ["0", "3601"],
    "DATETIME_FORMAT": ["iso", ""],
    "BASE_TIME_ZONE": ["PST8", "america/los_angeles", "../etc/passwd", ""],
    "FIRST_BATCH_NUMBERS": [
        "C1-DCTIL",
        "C1-DCTIL=0",
        "C1-DCTIL=x",
        "C1-DCTIL=1;C1-DSPIL=2",
        "C1-DCTLI=100",
        "C1-DCTIL=1000000000",
        "C1-DCTIL=1,C1-DCTIL=2",
    ],
    "MAX_FILE_BYTES": ["1023", "1 GiB", "2 GiB", "64 parsecs", "much", "-1", ""],
    "MANIFEST": ["true", "ON"],
    "ACKNOWLEDGEMENTS": ["maybe"],
    "ACK_TIMEOUT": ["two days", "P", "-P1D", "P9999999D", "172800", ""],
    "ACK_MAX_BYTES": ["1", "8 octets"],
    "ACK_AUTH": ["none"],
    "MESSAGE_CATEGORY": ["0", "x"],
    "MESSAGE_NUMBER": ["0", "x"],
    "SENSORS": ["yes"],
    "DELTA_MAX_REQUESTS": ["0", "5,000", "1000001"],
    "BREAKER_SHARE": ["-0.01", "1.01", "5 %", "nan"],
    "LOW_ID": ["1", "00000000000", "000000000x", "\u0660" * 10, "0000000000\n"],
    "HIGH_ID": ["9", "99999999999", "-999999999"],
    "FOREIGN_QUIET_SECONDS": ["-1", "x"],
}
Setter = Callable[[str, str], None]


@pytest.fixture(autouse=True)
def empty_site(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A working directory without `.env`, and an environment without our variables."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(name)


@pytest.fixture(params=["environment", "dotenv", "secrets directory"])
def put(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Setter:
    """Puts a setting into one of the three sources."""
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    monkeypatch.setenv(variable("secrets_dir"), str(secrets))

    def put(name: str, value: str) -> None:
        if request.param == "environment":
            monkeypatch.setenv(PREFIX + name, value)
        elif request.param == "dotenv":
            with Path(".env").open("a", encoding="utf-8") as file:
                file.write(f"{PREFIX}{name}='{value}'\n")
        else:
            (secrets / (PREFIX + name).lower()).write_text(f"{value}\n", encoding="utf-8")

    return put


def loaded(name: str) -> Any:
    return getattr(load_settings(), name.lower())


class TestTable:
    """The names and defaults of interface.md."""

    @pytest.mark.parametrize(("name", "default"), DEFAULTS.items(), ids=DEFAULTS)
    def test_every_name_has_its_documented_default(self, name: str, default: object):
        assert loaded(name) == default

    def test_every_setting_says_what_it_means(self):
        assert [name for name, field in Settings.model_fields.items() if not field.description] == []

    def test_what_is_kept_lives_under_the_data_folder_unless_told_otherwise(self, tmp_path: Path):
        settings = load_settings()
        assert settings.data_path == tmp_path / "data"
        for folder in ("extract", "upload", "frames"):
            assert settings.folder(folder) == str(tmp_path / "data" / folder)
        assert settings.ledger == f"sqlite:///{tmp_path}/data/ledger.sqlite"

    def test_a_folder_and_the_ledger_can_be_elsewhere(self):
        settings = load_settings(extract_url="file:///srv/extract", ledger_url="postgresql+psycopg://ledger.example/l")
        assert settings.folder("extract") == "file:///srv/extract"
        assert settings.ledger == "postgresql+psycopg://ledger.example/l"

    def test_a_home_is_put_in_place_of_its_sign(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("HOME", "/home/site")
        settings = load_settings(data_dir="~/data", ccs_ca_file="~/ca.pem", sftp_key_file="~/.ssh/key")
        assert (settings.data_path, settings.ccs_ca_file) == (Path("/home/site/data"), Path("/home/site/ca.pem"))
        assert settings.sftp_key_file == Path("/home/site/.ssh/key")

    def test_loading_creates_nothing(self, tmp_path: Path):
        load_settings()
        assert list(tmp_path.iterdir()) == []


class TestSources:
    """Environment, `.env`, secrets directory, arguments."""

    @pytest.mark.parametrize(
        ("name", "text", "value"),
        [
            ("CCS_BASE_URL", "https://ccs.example.com/ouaf", "https://ccs.example.com/ouaf"),
            ("CCS_PASSWORD", "p w#d=1", SecretStr("p w#d=1")),
            ("CCS_CREDENTIALS_IN_FORM", "true", True),
            ("CCS_CA_FILE", "/etc/site/ca.pem", Path("/etc/site/ca.pem")),
            ("ELIGIBLE_DIVISIONS", "CA", frozenset({"CA"})),
            ("ELIGIBLE_SA_STATUSES", " 20, 30 ,,40,", frozenset({"20", "30", "40"})),
            ("ELIGIBLE_PERSON_TYPES", "", frozenset()),
            ("FIRST_BATCH_NUMBERS", "C1-DCTIL=100, C1-DSPIL=7", {"C1-DCTIL": 100, "C1-DSPIL": 7}),
            ("ACK_TIMEOUT", "P2D", timedelta(days=2)),
            ("ACK_TIMEOUT", "PT36H", timedelta(hours=36)),
            ("ACK_TIMEOUT", "P1DT2H30M", timedelta(days=1, hours=2, minutes=30)),
            ("MAX_FILE_BYTES", "64 MiB", 64 * 1024**2),
            ("MAX_FILE_BYTES", "64MB", 64_000_000),
            ("MAX_FILE_BYTES", "1024", 1024),
            ("ACK_MAX_BYTES", "1 GiB", 1024**3),
            ("BASE_TIME_ZONE", "America/Los_Angeles", "America/Los_Angeles"),
            ("DATETIME_FORMAT", "xsd", "xsd"),
            ("LOW_ID", "5000000000", "5000000000"),
            ("BREAKER_SHARE", "0.2", 0.2),
        ],
    )
    def test_a_setting_is_read_from_each_source(self, put: Setter, name: str, text: str, value: object):
        put(name, text)
        assert loaded(name) == value

    def test_the_time_zone_is_ready_to_use(self):
        assert load_settings(base_time_zone="Europe/Vienna").zone == ZoneInfo("Europe/Vienna")

    def test_arguments_win_over_environment_over_dotenv_over_secret_files(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ):
        name = variable("ccs_username")
        (tmp_path / name.lower()).write_text("secret file")
        monkeypatch.setenv(variable("secrets_dir"), str(tmp_path))
        assert load_settings().ccs_username == "secret file"
        Path(".env").write_text(f"{name}=dotenv\n")
        assert load_settings().ccs_username == "dotenv"
        monkeypatch.setenv(name, "environment")
        assert load_settings().ccs_username == "environment"
        assert load_settings(ccs_username="argument").ccs_username == "argument"

    def test_another_env_file_can_be_named(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
        Path(".env").write_text(f"{variable('ccs_scope')}=here\n")
        (tmp_path / "site.env").write_text(f"{variable('ccs_scope')}=there\n")
        monkeypatch.setenv(variable("env_file"), "site.env")
        assert loaded("CCS_SCOPE") == "there"

    def test_an_empty_name_means_no_env_file(self, monkeypatch: pytest.MonkeyPatch):
        Path(".env").write_text(f"{variable('ccs_scope')}=here\n")
        monkeypatch.setenv(variable("env_file"), "")
        assert loaded("CCS_SCOPE") is None

    def test_the_secrets_directory_can_be_named_in_the_env_file(self, tmp_path: Path):
        (tmp_path / "secrets").mkdir()
        (tmp_path / "secrets" / "ccs_dacs_ack_token").write_text("t")
        Path(".env").write_text(f"{variable('secrets_dir')}=secrets\n")
        assert loaded("ACK_TOKEN") == SecretStr("t")

    def test_what_belongs_to_others_is_left_to_them(self, put: Setter, tmp_path: Path):
        Path(".env").write_text("DAGSTER_HOME=/srv/dagster\nDATA_DIR=/elsewhere\nCCS_PASSWORD=x\n")
        (tmp_path / "secrets" / "tls.key").write_text("x")
        put("CCS_USERNAME", "u")
        settings = load_settings()
        assert (settings.data_dir, settings.ccs_password, settings.ccs_username) == (Path("data"), None, "u")


class TestRefusals:
    """A wrong or unknown setting is refused at once, by name and without its value."""

    @pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
    def test_a_wrong_value_is_refused_with_the_variable_and_without_the_value(
        self, monkeypatch: pytest.MonkeyPatch, name: str, value: str
    ):
        monkeypatch.setenv(PREFIX + name, value)
        with pytest.raises(SettingsError) as refused:
            load_settings()
        assert str(refused.value).startswith(f"{PREFIX}{name}: ")
        assert len(str(refused.value)) > len(f"{PREFIX}{name}: ") + 10

    @pytest.mark.parametrize("value", ["fran\u00e7ais", "de\nX: y", ""])
    def test_a_language_that_no_header_carries_is_refused(self, value: str):
        with pytest.raises(SettingsError, match=r"^CCS_DACS_CCS_LANGUAGE: "):
            load_settings(ccs_language=value)

    @pytest.mark.parametrize("form", ["{}", "1 {}", "P{}", "x={}"])
    def test_all_wrong_values_are_named_at_once_and_no_part_of_one_shows(self, put: Setter, form: str):
        canaries = Canaries()
        for name in WRONG:
            put(name, form.format(canaries.plant(name)))
        with pytest.raises(SettingsError) as refused:
            load_settings()
        named = {reason.partition(": ")[0] for reason in str(refused.value).split("; CCS_DACS_")}
        assert {name.removeprefix(PREFIX) for name in named} == WRONG.keys()
        assert canaries.in_text(str(refused.value), repr(refused.value)) == []
        assert refused.value.__cause__ is None
        assert refused.value.__suppress_context__

    def test_a_range_upside_down_names_both_ends(self):
        with pytest.raises(SettingsError, match=r"^CCS_DACS_LOW_ID is above CCS_DACS_HIGH_ID; swap them$"):
            load_settings(low_id="0000000002", high_id="0000000001")

    @pytest.mark.parametrize("value", ["sub/*.csv", "*.csv,.hidden*", "/x"])
    def test_a_pattern_that_is_none_of_visible_names_is_refused(self, value: str):
        with pytest.raises(
            SettingsError, match=f"^{PREFIX}FOREIGN_FILE_PATTERNS: takes patterns of visible file names"
        ):
            load_settings(foreign_file_patterns=value)

    @pytest.mark.parametrize("value", [".sent-", "sent/", "Sent ", "x" * 32, "-x"])
    def test_a_prefix_that_would_hide_or_misplace_a_file_is_refused(self, value: str):
        with pytest.raises(SettingsError, match=f"^{PREFIX}SENT_PREFIX: "):
            load_settings(sent_prefix=value)

    @pytest.mark.parametrize("name", ["DATA_DIR", "CCS_CA_FILE", "SFTP_KEY_FILE"])
    @pytest.mark.parametrize("value", ["~hushed-user/x", "file:///hushed", "s3://hushed/x"])
    def test_what_is_no_path_of_this_machine_is_refused(self, put: Setter, name: str, value: str):
        put(name, value)
        with pytest.raises(SettingsError, match=f"^CCS_DACS_{name}: .*write the path") as refused:
            load_settings()
        assert "hushed" not in str(refused.value)

    def test_an_unknown_name_is_refused_with_a_suggestion(self, put: Setter):
        put("CCS_BASE_ULR", "https://ccs.example.com")
        with pytest.raises(
            SettingsError, match="CCS_DACS_CCS_BASE_ULR is no setting: did you mean CCS_DACS_CCS_BASE_URL"
        ):
            load_settings()

    def test_a_name_unlike_any_is_refused_with_the_place_to_look(self, put: Setter):
        put("ZZZ", "x")
        with pytest.raises(
            SettingsError, match=r"^CCS_DACS_ZZZ is no setting: see the table of settings in README\.md"
        ):
            load_settings()

    def test_an_unknown_argument_is_refused_too(self):
        with pytest.raises(
            SettingsError, match="CCS_DACS_CCS_PAGESIZE is no setting: did you mean CCS_DACS_CCS_PAGE_SIZE"
        ):
            load_settings(ccs_pagesize=10)

    def test_a_misspelt_name_in_lower_case_is_found(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("ccs_dacs_manifset", "off")
        with pytest.raises(SettingsError, match="did you mean CCS_DACS_MANIFEST"):
            load_settings()

    @pytest.mark.parametrize("name", ["ENV_FILE", "SECRETS_DIR"])
    def test_a_source_that_is_named_must_be_there(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str):
        monkeypatch.setenv(PREFIX + name, str(tmp_path / "absent"))
        with pytest.raises(SettingsError, match=f"^{PREFIX}{name} names no "):
            load_settings()

    @pytest.mark.parametrize("kind", ["no text", "folder"])
    def test_a_secret_that_cannot_be_read_is_named(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str):
        path = tmp_path / variable("ack_token")
        if kind == "folder":
            path.mkdir()
        else:
            path.write_bytes(b"\xff")
        monkeypatch.setenv(variable("secrets_dir"), str(tmp_path))
        with pytest.raises(SettingsError, match=r"^CCS_DACS_ACK_TOKEN in .* CCS_DACS_SECRETS_DIR cannot be read"):
            load_settings()

    def test_an_env_file_that_is_no_text_is_named(self):
        Path(".env").write_bytes(b"CCS_DACS_CCS_SCOPE=\xff\n")
        with pytest.raises(SettingsError, match=r"^\.env cannot be read \(UnicodeDecodeError\)"):
            load_settings()


class TestMissing:
    """A setting that is merely missing is refused only when it is needed."""

    @pytest.mark.parametrize(
        "name", ["CCS_CA_FILE", "SFTP_KEY_FILE", "SFTP_KNOWN_HOSTS", "UPLOAD_SFTP_KEY_FILE", "S3_CA_FILE"]
    )
    def test_an_empty_name_of_a_file_means_none_and_not_this_folder(self, put: Setter, name: str):
        put(name, "")
        assert loaded(name) is None

    @pytest.mark.parametrize("name", ["CCS_BASE_URL", "CCS_PASSWORD", "ACK_TOKEN", "EXTRACT_URL"])
    @pytest.mark.parametrize("empty", [False, True])
    def test_what_is_missing_is_refused_by_the_work_that_needs_it(self, put: Setter, name: str, empty: bool):
        if empty:
            put(name, "")
        settings = load_settings()
        with pytest.raises(SettingsError, match=f"^{PREFIX}{name} is not set, and reaching CCS needs it: set it in"):
            settings.required(name.lower(), why="reaching CCS")

    def test_what_is_there_is_given_in_the_clear_to_the_work_alone(self):
        settings = load_settings(ccs_password="p")
        assert settings.required("ccs_password", why="reaching CCS") == "p"


class TestSecrets:
    """What a secret shows of itself."""

    @pytest.mark.parametrize("name", SECRETS)
    def test_a_secret_never_shows_in_print(self, put: Setter, name: str):
        canaries = Canaries()
        put(name, canaries.plant(name))
        settings = load_settings()
        shown = [str(settings), repr(settings), repr(settings.model_dump()), settings.model_dump_json(), f"{settings}"]
        assert canaries.in_text(*shown) == []

    def test_settings_cannot_be_changed_once_loaded(self):
        with pytest.raises(ValueError, match="frozen"):
            load_settings().ccs_username = "other"  # type: ignore[misc]
