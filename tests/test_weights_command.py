"""`gpt2-tfx weights`: what it writes, says and ends with."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import load_file

from model.export import read_description
from model.pretrained import load_pretrained
from pipeline.cli import main
from tests.published_models import (
    CONFIG,
    openai_arrays,
    prefixed,
    random_arrays,
    write_huggingface_form,
    write_openai_form,
)

ROOT = Path(__file__).parent.parent
# With GPT-2's own vocabulary: what is imported can be served.
ARRAYS = random_arrays(seed=5, vocab_size=50257)


def stored_in(folder: Path) -> dict[str, np.ndarray]:
    return load_file(folder / "model.safetensors")


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    return write_huggingface_form(folder, prefixed(ARRAYS), vocab_size=50257)


def test_import_and_export_bring_back_every_bit(tmp_path, source, capsys):
    out, back = tmp_path / "new" / "imported", tmp_path / "back"
    assert main(["weights", "import", str(source), str(out)]) == 0
    assert main(["weights", "export", str(out), str(back)]) == 0
    assert capsys.readouterr().out == (
        f"wrote {out}: 302,622 parameters\nwrote {back}: 302,622 parameters\n"
    )
    before, after = stored_in(source), stored_in(back)
    assert set(before) == set(after)
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array, err_msg=name)
    config = json.loads((back / "config.json").read_text())
    known = {key: value for key, value in config.items() if key in CONFIG}
    assert known == {key: (CONFIG | {"vocab_size": 50257})[key] for key in known}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back", "new"]
    assert sorted(path.name for path in out.parent.iterdir()) == ["imported"]


def test_what_was_imported_can_be_served_and_says_where_it_comes_from(tmp_path):
    source = write_openai_form(tmp_path / "source", openai_arrays(ARRAYS), n_vocab=50257)
    assert main(["weights", "import", str(source), str(tmp_path / "1")]) == 0
    description = read_description(tmp_path / "1")
    assert description["start"] == f"weights {source}"
    assert description["stride"] == description["model"]["max_length"] == 8
    signatures = tf.saved_model.load(str(tmp_path / "1")).signatures
    assert {"serving_default", "evaluate"} < set(signatures)
    assert (tmp_path / "1").stat().st_mode == (tmp_path / "source").stat().st_mode


def test_import_writes_the_stride_that_it_is_given(tmp_path, source):
    assert main(["weights", "import", str(source), str(tmp_path / "1"), "--stride=3"]) == 0
    assert read_description(tmp_path / "1")["stride"] == 3


def test_weights_in_8_bits_are_for_xla_and_are_not_written_again(tmp_path, source, capsys):
    int8, out = tmp_path / "int8", tmp_path / "out"
    assert main(["weights", "import", "nowhere", str(int8), "--int8"]) == 1
    assert capsys.readouterr().err.startswith("error: --xla must be given where --int8 is")
    assert list(tmp_path.iterdir()) == []
    assert main(["weights", "import", str(source), str(int8), "--int8", "--xla"]) == 0
    assert read_description(int8)["int8"] is True
    assert capsys.readouterr().out == f"wrote {int8}: 302,622 parameters\n"
    for action in ("import", "export"):
        assert main(["weights", action, str(int8), str(out)]) == 1
        refusal = f"error: {int8} must have weights in floats, got 8 bits, which can be scored and"
        assert capsys.readouterr().err.startswith(refusal)
    assert list(tmp_path.iterdir()) == [int8]


def test_a_stride_beyond_the_context_is_an_error_and_nothing_is_written(tmp_path, source, capsys):
    assert main(["weights", "import", str(source), str(tmp_path / "1"), "--stride=9"]) == 1
    assert "stride" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("action", ["import", "export"])
def test_a_folder_that_exists_is_an_error_before_anything_is_read(tmp_path, capsys, action):
    out = tmp_path / "out"
    out.mkdir()
    assert main(["weights", action, str(tmp_path / "nowhere"), str(out)]) == 1
    assert capsys.readouterr().err == f"error: {out} exists already; give a folder that does not\n"
    assert list(tmp_path.iterdir()) == [out]
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("action", ["import", "export"])
def test_a_source_of_no_known_form_is_an_error(tmp_path, capsys, action):
    assert main(["weights", action, str(tmp_path), str(tmp_path / "out")]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(f"error: {tmp_path} must be a folder with one of saved_model.pb (")
    assert list(tmp_path.iterdir()) == []


def test_a_source_of_another_size_is_an_error(tmp_path, source, capsys):
    assert main(["weights", "import", str(source), str(tmp_path / "out"), "--size=gpt2-xl"]) == 1
    assert capsys.readouterr().err == (
        "error: the model is no gpt2-xl: max_length must be 1024, got 8; embedding_dim must be "
        "1600, got 6; num_layers must be 48, got 2; num_heads must be 25, got 3; feed_forward_dim "
        "must be 6400, got 24\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_size_ends_with_code_2(capsys):
    with pytest.raises(SystemExit) as end:
        main(["weights", "import", "source", "out", "--size=gpt3"])
    assert end.value.code == 2
    assert "invalid choice: 'gpt3'" in capsys.readouterr().err


def test_a_vocabulary_that_is_not_gpt2s_is_refused_for_serving_but_can_be_exported(
    tmp_path, capsys
):
    source = write_huggingface_form(tmp_path / "source", random_arrays())
    assert main(["weights", "import", str(source), str(tmp_path / "out")]) == 1
    assert "vocab_size must be 50257, the size of GPT-2's vocab" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [source]
    assert main(["weights", "export", str(source), str(tmp_path / "out")]) == 0
    assert load_pretrained(tmp_path / "out").config.vocab_size == 61


def test_on_a_terminal_an_error_is_one_message_and_nothing_else(tmp_path):
    result = subprocess.run(
        [sys.executable, "-m", "pipeline", "weights", "export", "nowhere", "out"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith("error: nowhere must be a folder with one of ")
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
