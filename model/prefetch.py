"""Work that is done one item ahead."""

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def one_ahead(
    make: Callable[[Item], Result], items: Iterable[Item]
) -> Generator[Result, None, None]:
    """Yields `make(item)` for each item; the next one is made in a thread in the meantime.

    What comes out is what `map` would give, provided that `make` depends on its argument alone.

    Raises:
        Exception: What `make` raised, when its item's turn comes.
    """
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="prefetch") as executor:
        waiting: Future[Result] | None = None
        for item in items:
            made = waiting
            waiting = executor.submit(make, item)
            if made is not None:
                yield made.result()
        if waiting is not None:
            yield waiting.result()
