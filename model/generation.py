"""Text generation: greedy or sampled, one token at a time."""

# Shapes: B prompts, T tokens of the longest prompt, N new tokens, L = T + N, V vocabulary.

import tensorflow as tf

from model.gpt2 import GPT2
from model.tokenizer import END_OF_TEXT


def generate(
    model: GPT2,
    ids_BT: tf.Tensor,
    lengths_B: tf.Tensor,
    max_new_tokens_B: tf.Tensor,
    temperature_B: tf.Tensor,
    top_k_B: tf.Tensor,
    top_p_B: tf.Tensor,
    seed_B: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Continues each prompt until `<|endoftext|>` or its number of new tokens.

    Rows do not touch each other: attention is causal and each row's next token is written
    right behind its last one, so what fills up a shorter row is never seen. Every row has its
    own seed, and the same seed gives the same text whatever else is in the batch.

    Args:
        model: The model.
        ids_BT: int32 [B, T]: prompts; what stands beyond a row's length is ignored.
        lengths_B: int32 [B]: tokens of each prompt, at least 1.
        max_new_tokens_B: int32 [B].
        temperature_B: float32 [B]: divides the logits; 0 takes the likeliest token.
        top_k_B: int32 [B]: sample from the k likeliest tokens; 0 from all.
        top_p_B: float32 [B]: sample from the likeliest tokens that together reach this
            probability (Holtzman et al. 2020, section 3.1); 1 from all.
        seed_B: int32 [B].

    Returns:
        int32 [B, N]: the new tokens, 0 beyond a row's length, without `<|endoftext|>`.
        int32 [B]: how many there are.

    Raises:
        tf.errors.InvalidArgumentError: When it runs: a prompt is empty or longer than its row,
            prompt and new tokens exceed the context, or a sampling parameter is out of range.
    """
    checks = _check_lengths(ids_BT, lengths_B, max_new_tokens_B, model.config.max_length)
    checks += _check_sampling(temperature_B, top_k_B, top_p_B)
    with tf.control_dependencies(checks):
        batch = tf.shape(ids_BT)[0]
        longest = tf.reduce_max(max_new_tokens_B)
    # What fills up a row may be no token at all, and the embedding looks every id up. The zeros
    # also stand behind a continuation that is shorter than others.
    ids_BT = tf.where(tf.sequence_mask(lengths_B, tf.shape(ids_BT)[1]), ids_BT, 0)
    ids_BL = tf.pad(ids_BT, [[0, 0], [0, longest]])
    rows_B = tf.range(batch)

    def is_unfinished(
        step: tf.Tensor, _ids: tf.Tensor, _count: tf.Tensor, done_B: tf.Tensor
    ) -> tf.Tensor:
        return tf.logical_and(step < longest, tf.logical_not(tf.reduce_all(done_B)))

    def add_token(
        step: tf.Tensor, ids_BL: tf.Tensor, count_B: tf.Tensor, done_B: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        end_B = lengths_B + count_B
        hidden_BTD = model.hidden_states(ids_BL[:, : tf.reduce_max(end_B)])
        logits_BV = model.project(tf.gather(hidden_BTD, end_B - 1, batch_dims=1))
        token_B = sample(logits_BV, temperature_B, top_k_B, top_p_B, seed_B, step)
        done_B |= token_B == END_OF_TEXT
        written_B = tf.where(done_B, tf.gather(ids_BL, end_B, batch_dims=1), token_B)
        ids_BL = tf.tensor_scatter_nd_update(ids_BL, tf.stack([rows_B, end_B], 1), written_B)
        count_B += tf.cast(~done_B, tf.int32)
        return step + 1, ids_BL, count_B, done_B | (count_B >= max_new_tokens_B)

    _, ids_BL, count_B, _ = tf.while_loop(
        is_unfinished,
        add_token,
        [0, tf.pad(ids_BL, [[0, 0], [0, 1]]), tf.zeros_like(lengths_B), max_new_tokens_B == 0],
        shape_invariants=[
            tf.TensorShape([]),
            tf.TensorShape([None, None]),
            tf.TensorShape([None]),
            tf.TensorShape([None]),
        ],
    )
    offset_BN = tf.range(tf.reduce_max(count_B))[None, :]
    return tf.gather(ids_BL, lengths_B[:, None] + offset_BN, batch_dims=1), count_B


def sample(
    logits_BV: tf.Tensor,
    temperature_B: tf.Tensor,
    top_k_B: tf.Tensor,
    top_p_B: tf.Tensor,
    seed_B: tf.Tensor,
    step: tf.Tensor,
) -> tf.Tensor:
    """Returns int32 [B]: one token a row, a function of that row's logits, seed and step alone.

    The arguments are those of `generate`; `step` counts the new tokens before this one. Sampling
    takes the largest of logits plus Gumbel noise, which is a draw from their softmax (Maddison
    et al. 2014). Top-p counts what top-k has left.
    """
    vocab_size = tf.shape(logits_BV)[1]
    never = tf.float32.min
    greedy_B = tf.argmax(logits_BV, axis=-1, output_type=tf.int32)
    # From the largest down, so that no temperature takes them beyond what float32 holds.
    below_BV = logits_BV - tf.reduce_max(logits_BV, axis=-1, keepdims=True)
    scaled_BV = below_BV / tf.where(temperature_B > 0, temperature_B, 1.0)[:, None]
    order_BV = tf.argsort(scaled_BV, direction="DESCENDING", stable=True)
    sorted_BV = tf.gather(scaled_BV, order_BV, batch_dims=1)
    top_k_B = tf.where(top_k_B > 0, top_k_B, vocab_size)
    sorted_BV = tf.where(tf.range(vocab_size)[None, :] < top_k_B[:, None], sorted_BV, never)
    probability_BV = tf.nn.softmax(sorted_BV)
    likelier_BV = tf.cumsum(probability_BV, axis=-1, exclusive=True)
    is_kept_BV = (likelier_BV < top_p_B[:, None]) | (top_p_B[:, None] >= 1)
    sorted_BV = tf.where(is_kept_BV, sorted_BV, never)
    choice_B = tf.argmax(sorted_BV + _gumbel_noise(seed_B, step, vocab_size), axis=-1)
    sampled_B = tf.gather(order_BV, choice_B, batch_dims=1)
    return tf.where(temperature_B > 0, sampled_B, greedy_B)


def _gumbel_noise(seed_B: tf.Tensor, step: tf.Tensor, vocab_size: tf.Tensor) -> tf.Tensor:
    """Returns float32 [B, V], each row a function of its seed and the step."""

    def of_row(seed: tf.Tensor) -> tf.Tensor:
        tiny = 1e-20  # keeps the logarithms finite
        uniform_V = tf.random.stateless_uniform([vocab_size], tf.stack([seed, step]))
        return -tf.math.log(-tf.math.log(uniform_V + tiny) + tiny)

    return tf.map_fn(of_row, seed_B, fn_output_signature=tf.TensorSpec([None], tf.float32))


def _check_lengths(
    ids_BT: tf.Tensor, lengths_B: tf.Tensor, max_new_tokens_B: tf.Tensor, context: int
) -> list[tf.Operation]:
    room_B = context - lengths_B
    first = tf.argmax(tf.cast(max_new_tokens_B > room_B, tf.int32))
    return [
        _check(
            tf.reduce_all(lengths_B >= 1) & tf.reduce_all(lengths_B <= tf.shape(ids_BT)[1]),
            "lengths must be from 1 to the {} columns of ids, got {}",
            [tf.shape(ids_BT)[1], lengths_B],
        ),
        _check(
            tf.reduce_all(max_new_tokens_B >= 0),
            "max_new_tokens must be >= 0, got {}",
            [max_new_tokens_B],
        ),
        _check(
            tf.reduce_all(max_new_tokens_B <= room_B),
            "a prompt of {} tokens and {} new tokens exceed the context of {} tokens",
            [tf.gather(lengths_B, first), tf.gather(max_new_tokens_B, first), context],
        ),
    ]


def _check_sampling(
    temperature_B: tf.Tensor, top_k_B: tf.Tensor, top_p_B: tf.Tensor
) -> list[tf.Operation]:
    return [
        _check(
            tf.reduce_all(temperature_B >= 0), "temperature must be >= 0, got {}", [temperature_B]
        ),
        _check(tf.reduce_all(top_k_B >= 0), "top_k must be >= 0, got {}", [top_k_B]),
        _check(
            tf.reduce_all((top_p_B > 0) & (top_p_B <= 1)),
            "top_p must be in (0, 1], got {}",
            [top_p_B],
        ),
    ]


def _check(holds: tf.Tensor, message: str, values: list) -> tf.Operation:
    return tf.debugging.Assert(holds, [tf.strings.format(message, values)])
