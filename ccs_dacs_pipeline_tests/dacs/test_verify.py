"""The verifier finds each planted fault (record-layouts.md, File dialect)."""

import hashlib
import io
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccs_dacs_pipeline.dacs import verify as module
from ccs_dacs_pipeline.dacs.verify import Finding, Rule, Verified, verify_file
from ccs_dacs_pipeline.entities.profile import Dialect
from ccs_dacs_pipeline_tests.dacs.records import DIALECT, LAYOUT, Record, lines

GOOD = b'85810617092033\t1\tAnn\t\n\t2\tBob "B"\tb@example.com\n\t3\tZo\xc3\xab\t\n'
HEADER = b"External Reference Id\tExternal Id\tName\tEmail\n"


def verify(data: bytes, *, dialect: Dialect = DIALECT, previous_id: str | None = None) -> Verified:
    return verify_file(io.BytesIO(data), layout=LAYOUT, dialect=dialect, previous_id=previous_id)


def test_a_good_file_has_its_control_totals_and_no_findings():
    found = verify(GOOD)
    assert found == Verified(
        rows=3,
        bytes=len(GOOD),
        sha256=hashlib.sha256(GOOD).hexdigest(),
        counts=dict.fromkeys(Rule, 0),
        examples=(),
        last_id="3",
    )
    assert found.sound


def test_an_empty_file_is_good():
    assert verify(b"").sound
    assert verify(b"").last_id is None


@pytest.mark.parametrize(
    ("data", "finding"),
    [
        (b"\t1\tAnn\n", Finding(Rule.COLUMN_COUNT, 1, None, "not 4 columns")),
        (GOOD + b"\t4\tAnn\t\t\n", Finding(Rule.COLUMN_COUNT, 4, None, "not 4 columns")),
        (GOOD + b"\n", Finding(Rule.COLUMN_COUNT, 4, None, "not 4 columns")),
        (b"\n", Finding(Rule.COLUMN_COUNT, 1, None, "not 4 columns")),
        (b"\n" + GOOD, Finding(Rule.COLUMN_COUNT, 1, None, "not 4 columns")),
        (b"\t1\t\t\n", Finding(Rule.REQUIRED_VALUES, 1, "Name", "empty, but required")),
        (GOOD + b"\t4\t\t\n", Finding(Rule.REQUIRED_VALUES, 4, "Name", "empty, but required")),
        (
            GOOD + b"\t3\tAnn\t\n",
            Finding(Rule.EXTERNAL_IDS_ASCENDING, 4, "External Id", "not greater than the id of the record before"),
        ),
        (GOOD[:-1], Finding(Rule.LINE_END, 3, None, "the file ends without a line end")),
        (GOOD.replace(b"Bob", b"B\rb"), Finding(Rule.LINE_END, 2, None, "a carriage return within the line")),
        (GOOD.replace(b"\t\n", b"\t\r\n", 1), Finding(Rule.LINE_END, 1, None, "a carriage return within the line")),
        (GOOD.replace(b"Bob", b"B\xffb"), Finding(Rule.ENCODING, 2, None, "bytes that are not utf-8")),
        (b"\xef\xbb\xbf" + GOOD, Finding(Rule.ENCODING, 1, None, "the file begins with a byte order mark")),
    ],
)
def test_each_fault_is_found_alone_and_in_its_place(data: bytes, finding: Finding):
    found = verify(data)
    assert found.examples == (finding,)
    assert found.counts == dict.fromkeys(Rule, 0) | {finding.rule: 1}
    assert not found.sound
    assert found.bytes == len(data)


def test_an_empty_id_is_missing_and_does_not_ascend():
    assert [example.rule for example in verify(b"\t\tAnn\t\n").examples] == [
        Rule.REQUIRED_VALUES,
        Rule.EXTERNAL_IDS_ASCENDING,
    ]


def test_all_findings_are_counted_and_the_first_five_shown():
    found = verify(b"\t1\t\t\n" * 1000)
    assert found.counts[Rule.REQUIRED_VALUES] == 1000
    assert found.counts[Rule.EXTERNAL_IDS_ASCENDING] == 999
    assert [example.line for example in found.examples] == [1, 2, 3, 4, 5, 2, 3, 4, 5, 6]


