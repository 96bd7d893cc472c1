"""Writing extract files (record-layouts.md, File dialect, File names)."""

import zipfile
from collections.abc import Callable
from datetime import timedelta
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccs_dacs_pipeline.dacs.extract_file import (
    Block,
    ExtractError,
    ExtractFile,
    NotAscending,
    NotWritable,
    split,
    write_extract,
)
from ccs_dacs_pipeline.dacs.verify import verify_file
from ccs_dacs_pipeline.entities.profile import Dialect
from ccs_dacs_pipeline.folders import LocalFolder
from ccs_dacs_pipeline_tests.dacs.records import DIALECT, LATIN_VALUES, LAYOUT, Record, chopped, frame, lines, records

ROWS: list[Record] = [
    ("85810617092033", "0000000001", 'John "J" Reddy', ""),
    ("", "0000000002", "Zoë 𠮷", "zoe@example.com"),
    ("", "0000000003", "O'Neil, Inc.", ""),
]
ALL = 1024


@pytest.fixture
def folder(tmp_path: Path) -> LocalFolder:
    return LocalFolder(tmp_path)


def name_of(part: int | None) -> str:
    return "file.csv" if part is None else f"file_P{part:03}.csv"


def zip_name_of(part: int | None) -> str:
    return f"{name_of(part)}.zip"


def write(
    folder: LocalFolder,
    frames: list[pl.DataFrame],
    *,
    max_bytes: int = ALL,
    dialect: Dialect = DIALECT,
    name_of: Callable[[int | None], str] = name_of,
) -> list[ExtractFile]:
    return write_extract(frames, folder=folder, layout=LAYOUT, dialect=dialect, max_bytes=max_bytes, name_of=name_of)


def unzipped(folder: LocalFolder, files: list[ExtractFile]) -> list[bytes]:
    """What the standard library finds in zip files: one member each, named as the file without `.zip`."""
    found = []
    for file in files:
        with zipfile.ZipFile(folder.path / file.name) as container:
            assert container.namelist() == [file.name.removesuffix(".zip")]
            assert container.testzip() is None
            found.append(container.read(container.namelist()[0]))
    return found


def content(folder: LocalFolder, files: list[ExtractFile]) -> list[bytes]:
    return [(folder.path / file.name).read_bytes() for file in files]


def test_records_are_lines_of_unquoted_fields(folder: LocalFolder):
    (file,) = write(folder, [frame(ROWS)])
    data = (
        '85810617092033\t0000000001\tJohn "J" Reddy\t\n'
        "\t0000000002\tZoë 𠮷\tzoe@example.com\n"
        "\t0000000003\tO'Neil, Inc.\t\n"
    ).encode()
    assert content(folder, [file]) == [data]
    assert file == ExtractFile("file.csv", None, 3, len(data), sha256(data).hexdigest())


def test_frames_are_written_one_after_the_other(folder: LocalFolder):
    (file,) = write(folder, [frame(ROWS[:1]), frame([]), frame(ROWS[1:])])
    assert content(folder, [file]) == [b"".join(lines(ROWS))]


def test_null_and_empty_are_both_an_empty_field(folder: LocalFolder):
    with_null, with_empty = frame(ROWS), frame(ROWS).with_columns(pl.all().fill_null(""))
    assert write(folder, [with_null]) == write(folder, [with_empty])


@pytest.mark.parametrize("frames", [[], [frame([])]])
def test_without_records_there_is_no_file(folder: LocalFolder, frames: list[pl.DataFrame]):
    assert write(folder, frames) == []
    assert folder.names() == []


def test_separator_line_end_encoding_and_header_come_from_the_dialect(folder: LocalFolder):
    dialect = Dialect(separator="|", line_end="\r\n", encoding="iso8859-1", header=True)
    (file,) = write(folder, [frame([("", "1", "Zoë", "")])], dialect=dialect)
    header = b"External Reference Id|External Id|Name|Email\r\n"
    assert content(folder, [file]) == [header + b"|1|Zo\xeb|\r\n"]
    assert file.rows == 1


def test_a_split_at_exactly_the_limit_leaves_the_last_record_in_the_part(folder: LocalFolder):
    first, second, third = lines(ROWS)
    files = write(folder, [frame(ROWS)], max_bytes=len(first + second))
    assert content(folder, files) == [first + second, third]
    files = write(folder, [frame(ROWS)], max_bytes=len(first + second) - 1)
    assert content(folder, files) == [first, second + third]


def test_parts_are_named_and_counted_from_one(folder: LocalFolder):
    files = write(folder, [frame(ROWS)], max_bytes=1)
    assert [(file.name, file.part, file.rows) for file in files] == [
        ("file_P001.csv", 1, 1),
        ("file_P002.csv", 2, 1),
        ("file_P003.csv", 3, 1),
    ]


