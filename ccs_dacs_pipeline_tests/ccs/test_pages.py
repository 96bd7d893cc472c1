"""Decoding of a page: the same result by both ways, and nothing lost silently (ccs-rest.md, JSON)."""

import json
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccs_dacs_pipeline.ccs import pages
from ccs_dacs_pipeline.ccs.pages import Malformed, decode_list, decode_page, decode_total
from ccs_dacs_pipeline.entities.cleaning import LONE_SURROGATE

from .servers import PERSONS, page, people

NAME = {"nameType": "PRIM", "entityName": "Reddy,John"}
ALIAS = {"nameType": "ALIA", "entityName": None}


def decoded(*records: Any) -> list[dict[str, Any]]:
    """The rows of a page of these records, without the members that are null."""
    rows = decode_page(page(records), PERSONS).frame.to_dicts()
    return [{name: value for name, value in row.items() if value is not None} for row in rows]


def person(**members: Any) -> dict[str, Any]:
    return {"personId": "5775933103", **members}


def test_the_columns_are_exactly_those_of_the_schema_whatever_the_members() -> None:
    body = page([person(unknown={"x": [1]}), {"purged": None, "personId": "6"}], has_more=True, total=123_456)
    entities = decode_page(body, PERSONS)
    assert entities.frame.schema == PERSONS.schema
    assert entities.frame["personId"].to_list() == ["5775933103", "6"]
    assert (entities.has_more, entities.total) == (True, 123_456)


def test_an_empty_page_has_the_columns_too() -> None:
    assert decode_page(page([]), PERSONS).frame.equals(PERSONS.schema.to_frame())


def test_numbers_and_booleans_become_their_json_text_and_padded_codes_stay_padded() -> None:
    record = person(
        version=7, purged=False, latitude=37.789, names=[{"nameType": "P ", "entityName": 12345678901234567890}]
    )
    assert decoded(record) == [
        person(
            version="7",
            purged="false",
            latitude="37.789",
            names=[{"nameType": "P ", "entityName": "12345678901234567890"}],
        )
    ]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([NAME, ALIAS], [NAME, ALIAS]),
        ({"namesList": [NAME, ALIAS]}, [NAME, ALIAS]),
        ({"namesList": NAME}, [NAME]),
        ({"somethingElse": [NAME]}, [NAME]),
        ({"somethingElse": [NAME], "count": 1}, [NAME]),
        (NAME, [NAME]),
        ([], []),
        ({"namesList": []}, []),
        ({"namesList": None}, None),
        ({}, None),
        (None, None),
    ],
    ids=repr,
)
def test_a_plural_member_may_be_a_list_or_wrap_one_or_be_collapsed(names: Any, expected: Any) -> None:
    (row,) = decoded(person(names=names))
    assert row.get("names") == expected


def test_both_shapes_may_mix_within_a_page_and_a_record() -> None:
    contact = {"contactDetailType": "HOME", "contactDetailValue": "(415) 555-0199"}
    rows = decoded(
        person(names=[NAME], contactDetails={"contactDetailsList": [contact]}),
        person(names={"namesList": [NAME]}, contactDetails=[contact]),
        person(names=NAME, contactDetails=None),
    )
    assert [row["names"] for row in rows] == [[NAME]] * 3
    assert [row.get("contactDetails") for row in rows] == [[contact], [contact], None]


def test_a_list_of_one_record_may_be_collapsed_and_an_empty_one_left_out() -> None:
    body = json.dumps({"hasMore": False, "totalNumberOfRecords": 1, "personList": person()}).encode()
    assert decode_page(body, PERSONS).frame["personId"].to_list() == ["5775933103"]
    assert decode_page(b'{"hasMore": false, "totalNumberOfRecords": 0}', PERSONS).frame.is_empty()
    with pytest.raises(Malformed, match="personList is null where a list is expected"):
        decode_page(b'{"hasMore": false, "totalNumberOfRecords": 3}', PERSONS)


@pytest.mark.parametrize("records", [[person(names=[NAME])], [person(names=NAME)]], ids=["columns", "exactly"])
def test_one_outer_element_that_names_the_service_is_unwrapped(records: list[dict[str, Any]]) -> None:
    body = b'{"CM-PersonSearch": %b}' % page(records)
    assert decode_page(body, PERSONS).frame["names"].to_list() == [[NAME]]
    assert decode_total(body) == 1


