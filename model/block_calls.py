"""Calls a model's blocks through two compiled programs, forward and backward, that all share."""

# Shapes: B batch, T positions, P = B * T, D embedding width, N heads, H head width.

import contextlib
from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from model.attention import attend_to_earlier
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

    In the programs the batch is one row of P positions, for all but attention: XLA on CPU takes
    five to ten times as long to sum a bias' gradient over batch and positions as over one axis.

    Args:
        blocks: Built blocks, alike but for the values of their variables.
        recompute: What inside of a block is not kept for the backward pass.
        xla: Whether XLA compiles the two programs.
    """

    def __init__(self, blocks: Sequence[TransformerBlock], recompute: Recompute, xla: bool) -> None:
        self._template = blocks[0]
        self._recompute = recompute
        # Inlined, the two could be merged by TensorFlow, which then keeps what is made again.
        attributes = {"_noinline": True}
        self._forward = tf.function(
            self._forward_pass, jit_compile=xla, experimental_attributes=attributes
        )
        self._backward = tf.function(
            self._backward_pass, jit_compile=xla, experimental_attributes=attributes
        )

    def __call__(
        self, block: TransformerBlock, x_BTD: tf.Tensor, documents_BT: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Returns `block(x_BTD, documents_BT, training=True)`, float [B, T, D].

        Dropout's seeds are read, not counted up: give each call new ones by a StatelessScope.
        """
        seeds = [tf.convert_to_tensor(seed.value) for seed in block.non_trainable_variables]
        rows, width = x_BTD.shape[0], x_BTD.shape[2]

        @tf.custom_gradient
        def call(
            x_1PD: tf.Tensor, *weights: tf.Tensor
        ) -> tuple[tf.Tensor, Callable[[tf.Tensor], list[tf.Tensor]]]:
            arguments = (rows, x_1PD, weights, seeds, documents_BT)
            y_1PD, kept = self._forward(*arguments)
            return y_1PD, lambda upstream_1PD: self._backward(*arguments, kept, upstream_1PD)

        weights = (tf.convert_to_tensor(weight.value) for weight in block.trainable_variables)
        return tf.reshape(call(tf.reshape(x_BTD, [1, -1, width]), *weights), x_BTD.shape)

    def _forward_pass(
        self,
        rows: int,
        x_1PD: tf.Tensor,
        weights: Sequence[tf.Tensor],
        seeds: Sequence[tf.Tensor],
        documents_BT: tf.Tensor | None,
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        with keeping(with_quadratic=self._recompute == "none") as kept:
            y_1PD = self._call_template(rows, x_1PD, weights, seeds, documents_BT)
        return y_1PD, [] if self._recompute == "block" else kept

    def _backward_pass(
        self,
        rows: int,
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
            y_1PD = self._call_template(rows, x_1PD, weights, seeds, documents_BT)
        return tape.gradient(y_1PD, [x_1PD, *weights], output_gradients=upstream_1PD)

    def _call_template(
        self,
        rows: int,
        x_1PD: tf.Tensor,
        weights: Sequence[tf.Tensor],
        seeds: Sequence[tf.Tensor],
        documents_BT: tf.Tensor | None,
    ) -> tf.Tensor:
        block = self._template
        dropout = block.attention.attention_dropout if block.dropout else None

        def attend(*parts_1PNH: tf.Tensor) -> tf.Tensor:
            shape = parts_1PNH[0].shape
            parts_BTNH = (tf.reshape(part, [rows, -1, *shape[2:]]) for part in parts_1PNH)
            mixed_BTNH = attend_to_earlier(*parts_BTNH, dropout, documents_BT)
            return tf.reshape(mixed_BTNH, shape)

        variables = (*block.trainable_variables, *block.non_trainable_variables)
        with keras.StatelessScope(list(zip(variables, (*weights, *seeds), strict=True))):
            return block(x_1PD, training=True, attend=attend)
