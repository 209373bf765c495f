"""Cross-entropy of the next token, computed without ever holding the [B, T, V] logits.

For GPT-2's vocabulary the logits are by far the largest tensor of a training step: 50,257
floats a token against a width of 768. Softmax and cross-entropy read and write them several
times over, so that on a CPU the plain loss takes longer than all matrix products together.
Here positions go through projection and softmax in chunks. Since the loss is a plain sum, its
gradient is known up to a factor as soon as a chunk's probabilities are, so a chunk's gradients
are made in the same pass and nothing is kept or computed again.
"""

# Shapes: B batch, T positions, D embedding width, V vocabulary, N = B * T rounded up to whole
# chunks, C positions in a chunk, K = N / C chunks.

from collections.abc import Callable

import tensorflow as tf

from model.compilation import Compilation, compiled


def summed_cross_entropy(
    hidden_BTD: tf.Tensor,
    embedding_VD: tf.Tensor,
    targets_BT: tf.Tensor,
    weights_BT: tf.Tensor,
    chunk_size: int = 512,
    vocab_multiple: int = 1,
    compilation: Compilation = "none",
) -> tf.Tensor:
    """Returns the weighted sum over positions of -log p(target), with gradients.

    Logits are hidden_BTD @ transpose(embedding_VD), as in `GPT2.logits`: the products are made in
    the inputs' type, softmax and sums in float32. Gradients flow to the first two arguments.

    Args:
        hidden_BTD: float [B, T, D], shape known when the graph is built.
        embedding_VD: float [V, D], a tensor (read a variable first).
        targets_BT: int [B, T].
        weights_BT: float32 [B, T]: 0 leaves a position out.
        chunk_size: positions whose logits exist at one time.
        vocab_multiple: the products are made for V rounded up to a multiple of this, which tensor
            cores like; rows of zeros are added here, and their ids get no probability.
        compilation: How much of the caller XLA compiles.

    Returns:
        float32 scalar, nats.
    """
    width = hidden_BTD.shape[-1]
    positions = hidden_BTD.shape[0] * hidden_BTD.shape[1]
    chunk_size = min(chunk_size, positions)
    missing = -positions % chunk_size
    vocab_size = embedding_VD.shape[0]
    added = -vocab_size % vocab_multiple
    embedding_VD = tf.pad(embedding_VD, [[0, added], [0, 0]]) if added else embedding_VD
    targets_KC = tf.reshape(tf.pad(tf.reshape(targets_BT, [-1]), [[0, missing]]), [-1, chunk_size])
    weights_KC = tf.reshape(tf.pad(tf.reshape(weights_BT, [-1]), [[0, missing]]), [-1, chunk_size])

    @tf.custom_gradient
    def cross_entropy(
        hidden_KCD: tf.Tensor, embedding_VD: tf.Tensor
    ) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]]:
        loss, d_hidden_KCD, d_embedding_VD = _loss_and_gradients(
            hidden_KCD, embedding_VD, targets_KC, weights_KC, vocab_size, compilation
        )

        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return (
                tf.cast(upstream * _float32(d_hidden_KCD), d_hidden_KCD.dtype),
                tf.cast(upstream * d_embedding_VD, embedding_VD.dtype),
            )

        return loss, gradient

    hidden_ND = tf.pad(tf.reshape(hidden_BTD, [-1, width]), [[0, missing], [0, 0]])
    return cross_entropy(tf.reshape(hidden_ND, [-1, chunk_size, width]), embedding_VD)


