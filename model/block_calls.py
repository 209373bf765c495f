"""Calls a model's blocks through two compiled programs, forward and backward, that all share."""

# Shapes: B batch, T positions, D embedding width.

import contextlib
from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

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

        @tf.custom_gradient
        def call(
            x_BTD: tf.Tensor, *weights: tf.Tensor
        ) -> tuple[tf.Tensor, Callable[[tf.Tensor], list[tf.Tensor]]]:
            arguments = (x_BTD, weights, seeds, documents_BT)
            y_BTD, kept = self._forward(*arguments)
            return y_BTD, lambda upstream_BTD: self._backward(*arguments, kept, upstream_BTD)

        weights = (tf.convert_to_tensor(weight.value) for weight in block.trainable_variables)
        return call(x_BTD, *weights)

    def _forward_pass(
        self,
        x_BTD: tf.Tensor,
        weights: Sequence[tf.Tensor],
        seeds: Sequence[tf.Tensor],
        documents_BT: tf.Tensor | None,
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        with keeping(with_quadratic=self._recompute == "none") as kept:
            y_BTD = self._call_template(x_BTD, weights, seeds, documents_BT)
        return y_BTD, [] if self._recompute == "block" else kept

    def _backward_pass(
        self,
        x_BTD: tf.Tensor,
        weights: Sequence[tf.Tensor],
        seeds: Sequence[tf.Tensor],
        documents_BT: tf.Tensor | None,
        kept: Sequence[tf.Tensor],
        upstream_BTD: tf.Tensor,
    ) -> list[tf.Tensor]:
        known = (
            contextlib.nullcontext()
            if self._recompute == "block"
            else given(kept, with_quadratic=self._recompute == "none")
        )
        with tf.GradientTape(watch_accessed_variables=False) as tape, known:
            tape.watch([x_BTD, *weights])
            y_BTD = self._call_template(x_BTD, weights, seeds, documents_BT)
        return tape.gradient(y_BTD, [x_BTD, *weights], output_gradients=upstream_BTD)

    def _call_template(
        self,
        x_BTD: tf.Tensor,
        weights: Sequence[tf.Tensor],
        seeds: Sequence[tf.Tensor],
        documents_BT: tf.Tensor | None,
    ) -> tf.Tensor:
        block = self._template
        variables = (*block.trainable_variables, *block.non_trainable_variables)
        with keras.StatelessScope(list(zip(variables, (*weights, *seeds), strict=True))):
            return block(x_BTD, documents_BT=documents_BT, training=True)
