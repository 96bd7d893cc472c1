"""File names (record-layouts.md, File names)."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccs_dacs_pipeline.dacs.names import FileNameError, FileNameTemplate, manifest_name

DEFAULT = FileNameTemplate.parse("{batchCode}_{batchNumber}_{rerunNumber}.csv")


@pytest.mark.parametrize(
    ("thread", "part", "name"),
    [
        (None, None, "C1-DCTIL_0033_00.csv"),
        (2, None, "C1-DCTIL_0033_00_T02.csv"),
        (None, 1, "C1-DCTIL_0033_00_P001.csv"),
        (2, 1, "C1-DCTIL_0033_00_T02_P001.csv"),
        (100, 1000, "C1-DCTIL_0033_00_T100_P1000.csv"),
    ],
)
def test_the_default_names(thread: int | None, part: int | None, name: str):
    assert DEFAULT.name(batch_code="C1-DCTIL", batch_number=33, rerun=0, thread=thread, part=part) == name


def test_numbers_grow_beyond_their_width():
    assert DEFAULT.name(batch_code="C1-DCTEX", batch_number=12345, rerun=123) == "C1-DCTEX_12345_123.csv"


def test_a_template_that_holds_thread_and_part_always_has_their_numbers():
    template = FileNameTemplate.parse("{batchCode}.T{threadNumber}-{partNumber}.{batchNumber}.{rerunNumber}")
    assert template.name(batch_code="C1-DSPIL", batch_number=1, rerun=0) == "C1-DSPIL.T01-001.0001.00"
    assert template.name(batch_code="C1-DSPIL", batch_number=1, rerun=0, thread=2, part=3) == "C1-DSPIL.T02-003.0001.00"


def test_without_an_extension_thread_and_part_stand_at_the_end():
    template = FileNameTemplate.parse("{batchCode}.{batchNumber}.{rerunNumber}")
    assert template.name(batch_code="C1-DSPIL", batch_number=1, rerun=0, part=2) == "C1-DSPIL.0001.00_P002"


@pytest.mark.parametrize(
    ("tail", "name"),
    [
        (".csv.zip", "C1-DCTIL_0033_00_T02_P001.csv.zip"),
        (".zip", "C1-DCTIL_0033_00_T02_P001.zip"),
        ("_x.zip", "C1-DCTIL_0033_00_x_T02_P001.zip"),
        (".v1.csv.zip", "C1-DCTIL_0033_00.v1_T02_P001.csv.zip"),
    ],
)
def test_thread_and_part_stand_before_the_whole_extension_of_a_zip(tail: str, name: str):
    template = FileNameTemplate.parse("{batchCode}_{batchNumber}_{rerunNumber}" + tail)
    assert template.name(batch_code="C1-DCTIL", batch_number=33, rerun=0, thread=2, part=1) == name


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("", "does not begin"),
        ("x_{batchCode}_{batchNumber}_{rerunNumber}.csv", "does not begin"),
        (".{batchCode}_{batchNumber}_{rerunNumber}.csv", "does not begin"),
        ("{batchNumber}_{batchCode}_{rerunNumber}.csv", "does not begin"),
        ("{batchCode}_{rerunNumber}.csv", "lacks"),
        ("{batchCode}_{batchNumber}.csv", "lacks"),
        ("{batchCode}_{batchNumber}_{rerunNumber}_{date}.csv", "unknown placeholder"),
        ("{batchCode}_{batchNumber:06}_{rerunNumber}.csv", "unknown placeholder"),
        ("{batchCode}_{batchNumber}_{rerunNumber}_{}.csv", "unknown placeholder"),
        ("{batchCode}_{batchNumber}_{batchNumber}_{rerunNumber}.csv", "twice"),
        ("{batchCode}/{batchNumber}_{rerunNumber}.csv", "path separator"),
        ("{batchCode}\\{batchNumber}_{rerunNumber}.csv", "path separator"),
        ("{batchCode}_{batchNumber}_{rerunNumber}\n.csv", "control character"),
        ("{batchCode}_{batchNumber}_{rerunNumber}}.csv", "stray brace"),
        ("{batchCode}_{batchNumber}{rerunNumber}.csv", "nothing but digits"),
        ("{batchCode}_{batchNumber}0{rerunNumber}.csv", "nothing but digits"),
        ("{batchCode}_{batchNumber}_{rerunNumber}.csv.ZIP", "in capitals"),
        ("{batchCode}_{batchNumber}_{rerunNumber}" + "é" * 80, "more than 150 bytes"),
    ],
)
def test_a_bad_template_is_refused_with_its_setting_and_the_reason(template: str, reason: str):
    with pytest.raises(FileNameError, match=f"FILE_NAME_TEMPLATE.*{reason}"):
        FileNameTemplate.parse(template)


NUMBERS = st.tuples(
    st.sampled_from(["C1-DCTIL", "C1-DCTEX", "C1-DSPIL", "C1-DSPEX", "C1-DMSIL", "C1-DMSEX"]),
    st.integers(1, 200_000),
    st.integers(0, 2_000),
    st.none() | st.integers(1, 2_000),
    st.none() | st.integers(1, 2_000),
)


@settings(deadline=None)
@given(NUMBERS, NUMBERS)
def test_different_numbers_give_different_names_that_begin_with_the_code(one: tuple, other: tuple):
    first, second = (
        DEFAULT.name(batch_code=code, batch_number=number, rerun=rerun, thread=thread, part=part)
        for code, number, rerun, thread, part in (one, other)
    )
    assert first.startswith(one[0])
    assert (first == second) == (one == other)


TEMPLATES = [
    "{batchCode}_{batchNumber}_{rerunNumber}.csv",
    "{batchCode}_{batchNumber}_{rerunNumber}",
    "{batchCode}.{batchNumber}_{rerunNumber}",
    "{batchCode}_{batchNumber}_{rerunNumber}.csv.zip",
    "{batchCode}_{partNumber}_{batchNumber}_{rerunNumber}.csv",
    "{batchCode}.T{threadNumber}-{partNumber}.{batchNumber}.{rerunNumber}",
]


@settings(deadline=None)
@given(st.sampled_from(TEMPLATES), NUMBERS, NUMBERS, st.none() | st.integers(1, 2_000))
def test_the_parts_of_a_file_are_told_from_all_other_files(
    text: str, one: tuple, other: tuple, another_part: int | None
):
    template = FileNameTemplate.parse(text)
    kinds = ("batch_code", "batch_number", "rerun", "thread")
    mine, others = (dict(zip(kinds, numbers, strict=False)) for numbers in (one, other))
    parts = template.names_of_parts(**mine)
    assert parts.fullmatch(template.name(**mine, part=None))
    assert parts.fullmatch(template.name(**mine, part=another_part))
    same = template.name(**mine, part=another_part) == template.name(**others, part=another_part)
    assert bool(parts.fullmatch(template.name(**others, part=another_part))) == same


@settings(deadline=None)
@given(st.sampled_from(TEMPLATES), NUMBERS)
def test_code_and_number_are_read_from_every_name_of_ours(text: str, one: tuple):
    code, number, rerun, thread, part = one
    template = FileNameTemplate.parse(text)
    name = template.name(batch_code=code, batch_number=number, rerun=rerun, thread=thread, part=part)
    assert template.number_of(name) == (code, number)


@pytest.mark.parametrize(
    "name",
    [
        "C1-DCTIL_0033_00.csv.bak",
        "C1-DCTIL_33_00.csv",
        "C1-DCTIL_0033.csv",
        "C1-DCTIL_0033_00_X.csv",
        "a.csv",
        "C1-BILL_1000000000_00.csv",
    ],
)
def test_no_number_is_read_from_another_name(name: str):
    assert DEFAULT.number_of(name) is None


@pytest.mark.parametrize(
    ("batch", "rerun", "name"),
    [("initial-7", 0, "MANIFEST_initial-7_00.json"), ("delta-18", 1, "MANIFEST_delta-18_01.json")],
)
def test_manifest_names(batch: str, rerun: int, name: str):
    assert manifest_name(batch, rerun) == name


@pytest.mark.parametrize(
    ("template", "name", "found"),
    [
        ("{batchCode}_{batchNumber}_{rerunNumber}.csv", "C1-DCTIL_0033_00_T02_P001.csv", ("C1-DCTIL", 33)),
        ("{batchCode}_{batchNumber}_{rerunNumber}.csv", "C1-DCTEX_12345_01.csv", ("C1-DCTEX", 12345)),
        ("{batchCode}_{batchNumber}_{rerunNumber}.csv", "C1-DCTEX_33_01.csv", None),
        ("{batchCode}_{batchNumber}_{rerunNumber}.csv", "C1-OTHER_0033_00.csv", None),
        ("{batchCode}_{batchNumber}_{rerunNumber}.csv", "C1-DCTEX_0033_00.csv.bak", None),
        ("{batchCode}_{batchNumber}_{rerunNumber}.csv", "C1-DCTEX_99999999999999999999_00.csv", None),
        ("{batchCode}.{rerunNumber}-{threadNumber}-{batchNumber}.txt", "C1-DCTEX.00-01-0007_P002.txt", ("C1-DCTEX", 7)),
    ],
)
def test_a_lost_ledger_finds_its_numbers_in_the_names_of_its_own_codes(
    template: str, name: str, found: tuple[str, int] | None
):
    """A number that no database holds is none of ours."""
    assert FileNameTemplate.parse(template).number_of(name, ["C1-DCTIL", "C1-DCTEX"]) == found
