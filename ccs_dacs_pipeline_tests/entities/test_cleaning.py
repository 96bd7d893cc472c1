"""Cleaning (record-layouts.md, File dialect)."""

from __future__ import annotations

import re

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccs_dacs_pipeline.entities.cleaning import (
    CONTROL_CHARACTERS,
    LONE_SURROGATE,
    any_text,
    cleaned,
    holds_control,
    trimmed,
    with_texts,
)
from ccs_dacs_pipeline_tests.entities import oracle

CONTROLS = [chr(code) for code in (*range(1, 0x20), *range(0x7F, 0xA0), 0x2028, 0x2029)]

texts = st.text(
    st.one_of(
        st.sampled_from(["\0", " ", "\t", "\n", "\x85", "\u2028", "a"]), st.characters(exclude_categories=["Cs"])
    ),
    max_size=30,
)


def clean(*values: str | None) -> list[str | None]:
    return pl.DataFrame({"text": values}, schema={"text": pl.String}).select(cleaned(pl.col("text")))["text"].to_list()


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("a\0b", "ab"),
        ("a\tb", "a b"),
        ("a\r\nb", "a b"),
        ("a\t\x85\u2028\u2029\x7f\x9fb", "a b"),
        ("a\t\0\tb", "a b"),
        ("a \t b", "a   b"),
        ("  P  ", "P"),
        ("\t P \n", "P"),
        ("", None),
        (" ", None),
        ("\0\t\0", None),
        (None, None),
    ],
)
def test_nul_goes_runs_of_controls_become_one_space_and_spaces_are_trimmed(text: str | None, field: str | None) -> None:
    assert clean(text) == [field]


@pytest.mark.parametrize(
    "kept", ["\u00a0a\u00a0", "\ufeffa", "\u200ba\u200d", "\u3000a", '"a"', "'a'", "=1+1", "\u202ea", "😀"]
)
def test_format_characters_other_blanks_quotes_and_formulas_are_kept(kept: str) -> None:
    assert clean(kept) == [kept]


def test_every_control_character_becomes_a_space() -> None:
    assert clean(*(f"a{control}b" for control in CONTROLS)) == ["a b"] * len(CONTROLS)


def test_the_mark_of_a_lone_surrogate_is_kept() -> None:
    assert clean(LONE_SURROGATE) == [LONE_SURROGATE]


@settings(deadline=None)
@given(st.lists(texts, min_size=1, max_size=20))
def test_cleaning_agrees_with_the_oracle(values: list[str]) -> None:
    assert clean(*values) == [oracle.clean(value) for value in values]


@settings(deadline=None)
@given(texts)
def test_a_clean_text_stays_and_can_be_carried(text: str) -> None:
    (once,) = clean(text)
    assert clean(once) == [once]
    assert once is None or (once == once.strip(" ") != "" and not re.search(f"\0|{CONTROL_CHARACTERS}", once))


@settings(deadline=None)
@given(texts)
def test_cleaning_changes_more_than_trimming_only_where_there_is_a_control_character(text: str) -> None:
    column = pl.col("text")
    found = pl.DataFrame({"text": [text]}).select(
        cleaned=cleaned(column), trimmed=trimmed(column), control=holds_control(column)
    )
    if not found["control"][0]:
        assert found["cleaned"][0] == found["trimmed"][0]


def test_texts_are_cleaned_however_deeply_they_are_nested_and_null_list_elements_dropped() -> None:
    frame = pl.DataFrame(
        {
            "code": ["P ", None],
            "premise": [{"address": {"city": " A\tB "}}, None],
            "names": [[{"first": "\0"}, None, {"first": "C "}], None],
        },
        schema={
            "code": pl.String,
            "premise": pl.Struct({"address": pl.Struct({"city": pl.String})}),
            "names": pl.List(pl.Struct({"first": pl.String})),
        },
    )
    changed = frame.select(with_texts(frame.schema, cleaned))
    assert changed.schema == frame.schema
    assert changed.rows() == [
        ("P", {"address": {"city": "A B"}}, [{"first": None}, {"first": "C"}]),
        (None, {"address": {"city": None}}, None),
    ]
    assert frame.select(any_text(frame.schema, holds_control)).to_series().to_list() == [True, False]
