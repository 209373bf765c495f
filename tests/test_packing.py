"""model/packing.py against plain lists."""

import dataclasses
import itertools
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.packing import PackedTokens

END = 999


@dataclasses.dataclass(frozen=True)
class Split:
    """Documents whose tokens are all different, so that rows tell where they come from."""

    documents: tuple[tuple[int, ...], ...]
    context: int

    def packed(self) -> PackedTokens:
        tokens = np.array(list(itertools.chain(*self.documents)), np.int32)
        lengths = np.array([len(document) for document in self.documents], np.int64)
        return PackedTokens(tokens, lengths, self.context, end_of_text=END)


def split_of(lengths: list[int], context: int) -> Split:
    counter = itertools.count()
    documents = tuple(tuple(itertools.islice(counter, length)) for length in lengths)
    return Split(documents, context)


@st.composite
def splits(draw: st.DrawFn) -> Split:
    context = draw(st.integers(1, 9))
    lengths = draw(st.lists(st.integers(1, 12), min_size=1, max_size=12))
    if sum(lengths) < context:
        lengths.append(context - sum(lengths))
    return split_of(lengths, context)


def rows_of(
    packed: PackedTokens, seed: int, first: int, count: int
) -> list[tuple[list[int], list[int]]]:
    """Inputs and targets of each row, without what fills it up."""
    ids, weights = packed.batch(seed, first, count)
    assert ids.dtype == np.int32
    assert weights.dtype == np.float32
    assert ids.shape == (count, packed.context + 1)
    assert weights.shape == (count, packed.context)
    rows = []
    for row, weight in zip(ids.tolist(), weights.tolist(), strict=True):
        length = weight.count(1.0)
        assert weight == [1.0] * length + [0.0] * (packed.context - length)
        assert row[length + 1 :] == [END] * (packed.context - length)
        rows.append((row[:length], row[1 : length + 1]))
    return rows


def stream_of(rows: list[tuple[list[int], list[int]]]) -> list[int]:
    """The rows' targets in the order in which the rows were cut.

    All tokens differ, so each row's input begins with the token that the row before it ends on.
    """
    by_first_input = {inputs[0]: (inputs, targets) for inputs, targets in rows}
    assert len(by_first_input) == len(rows)
    stream, last = [], END
    for _ in rows:
        inputs, targets = by_first_input[last]
        assert inputs == [last, *targets[:-1]]
        stream += targets
        last = targets[-1]
    return stream


@settings(max_examples=150, deadline=None)
@given(splits(), st.integers(0, 5), st.integers(0, 3))
def test_an_epoch_is_the_documents_in_some_order_joined_behind_one_end_of_text_and_cut(
    split, seed, epoch
):
    packed = split.packed()
    rows = rows_of(packed, seed, epoch * packed.num_rows, packed.num_rows)
    assert sum(len(targets) < split.context for _, targets in rows) <= 1
    # Nothing is dropped or doubled, and each document is whole.
    stream = stream_of(rows)
    by_first_token = {document[0]: document for document in split.documents}
    joined: list[int] = []
    while len(joined) < len(stream):
        joined += by_first_token.pop(stream[len(joined)])
    assert joined == stream
    assert by_first_token == {}


@settings(max_examples=50, deadline=None)
@given(splits(), st.integers(0, 3), st.data())
def test_rows_are_the_same_however_they_are_fetched(split, seed, data):
    total = 3 * split.packed().num_rows
    ids, weights = split.packed().batch(seed, 0, total)
    packed = split.packed()
    for _ in range(10):
        first = data.draw(st.integers(0, total - 1))
        count = data.draw(st.integers(1, total - first))
        some_ids, some_weights = packed.batch(seed, first, count)
        np.testing.assert_array_equal(some_ids, ids[first : first + count])
        np.testing.assert_array_equal(some_weights, weights[first : first + count])


def test_documents_and_rows_are_shuffled_anew_by_each_seed_and_each_epoch():
    packed = split_of([7] * 40, context=5).packed()
    epochs = [
        rows_of(packed, seed, epoch * packed.num_rows, packed.num_rows)
        for seed in range(3)
        for epoch in range(3)
    ]
    streams = [stream_of(rows) for rows in epochs]
    orders_of_documents = {tuple(stream[::7]) for stream in streams}
    assert len(orders_of_documents) == 9
    orders_of_rows = {
        tuple(stream.index(targets[0]) for _, targets in rows)
        for stream, rows in zip(streams, epochs, strict=True)
    }
    assert len(orders_of_rows) == 9


def test_neighbouring_rows_of_a_document_are_spread_over_the_epoch():
    split = split_of([500], context=5)
    packed = split.packed()
    firsts = [targets[0] for _, targets in rows_of(packed, 0, 0, packed.num_rows)]
    assert sorted(firsts) == list(range(0, 500, 5))
    followed = sum(second == first + 5 for first, second in itertools.pairwise(firsts))
    assert followed < 10


def test_one_document_is_cut_as_it_stands():
    packed = split_of([7], context=3).packed()
    assert packed.num_rows == 3
    assert packed.num_tokens == 7
    rows = sorted(rows_of(packed, seed=0, first=0, count=3), key=lambda row: row[1])
    assert rows == [([END, 0, 1], [0, 1, 2]), ([2, 3, 4], [3, 4, 5]), ([5], [6])]


def test_the_order_stays_what_it_was_so_that_an_old_run_can_go_on():
    packed = split_of([4, 1, 3, 2], context=3).packed()
    ids, _ = packed.batch(seed=7, first=0, count=8)
    assert ids.tolist() == [
        [8, 9, END, END],
        [2, 3, 5, 6],
        [6, 7, 4, 8],
        [END, 0, 1, 2],
        [9, 4, END, END],
        [END, 5, 6, 7],
        [2, 3, 8, 9],
        [7, 0, 1, 2],
    ]


def test_documents_end_with_gpt2s_end_of_text_unless_told_otherwise():
    ids, _ = PackedTokens(np.array([1, 2, 3]), np.array([3]), 3).batch(0, 0, 1)
    assert ids.tolist() == [[50256, 1, 2, 3]]


def test_a_split_of_exactly_one_context_is_enough():
    assert rows_of(split_of([1, 2], context=3).packed(), 0, 0, 1)[0][0][0] == END


def test_a_split_shorter_than_one_context_is_an_error_with_its_size():
    message = "a split must hold at least one context of 6 tokens, got 5 tokens in 2 documents"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        split_of([2, 3], context=6).packed()


def test_an_empty_split_is_an_error():
    with pytest.raises(ValueError, match="got 0 tokens in 0 documents"):
        split_of([], context=6).packed()


def test_lengths_that_do_not_add_up_are_an_error():
    with pytest.raises(ValueError, match="lengths sum to 5, but there are 4 tokens"):
        PackedTokens(np.arange(4), np.array([2, 3]), 2)