def test_a_header_row_begins_every_part_and_counts_for_the_limit(folder: LocalFolder):
    dialect = Dialect(header=True)
    header = ("\t".join(LAYOUT.names) + "\n").encode()
    first, second, third = lines(ROWS)
    files = write(folder, [frame(ROWS)], max_bytes=len(header + first + second), dialect=dialect)
    assert content(folder, files) == [header + first + second, header + third]
    assert [file.rows for file in files] == [2, 1]


@settings(deadline=None)
@given(st.data())
def test_splitting(data: st.DataObject):
    line_end = data.draw(st.sampled_from([b"\n", b"\r\n"]))
    rows = [b"x" * size + line_end for size in data.draw(st.lists(st.integers(0, 30), max_size=40))]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=6)))
    bounds = zip([0, *cuts], [*cuts, len(rows)], strict=True)
    blocks = [Block(b"".join(rows[start:end]), end - start) for start, end in bounds]
    limit = data.draw(st.integers(1, 100))

    parts: dict[int, bytes] = {}
    for piece in split(blocks, limit=limit, line_end=line_end):
        assert piece.rows == bytes(piece.data).count(line_end) > 0
        parts[piece.part] = parts.get(piece.part, b"") + piece.data
    texts = list(parts.values())

    assert list(parts) == list(range(1, len(parts) + 1))
    assert b"".join(texts) == b"".join(rows)
    assert all(text.endswith(line_end) for text in texts)
    assert all(len(text) <= limit or text.count(line_end) == 1 for text in texts)
    for text, following in pairwise(texts):
        assert len(text) + following.index(line_end) + len(line_end) > limit


@settings(deadline=None)
@given(st.data())
def test_a_part_ends_at_the_last_record_that_fits(data: st.DataObject):
    """The boundary itself: a limit at, one below and one above the bytes of some first records."""
    sizes = data.draw(st.lists(st.integers(0, 30), min_size=1, max_size=20))
    rows = [b"x" * size + b"\n" for size in sizes]
    first = data.draw(st.integers(1, len(rows)))
    whole = len(b"".join(rows[:first]))

    def first_part(limit: int) -> int:
        pieces = split([Block(b"".join(rows), len(rows))], limit=limit, line_end=b"\n")
        return sum(piece.rows for piece in pieces if piece.part == 1)

    assert first_part(whole) == first
    assert first_part(whole - 1) == max(1, first - 1)
    following = len(rows[first]) if first < len(rows) else 0
    assert first_part(whole + following) == min(first + 1, len(rows))
    assert first_part(whole + max(0, following - 1)) == first


def test_a_larger_record_is_a_part_of_its_own_wherever_it_stands():
    small, large = b"x\n", b"x" * 50 + b"\n"
    for rows in ([large, small, small], [small, large, small], [small, small, large]):
        parts: dict[int, bytes] = {}
        for piece in split([Block(b"".join(rows), len(rows))], limit=10, line_end=b"\n"):
            parts[piece.part] = parts.get(piece.part, b"") + piece.data
        assert large in parts.values()
        assert b"".join(parts.values()) == b"".join(rows)


@settings(deadline=None, max_examples=30)
@given(st.data())
def test_zipped_parts_hold_what_the_unsplit_file_holds(data: st.DataObject):
    rows = data.draw(records())
    frames = list(chopped(rows, data.draw(st.lists(st.integers(0, 20), max_size=3))))
    limit = data.draw(st.integers(700, 3000))
    with TemporaryDirectory() as path:
        folder = LocalFolder(Path(path))
        files = write(folder, frames, max_bytes=limit, name_of=zip_name_of)
        texts = unzipped(folder, files)
        previous_id = None
        for file in files:
            member = file.name.removesuffix(".zip")
            with folder.open(file.name) as stream:
                found = verify_file(stream, layout=LAYOUT, dialect=DIALECT, previous_id=previous_id, member=member)
            assert found.examples == ()
            assert (found.rows, found.bytes, found.sha256) == (file.rows, file.bytes, file.sha256)
            previous_id = found.last_id
        assert [(file.bytes, file.sha256) for file in files] == [
            (len(data), sha256(data).hexdigest()) for data in content(folder, files)
        ]
    assert b"".join(texts) == b"".join(lines(rows))
    assert all(max(file.bytes, len(text)) <= limit or file.rows == 1 for file, text in zip(files, texts, strict=True))


