"""DACS's reader on hand-written files: what it takes, what it refuses, what it must never see."""

import hashlib
import io
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from ccs_dacs_pipeline.sandbox import Sandbox, SandboxConfig, SimulatedDacs
from ccs_dacs_pipeline.sandbox.upload_files import FileNames
from ccs_dacs_pipeline_tests.sandbox.folder import MOMENT, contact, manifest, publish, put, service, service_point

LATER = "2026-03-01-10.00.01"


@pytest.fixture
def start(tmp_path):
    running = []

    def start(**options) -> SimulatedDacs:
        config = SandboxConfig(**{"upload_folder": tmp_path, "poll_seconds": 0.01, "negative_share": 0.0} | options)
        dacs = SimulatedDacs(config)
        dacs.start()
        running.append(dacs)
        return dacs

    yield start
    for dacs in running:
        dacs.stop()


def rules(dacs: SimulatedDacs) -> list[str]:
    return [violation.rule for violation in dacs.violations]


def rejected(dacs: SimulatedDacs, entity: str = "contact") -> dict[str, int]:
    return dacs.summary()["entities"][entity]["rejected"]


# Rows


def test_rows_are_staged_upserted_and_answered(tmp_path, start) -> None:
    dacs = start()
    publish(tmp_path, "C1-DCTEX_0001_00.csv", contact(request="85810617092033"))
    dacs.wait_until_idle()
    assert dacs.held("contact")["5775933103"]["name"] == "John Reddy"
    (answer,) = dacs.answers
    assert answer["syncRequestId"] == "85810617092033"
    assert answer["hasError"] is False
    assert answer["externalIds"]["entityIdList"][0]["entity"] == "D1-CONTACT"
    assert dacs.violations == []


def test_initial_rows_and_rows_without_reference_are_not_answered(tmp_path, start) -> None:
    dacs = start()
    publish(tmp_path, "C1-DCTIL_0001_00.csv", contact("0000000001", changed=""))
    publish(tmp_path, "C1-DCTEX_0001_00.csv", contact("0000000002"))
    dacs.wait_until_idle()
    assert dacs.held("contact").keys() == {"0000000001", "0000000002"}
    assert dacs.answers == []


def test_parents_are_read_before_children_whatever_the_names_say(tmp_path, start) -> None:
    publish(tmp_path, "C1-DMSEX_0001_00.csv", service())
    publish(tmp_path, "C1-DSPEX_0002_00.csv", service_point())
    publish(tmp_path, "C1-DCTEX_0003_00.csv", contact())
    dacs = start()
    dacs.wait_until_idle()
    assert dacs.held("metered_service").keys() == {"4410297731"}
    assert rejected(dacs, "metered_service") == {}


@pytest.mark.parametrize("missing", ["external_contact_id", "external_sp_id"])
def test_an_unknown_parent_is_answered_negatively_and_an_empty_one_is_fine(tmp_path, start, missing) -> None:
    dacs = start()
    publish(tmp_path, "C1-DCTEX_0001_00.csv", contact())
    publish(tmp_path, "C1-DSPEX_0001_00.csv", service_point())
    bad = service("0000000001", request="1", **{missing: "0000000009"})
    good = service("0000000002", request="2", **{missing: ""})
    publish(tmp_path, "C1-DMSEX_0001_00.csv", bad, good)
    dacs.wait_until_idle()
    assert {answer["syncRequestId"]: answer["hasError"] for answer in dacs.answers} == {"1": True, "2": False}
    assert rejected(dacs, "metered_service") == {"unknown_parent": 1}
    assert dacs.answers[0]["exceptionInfo"][0]["comments"] == "X1-DASyncReqMeteredService: unknown_parent"


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        (contact(name=""), "required: name"),
        (contact(name="x" * 255), "too_long: name"),
        (contact(contact_type="P"), "unknown_code: contact_type"),
        (contact(life_support_sensitive_load="N"), "unknown_code: life_support_sensitive_load"),
        (contact(purged="0"), "unknown_code: purged"),
        (contact(changed="2026-02-30-00.00.00"), "bad_date_time: change_date_time"),
        (contact(changed="2026-03-01T10:00:00+00:00"), "bad_date_time: change_date_time"),
        (contact("57759331034"), "too_long: external_id"),
        (contact("abc"), "bad_id: external_id"),
        (contact(request="123456789012345"), "too_long: external_reference_id"),
        (contact(changed=""), "wrong_flag: initial_load_sync_flag"),
        (contact(changed="").replace("F1IL", "F1IC"), "required: change_date_time"),
    ],
)
def test_a_row_that_breaks_a_rule_is_refused_alone(tmp_path, start, line, rule) -> None:
    dacs = start()
    publish(tmp_path, "C1-DCTEX_0001_00.csv", contact("0000000001"), line)
    dacs.wait_until_idle()
    assert rejected(dacs) == {rule: 1}
    assert dacs.held("contact").keys() == {"0000000001"}


