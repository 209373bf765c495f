"""How tests are spread over processes of pytest-xdist, and what is no garbage in these."""

import gc
from typing import Any

from xdist.scheduler import LoadScopeScheduling


class ByFile(LoadScopeScheduling):
    """Keeps a file's tests together, which share what they set up; whole runs, all of them."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        return "e2e" if path.startswith("tests/e2e/") else path


def pytest_xdist_make_scheduler(config: Any, log: Any) -> ByFile:
    """Returns the scheduler that `pytest -n` uses."""
    return ByFile(config, log)


def pytest_collection_finish(session: Any) -> None:
    """Has the collection of garbage leave out what the modules made when they were imported."""
    gc.freeze()
