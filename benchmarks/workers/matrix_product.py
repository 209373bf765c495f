"""Some products of two float32 matrices.

python -m benchmarks.workers.matrix_product LIBRARY    numpy or tensorflow
"""

import sys

import numpy as np

from benchmarks.workers import serve

SIZE = 2048
PRODUCTS_PER_STEP = 16
FLOPS_PER_STEP = PRODUCTS_PER_STEP * 2 * SIZE**3


def main() -> None:
    """Serves sixteen products, about a second's work for two cores."""
    left, right = np.random.default_rng(0).standard_normal([2, SIZE, SIZE], np.float32)
    if sys.argv[1] == "tensorflow":
        import tensorflow as tf

        left, right = tf.constant(left), tf.constant(right)

        def product() -> object:
            return tf.matmul(left, right).numpy()
    else:

        def product() -> object:
            return left @ right

    def step() -> None:
        for _ in range(PRODUCTS_PER_STEP):
            product()

    serve(step)


if __name__ == "__main__":
    main()
