"""From the bytes of a search's answer to columns, with nothing lost on the way (ccs-rest.md: JSON, Searches).

A page is decoded by `polars.read_json` with the explicit schema, which turns numbers and booleans into their JSON text
and refuses an object or a list where text is expected. Where that does not prove itself (collapsed lists, both shapes
of a plural member in one page, an unknown wrapper, anything refused) the page is decoded again by the exact way, which
makes every list plain first, and names what is refused even then.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from typing import Any, Protocol

import polars as pl

from ccs_dacs_pipeline.entities.cleaning import LONE_SURROGATE

HAS_MORE = "hasMore"
TOTAL = "totalNumberOfRecords"
TEXTS_OF_BOOLEANS = {"true": True, "false": False}
NAMED_FAULTS = 5
# Some hundred records; half as many are as quick, twice as many are slower.
_BLOCK_BYTES = 256 * 1024

# Half of a pair without the other, or anything behind an escaped backslash: only then is each escape looked at.
_MAYBE_LONE = re.compile(
    rb"\\(?:u[dD](?:[89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD])[c-fC-F])"
    rb"|\\u[dD][89a-fA-F])"
)
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<lone>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
_OUTER_ELEMENT = re.compile(rb'\s*\{\s*"([^"\\]*)"\s*:\s*\{')


class Malformed(ValueError):
    """An answer is not what the contract says. The text names the member and never holds a value."""


class Searchable(Protocol):
    """What a search needs to know of a kind of entity."""

    @property
    def service(self) -> str:
        """The path segment of its search, `persons`."""

    @property
    def list_member(self) -> str:
        """The member of the answer that holds the entities, `personList`."""

    @property
    def id_member(self) -> str:
        """The member of an entity that holds its id, `personId`."""

    @property
    def schema(self) -> pl.Schema:
        """The columns of an entity: scalars String, plural members List(Struct), sub-objects Struct."""

    @property
    def plural_members(self) -> Mapping[str, str]:
        """Each plural member and the name of the list in its wrapper, `{"names": "namesList"}`."""


@dataclass(frozen=True)
class SearchService:
    """A search, described: the plain form of `Searchable`."""

    name: str
    list_member: str
    id_member: str
    schema: pl.Schema
    plural_members: Mapping[str, str]

    @property
    def service(self) -> str:
        """The path segment of the search."""
        return self.name


@dataclass(frozen=True)
class EntityPage:
    """One page of a search.

    Attributes:
        frame: the entities, with exactly the columns and types of the service's schema.
        has_more: whether entities follow.
        total: `totalNumberOfRecords`: what matches the range, whatever page this is.
    """

    frame: pl.DataFrame
    has_more: bool
    total: int


def decode_page(body: bytes, service: Searchable) -> EntityPage:
    """Decodes one page of entities.

    Numbers and booleans become their JSON text (decimals with the precision of a double), null and missing members
    null; unknown members are ignored. An escape of a lone surrogate becomes `LONE_SURROGATE`, which no text of CCS
    holds, since a column of text cannot hold the surrogate itself.

    Raises:
        Malformed: the answer is not JSON or not as the contract says.
    """
    body = mark_lone_surrogates(body)
    return _decode_columns(body, service) or _decode_exactly(body, service)


def decode_total(body: bytes) -> int:
    """The count in an answer to `limit: 0`; `hasMore` says nothing there.

    Raises:
        Malformed: the answer is not JSON, or has no count.
    """
    return _total(_unwrap(decode_object(body, number=str), {TOTAL}))


def decode_list(body: bytes, list_member: str) -> tuple[list[dict[str, Any]], bool]:
    """The records of a page as they are, and whether more follow; numbers as their JSON text.

    Raises:
        Malformed: the answer is not JSON or not as the contract says.
    """
    answer = _unwrap(decode_object(mark_lone_surrogates(body), number=str), {list_member, HAS_MORE, TOTAL})
    return _records(answer, list_member), _has_more(answer)


def decode_object(body: bytes, *, number: Callable[[str], Any] | None = None) -> dict[str, Any]:
    """A JSON object.

    Args:
        body: the answer.
        number: what a number's text becomes; by default an int or float.

    Raises:
        Malformed: the answer is not JSON, or not an object.
    """
    try:
        document = json.loads(
            body.decode("utf-8-sig"), parse_int=number, parse_float=number, parse_constant=_refuse_constant
        )
    except (ValueError, RecursionError) as error:
        kind = "HTML or XML" if body.lstrip()[:1] == b"<" else "cut off or not JSON"
        raise Malformed(
            f"the answer of {len(body):,} bytes is {kind} ({type(error).__name__}): see what answers at this address"
        ) from None
    if not isinstance(document, dict):
        raise Malformed(f"the answer is {_kind(document)} where an object is expected")
    return document


def mark_lone_surrogates(body: bytes) -> bytes:
    """Replaces each escape of half a surrogate pair by the text `LONE_SURROGATE`; whole pairs stay."""
    # Many pages hold no escape at all, which is seen ten times as fast.
    if b"\\" not in body or not _MAYBE_LONE.search(body):
        return body
    mark = json.dumps(LONE_SURROGATE)[1:-1].encode()
    return _ESCAPE.sub(lambda escape: mark if escape["lone"] else escape[0], body)


def _decode_columns(body: bytes, service: Searchable) -> EntityPage | None:
    """The quick way: typed reads, a block of records at a time; `None` where something might have been lost."""
    wrappers = {name: inner for name, inner in service.plural_members.items() if _is_wrapped(body, name)}
    record = {
        name: pl.Struct({wrappers[name]: dtype}) if name in wrappers else dtype
        for name, dtype in service.schema.items()
    }
    blocks, rest = _blocks(body, service.list_member)
    try:
        frames = [pl.read_json(BytesIO(block), schema=record) for block in blocks]
        head, last = _read_answer(rest, service.list_member, pl.Struct(record))
        for frame in (*frames, last):
            _unwrap_lists(frame, wrappers)
    except (pl.exceptions.PolarsError, _Doubtful):
        return None
    return EntityPage(pl.concat([*frames, last]), _has_more(head), _total(head))


class _Doubtful(Exception):
    """The quick way might lose something of a page."""


def _blocks(body: bytes, list_member: str) -> tuple[list[bytes], bytes]:
    """Cuts most records out of an answer: lists of them, in order, and the answer with the rest.

    The values of a large page outgrow the processor's caches while it is decoded, which takes half as long again. An
    answer is cut if only plain members come before its list, and where an object begins with the first record's first
    member. No text can look like that, for its quotation marks are escaped; an object within a record or behind the
    list can, but leaves a block that is not JSON, so that reading it fails.
    """
    head = _head_of(list_member).match(body)
    if head is None:
        return [], body
    next_record = re.compile(rb"\}(\s*+,\s*+)\{\s*+%b\s*+:" % re.escape(head[1]))
    begin = start = head.end()
    view = memoryview(body)
    blocks = []
    while place := next_record.search(body, start + _BLOCK_BYTES):
        # Without a copy of the slice: a large piece of memory less to be had and given back.
        blocks.append(b"".join((b"[", view[start : place.start(1)], b"]")))
        start = place.end(1)
    return blocks, b"".join((view[:begin], view[start:]))


@cache
def _head_of(list_member: str) -> re.Pattern[bytes]:
    """What comes before the records of an answer; the group is the first one's first member."""
    text = rb'"[^"\\]*+"'
    scalars = rb'(?:\s*+%b\s*+:(?:\s*+%b\s*+|[^"\[\]{},]*+),)*+' % (text, text)
    outer = rb"\s*+\{(?:\s*+%b\s*+:\s*+\{)?" % text
    begin = rb'\s*+"%b"\s*+:\s*+\[\s*+(?=\{\s*+(%b))' % (re.escape(list_member.encode()), text)
    return re.compile(outer + scalars + begin)


