"""Calls a model's blocks through two compiled programs, forward and backward, that all share."""

# Shapes: B batch, T positions, D embedding width.

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from model.kept import given, keeping
from model.transformer_block import TransformerBlock


class BlockCalls:
    """Calls any of some blocks of the same sizes, in training, with a gradient of its own.

    A model that is compiled as a whole takes XLA a minute and a gigabyte for 48 blocks; two
    programs that take a block's weights as arguments take it seconds for any number.

    The forward pass hands on what the layers mark with `kept`; with `recompute` nothing but the
    block's input, of which the backward pass makes everything again: gradient checkpointing (Chen
    et al. 2016, "Training Deep Nets with Sublinear Memory Cost"). `keras.remat` fails in graphs
    (keras issue 21207).

    Args:
        blocks: Built blocks, alike but for the values of their variables.
        recompute: Whether nothing inside of a block is kept for the backward pass.
        xla: Whether XLA compiles the two programs.
    """

    def __init__(self, blocks: Sequence[TransformerBlock], recompute: bool, xla: bool) -> None:
        self._template = blocks[0]
        self._is_trained = [variable.trainable for variable in self._template.variables]
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

        @tf.custom_gradient
        def call(
            x_BTD: tf.Tensor, *values: tf.Tensor
        ) -> tuple[tf.Tensor, Callable[[tf.Tensor], list[tf.Tensor | None]]]:
            y_BTD, kept = self._forward(x_BTD, documents_BT, values)

            def gradient(upstream_BTD: tf.Tensor) -> list[tf.Tensor | None]:
                d_x_BTD, *d_trained = self._backward(
                    x_BTD, documents_BT, values, kept, upstream_BTD
                )
                left = iter(d_trained)
                return [d_x_BTD, *(next(left) if is_one else None for is_one in self._is_trained)]

            return y_BTD, gradient

        return call(x_BTD, *(tf.convert_to_tensor(variable.value) for variable in block.variables))

    def _forward_pass(
        self, x_BTD: tf.Tensor, documents_BT: tf.Tensor | None, values: Sequence[tf.Tensor]
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        with keeping() as kept:
            y_BTD = self._call_template(x_BTD, documents_BT, values)
        return y_BTD, [] if self._recompute else kept

    def _backward_pass(
        self,
        x_BTD: tf.Tensor,
        documents_BT: tf.Tensor | None,
        values: Sequence[tf.Tensor],
        kept: Sequence[tf.Tensor],
        upstream_BTD: tf.Tensor,
    ) -> list[tf.Tensor]:
        trained = [v for v, is_one in zip(values, self._is_trained, strict=True) if is_one]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([x_BTD, *trained])
            if self._recompute:
                y_BTD = self._call_template(x_BTD, documents_BT, values)
            else:
                with given(kept):
                    y_BTD = self._call_template(x_BTD, documents_BT, values)
        return tape.gradient(y_BTD, [x_BTD, *trained], output_gradients=upstream_BTD)

    def _call_template(
        self, x_BTD: tf.Tensor, documents_BT: tf.Tensor | None, values: Sequence[tf.Tensor]
    ) -> tf.Tensor:
        pairs = zip(self._template.variables, values, strict=True)
        with keras.StatelessScope(list(pairs)):
            return self._template(x_BTD, documents_BT=documents_BT, training=True)