@pytest.mark.parametrize(
    ("members", "fault"),
    [
        ({"version": {"x": 1}}, "version is an object where text is expected"),
        ({"version": [1]}, "version is a list where text is expected"),
        ({"premise": "2242620736"}, "premise is text or a number where an object is expected"),
        ({"premise": [{"premiseId": "1"}]}, "premise is a list where an object is expected"),
        ({"premise": {"address": True}}, "premise.address is true or false where an object is expected"),
        ({"names": "Reddy,John"}, "names is text or a number where a list is expected"),
        ({"names": [[NAME]]}, "names is a list where an object is expected"),
        ({"names": {"namesList": ["Reddy"]}}, "names is text or a number where an object is expected"),
        ({"names": [{"entityName": {"first": "John"}}]}, "names.entityName is an object where text is expected"),
        ({"names": {"note": "text"}}, "names is an object where a list is expected"),
        ({"names": {"one": [], "two": []}}, "names is an object where a list is expected"),
    ],
    ids=repr,
)
def test_a_member_of_another_type_is_named_and_counted_and_its_value_is_not_shown(
    members: dict[str, Any], fault: str
) -> None:
    with pytest.raises(Malformed) as error:
        decode_page(page([person(), person(**members), person(**members)]), PERSONS)
    assert f"{fault} (2 times)" in str(error.value)
    assert "personList holds 3 records" in str(error.value)
    assert "Reddy" not in str(error.value)
    assert "2242620736" not in str(error.value)


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b"", "cut off or not JSON"),
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "HTML"),
        (page([person()])[:-7], "cut off or not JSON"),
        (page([person()]) + b"}", "cut off or not JSON"),
        (b'{"hasMore": NaN}', "cut off or not JSON"),
        (b'{"hasMore": "\xff"}', "cut off or not JSON"),
        (b"[" * 200_000, "cut off or not JSON"),
        (b"[%b]" % page([person()]), "a list where an object is expected"),
        (b'{"totalNumberOfRecords": 1, "personList": []}', "no hasMore"),
        (b'{"hasMore": null, "totalNumberOfRecords": 1, "personList": []}', "no hasMore"),
        (b'{"hasMore": "Y", "totalNumberOfRecords": 1, "personList": []}', "hasMore is neither true nor false"),
        (b'{"hasMore": 1, "totalNumberOfRecords": 1, "personList": []}', "hasMore is neither true nor false"),
        (b'{"hasMore": true, "personList": []}', "totalNumberOfRecords is missing"),
        (b'{"hasMore": true, "totalNumberOfRecords": -1, "personList": []}', "totalNumberOfRecords is missing or not"),
        (b'{"hasMore": true, "totalNumberOfRecords": 1.5, "personList": []}', "totalNumberOfRecords is missing or not"),
        (b'{"hasMore": true, "totalNumberOfRecords": 1, "persons": []}', "personList is null"),
        (b'{"hasMore": true, "totalNumberOfRecords": 1, "personList": "x"}', "personList is text or a number"),
        (page([None, person()]), r"personList holds null \(1 times\)"),
        (page(["x", ["y"]]), r"text or a number \(1 times\), a list \(1 times\)"),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_an_answer_that_is_not_as_the_contract_says_is_refused(body: bytes, fault: str) -> None:
    with pytest.raises(Malformed, match=fault):
        decode_page(body, PERSONS)


def test_a_byte_order_mark_and_blanks_around_the_answer_do_not_matter() -> None:
    body = b"\xef\xbb\xbf \r\n" + page([person()]) + b"\n"
    assert decode_page(body, PERSONS).frame.height == 1


@pytest.mark.parametrize(
    ("escaped", "expected"),
    [
        (r"a\ud800b", f"a{LONE_SURROGATE}b"),
        (r"\uDFFF", LONE_SURROGATE),
        (r"\ud83d\ude00", "😀"),
        (r"\ud83d\ud83d\ude00", f"{LONE_SURROGATE}😀"),
        (r"\ude00\ud83d", LONE_SURROGATE * 2),
        (r"\\ud800", r"\ud800"),
        (r"\\\ud800", f"\\{LONE_SURROGATE}"),
        (r"\\ud83d\ude00", rf"\ud83d{LONE_SURROGATE}"),
        (r"\"\ud800\"", f'"{LONE_SURROGATE}"'),
    ],
)
@pytest.mark.parametrize("names", [[], NAME], ids=["columns", "exactly"])
def test_half_a_surrogate_pair_becomes_its_mark_and_whole_pairs_stay(escaped: str, expected: str, names: Any) -> None:
    body = page([person(emailAddress="x", version="HERE", names=names)]).replace(b"HERE", escaped.encode())
    assert decode_page(body, PERSONS).frame.item(0, "version") == expected


