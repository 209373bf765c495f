"""GPT-2's byte-pair merges, in all words at once and at many places of a word at once.

The definition is a walk in single steps: of all neighbours that have a merge, the pair with the
lowest rank, of several the leftmost, becomes one token, until there is none (Sennrich et al. 2016,
section 3.2). A word of 100 KB takes tens of thousands of steps. Here a round merges every pair of
which it is certain that the walk will merge just this pair, sooner or later. Three properties of
the vocabulary, which the tests check, allow to tell:

- A merge's rank is the id of the token that it makes, and higher than the ids of both parts. So
  the walk goes up through the ranks: what a new token may take part in ranks above the merge that
  made it.
- Each token is made of one pair only. (tiktoken would merge any two tokens whose bytes together
  are a token. But up to that merge its walk is its walk over this token's bytes alone, and that
  one ends with the token's own pair.)
- The walk over a token's bytes ends as this token. So no word need be looked up as a whole, as
  tiktoken does first.

Say a gap lies between every two neighbours, and closes when a merge takes in both sides of it. For
tokens a and b beside a gap, `rank` is that of their merge, NEVER if there is none, and `floor` the
lowest rank of all merges that may ever close the gap: those whose left part is a, or has it as its
right part, or as its right part's right part and so on, and whose right part begins with b in the
same way.

The lowest rank at which a gap closes, if what stands right of it is not touched before, is at least

    closes[gap] = max(floor[gap], min(rank[gap], closes[gap to the left] + 1))

because either nothing has changed on its left, or the gap there was closed by a merge before, and
ranks go up. `floor` alone is a bound too, so we start from it and look but a few gaps far. From the
other side it is the same. The walk is certain to merge a pair when the gap on its left closes later
than at the pair's own rank, and the gap on its right no sooner (of equal ranks the leftmost goes
first): until then nothing touches the two. To merge them ahead of time changes nothing for others,
because what the new token may take part in ranks higher still.

Neighbouring gaps of one rank are one token repeated, a a a a: the walk merges the first two, the
third and fourth and so on, if the gap before the first lets it.
"""

# Shapes: T tokens of all words, one word behind the other. Gap t lies behind token t.

import functools

import numpy as np
import tensorflow as tf

from model.tokenizer import VOCAB_SIZE, gpt2_merges

NEVER = VOCAB_SIZE  # a rank above all others

# How many gaps a round looks to the left and to the right. Any number gives the same tokens: with 8
# a word of 20,000 random letters takes 5 rounds, with 4 it takes 12, with 2 already 129.
_HOPS = 8


