"""GPT-2 one position at a time, with what attention needs of the positions before it kept."""

# Shapes: B prompts, T tokens of the longest prompt, N heads, H head width, D = N * H, V vocabulary,
#         R = B * N heads of all prompts, S slots of each of these, C = R * S slots of the cache.

import tensorflow as tf

from model.attention import Attend, attend_to_earlier
from model.gpt2 import GPT2
from model.one_row import matrix_times_column

# Each block's keys and values, float [C, H] each: S slots for each head of each prompt in turn, of
# which those of the positions seen so far are filled. Flat, as `_overwrite` takes it, so that no
# step reshapes them all.
Cache = list[tuple[tf.Tensor, tf.Tensor]]

# XLA compiles a program for each shape that it meets. Lengths are rounded up to a power of two, at
# least this one, so that GPT-2 with its 1,024 positions makes it meet seven at most.
_LEAST_COMPILED_LENGTH = 16


class Decoder:
    """Gives the logits of the next token, position after position.

    One pass over the prompts fills the cache, then each step feeds one token a row. Rows do not
    touch each other, whatever their lengths: what fills up a shorter prompt lies behind its last
    token, where attention does not look, and its slots are overwritten as the row grows.

    Attributes:
        config: The model's sizes.

    Args:
        model: The model.
        xla: Whether XLA compiles the passes. A server without XLA cannot run them then.
    """

    def __init__(self, model: GPT2, xla: bool = False) -> None:
        self.config = model.config
        self._model = model
        self._xla = xla
        self._prefill = tf.function(self._prefill_pass, jit_compile=xla, autograph=False)
        self._step = tf.function(self._step_pass, jit_compile=xla, autograph=False)
        self._one_row_step = tf.function(self._one_row_step_pass, jit_compile=xla, autograph=False)

    def prefill(
        self, ids_BT: tf.Tensor, lengths_B: tf.Tensor, num_slots: tf.Tensor
    ) -> tuple[tf.Tensor, Cache]:
        """Returns the logits behind each prompt's last token, and the cache.

        Args:
            ids_BT: int32 [B, T]; tokens, whatever they are, behind a prompt's last one too.
            lengths_B: int32 [B], from 1 to T.
            num_slots: The positions that the cache must have room for, at least T.

        Returns:
            float32 [B, V].
            The cache, of `num_slots` slots or more.
        """
        length = tf.shape(ids_BT)[1]
        if self._xla:
            longer = tf.minimum(_rounded(length), self.config.max_length)
            ids_BT = tf.pad(ids_BT, [[0, 0], [0, longer - length]])
            num_slots = _rounded(num_slots)
        logits_BV, keys, values = self._prefill(ids_BT, lengths_B)
        room = [[0, 0], [0, 0], [0, num_slots - tf.shape(ids_BT)[1]], [0, 0]]

        def slots(x_BNTH: tf.Tensor) -> tf.Tensor:
            return tf.reshape(tf.pad(x_BNTH, room), [-1, x_BNTH.shape[3]])

        return logits_BV, [
            (slots(key), slots(value)) for key, value in zip(keys, values, strict=True)
        ]

    def step(
        self, token_B: tf.Tensor, position_B: tf.Tensor, cache: Cache
    ) -> tuple[tf.Tensor, Cache]:
        """Returns the logits behind one more token of each row, and the cache with it.

        Args:
            token_B: int32 [B], B >= 1.
            position_B: int32 [B]: where in its row the token stands.
            cache: As the call before this one gave it. It is overwritten: not to be used again.

        Returns:
            float32 [B, V].
            The cache.
        """
        inputs = token_B, position_B, [key for key, _ in cache], [value for _, value in cache]
        if self._xla:
            # One row has faster products of its own: see model/one_row.py.
            logits_BV, keys, values = tf.cond(
                tf.size(token_B) == 1,
                lambda: self._one_row_step(*inputs),
                lambda: self._step(*inputs),
            )
        else:
            logits_BV, keys, values = self._step(*inputs)
        heads = tf.size(token_B) * self.config.num_heads
        num_slots = tf.shape(cache[0][0])[0] // heads
        slot_R = tf.range(heads) * num_slots + tf.repeat(position_B, self.config.num_heads)
        with tf.control_dependencies([logits_BV]):  # nothing reads the cache any more
            return logits_BV, [
                (_overwrite(key_CH, slot_R, new_key_RH), _overwrite(value_CH, slot_R, new_value_RH))
                for (key_CH, value_CH), new_key_RH, new_value_RH in zip(
                    cache, keys, values, strict=True
                )
            ]

    def cache_shapes(self) -> list[tuple[tf.TensorShape, tf.TensorShape]]:
        """Returns the static shapes of the cache's tensors, for a loop that carries them."""
        shape = tf.TensorShape([None, self.config.embedding_dim // self.config.num_heads])
        return [(shape, shape)] * self.config.num_layers

    def _prefill_pass(
        self, ids_BT: tf.Tensor, lengths_B: tf.Tensor
    ) -> tuple[tf.Tensor, list[tf.Tensor], list[tf.Tensor]]:
        keys, values = [], []

        def attend(query_BTNH: tf.Tensor, key_BTNH: tf.Tensor, value_BTNH: tf.Tensor) -> tf.Tensor:
            keys.append(tf.transpose(key_BTNH, [0, 2, 1, 3]))
            values.append(tf.transpose(value_BTNH, [0, 2, 1, 3]))
            return attend_to_earlier(query_BTNH, key_BTNH, value_BTNH)

        positions_T = tf.range(tf.shape(ids_BT)[1])
        x_BTD = self._through_blocks(ids_BT, positions_T, [attend] * len(self._model.blocks))
        return self._logits(tf.gather(x_BTD, lengths_B - 1, batch_dims=1)), keys, values

    def _step_pass(
        self,
        token_B: tf.Tensor,
        position_B: tf.Tensor,
        past_keys: list[tf.Tensor],
        past_values: list[tf.Tensor],
    ) -> tuple[tf.Tensor, list[tf.Tensor], list[tf.Tensor]]:
        by_head = [tf.size(token_B), self.config.num_heads, -1, past_keys[0].shape[1]]
        past_keys, past_values = (
            [tf.reshape(past_CH, by_head) for past_CH in past] for past in (past_keys, past_values)
        )
        is_past_BS = tf.range(tf.shape(past_keys[0])[2])[None, :] < position_B[:, None]
        bias_B11S = tf.where(is_past_BS, 0.0, -1e9)[:, None, None, :]
        keys, values = [], []

        def attend_to(past_key_BNSH: tf.Tensor, past_value_BNSH: tf.Tensor) -> Attend:
            def attend(
                query_B1NH: tf.Tensor, key_B1NH: tf.Tensor, value_B1NH: tf.Tensor
            ) -> tf.Tensor:
                query_BN1H, key_BN1H, value_BN1H = (
                    tf.transpose(x, [0, 2, 1, 3]) for x in (query_B1NH, key_B1NH, value_B1NH)
                )
                keys.append(tf.reshape(key_B1NH, [-1, key_B1NH.shape[-1]]))
                values.append(tf.reshape(value_B1NH, [-1, value_B1NH.shape[-1]]))
                past_BN1S = tf.matmul(query_BN1H, past_key_BNSH, transpose_b=True)
                own_BN11 = tf.reduce_sum(query_BN1H * key_BN1H, axis=-1, keepdims=True)
                scores = tf.concat(
                    [
                        tf.cast(past_BN1S, tf.float32) + bias_B11S,
                        tf.cast(own_BN11, tf.float32),
                    ],
                    axis=-1,
                )
                weights = tf.cast(tf.nn.softmax(scores), query_B1NH.dtype)
                mixed_BN1H = tf.matmul(weights[..., :-1], past_value_BNSH)
                mixed_BN1H += weights[..., -1:] * value_BN1H
                return tf.transpose(mixed_BN1H, [0, 2, 1, 3])

            return attend

        attends = [attend_to(*past) for past in zip(past_keys, past_values, strict=True)]
        x_B1D = self._through_blocks(token_B[:, None], position_B[:, None], attends)
        return self._logits(x_B1D[:, 0]), keys, values

    def _one_row_step_pass(
        self, token_B: tf.Tensor, position_B: tf.Tensor, *past: list[tf.Tensor]
    ) -> tuple[tf.Tensor, list[tf.Tensor], list[tf.Tensor]]:
        """Does what `_step_pass` does, with its one row known when the graph is built."""
        return self._step_pass(tf.reshape(token_B, [1]), tf.reshape(position_B, [1]), *past)

    def _through_blocks(
        self, ids_BT: tf.Tensor, positions: tf.Tensor, attends: list[Attend]
    ) -> tf.Tensor:
        model = self._model
        x_BTD = model.token_embedding(ids_BT) + model.position_embedding(positions)
        for block, attend in zip(model.blocks, attends, strict=True):
            x_BTD = block(x_BTD, attend=attend)
        return x_BTD

    def _logits(self, x_BD: tf.Tensor) -> tf.Tensor:
        """Returns float32 [B, V]; the large matrix comes first, a third faster for few rows."""
        hidden_BD = self._model.final_norm(x_BD)
        layer = self._model.token_embedding
        if self._model.is_int8 and hidden_BD.shape[0] == 1:
            embedding_VD = tf.convert_to_tensor(layer.embeddings)
            logits_BV = matrix_times_column(embedding_VD, hidden_BD[0])[None]
        else:
            embedding_VD = tf.cast(layer.embeddings, hidden_BD.dtype)
            logits_BV = tf.transpose(tf.matmul(embedding_VD, hidden_BD, transpose_b=True))
        logits_BV = tf.cast(logits_BV, tf.float32)
        return logits_BV / layer.embeddings_scale if self._model.is_int8 else logits_BV


def _overwrite(old_CH: tf.Tensor, slot_R: tf.Tensor, new_RH: tf.Tensor) -> tf.Tensor:
    """Returns `old_CH` with new vectors in one slot of each head of each prompt.

    In place: a compiled program and `tf.tensor_scatter_nd_update` both copy the whole cache, which
    for eight rows of 1,024 positions of GPT-2 124M is 0.6 GB a step.

    Args:
        old_CH: float; what else reads it must have done so.
        slot_R: int32, counted through all prompts and heads.
        new_RH: float.
    """
    return tf.raw_ops.InplaceUpdate(x=old_CH, i=slot_R, v=new_RH)


def _rounded(length: tf.Tensor) -> tf.Tensor:
    """Returns the least power of two that is not below `length` or `_LEAST_COMPILED_LENGTH`."""
    powers = tf.constant([_LEAST_COMPILED_LENGTH * 2**power for power in range(20)])
    return powers[tf.searchsorted(powers, [length])[0]]