def test_the_count_alone_needs_neither_has_more_nor_a_list() -> None:
    assert decode_total(b'{"limit": 0, "totalNumberOfRecords": 123456}') == 123_456
    with pytest.raises(Malformed, match="totalNumberOfRecords"):
        decode_total(b'{"limit": 0}')


def test_records_can_be_read_as_they_are() -> None:
    assert decode_list(page(people("1"), has_more=True), "personList") == ([{"personId": "1"}], True)


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
scalar = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.decimals(-180, 180, places=7).map(float) | text
names = st.lists(
    st.fixed_dictionaries({}, optional={"nameType": scalar, "entityName": scalar, "other": scalar}), max_size=3
)
wrong = st.sampled_from([{"x": 1}, ["x"], [{"y": [1]}], "text", 5, {"namesList": "x"}])


@st.composite
def awkward_pages(draw: st.DrawFn, /, **odd: st.SearchStrategy[Any]) -> bytes:
    plural = names | names.map(lambda items: {"namesList": items}) | st.none()
    record = st.fixed_dictionaries(
        {"personId": text},
        optional={
            "version": scalar,
            "latitude": scalar,
            "names": plural,
            "premise": st.none() | st.fixed_dictionaries({}, optional={"premiseId": scalar, "address": st.none()}),
            "unknown": wrong,
            **odd,
        },
    )
    answer = {
        "hasMore": draw(st.booleans()),
        "totalNumberOfRecords": 9,
        "personList": draw(st.lists(record, max_size=4)),
    }
    document = draw(st.sampled_from([answer, {"outer": answer}]))
    form = draw(st.sampled_from([{}, {"separators": (",", ":")}, {"indent": 1}]))
    return json.dumps(document, ensure_ascii=draw(st.booleans()), **form).encode()


class Wrong(Exception):
    """A value is not of its type."""


def obvious(value: Any, dtype: Any, inner: str | None = None) -> Any:
    """A JSON value as a value of the type: the slow, obvious way, written from the contract alone."""
    if value is None:
        return None
    if isinstance(dtype, pl.List):
        if isinstance(value, dict) and not {field.name for field in dtype.inner.fields} & value.keys():
            lists = [item for item in value.values() if isinstance(item, list)]
            if inner in value or not value:
                return obvious(value.get(inner), dtype)
            if len(lists) != 1:
                raise Wrong
            value = lists[0]
        items = [value] if isinstance(value, dict) else value
        if not isinstance(items, list):
            raise Wrong
        return [obvious(item, dtype.inner) for item in items]
    if isinstance(dtype, pl.Struct):
        if not isinstance(value, dict):
            raise Wrong
        return {field.name: obvious(value.get(field.name), field.dtype) for field in dtype.fields}
    if isinstance(value, dict | list):
        raise Wrong
    return value


def alike(read: Any, value: Any) -> bool:
    """Whether what was read is the text of the value; a number may be written in any way that means the same."""
    match value:
        case None:
            return read is None
        case dict():
            return read.keys() == value.keys() and all(alike(read[name], item) for name, item in value.items())
        case list():
            return len(read) == len(value) and all(map(alike, read, value))
        case bool():
            return read == str(value).lower()
        case float():
            return float(read) == value
    return read == str(value)