class BytePairs(tf.Module):
    """GPT-2's merges as a table of all pairs that may ever join, sorted, to be searched by halves.

    A `tf.lookup.StaticHashTable` takes a fifth less time, but its memory is not given back when a
    SavedModel that `tf.saved_model.load` read is dropped: 5 MB for each version of a model that a
    server replaces.
    """

    def __init__(self) -> None:
        super().__init__()
        pairs, ranks, floors = _pairs().T
        # The last one is found for pairs beyond all others and is none of them.
        self._pairs = tf.constant(np.append(pairs, VOCAB_SIZE**2), tf.int64)
        self._ranks = tf.constant(np.append(ranks, NEVER), tf.int32)
        self._floors = tf.constant(np.append(floors, NEVER), tf.int32)

    def merge(self, ids_T: tf.Tensor, is_last_T: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the tokens after all merges, and the place in `ids_T` where each of them ends.

        Args:
            ids_T: int32 [T]: the tokens of single bytes.
            is_last_T: bool [T]: whether the byte is the last of its word.
        """

        def merge_certain(
            ids_T: tf.Tensor, end_T: tf.Tensor, _: tf.Tensor
        ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            rank_T, floor_T = self._gaps(ids_T, tf.gather(is_last_T, end_T))
            is_merged_T = certain_merges(rank_T, floor_T)
            # The right one of two becomes both, the left one goes.
            ids_T = tf.where(tf.roll(is_merged_T, 1, 0), tf.roll(rank_T, 1, 0), ids_T)
            kept = tf.where(~is_merged_T)[:, 0]
            return tf.gather(ids_T, kept), tf.gather(end_T, kept), tf.reduce_any(is_merged_T)

        any_length = tf.TensorShape([None])
        ids_T, end_T, _ = tf.while_loop(
            lambda _ids, _end, goes_on: goes_on,
            merge_certain,
            [ids_T, tf.range(tf.size(ids_T)), tf.size(ids_T) > 0],
            shape_invariants=[any_length, any_length, tf.TensorShape([])],
        )
        return ids_T, end_T

    def _gaps(self, ids_T: tf.Tensor, is_last_T: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns int32 [T] twice: rank and floor of the gap behind each token."""
        left_T = tf.cast(ids_T, tf.int64)
        pair_T = left_T * VOCAB_SIZE + tf.roll(left_T, -1, 0)
        place_T = tf.searchsorted(self._pairs, pair_T)
        is_pair_T = ~is_last_T & (tf.gather(self._pairs, place_T) == pair_T)
        rank_T = tf.where(is_pair_T, tf.gather(self._ranks, place_T), NEVER)
        return rank_T, tf.where(is_pair_T, tf.gather(self._floors, place_T), NEVER)


def certain_merges(rank_T: tf.Tensor, floor_T: tf.Tensor) -> tf.Tensor:
    """Returns bool [T]: the gaps to close now, never two neighbours; none if all ranks are NEVER.

    Args:
        rank_T: int32 [T]: of each gap, as the head of this file says. The last one is NEVER, so
            that it may stand before the first, where rolling takes it.
        floor_T: int32 [T]: likewise.
    """
    from_left_T = from_right_T = floor_T
    for _ in range(_HOPS):
        from_left_T = tf.maximum(floor_T, tf.minimum(rank_T, tf.roll(from_left_T, 1, 0) + 1))
        from_right_T = tf.maximum(floor_T, tf.minimum(rank_T, tf.roll(from_right_T, -1, 0) + 1))
    is_free_left_T = tf.roll(from_left_T, 1, 0) > rank_T
    is_free_right_T = tf.roll(from_right_T, -1, 0) >= rank_T

    # Of gaps with one rank, every second one from their first, where the left side is decided.
    starts_T = (rank_T != tf.roll(rank_T, 1, 0)) | (rank_T == NEVER)
    places = tf.where(starts_T)[:, 0]
    first_T = tf.gather(places, tf.cumsum(tf.cast(starts_T, tf.int32)) - 1)
    is_even_T = (tf.range(tf.size(rank_T), dtype=tf.int64) - first_T) % 2 == 0
    is_certain_T = tf.gather(is_free_left_T, first_T) & is_free_right_T
    # Nothing comes before the lowest of all, so that no round is in vain.
    is_lowest_T = rank_T == tf.reduce_min(rank_T)
    return (rank_T < NEVER) & is_even_T & (is_certain_T | is_lowest_T)


@functools.cache
def _pairs() -> np.ndarray:
    """Returns int64 [pairs, 3]: left * VOCAB_SIZE + right, rank and floor of each pair, sorted."""
    parts = {merged: (left, right) for left, right, merged in gpt2_merges()}
    ranks = {left * VOCAB_SIZE + right: merged for merged, (left, right) in parts.items()}
    floors: dict[int, int] = {}
    for merged, (left, right) in parts.items():  # from the lowest rank up
        for ends_left in _spine(left, 1, parts):
            for begins_right in _spine(right, 0, parts):
                floors.setdefault(ends_left * VOCAB_SIZE + begins_right, merged)
    return np.array(
        [(pair, ranks.get(pair, NEVER), floor) for pair, floor in sorted(floors.items())], np.int64
    )


def _spine(token: int, side: int, parts: dict[int, tuple[int, int]]) -> list[int]:
    """Returns the token, its part on this side (0 left, 1 right), that one's part, and so on."""
    spine = [token]
    while token in parts:
        token = parts[token][side]
        spine.append(token)
    return spine