def _read_answer(body: bytes, list_member: str, record: pl.Struct) -> tuple[dict[str, str | None], pl.DataFrame]:
    """Whether more follow and how many there are, as their texts, and the records of an answer."""
    schema: dict[str, pl.DataType | type[pl.DataType]] = {
        HAS_MORE: pl.String,
        TOTAL: pl.String,
        list_member: pl.List(record),
    }
    outer = _OUTER_ELEMENT.match(body)
    outer_name = outer[1].decode(errors="replace") if outer else None
    answer = pl.read_json(BytesIO(body), schema={outer_name: pl.Struct(schema)} if outer_name else schema)
    if outer_name:
        answer = answer.unnest(outer_name)
    if answer.height != 1 or body.lstrip()[:1] != b"{":
        raise _Doubtful
    records = answer.item(0, list_member)
    if records is None or records.null_count():
        raise _Doubtful
    return {name: answer.item(0, name) for name in (HAS_MORE, TOTAL)}, records.struct.unnest()


def _unwrap_lists(frame: pl.DataFrame, wrappers: Mapping[str, str]) -> None:
    """Puts the lists of plural members in the place of what wraps them, without a query, whose start costs more."""
    for name, inner in wrappers.items():
        wrapper = frame.get_column(name)
        lists = wrapper.struct.unnest().get_column(inner)
        if lists.null_count() != wrapper.null_count():
            raise _Doubtful
        frame.replace_column(frame.get_column_index(name), lists.alias(name))