def test_findings_hold_no_values():
    found = verify(b"canary\t1\tcanary\n\t2\tcan\xffary\t\ncanary\tcanary\tcanary\t\r\ncanary\t1\t\tcanary")
    assert "canary" not in repr(found.examples)
    assert all(found.counts[rule] for rule in Rule if rule is not Rule.HEADER)


def test_the_last_id_of_a_part_holds_for_the_next_one():
    assert verify(GOOD, previous_id="0").sound
    assert verify(GOOD, previous_id="1").counts[Rule.EXTERNAL_IDS_ASCENDING] == 1
    assert verify(b"", previous_id="7").last_id == "7"


def test_a_header_row_is_no_record_and_must_be_the_layouts():
    dialect = Dialect(header=True)
    assert verify(HEADER + GOOD, dialect=dialect).rows == 3
    assert verify(HEADER + GOOD, dialect=dialect).sound
    assert verify(HEADER, dialect=dialect).sound
    assert verify(b"", dialect=dialect).counts[Rule.HEADER] == 1
    assert verify(HEADER.lower() + GOOD, dialect=dialect).counts[Rule.HEADER] == 1
    assert verify(HEADER + GOOD + b"\t4\t\t\n", dialect=dialect).examples[0].line == 5


def test_with_crlf_every_line_ends_so():
    dialect = Dialect(line_end="\r\n")
    crlf = GOOD.replace(b"\n", b"\r\n")
    assert verify(crlf, dialect=dialect).sound
    assert verify(crlf.replace(b"\r\n", b"\n", 1), dialect=dialect).counts[Rule.LINE_END] == 1
    assert verify(GOOD, dialect=dialect).counts[Rule.LINE_END] == 3


def test_a_separator_in_another_encoding_and_bytes_that_it_lacks():
    dialect = Dialect(encoding="cp1252", separator="|")
    assert verify("|1|Zoë €|\n".encode("cp1252"), dialect=dialect).sound
    assert verify(b"|1|Ann|\n|2|\x81|\n", dialect=dialect).examples == (
        Finding(Rule.ENCODING, 2, None, "bytes that are not cp1252"),
    )


def test_what_is_a_byte_order_mark_in_utf_8_is_text_in_other_encodings():
    dialect = Dialect(encoding="iso8859-1")
    assert verify(b"\xef\xbb\xbf\t1\tAnn\t\n", dialect=dialect).sound


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 60_000), st.sampled_from(["\n", "\r\n"]))
def test_lines_across_the_blocks_of_a_stream_are_whole(shift: int, line_end: str):
    rows: list[Record] = [("", f"{number:04}", "x" * 20_000 + "é" * shift, "") for number in range(60)]
    found = verify(b"".join(lines(rows, Dialect(line_end=line_end))), dialect=Dialect(line_end=line_end))
    assert found.sound
    assert (found.rows, found.last_id) == (60, "0059")


_BROKEN_LINES = st.sampled_from(
    [b"\t%d\tAnn\t\n", b"\t%d\t\t\n", b"\t\tAnn\t\n", b"\t%d\tA\xffn\t\n", b"\t%d\tA\rn\t\n", b"\n", b"%d\n"]
)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), _BROKEN_LINES)), st.booleans(), st.booleans())
def test_findings_are_the_same_however_the_stream_is_cut(records, header, cut_off):
    data = b"".join(line.replace(b"%d", str(number).encode()) for number, line in records)
    data = data[:-1] if cut_off else data
    whole = verify(data, dialect=Dialect(header=header), previous_id="4")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK_BYTES", 1)
        cut = verify(data, dialect=Dialect(header=header), previous_id="4")
    # Which five findings are shown depends on the cut: a block is searched column by column.
    assert replace(cut, examples=()) == replace(whole, examples=())
    assert len(cut.examples) == len(whole.examples)


def test_a_line_longer_than_many_blocks():
    assert verify(b"\t1\t" + b"x" * 5_000_000 + b"\t\n\t2\tAnn\t\n").rows == 2
