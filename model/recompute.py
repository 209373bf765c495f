"""Gradient checkpointing: a layer whose inside is computed again when its gradient is wanted."""

import keras
import tensorflow as tf


def recomputed(layer: keras.layers.Layer, x: tf.Tensor, **arguments: object) -> tf.Tensor:
    """Returns `layer(x, **arguments)`, of which nothing but `x` is kept for the backward pass.

    Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost". Written out here because
    `keras.remat` fails in TensorFlow's graphs (keras issue 21207), and because of what
    `tf.recompute_grad` adds to tell the second computation from the first XLA may fold away.

    Args:
        layer: A built layer without state but for its dropouts' seeds.
        x: float; the layer's input and output have one shape and type.
        **arguments: What else the layer is called with; no gradient flows to them.
    """
    variables = layer.variables
    is_trained = [variable.trainable for variable in variables]
    seeds = [variable for variable in variables if not variable.trainable]

    def call(x: tf.Tensor, values: list[tf.Tensor]) -> tuple[tf.Tensor, list[tf.Tensor]]:
        with keras.StatelessScope(list(zip(variables, values, strict=True))) as scope:
            y = layer(x, **arguments)
            return y, [scope.get_current_value(seed) for seed in seeds]

    @tf.custom_gradient
    def call_and_forget(x: tf.Tensor, *values: tf.Tensor) -> tuple:
        y, next_seeds = call(x, list(values))

        def gradient(upstream: tf.Tensor, *of_seeds: tf.Tensor) -> list[tf.Tensor | None]:
            # Without a tie to what comes from above, the compiler may merge this computation with
            # the first one, or do it early, and keep all that it computes. Zero times a float is
            # something that no compiler may fold, for it could be a NaN.
            tie = 0.0 * tf.cast(tf.reshape(upstream, [-1])[0], tf.float32)
            again = x + tf.cast(tie, x.dtype)
            trained = [v for v, is_one in zip(values, is_trained, strict=True) if is_one]
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch([again, *trained])
                y, _ = call(again, list(values))
            d_x, *d_trained = tape.gradient(y, [again, *trained], output_gradients=upstream)
            left = iter(d_trained)
            return [d_x, *(next(left) if is_one else None for is_one in is_trained)]

        return (y, *next_seeds), gradient

    values = [tf.convert_to_tensor(variable.value) for variable in variables]
    y, *next_seeds = call_and_forget(x, *values)
    for seed, value in zip(seeds, next_seeds, strict=True):
        seed.assign(value)
    return y