@pytest.mark.parametrize(
    ("value", "good"),
    [
        ("37.7890001", True), ("0", True), ("-122.5", True), ("", True), ("37", True),
        ("37.0", False), ("1e-7", False), ("37.78900012", False), ("-0", False),
        ("+1", False), (".5", False), ("north", False),
    ],
)  # fmt: skip
def test_numbers_are_plain_rounded_and_short(tmp_path, start, value, good) -> None:
    dacs = start()
    publish(tmp_path, "C1-DSPEX_0001_00.csv", service_point(latitude=value))
    dacs.wait_until_idle()
    assert rejected(dacs, "metered_service_point") == ({} if good else {"bad_number: latitude": 1})


def test_the_xsd_format_wants_the_offset_of_the_base_time_zone(tmp_path, start) -> None:
    dacs = start(datetime_format="xsd", time_zone="America/Los_Angeles")
    lines = [
        contact("0000000001", changed="2026-03-01T10:00:00-08:00"),
        contact("0000000002", changed="2026-07-01T10:00:00-08:00"),
        contact("0000000003", changed=MOMENT),
    ]
    publish(tmp_path, "C1-DCTEX_0001_00.csv", *lines)
    dacs.wait_until_idle()
    assert dacs.held("contact").keys() == {"0000000001"}


def test_the_core_layout_has_twelve_columns_for_a_service_point(tmp_path, start) -> None:
    dacs = start(layout="core")
    publish(tmp_path, "C1-DSPEX_0001_00.csv", "\t".join(service_point().split("\t")[:12]))
    dacs.wait_until_idle()
    assert dacs.held("metered_service_point")["3996166619"]["address_1"] == "1 Main St"


# Order in time


def test_an_older_change_never_overwrites_a_newer_and_is_answered_positively(tmp_path, start) -> None:
    dacs = start()
    publish(tmp_path, "C1-DCTEX_0001_00.csv", contact(changed=LATER, name="New Name"))
    dacs.wait_until_idle()
    publish(tmp_path, "C1-DCTEX_0002_00.csv", contact(request="77", name="Old Name"))
    dacs.wait_until_idle()
    assert dacs.held("contact")["5775933103"]["name"] == "New Name"
    assert [answer["hasError"] for answer in dacs.answers] == [False]
    assert dacs.summary()["entities"]["contact"]["stale"] == 1
    assert rules(dacs) == ["change_date_time"]


def test_a_deliberate_replay_may_be_older(tmp_path, start) -> None:
    dacs = start()
    publish(tmp_path, "C1-DCTEX_0001_00.csv", contact(changed=LATER))
    dacs.wait_until_idle()
    publish(tmp_path, "C1-DCTEX_0000_01.csv", contact())
    dacs.wait_until_idle()
    assert dacs.violations == []


# Negative answers


