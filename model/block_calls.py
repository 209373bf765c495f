"""Calls a model's blocks through two compiled programs, forward and backward, that all share."""

# Shapes: B batch, T positions, P = B * T, D embedding width, N heads, H head width.

import contextlib
from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from model.attention import attend_to_earlier
from model.compilation import Compilation, compiled
from model.kept import given, keeping
from model.training_config import Recompute
from model.transformer_block import TransformerBlock


class BlockCalls:
    """Calls any of some blocks of the same sizes, in training, with a gradient of its own.

    Of a model that is compiled as a whole XLA compiles every block: a first step of GPT-2's 12 took
    17 s and 0.7 GB for it. Programs that take a block's weights as arguments are compiled once.

    The forward pass hands on what the layers mark with `kept`, and the backward pass makes the rest
    again. That is `recompute` "none"; "attention" hands on no attention weights either, which grow
    with the square of T; "block" nothing but the block's input: gradient checkpointing (Chen et al.
    2016, "Training Deep Nets with Sublinear Memory Cost"). `keras.remat` fails in graphs (keras
    issue 21207).

    Compiled around their products (`model/compilation.py`), the two are programs of several pieces.

    In the programs the batch is one row of P positions, for all but attention: XLA on CPU takes
    0.8 ms to sum a gradient of [4, 256, 768] over batch and positions, and 0.1 ms over one axis.

    Args:
        blocks: Built blocks, alike but for the values of their variables.
        recompute: What inside of a block is not kept for the backward pass.
        compilation: How much of the two programs XLA compiles.
    """

    def __init__(
        self, blocks: Sequence[TransformerBlock], recompute: Recompute, compilation: Compilation
    ) -> None:
        self._template = blocks[0]
        self._recompute = recompute
        # Inlined, the two could be merged by TensorFlow, which then keeps what is made again.
        settings = {"experimental_attributes": {"_noinline": True}}
        self._forward = compiled(self._forward_pass, compilation, **settings)
        self._backward = compiled(self._backward_pass, compilation, **settings)

    def __call__(
        self, block: TransformerBlock, x_BTD: tf.Tensor, documents_BT: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Returns `block(x_BTD, documents_BT, training=True)`, float [B, T, D].

        B and T must be known when the graph is built.
        Dropout's seeds are read, not counted up: give each call new ones by a StatelessScope.
        """
        seeds = [tf.convert_to_tensor(seed.value) for seed in block.non_trainable_variables]
        batch_size, _, width = x_BTD.shape

        @tf.custom_gradient
        def call(
            x_1PD: tf.Tensor, *weights: tf.Tensor
        ) -> tuple[tf.Tensor, Callable[[tf.Tensor], list[tf.Tensor]]]:
            arguments = (batch_size, x_1PD, weights, seeds, documents_BT)
            y_1PD, kept = self._forward(*arguments)
            return y_1PD, lambda upstream_1PD: self._backward(*arguments, kept, upstream_1PD)

        weights = (tf.convert_to_tensor(weight.value) for weight in block.trainable_variables)
        return tf.reshape(call(tf.reshape(x_BTD, [1, -1, width]), *weights), x_BTD.shape)

    def _forward_pass(
        self,
        batch_size: int,
        x_1PD: tf.Tensor,
        weights: Sequence[tf.Tensor],
        seeds: Sequence[tf.Tensor],
        documents_BT: tf.Tensor | None,
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        with keeping(with_quadratic=self._recompute == "none") as kept:
            y_1PD = self._call_template(batch_size, x_1PD, weights, seeds, documents_BT)
        return y_1PD, [] if self._recompute == "block" else kept

    def _backward_pass(
        self,
        batch_size: int,
        x_1PD: tf.Tensor,
        weights: Sequence[tf.Tensor],
        seeds: Sequence[tf.Tensor],
        documents_BT: tf.Tensor | None,
        kept: Sequence[tf.Tensor],
        upstream_1PD: tf.Tensor,
    ) -> list[tf.Tensor]:
        known = (
            contextlib.nullcontext()
            if self._recompute == "block"
            else given(kept, with_quadratic=self._recompute == "none")
        )
        with tf.GradientTape(watch_accessed_variables=False) as tape, known:
            tape.watch([x_1PD, *weights])
            y_1PD = self._call_template(batch_size, x_1PD, weights, seeds, documents_BT)
        return tape.gradient(y_1PD, [x_1PD, *weights], output_gradients=upstream_1PD)

    def _call_template(
        self,
        batch_size: int,
        x_1PD: tf.Tensor,
        weights: Sequence[tf.Tensor],
        seeds: Sequence[tf.Tensor],
        documents_BT: tf.Tensor | None,
    ) -> tf.Tensor:
        block = self._template
        dropout = block.attention.attention_dropout

        def attend(query_1PNH: tf.Tensor, key_1PNH: tf.Tensor, value_1PNH: tf.Tensor) -> tf.Tensor:
            shape = [batch_size, -1, *query_1PNH.shape[2:]]
            query_BTNH, key_BTNH, value_BTNH = (
                tf.reshape(part, shape) for part in (query_1PNH, key_1PNH, value_1PNH)
            )
            mixed_BTNH = attend_to_earlier(query_BTNH, key_BTNH, value_BTNH, dropout, documents_BT)
            return tf.reshape(mixed_BTNH, query_1PNH.shape)

        variables = (*block.trainable_variables, *block.non_trainable_variables)
        with keras.StatelessScope(list(zip(variables, (*weights, *seeds), strict=True))):
            return block(x_1PD, training=True, attend=attend)