def _loss_and_gradients(
    hidden_KCD: tf.Tensor,
    embedding_VD: tf.Tensor,
    targets_KC: tf.Tensor,
    weights_KC: tf.Tensor,
    vocab_size: int,
    compilation: Compilation,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns the loss and its gradients to the first two arguments, one chunk after another.

    Args:
        hidden_KCD: float.
        embedding_VD: As `_chunk_loss` takes it.
        targets_KC: int.
        weights_KC: float32.
        vocab_size: As `_chunk_loss` takes it.
        compilation: As `summed_cross_entropy` takes it.

    Returns:
        float32 scalar, nats; float [K, C, D]; float32 [V, D].
    """
    # The body of a loop is a graph of its own, to which the caller's marks do not reach.
    by_pieces = compilation == "around_products"
    chunk_loss = compiled(_chunk_loss, compilation) if by_pieces else _chunk_loss

    def add_chunk(
        k: tf.Tensor, loss: tf.Tensor, d_hidden_KCD: tf.Tensor, d_embedding_VD: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        loss_of_chunk, d_hidden_CD, chunk_d_embedding_VD = chunk_loss(
            hidden_KCD[k], embedding_VD, targets_KC[k], weights_KC[k][:, None], vocab_size
        )
        return (
            k + 1,
            loss + loss_of_chunk,
            tf.tensor_scatter_nd_update(d_hidden_KCD, [[k]], d_hidden_CD[None]),
            d_embedding_VD + chunk_d_embedding_VD,
        )

    _, loss, d_hidden_KCD, d_embedding_VD = tf.while_loop(
        lambda k, *_: k < targets_KC.shape[0],
        add_chunk,
        [0, 0.0, tf.zeros_like(hidden_KCD), tf.zeros(embedding_VD.shape, tf.float32)],
        parallel_iterations=1,  # more would hold several chunks' logits at once
    )
    # The targets' part, which `_chunk_loss` leaves out: one scatter for all chunks.
    d_embedding_VD = tf.tensor_scatter_nd_sub(
        d_embedding_VD,
        tf.reshape(targets_KC, [-1, 1]),
        tf.reshape(_float32(hidden_KCD) * weights_KC[..., None], [-1, hidden_KCD.shape[-1]]),
    )
    return loss, d_hidden_KCD, d_embedding_VD


def _chunk_loss(
    hidden_CD: tf.Tensor,
    embedding_VD: tf.Tensor,
    target_C: tf.Tensor,
    weight_C1: tf.Tensor,
    vocab_size: int,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns a chunk's loss, its gradient to the hidden states, and most of the embedding's.

    d nll / d logits = probabilities - one_hot(target). To a hidden state the one_hot part is a row
    of the embedding; to the embedding it is left out here.

    Args:
        hidden_CD: float.
        embedding_VD: float, from `vocab_size` on rows of zeros, which get no probability.
        target_C: int.
        weight_C1: float32.
        vocab_size: How many rows are tokens.

    Returns:
        float32 scalar, nats; float [C, D]; float32 [V, D].
    """
    logits_CV = _float32(tf.matmul(hidden_CD, embedding_VD, transpose_b=True))
    rows = embedding_VD.shape[0]
    if rows > vocab_size:
        logits_CV += tf.where(tf.range(rows) < vocab_size, 0.0, -1e9)
    largest_C1 = tf.reduce_max(logits_CV, axis=-1, keepdims=True)
    exponents_CV = tf.exp(logits_CV - largest_C1)
    sums_C1 = tf.reduce_sum(exponents_CV, axis=-1, keepdims=True)
    # One of the logits, rounded as they all are in 16 bits: else a loss might be below zero.
    target_logit_C1 = tf.gather(logits_CV, target_C[:, None], batch_dims=1)
    nll_C1 = largest_C1 + tf.math.log(sums_C1) - target_logit_C1
    probabilities_CV = tf.cast(exponents_CV * (weight_C1 / sums_C1), hidden_CD.dtype)
    d_hidden_CD = tf.matmul(probabilities_CV, embedding_VD)
    d_hidden_CD -= tf.cast(weight_C1, hidden_CD.dtype) * tf.gather(embedding_VD, target_C)
    d_embedding_VD = _float32(tf.matmul(probabilities_CV, hidden_CD, transpose_a=True))
    return tf.reduce_sum(weight_C1 * nll_C1), d_hidden_CD, d_embedding_VD


def token_nll(
    hidden_ND: tf.Tensor,
    embedding_VD: tf.Tensor,
    targets_N: tf.Tensor,
    chunk_size: int = 512,
) -> tf.Tensor:
    """Returns float32 [N]: -log p(target) in nats of each position; for scoring, no gradient.

    Args:
        hidden_ND: float [N, D]; N may be unknown when the graph is built.
        embedding_VD: float [V, D].
        targets_N: int [N].
        chunk_size: positions whose logits exist at one time.
    """
    positions = tf.shape(hidden_ND)[0]
    missing = -positions % chunk_size
    hidden_KCD = tf.reshape(
        tf.pad(hidden_ND, [[0, missing], [0, 0]]), [-1, chunk_size, hidden_ND.shape[-1]]
    )
    targets_KC = tf.reshape(tf.pad(targets_N, [[0, missing]]), [-1, chunk_size])

    def chunk_nll(chunk: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        hidden_CD, target_C = chunk
        logits_CV = _float32(tf.matmul(hidden_CD, embedding_VD, transpose_b=True))
        return tf.nn.sparse_softmax_cross_entropy_with_logits(target_C, logits_CV)

    nll_KC = tf.map_fn(
        chunk_nll,
        (hidden_KCD, targets_KC),
        fn_output_signature=tf.TensorSpec([chunk_size], tf.float32),
        parallel_iterations=1,  # more would hold several chunks' logits at once
    )
    return tf.reshape(nll_KC, [-1])[:positions]


def _float32(x: tf.Tensor) -> tf.Tensor:
    return tf.cast(x, tf.float32)
