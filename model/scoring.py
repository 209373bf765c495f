"""The likelihood of documents of any length, by windows that slide over them."""

# Shapes: M documents, W windows, G windows at a time, C context, N positions.

import tensorflow as tf

from model.gpt2 import GPT2
from model.loss import token_nll
from model.tokenizer import END_OF_TEXT

# Positions that go through the model at a time: bounds the memory, whatever the batch holds.
_POSITIONS_AT_A_TIME = 2048


def document_nll(model: GPT2, documents: tf.RaggedTensor, stride: int) -> tf.Tensor:
    """Returns for each document the sum of -log p over all its tokens, each predicted once.

    A document's first token is predicted from `<|endoftext|>`, as in training. Windows of at
    most `max_length` tokens begin `stride` tokens apart; the first predicts all that it covers,
    a later one just the last `stride` positions, so that each of those sees at least
    `max_length - stride` tokens before it. With stride = max_length the windows are disjoint.

    Args:
        model: The model.
        documents: int ragged [M, (tokens)], each document ending with `<|endoftext|>`.
        stride: Tokens from one window's begin to the next, at most the model's `max_length`.

    Returns:
        float64 [M], nats.

    Raises:
        ValueError: `stride` is out of its range.
    """
    context = model.config.max_length
    if not 1 <= stride <= context:
        raise ValueError(f"stride must be in [1, max_length={context}], got {stride}")
    targets_N = tf.cast(documents.values, tf.int32)
    inputs_N = _shift_right(documents)
    first_M = tf.cast(documents.row_starts(), tf.int32)
    length_M = tf.cast(documents.row_lengths(), tf.int32)

    windows_M = 1 + tf.maximum(0, length_M - context + stride - 1) // stride
    document_W = tf.repeat(tf.range(tf.size(windows_M)), windows_M)
    index_W = tf.ragged.range(windows_M).values
    group_size = max(1, _POSITIONS_AT_A_TIME // context)
    # Windows that fill up the last group lie behind every document's end and score nothing.
    missing = -tf.size(document_W) % group_size
    document_W = tf.pad(document_W, [[0, missing]])
    index_W = tf.pad(index_W, [[0, missing]], constant_values=tf.int32.max // stride)

    def group_nll(group: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        document_G, index_G = group
        begin_G = index_G * stride
        left_G = tf.gather(length_M, document_G) - begin_G
        width = tf.clip_by_value(tf.reduce_max(left_G), 1, context)
        offset_GT = tf.broadcast_to(tf.range(width), [group_size, width])
        inside_GT = offset_GT < left_G[:, None]
        position_GT = tf.gather(first_M, document_G)[:, None] + begin_G[:, None] + offset_GT
        position_GT = tf.where(inside_GT, position_GT, 0)
        is_scored_GT = inside_GT & ((index_G == 0)[:, None] | (offset_GT >= context - stride))

        hidden_GTD = model.hidden_states(tf.gather(inputs_N, position_GT))
        nll_N = token_nll(
            tf.boolean_mask(hidden_GTD, is_scored_GT),
            model.output_embedding(),
            tf.gather(targets_N, tf.boolean_mask(position_GT, is_scored_GT)),
        )
        window_N = tf.where(is_scored_GT)[:, 0]
        return tf.math.unsorted_segment_sum(tf.cast(nll_N, tf.float64), window_N, group_size)

    nll_KG = tf.map_fn(
        group_nll,
        (tf.reshape(document_W, [-1, group_size]), tf.reshape(index_W, [-1, group_size])),
        fn_output_signature=tf.TensorSpec([group_size], tf.float64),
        parallel_iterations=1,
    )
    return tf.math.unsorted_segment_sum(tf.reshape(nll_KG, [-1]), document_W, tf.size(windows_M))


def _shift_right(documents: tf.RaggedTensor) -> tf.Tensor:
    """Returns int32 [N]: for each token of the documents the one before it."""
    start = tf.fill([documents.nrows(), 1], tf.constant(END_OF_TEXT, documents.dtype))
    return tf.cast(tf.concat([start, documents], axis=1)[:, :-1].values, tf.int32)
