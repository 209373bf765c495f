"""Text generation: prompts of any lengths side by side, one more token of each at a time."""

# Shapes: B prompts, T tokens of the longest prompt, N new tokens, L = T + N + 1, V vocabulary.

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from model.checks import check, check_lengths
from model.decoder import Cache, Decoder
from model.sampling import Sampling, sample
from model.tokenizer import END_OF_TEXT

# From new tokens [B, N] and how many of them each row has, [B], to the rows that end here, [B].
HasStopped = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


class _Rows(NamedTuple):
    """The rows: ids [B, L], how many of them are new [B], which ended of themselves [B]."""

    ids: tf.Tensor
    count: tf.Tensor
    stopped: tf.Tensor


class _Task(NamedTuple):
    """What is the same at every token: tokens of each prompt [B], how many to add at most [B]."""

    lengths: tf.Tensor
    max_new_tokens: tf.Tensor
    sampling: Sampling
    has_stopped: HasStopped | None

    def is_open(self, rows: _Rows) -> tf.Tensor:
        """Returns bool [B]: which rows get another token."""
        return ~rows.stopped & (rows.count < self.max_new_tokens)

    def new_ids(self, rows: _Rows) -> tf.Tensor:
        """Returns int32 [B, N]: what was added."""
        offset_BN = tf.range(_largest(rows.count))[None, :]
        return tf.gather(rows.ids, self.lengths[:, None] + offset_BN, batch_dims=1)

    def last_tokens(self, rows: _Rows) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns each row's last token and its position, int32 [B] both."""
        last_B = self.lengths + rows.count - 1
        return tf.gather(rows.ids, last_B, batch_dims=1), last_B

    def add_token(self, logits_BV: tf.Tensor, rows: _Rows) -> _Rows:
        """Returns the rows with one more token, chosen by `logits_BV`, float32 [B, V]."""
        end_B = self.lengths + rows.count
        token_B = sample(logits_BV, rows.ids, end_B, self.sampling)
        is_end_B = self.is_open(rows) & (token_B == END_OF_TEXT)
        is_new_B = self.is_open(rows) & ~is_end_B
        written_B = tf.where(is_new_B, token_B, tf.gather(rows.ids, end_B, batch_dims=1))
        place_B2 = tf.stack([tf.range(tf.size(end_B)), end_B], axis=1)
        rows = _Rows(
            tf.tensor_scatter_nd_update(rows.ids, place_B2, written_B),
            rows.count + tf.cast(is_new_B, tf.int32),
            rows.stopped | is_end_B,
        )
        if self.has_stopped is None:
            return rows
        stopped_B = is_new_B & self.has_stopped(self.new_ids(rows), rows.count)
        return rows._replace(stopped=rows.stopped | stopped_B)