def by_blocks(body: bytes, service: Any = PERSONS) -> pages.EntityPage | None:
    """The quick way with each record in a block of its own, as far as the answer can be cut."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pages, "_BLOCK_BYTES", 1)
        return pages._decode_columns(body, service)


QUICK = [pages._decode_columns, by_blocks]


@pytest.mark.parametrize("decode", [decode_page, pages._decode_exactly, *QUICK])
@given(awkward_pages() | awkward_pages(version=wrong, names=wrong, premise=wrong))
def test_every_way_of_decoding_reads_what_is_there_or_refuses(decode: Any, body: bytes) -> None:
    document = json.loads(body)
    answer = document.get("outer", document)
    try:
        read = decode(body, PERSONS)
    except Malformed:
        read = None
    try:
        rows = [
            {
                name: obvious(record.get(name), dtype, PERSONS.plural_members.get(name))
                for name, dtype in PERSONS.schema.items()
            }
            for record in answer["personList"]
        ]
    except Wrong:
        assert read is None
        return
    if read is None:
        assert decode in QUICK, "the quick way alone may leave a good page to the other"
        return
    assert read.frame.schema == PERSONS.schema
    assert alike(read.frame.to_dicts(), rows)
    assert (read.has_more, read.total) == (answer["hasMore"], 9)


@pytest.mark.parametrize("shape", [lambda names: names, lambda names: {"namesList": names}], ids=["list", "wrapped"])
def test_a_page_of_one_shape_is_decoded_by_the_quick_way(shape: Any) -> None:
    body = page([person(names=shape([NAME])), person(names=None), person(names=shape([]))])
    assert pages._decode_columns(body, PERSONS) is not None


def compact(document: Any) -> bytes:
    """JSON without spaces."""
    return json.dumps(document, separators=(",", ":")).encode()


BEFORE = {"limit": 9, "note": None, "hasMore": True, "totalNumberOfRecords": 9}
FEW = [person(personId=number, names={"namesList": [NAME, NAME]}, latitude=1.5) for number in "123"]


@pytest.mark.parametrize(
    "document",
    [
        {**BEFORE, "personList": FEW},
        {"personList": FEW, **BEFORE},
        {"outer": {**BEFORE, "personList": FEW}},
        {"outer": {"personList": FEW, **BEFORE}},
    ],
    ids=["head-first", "list-first", "outer-head-first", "outer-list-first"],
)
@pytest.mark.parametrize("form", [{}, {"separators": (",", ":")}, {"indent": 2}], ids=["spaces", "compact", "lines"])
def test_a_page_is_cut_into_blocks_of_records_in_order(
    document: Any, form: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = json.dumps(document, **form).encode()
    monkeypatch.setattr(pages, "_BLOCK_BYTES", 1)
    blocks, rest = pages._blocks(body, "personList")
    assert [json.loads(block) for block in blocks] == [FEW[:1], FEW[1:2]]
    assert b'"3"' in rest
    read = pages._decode_columns(body, PERSONS)
    assert read is not None
    assert read.frame.equals(pages._decode_exactly(body, PERSONS).frame)
    assert (read.has_more, read.total) == (True, 9)


def test_a_large_page_is_cut_and_a_small_one_is_not() -> None:
    body = compact({**BEFORE, "personList": people(*map(str, range(50_000)))})
    blocks, _ = pages._blocks(body, "personList")
    assert max(map(len, blocks)) <= pages._BLOCK_BYTES + 100
    assert sum(map(len, blocks)) > len(body) - pages._BLOCK_BYTES
    assert pages._blocks(body[:1000], "personList") == ([], body[:1000])


ALIKE = [{"personId": "8"}, {"personId": "9"}]


@pytest.mark.parametrize(
    "document",
    [
        {**BEFORE, "personList": [person(unknown=ALIKE), person(unknown=ALIKE)]},
        {**BEFORE, "personList": FEW, "others": ALIKE},
        {**BEFORE, "others": ALIKE, "personList": FEW},
        {**BEFORE, "others": {"personList": ALIKE}, "personList": FEW[:1]},
        {**BEFORE, "personList": [person(version='},{"personId":'), person(version='"},{"personId":"9"')]},
        {**BEFORE, "personList": [*FEW, None, *FEW]},
        {**BEFORE, "personList": [person(names=[NAME]), person(names={"namesList": [NAME]}), person(names=[NAME])]},
    ],
    ids=["inner-list", "list-behind", "list-before", "list-within", "text", "null", "both-shapes"],
)
def test_what_only_looks_like_the_begin_of_a_record_loses_nothing(document: Any) -> None:
    body = compact(document)
    try:
        exactly = pages._decode_exactly(body, PERSONS).frame
    except Malformed:
        exactly = None
    read = by_blocks(body)
    assert read is None or read.frame.equals(exactly)