def test_zip_files_are_named_as_the_parts_and_repeated_byte_by_byte(folder: LocalFolder):
    files = write(folder, [frame(ROWS)], max_bytes=1, name_of=zip_name_of)
    assert [file.name for file in files] == [f"file_P00{part}.csv.zip" for part in (1, 2, 3)]
    assert write(folder, [frame([row]) for row in ROWS], max_bytes=1, name_of=zip_name_of) == files
    (file,) = write(folder, [frame(ROWS)], max_bytes=2048, name_of=zip_name_of)
    assert file.name == "file.csv.zip"
    assert folder.names() == [file.name]
    assert unzipped(folder, [file]) == [b"".join(lines(ROWS))]


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_what_is_written_is_verified_and_is_what_the_contract_says(data: st.DataObject):
    dialect = data.draw(
        st.sampled_from(
            [DIALECT, Dialect(header=True), Dialect(line_end="\r\n"), Dialect(encoding="iso8859-1", header=True)]
        )
    )
    rows = data.draw(records(LATIN_VALUES) if dialect.encoding == "iso8859-1" else records())
    frames = list(chopped(rows, data.draw(st.lists(st.integers(0, 20), max_size=3))))
    limit = data.draw(st.integers(100, 1500))
    header = lines([LAYOUT.names], dialect)[0] if dialect.header else b""
    with TemporaryDirectory() as path:
        folder = LocalFolder(Path(path))
        files = write(folder, frames, max_bytes=limit, dialect=dialect)
        texts = content(folder, files)
        assert folder.names() == [file.name for file in files]

        previous_id = None
        for file in files:
            with folder.open(file.name) as stream:
                found = verify_file(stream, layout=LAYOUT, dialect=dialect, previous_id=previous_id)
            assert found.examples == ()
            assert (found.rows, found.bytes, found.sha256) == (file.rows, file.bytes, file.sha256)
            previous_id = found.last_id
    assert all(text.startswith(header) for text in texts)
    assert b"".join(text.removeprefix(header) for text in texts) == b"".join(lines(rows, dialect))
    assert all(file.bytes <= limit or file.rows == 1 for file in files)


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(
    ("ids", "pair"),
    [(["1", "3", "2"], "'2' follows '3'"), (["1", "2", "2"], "'2' follows '2'"), (["", "1"], "'' follows ''")],
)
def test_ids_that_do_not_ascend_are_refused_with_both(folder: LocalFolder, ids: list[str], pair: str, chunked: bool):
    rows: list[Record] = [("", key, "Name", "") for key in ids]
    with pytest.raises(NotAscending, match=rf"file\.csv.*{pair}"):
        write(folder, [frame([row]) for row in rows] if chunked else [frame(rows)])
    assert folder.names() == []


def test_ids_ascend_as_text(folder: LocalFolder):
    (file,) = write(folder, [frame([("", "10", "Ann", ""), ("", "9", "Bob", "")])])
    assert file.rows == 2


@pytest.mark.parametrize("value", ["tab\there", "line\nfeed", "carriage\rreturn", "\t", "canary\n\n"])
def test_a_value_that_would_break_its_line_is_refused_without_being_shown(folder: LocalFolder, value: str):
    with pytest.raises(NotWritable, match=r"file\.csv, record 4, column Name") as caught:
        write(folder, [frame(ROWS), frame([("", "0000000004", value, "")])])
    assert "canary" not in str(caught.value)
    assert folder.names() == []


def test_a_value_that_the_encoding_cannot_carry_is_refused_without_being_shown(folder: LocalFolder):
    with pytest.raises(NotWritable, match=r"file\.csv, record 2: iso8859-1") as caught:
        write(folder, [frame(ROWS[:1]), frame(ROWS[1:])], dialect=Dialect(encoding="iso8859-1"))
    assert "𠮷" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "other",
    [
        frame(ROWS).select(reversed(LAYOUT.names)),
        frame(ROWS).drop("Email"),
        frame(ROWS).with_columns(Email=pl.lit(1)),
        frame(ROWS).with_columns(More=pl.lit("")),
    ],
)
def test_a_frame_with_other_columns_is_refused(folder: LocalFolder, other: pl.DataFrame):
    with pytest.raises(ExtractError, match=r"file\.csv.*columns of the layout of contact"):
        write(folder, [other])


def test_a_failing_source_leaves_no_file_and_no_temporary_one(folder: LocalFolder):
    def frames():
        yield frame(ROWS[:1])
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write(folder, frames())
    assert folder.names() == []
    assert folder.sweep(timedelta(0)) == 0


@pytest.mark.parametrize(
    ("before", "after", "names"),
    [
        (1, ALL, ["file.csv"]),
        (ALL, 1, ["file_P001.csv", "file_P002.csv", "file_P003.csv"]),
        (1, 80, ["file_P001.csv", "file_P002.csv"]),
    ],
)
def test_a_repeated_attempt_leaves_only_its_own_files(folder: LocalFolder, before: int, after: int, names: list[str]):
    write(folder, [frame(ROWS)], max_bytes=before)
    assert [file.name for file in write(folder, [frame(ROWS)], max_bytes=after)] == names
    assert folder.names() == names
    assert write(folder, []) == []
    assert folder.names() == []


def test_a_repeated_attempt_with_one_name_for_one_and_for_the_first_part(folder: LocalFolder):
    for max_bytes, names in ((1, ["f001", "f002", "f003"]), (ALL, ["f001"])):
        files = write_extract(
            [frame(ROWS)],
            folder=folder,
            layout=LAYOUT,
            dialect=DIALECT,
            max_bytes=max_bytes,
            name_of=lambda part: f"f{part or 1:03}",
        )
        assert [file.name for file in files] == folder.names() == names
