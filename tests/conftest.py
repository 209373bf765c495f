"""Which tests go to one process of pytest-xdist together."""

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keeps a file's tests together, which share what they set up; whole runs, all of them."""
    for item in items:
        group = "e2e" if item.path.parent.name == "e2e" else item.path.name
        item.add_marker(pytest.mark.xdist_group(group))