def test_a_share_is_refused_on_purpose_and_is_not_held(tmp_path, start) -> None:
    dacs = start(negative_share=0.3)
    lines = [contact(f"{number:010}", request=str(10_000 + number)) for number in range(200)]
    publish(tmp_path, "C1-DCTEX_0001_00.csv", *lines)
    dacs.wait_until_idle()
    refused = {answer["syncRequestId"] for answer in dacs.answers if answer["hasError"]}
    assert 30 < len(refused) < 90
    assert len(dacs.held("contact")) == 200 - len(refused)
    publish(tmp_path, "C1-DCTEX_0001_01.csv", *lines)
    dacs.wait_until_idle()
    assert {answer["syncRequestId"] for answer in dacs.answers[200:] if answer["hasError"]} == refused


# Files


@pytest.mark.parametrize(
    "content",
    [
        b"",
        contact().encode(),
        contact().encode()[:40],
        contact().encode() + b"\textra\n",
        b"\xef\xbb\xbf" + contact().encode() + b"\n",
        contact().encode() + b"\xff\n",
        contact().encode() + b"\n" + contact("9").encode()[:30] + b"\n",
    ],
    ids=["empty", "no line end", "torn", "a column more", "byte order mark", "not UTF-8", "a torn line"],
)
def test_a_malformed_file_is_a_violation_and_nothing_of_it_is_staged(tmp_path, start, content) -> None:
    dacs = start()
    put(tmp_path, "C1-DCTEX_0001_00.csv", content)
    dacs.wait_until_idle()
    assert rules(dacs) == ["malformed_file"]
    assert dacs.summary()["entities"]["contact"]["staged"] == 0


@pytest.mark.parametrize(
    "line",
    [contact(name="a\rb"), contact(name="a\x85b"), contact(name="a\u2028b"), contact(name=" a"), contact(name="a ")],
)
def test_a_dialect_fault_within_a_value_is_a_violation(tmp_path, start, line) -> None:
    dacs = start()
    publish(tmp_path, "C1-DCTEX_0001_00.csv", line)
    dacs.wait_until_idle()
    assert rules(dacs) == ["dialect"]


def test_rows_that_do_not_ascend_are_a_violation(tmp_path, start) -> None:
    dacs = start()
    publish(tmp_path, "C1-DCTEX_0001_00.csv", contact("0000000002"), contact("0000000002"))
    dacs.wait_until_idle()
    assert rules(dacs) == ["dialect"]


def test_hidden_names_are_ignored_and_foreign_ones_are_violations(tmp_path, start) -> None:
    dacs = start()
    (tmp_path / ".C1-DCTEX_0001_00.csv.part").write_text("half")
    (tmp_path / "C1-DCTEX_1_0.csv").write_text("half")
    (tmp_path / "other.csv").write_text("")
    dacs.wait_until_idle()
    assert sorted(violation.file for violation in dacs.violations) == ["C1-DCTEX_1_0.csv", "other.csv"]
    assert set(rules(dacs)) == {"file_name"}


def test_a_file_that_changes_after_it_was_seen_is_a_violation(tmp_path, start) -> None:
    dacs = start()
    publish(tmp_path, "C1-DCTEX_0001_00.csv", contact())
    dacs.wait_until_idle()
    publish(tmp_path, "C1-DCTEX_0001_00.csv", contact(name="Another"))
    dacs.wait_until_idle()
    assert rules(dacs) == ["file_changed"]


def test_a_consumed_file_may_be_published_again_with_the_same_content(tmp_path, start) -> None:
    dacs = start(move_processed=True)
    for _ in range(2):
        publish(tmp_path, "C1-DCTEX_0001_00.csv", contact(request="5"))
        dacs.wait_until_idle()
    assert (tmp_path / "processed" / "C1-DCTEX_0001_00.csv").exists()
    assert len(dacs.answers) == 2
    assert dacs.violations == []


