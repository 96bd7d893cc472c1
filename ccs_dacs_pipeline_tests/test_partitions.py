"""Keys of batches: one printed form each, and nothing else is read (design.md, decision 1)."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccs_dacs_pipeline.partitions import KeyRefusedError, Mode, SyncBatch, shards_of, snapshot_number

numbers = st.integers(1, 10**18 - 1)
whole = st.builds(SyncBatch, st.sampled_from([Mode.DELTA, Mode.RESYNC]), numbers)
shards = st.integers(1, 2000).flatmap(
    lambda count: st.builds(SyncBatch, st.just(Mode.INITIAL), numbers, st.integers(1, count), st.just(count))
)
batches = whole | shards


@pytest.mark.parametrize(
    ("key", "batch"),
    [
        ("initial-7-02of16", SyncBatch(Mode.INITIAL, 7, 2, 16)),
        ("initial-1-01of01", SyncBatch(Mode.INITIAL, 1)),
        ("initial-7-002of100", SyncBatch(Mode.INITIAL, 7, 2, 100)),
        ("delta-18", SyncBatch(Mode.DELTA, 18)),
        ("resync-3", SyncBatch(Mode.RESYNC, 3)),
    ],
)
def test_the_documented_keys(key: str, batch: SyncBatch):
    assert SyncBatch.parse(key) == batch
    assert str(batch) == key


@given(batches)
def test_a_printed_key_is_read_as_the_batch_it_names(batch: SyncBatch):
    assert SyncBatch.parse(str(batch)) == batch


@given(batches)
def test_a_key_is_safe_in_paths_and_in_multi_partition_keys(batch: SyncBatch):
    assert re.fullmatch(r"[A-Za-z0-9_-]+", str(batch))


@pytest.mark.parametrize(
    "key",
    [
        "",
        "delta",
        "delta-",
        "delta-0",
        "delta-018",
        "delta--1",
        "delta-1-01of01",
        "delta-18\n",
        " delta-18",
        "Delta-18",
        "delta-\u0661",
        "delta-1_0",
        "resync-3.0",
        "initial-7",
        "initial-7-2of16",
        "initial-7-00of16",
        "initial-7-17of16",
        "initial-7-002of16",
        "initial-7-02of016",
        "initial-7-02of100",
        "initial-7-02of16\n",
        "initial-0-01of01",
        "initial-7-02-of-16",
        "initial|7",
        "../delta-18",
        "delta-" + "9" * 19,
        "delta-" + "9" * 5000,
    ],
)
def test_any_other_form_is_refused(key: str):
    with pytest.raises(KeyRefusedError, match=r"initial-7-02of16, delta-18 or resync-3"):
        SyncBatch.parse(key)


@given(st.text() | st.from_regex(r"(initial|delta|resync)-[0-9]+(-[0-9]+of[0-9]+)?\s?"))
def test_what_is_read_is_what_would_be_printed(text: str):
    try:
        batch = SyncBatch.parse(text)
    except KeyRefusedError:
        return
    assert str(batch) == text


@given(batches, st.data())
def test_a_key_with_one_character_changed_never_names_the_same_batch(batch: SyncBatch, data: st.DataObject):
    key = str(batch)
    place = data.draw(st.integers(0, len(key) - 1))
    changed = key[:place] + data.draw(st.characters()) + key[place + 1 :]
    try:
        other = SyncBatch.parse(changed)
    except KeyRefusedError:
        return
    assert (other == batch) == (changed == key)


@given(numbers, st.integers(1, 1200))
def test_the_keys_of_shards_sort_in_the_order_of_the_shards(number: int, count: int):
    batches = shards_of(number, count)
    keys = [str(batch) for batch in batches]
    assert sorted(keys) == keys
    assert sorted(batches) == batches
    assert [batch.shard for batch in batches] == list(range(1, count + 1))


@given(numbers, st.integers(1, 20))
def test_the_shards_of_a_snapshot_have_one_owner_that_an_operator_can_name(number: int, count: int):
    owners = {batch.owner for batch in shards_of(number, count)}
    assert owners == {f"initial-{number}"}
    assert snapshot_number(owners.pop()) == number


@given(whole)
def test_every_other_batch_is_its_own_owner(batch: SyncBatch):
    assert batch.owner == str(batch)


@pytest.mark.parametrize("text", ["initial-7-02of16", "initial-07", "initial-0", "initial-7\n", "delta-18", "7", ""])
def test_only_the_key_of_a_snapshot_has_a_snapshot_number(text: str):
    assert snapshot_number(text) is None
