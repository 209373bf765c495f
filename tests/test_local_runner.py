"""pipeline/local_runner.py, but for whole runs, which are in e2e/."""

import pytest

from pipeline.config_file import load_config
from pipeline.local_runner import alone_in, run


def test_a_run_is_refused_while_another_is_going_on_in_its_output(tmp_path):
    summary = tmp_path / "summary.json"
    summary.write_text("of the run before")
    config = load_config("tiny", [f"output={tmp_path}"])
    message = f"^output must be a folder in which no other run is going on, got '{tmp_path}'$"
    with alone_in(tmp_path), pytest.raises(ValueError, match=message):
        run(config)
    assert summary.read_text() == "of the run before"
    with alone_in(tmp_path):
        pass


def test_a_missing_data_folder_is_told_and_leaves_no_summary_of_the_run_before(tmp_path):
    summary = tmp_path / "summary.json"
    summary.write_text("of the run before")
    data = f"data={{path: {tmp_path}/missing}}"
    message = (
        f"^data.path must be a folder with texts, got '{tmp_path}/missing', which is no folder$"
    )
    with pytest.raises(ValueError, match=message):
        run(load_config("tiny", [f"output={tmp_path}", data]))
    assert not summary.exists()