def test_a_zip_holds_the_file_under_its_own_name(tmp_path, start) -> None:
    dacs = start(file_name_template="{batchCode}_{batchNumber}_{rerunNumber}.csv.zip")
    for name, member in (("C1-DCTEX_0001_00.csv", "C1-DCTEX_0001_00.csv"), ("C1-DCTEX_0002_00.csv", "other.csv")):
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as container:
            container.writestr(member, contact() + "\n")
        put(tmp_path, f"{name}.zip", content.getvalue())
    dacs.wait_until_idle()
    assert dacs.held("contact").keys() == {"5775933103"}
    assert [violation.file for violation in dacs.violations] == ["C1-DCTEX_0002_00.csv.zip"]


@pytest.mark.parametrize(
    ("template", "name", "numbers"),
    [
        ("{batchCode}_{batchNumber}_{rerunNumber}.csv", "C1-DCTIL_0033_00.csv", (33, 0, 0, 0)),
        ("{batchCode}_{batchNumber}_{rerunNumber}.csv", "C1-DCTIL_10033_01_T02_P001.csv", (10033, 1, 2, 1)),
        ("{batchCode}-r{rerunNumber}-{batchNumber}.txt", "C1-DCTIL-r00-0033_P001.txt", (33, 0, 0, 1)),
        ("{batchCode}_{batchNumber}_{rerunNumber}.csv", "C1-DCTIL_033_00.csv", None),
        ("{batchCode}_{batchNumber}_{rerunNumber}.csv", "C1-DXXIL_0033_00.csv", None),
        ("{batchCode}_{batchNumber}_{rerunNumber}.csv", "C1-DCTIL_0033_00xcsv", None),
    ],
)
def test_names_are_taken_apart_as_the_template_says(template, name, numbers) -> None:
    parsed = FileNames(template).parse(name)
    assert numbers == (parsed and (parsed.number, parsed.rerun, parsed.thread, parsed.part))


# Manifests


def test_a_right_manifest_is_silent(tmp_path, start) -> None:
    dacs = start()
    files = [
        publish(tmp_path, "C1-DCTEX_0001_00_P001.csv", contact("0000000001")),
        publish(tmp_path, "C1-DCTEX_0001_00_P002.csv", contact("0000000002")),
        publish(tmp_path, "C1-DSPEX_0001_00.csv", service_point()),
    ]
    manifest(tmp_path, "delta-18", "delta", files)
    dacs.wait_until_idle()
    assert dacs.violations == []
    assert dacs.manifests[0].batch == "delta-18"


@pytest.mark.parametrize("figure", ["rows", "bytes", "sha256", "entity"])
def test_a_wrong_figure_is_a_violation(tmp_path, start, figure) -> None:
    dacs = start()
    file = publish(tmp_path, "C1-DCTEX_0001_00.csv", contact())
    wrong = {"rows": 2, "bytes": 1, "sha256": hashlib.sha256(b"").hexdigest(), "entity": "metered_service"}[figure]
    manifest(tmp_path, "delta-1", "delta", [file | {figure: wrong}])
    dacs.wait_until_idle()
    assert rules(dacs) == ["manifest_figure"]
    assert figure in dacs.violations[0].detail


def test_a_manifest_before_its_file_or_without_it_is_a_violation(tmp_path, start) -> None:
    dacs = start()
    file = publish(tmp_path, "C1-DCTEX_0001_00_P001.csv", contact("0000000002"))
    manifest(tmp_path, "delta-1", "delta", [file | {"name": "C1-DCTEX_0009_00.csv"}])
    dacs.wait_until_idle()
    assert rules(dacs) == ["manifest_file_missing"]
    publish(tmp_path, "C1-DCTEX_0001_00_P002.csv", contact("0000000001"))
    manifest(tmp_path, "delta-2", "delta", [file])
    dacs.wait_until_idle()
    assert rules(dacs)[1:] == ["manifest_incomplete"]