def _is_wrapped(body: bytes, member: str) -> bool:
    """Whether a plural member's first value is an object. A guess only: the typed read refuses a wrong one."""
    first = re.search(rb'"%b"\s*:\s*([\[{])' % re.escape(member.encode()), body)
    return first is not None and first[1] == b"{"


def _decode_exactly(body: bytes, service: Searchable) -> EntityPage:
    """The slow way: each record's lists made plain, numbers as their text; what is refused then is named."""
    answer = _unwrap(decode_object(body, number=str), {service.list_member, HAS_MORE, TOTAL})
    has_more, total = _has_more(answer), _total(answer)
    records = [_with_plain_lists(record, service) for record in _records(answer, service.list_member)]
    try:
        frame = pl.read_json(BytesIO(json.dumps(records).encode()), schema=service.schema)
    except pl.exceptions.PolarsError:
        faults = Counter(fault for record in records for fault in _faults(record, pl.Struct(service.schema)))
        named = "; ".join(f"{fault} ({count} times)" for fault, count in faults.most_common(NAMED_FAULTS))
        raise Malformed(
            f"{service.list_member} holds {len(records)} records, in which {named or 'members are nested too deep'}"
        ) from None
    return EntityPage(frame, has_more, total)


def _unwrap(document: dict[str, Any], members: set[str]) -> dict[str, Any]:
    """The content of the one outer element that names the service, where there is one."""
    if not members & document.keys() and len(document) == 1:
        (inner,) = document.values()
        if isinstance(inner, dict):
            return inner
    return document


def _has_more(answer: Mapping[str, Any]) -> bool:
    text = _text(answer.get(HAS_MORE))
    if text is None:
        raise Malformed(f"the page has no {HAS_MORE}: whether it is the last cannot be told")
    if text not in TEXTS_OF_BOOLEANS:
        raise Malformed(f"{HAS_MORE} is neither true nor false")
    return TEXTS_OF_BOOLEANS[text]


def _total(answer: Mapping[str, Any]) -> int:
    text = _text(answer.get(TOTAL))
    if text is None or not re.fullmatch("[0-9]{1,18}", text):
        raise Malformed(f"{TOTAL} is missing or not a whole number of 0 or more")
    return int(text)


def _records(answer: Mapping[str, Any], list_member: str) -> list[dict[str, Any]]:
    """The list of an answer: one record where CCS collapses the list; it may be absent where the total is 0."""
    records = answer.get(list_member)
    if records is None and _total(answer) == 0:
        return []
    if isinstance(records, dict):
        records = [records]
    if not isinstance(records, list):
        raise Malformed(f"{list_member} is {_kind(records)} where a list is expected")
    strange = Counter(_kind(record) for record in records if not isinstance(record, dict))
    if strange:
        kinds = ", ".join(f"{kind} ({count} times)" for kind, count in strange.items())
        raise Malformed(f"{list_member} holds {kinds} where objects are expected")
    return records


def _with_plain_lists(record: dict[str, Any], service: Searchable) -> dict[str, Any]:
    """A record whose plural members are lists, whatever they were wrapped in; what wraps no list stays as it is."""
    plain = {}
    for name, inner in service.plural_members.items():
        value = record.get(name)
        if isinstance(value, dict) and not _item_members(service.schema[name]) & value.keys():
            lists = [item for item in value.values() if isinstance(item, list)]
            if inner in value or not value:
                value = value.get(inner)
            elif len(lists) == 1:
                value = lists[0]
            else:
                continue
        plain[name] = [value] if isinstance(value, dict) else value
    return {**record, **plain}


def _item_members(dtype: pl.DataType) -> set[str]:
    item = dtype.inner if isinstance(dtype, pl.List) else None
    return {field.name for field in item.fields} if isinstance(item, pl.Struct) else set()


def _faults(value: object, dtype: object, path: str = "") -> Iterator[str]:
    """Where a JSON value is not of the type, by path and without the value."""
    if value is None:
        return
    if isinstance(dtype, pl.List) and isinstance(value, list):
        for item in value:
            yield from _faults(item, dtype.inner, path)
    elif isinstance(dtype, pl.Struct) and isinstance(value, dict):
        for field in dtype.fields:
            yield from _faults(value.get(field.name), field.dtype, f"{path}.{field.name}".lstrip("."))
    elif isinstance(dtype, pl.List | pl.Struct) or _text(value) is None:
        expected = "a list" if isinstance(dtype, pl.List) else "an object" if isinstance(dtype, pl.Struct) else "text"
        yield f"{path} is {_kind(value)} where {expected} is expected"


def _text(value: object) -> str | None:
    """The text of a scalar (numbers have been left as their text by then), else `None`."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else None


def _kind(value: object) -> str:
    kinds = {dict: "an object", list: "a list", bool: "true or false", str: "text or a number", type(None): "null"}
    return kinds[type(value)]


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