def generate(
    decoder: Decoder,
    ids_BT: tf.Tensor,
    lengths_B: tf.Tensor,
    max_new_tokens_B: tf.Tensor,
    sampling: Sampling,
    truncate_B: tf.Tensor | bool = False,
    has_stopped: HasStopped | None = None,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Continues each prompt until `<|endoftext|>`, its number of new tokens, or what else ends it.

    Every row gets what it would get alone.

    Args:
        decoder: The model.
        ids_BT: int32 [B, T]: prompts; what stands beyond a row's length is ignored.
        lengths_B: int32 [B]: tokens of each prompt, at least 1.
        max_new_tokens_B: int32 [B].
        sampling: How tokens are chosen.
        truncate_B: bool [B] or []: whether a prompt that leaves too little room for the new tokens
            loses its first ones, all but the last if need be.
        has_stopped: If given, is asked behind each token which rows end with it.

    Returns:
        int32 [B, N]: the new tokens, 0 beyond a row's length, without `<|endoftext|>`.
        int32 [B]: how many there are.
        bool [B]: whether the row ended of itself, not by its number of new tokens.

    Raises:
        tf.errors.InvalidArgumentError: When it runs: a prompt is empty or longer than its row, an
            id is no token, prompt and new tokens exceed the context, or a sampling parameter is
            out of range.
    """
    context = decoder.config.max_length
    with tf.control_dependencies(_check_prompts(ids_BT, lengths_B, decoder.config.vocab_size)):
        room_B = tf.where(truncate_B, context - max_new_tokens_B, lengths_B)
        ids_BT, lengths_B = _keep_last(ids_BT, lengths_B, room_B)
    checks = _check_room(lengths_B, max_new_tokens_B, context) + sampling.checks()
    with tf.control_dependencies(checks):
        ids_BT = tf.identity(ids_BT)  # so that what is too long never reaches the model
        longest = _largest(max_new_tokens_B)

    task = _Task(lengths_B, max_new_tokens_B, sampling, has_stopped)

    def step(rows: _Rows, cache: Cache) -> tuple[_Rows, Cache]:
        # A row that is done feeds its last token again, which changes nothing.
        logits_BV, cache = decoder.step(*task.last_tokens(rows), cache)
        return task.add_token(logits_BV, rows), cache

    logits_BV, cache = decoder.prefill(ids_BT, lengths_B, tf.shape(ids_BT)[1] + longest)
    # One column more than there are tokens: a row that is done is written to as well.
    ids_BL = tf.pad(ids_BT, [[0, 0], [0, longest + 1]])
    rows = _Rows(ids_BL, tf.zeros_like(lengths_B), tf.zeros_like(lengths_B, tf.bool))
    any_number = tf.TensorShape([None])
    rows, _ = tf.while_loop(
        lambda rows, cache: tf.reduce_any(task.is_open(rows)),
        step,
        [task.add_token(logits_BV, rows), cache],
        shape_invariants=[
            _Rows(tf.TensorShape([None, None]), any_number, any_number),
            decoder.cache_shapes(),
        ],
        parallel_iterations=1,
    )
    return task.new_ids(rows), rows.count, rows.stopped


def _keep_last(
    ids_BT: tf.Tensor, lengths_B: tf.Tensor, room_B: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns prompts without their first tokens where these exceed the room, and their lengths.

    At least one token is left of each. What fills up a row is 0: it may have been no token at all,
    and the embedding looks every id up.
    """
    kept_B = tf.clip_by_value(room_B, 1, lengths_B)
    column_T = tf.range(tf.maximum(_largest(kept_B), 1))
    is_token_BT = column_T[None, :] < kept_B[:, None]
    source_BT = tf.where(is_token_BT, column_T[None, :] + (lengths_B - kept_B)[:, None], 0)
    return tf.where(is_token_BT, tf.gather(ids_BT, source_BT, batch_dims=1), 0), kept_B


def _check_prompts(ids_BT: tf.Tensor, lengths_B: tf.Tensor, vocab_size: int) -> list[tf.Operation]:
    is_token_BT = tf.sequence_mask(lengths_B, tf.shape(ids_BT)[1])
    is_wrong_BT = is_token_BT & ((ids_BT < 0) | (ids_BT >= vocab_size))
    return [
        *check_lengths(ids_BT, lengths_B, least=1),
        check(
            ~tf.reduce_any(is_wrong_BT),
            "ids must be from 0 to {}, got {}",
            [vocab_size - 1, tf.boolean_mask(ids_BT, is_wrong_BT)],
        ),
    ]


def _check_room(
    lengths_B: tf.Tensor, max_new_tokens_B: tf.Tensor, context: int
) -> list[tf.Operation]:
    room_B = context - lengths_B
    too_long = tf.where(max_new_tokens_B > room_B)[:, 0]

    def first_of(values_B: tf.Tensor) -> tf.Tensor:
        """Returns the value of the first row that is too long; 0 if none is."""
        return tf.concat([tf.gather(values_B, too_long), [0]], axis=0)[0]

    return [
        check(
            tf.reduce_all(max_new_tokens_B >= 0),
            "max_new_tokens must be >= 0, got {}",
            [max_new_tokens_B],
        ),
        check(
            tf.reduce_all(max_new_tokens_B <= room_B),
            "a prompt of {} tokens and {} new tokens exceed the context of {} tokens",
            [first_of(lengths_B), first_of(max_new_tokens_B), context],
        ),
    ]


def _largest(values_B: tf.Tensor) -> tf.Tensor:
    """Returns the largest value, at least 0, also of a batch without rows."""
    return tf.reduce_max(tf.concat([values_B, [0]], axis=0))