def test_parts_that_do_not_ascend_and_children_before_parents_are_violations(tmp_path, start) -> None:
    dacs = start()
    files = [publish(tmp_path, "C1-DSPEX_0001_00.csv", service_point())]
    dacs.wait_until_idle()
    files.append(publish(tmp_path, "C1-DCTEX_0001_00_P001.csv", contact("0000000002")))
    files.append(publish(tmp_path, "C1-DCTEX_0001_00_P002.csv", contact("0000000001")))
    manifest(tmp_path, "delta-1", "delta", files)
    dacs.wait_until_idle()
    assert sorted(rules(dacs)) == ["dialect", "file_order"]


@pytest.mark.parametrize(
    "content", [b"{", b"{}", b'{"batch":"delta-2","mode":"delta","rerun":0,"profile":"x","files":[]}']
)
def test_a_manifest_that_is_none_is_a_violation(tmp_path, start, content) -> None:
    dacs = start()
    put(tmp_path, "MANIFEST_delta-1_00.json", content)
    dacs.wait_until_idle()
    assert rules(dacs) == ["malformed_file"]


# Acknowledgements


class Inbox(ThreadingHTTPServer):
    """Takes acknowledgements after having been unwell for a while."""

    daemon_threads = True

    def __init__(self, statuses: list[int]) -> None:
        self.statuses = statuses
        self.received: list[bytes] = []
        self.authorizations: set[str | None] = set()
        super().__init__(("127.0.0.1", 0), InboxHandler)


class InboxHandler(BaseHTTPRequestHandler):
    """Keeps what it takes."""

    server: Inbox

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.authorizations.add(self.headers["authorization"])
        status = self.server.statuses.pop(0) if self.server.statuses else 200
        if status == 200:
            self.server.received.append(body)
        answer = b'{"accepted": 1, "duplicates": 0, "parked": 0, "refused": []}'
        self.send_response(status)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_) -> None:
        """Says nothing."""


@pytest.fixture
def inbox():
    server = Inbox([503, 401])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_answers_are_posted_until_they_are_accepted(tmp_path, start, inbox) -> None:
    dacs = start(inbox_url=f"http://127.0.0.1:{inbox.server_address[1]}", inbox_token="ticket")
    publish(tmp_path, "C1-DCTEX_0001_00.csv", contact(request="85810617092033"))
    dacs.wait_until(lambda dacs: dacs.summary()["answers"]["accepted"] == 1, timeout=10)
    assert dacs.summary()["answers"] == {
        "given": 1, "posted": 3, "accepted": 1, "duplicates": 0, "parked": 0, "refused": 0, "pending": 0,
    }  # fmt: skip
    assert b'"syncRequestId":"85810617092033"' in inbox.received[0].replace(b": ", b":")
    assert inbox.authorizations == {"Bearer ticket"}


def test_waiting_ends_with_the_state_in_the_message(start) -> None:
    dacs = start()
    begun = time.monotonic()
    with pytest.raises(TimeoutError, match="held"):
        dacs.wait_until(lambda _: False, timeout=0.05)
    assert time.monotonic() - begun < 5


def test_other_processes_may_ask_over_http(tmp_path) -> None:
    config = SandboxConfig(persons=1, upload_folder=tmp_path, poll_seconds=0.01)
    with (
        Sandbox(config) as sandbox,
        httpx.Client(base_url=f"{sandbox.base_url}/sandbox/dacs", trust_env=False) as client,
    ):
        publish(tmp_path, "C1-DCTEX_0001_00.csv", *(contact(f"{number:010}") for number in range(5)))
        sandbox.dacs.wait_until_idle()
        page = client.get("contact", params={"afterId": "0000000001", "limit": 2}).json()
        assert [row["external_id"] for row in page["rows"]] == ["0000000002", "0000000003"]
        assert (page["hasMore"], page["totalNumberOfRecords"]) == (True, 5)
        assert client.get("summary").json()["entities"]["contact"]["held"] == 5
        assert client.get("meter").status_code == 400
