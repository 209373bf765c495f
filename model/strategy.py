"""Where training runs: the tf.distribute strategies by name."""

import functools
import json
import os

import tensorflow as tf

from model.training_config import StrategyConfig


@functools.cache
def make_strategy(config: StrategyConfig) -> tf.distribute.Strategy:
    """Returns the strategy; the same one when asked again.

    It changes how TensorFlow starts, so the first call should come before TensorFlow runs any op in
    this process; `mirrored` on CPUs and `multi_worker` fail otherwise, and the others are slower.

    Raises:
        RuntimeError: TensorFlow has already started with too few logical CPUs.
        ValueError: There are too few GPUs, or `multi_worker` has no cluster in TF_CONFIG.
    """
    _keep_memory()
    if config.name == "multi_worker":
        return _multi_worker()
    if config.name == "mirrored":
        return tf.distribute.MirroredStrategy(_replica_devices(config))
    return tf.distribute.OneDeviceStrategy(
        "GPU:0" if tf.config.list_physical_devices("GPU") else "CPU:0"
    )


def _keep_memory() -> None:
    """Has TensorFlow keep the CPU's memory that it frees, as it does by itself beside a GPU.

    Every step allocates what the last one freed. Where that went back to the system, it had to map
    and clear 350,000 pages anew in a step of GPT-2 124M, 4 x 256 tokens. Where TensorFlow turns
    oneDNN on, as it does on a CPU with AVX-512 VNNI or AMX, memory is kept whatever is set here.
    Variables that the user has set are left as they are.
    """
    os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "1")
    # Else it stops at 64 GiB, however much there is. This many MiB no machine has.
    os.environ.setdefault("TF_CPU_BFC_MEM_LIMIT_IN_MB", str(2**24))


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Returns whether this process is the one that writes checkpoints, logs and models."""
    resolver = strategy.cluster_resolver
    if resolver is None or not resolver.cluster_spec():
        return True
    # TF_CONFIG may name a chief beside the workers; where it does not, the first worker is it.
    chief = "chief" if "chief" in resolver.cluster_spec().jobs else "worker"
    return (resolver.task_type, resolver.task_id) == (chief, 0)


def num_physical_devices(config: StrategyConfig, strategy: tf.distribute.Strategy) -> int:
    """Returns how many devices the replicas share: logical CPUs are pieces of one CPU."""
    if config.name == "mirrored" and config.device == "cpu":
        return 1
    return strategy.num_replicas_in_sync


class Workers:
    """The processes that train together under a strategy, this one among them.

    Args:
        strategy: The strategy; where it has one process, that one is alone.
    """

    def __init__(self, strategy: tf.distribute.Strategy) -> None:
        self._strategy = strategy
        resolver = strategy.cluster_resolver
        self._is_alone = resolver is None or not resolver.cluster_spec()
        self.is_chief = is_chief(strategy)

    def gather(self, value: int) -> list[int]:
        """Returns every worker's value, the chief's first, once for each of its replicas.

        All workers must call it, and as often; it returns the same list to all, which makes it
        safe to decide by: no worker is left waiting for one that decided otherwise.
        """
        if self._is_alone:
            return [value]
        # float64 holds every whole number below 2**53, and is summed on any kind of device.
        gathered = self._gather(tf.constant(float(value), tf.float64))
        return [int(each) for each in gathered.numpy()]

    @tf.function
    def _gather(self, value: tf.Tensor) -> tf.Tensor:
        count = self._strategy.num_replicas_in_sync

        def of_replica(value: tf.Tensor) -> tf.Tensor:
            replica = tf.distribute.get_replica_context()
            place = tf.one_hot(replica.replica_id_in_sync_group, count, dtype=tf.float64)
            # Each replica fills in its own place and leaves the others 0: the sum is the list.
            return replica.all_reduce(tf.distribute.ReduceOp.SUM, place * value)

        gathered = self._strategy.run(of_replica, args=(value,))
        return self._strategy.experimental_local_results(gathered)[0]


def _multi_worker() -> tf.distribute.Strategy:
    if not json.loads(os.environ.get("TF_CONFIG") or "{}").get("cluster"):
        raise ValueError("strategy multi_worker needs the cluster in TF_CONFIG, which has none")
    return tf.distribute.MultiWorkerMirroredStrategy()


def _replica_devices(config: StrategyConfig) -> list[str]:
    count = config.num_devices
    if config.device == "cpu":
        _cut_cpu(count)
    elif len(tf.config.list_physical_devices("GPU")) < count:
        raise ValueError(
            f"strategy mirrored needs num_devices={count} GPUs, found "
            f"{len(tf.config.list_physical_devices('GPU'))}; device=cpu runs it on the CPU"
        )
    return [f"{config.device.upper()}:{index}" for index in range(count)]


def _cut_cpu(count: int) -> None:
    """Makes TensorFlow see the CPU as `count` devices at least."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    if len(tf.config.get_logical_device_configuration(cpu) or []) >= count:
        return
    try:
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * count
        )
    except RuntimeError as error:
        raise RuntimeError(
            f"strategy mirrored needs {count} logical CPUs, but TensorFlow has already started "
            f"with {len(tf.config.list_logical_devices('CPU'))}: make the strategy first"
        ) from error
