"""The sorted record table behaves as a plain sorted dictionary would."""

from hypothesis import given
from hypothesis import strategies as st

from ccs_dacs_pipeline.sandbox.table import RecordTable

IDS = st.integers(0, 3000)


def record(id_: int, version: int = 0) -> bytes:
    return b'{"id":%d,"v":%d}' % (id_, version)


@given(
    base=st.sets(IDS, max_size=2000),
    edits=st.lists(st.tuples(st.booleans(), IDS), max_size=30),
    low=IDS,
    high=IDS,
    limit=st.integers(0, 1500),
)
def test_pages_counts_and_edits_equal_those_of_a_sorted_dictionary(base, edits, low, high, limit) -> None:
    model = {id_: record(id_) for id_ in sorted(base)}
    table = RecordTable(model.items())
    for version, (put, id_) in enumerate(edits, 1):
        if put:
            model[id_] = record(id_, version)
            table.put(id_, model[id_])
        else:
            assert table.remove(id_) == (model.pop(id_, None) is not None)
    ids = sorted(model)
    matching = [id_ for id_ in ids if low <= id_ <= high]
    page = table.page(low, high, limit)
    assert page.body == b",".join(model[id_] for id_ in matching[:limit])
    assert (page.records, page.has_more) == (len(matching[:limit]), len(matching) > limit)
    assert list(table) == [(id_, model[id_]) for id_ in ids]
    assert len(table) == len(ids)
    assert table.rank(low) == sum(id_ < low for id_ in ids)
    assert [table.nth(rank) for rank in range(0, len(ids), 97)] == [(id_, model[id_]) for id_ in ids[::97]]
    assert table.get(low) == model.get(low)


def test_leaves_split_as_they_grow() -> None:
    table = RecordTable.empty()
    for id_ in range(3000, 0, -1):
        table.put(id_, record(id_))
    assert [id_ for id_, _ in table] == list(range(1, 3001))


def test_an_iteration_sees_the_state_it_began_with() -> None:
    table = RecordTable((id_, record(id_)) for id_ in range(2000))
    iteration = iter(table)
    next(iteration)
    table.remove(1999)
    table.put(5000, record(5000))
    assert sum(1 for _ in iteration) == 1999
