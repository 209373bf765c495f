"""components/example_gen.py: splits, spans, counts, dead letters, and how a run fails."""

import gzip
import json
import os
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import tensorflow as tf
import tensorflow_data_validation as tfdv
from apache_beam.options.pipeline_options import PipelineOptions
from tfx.dsl.io import fileio

from components.example_gen import corpus_example_gen
from tests.generated_examples import BEAM, bucket, numbered, run, run_pipeline, write_lines

ROOT = Path(__file__).parent.parent


def read_lines(*path: str | Path) -> list[str]:
    return Path(*path).read_text().splitlines()


@pytest.fixture(scope="module")
def mixed(tmp_path_factory) -> Path:
    """A folder with all formats: 44 documents, 4 bad records, 4 entries that are no input."""
    folder = tmp_path_factory.mktemp("mixed") / "corpus"
    folder.mkdir()
    (folder / "poem.txt").write_text("a poem")
    (folder / "broken.txt").write_bytes(b"a\n\xff")
    write_lines(folder / "a.jsonl", numbered(*range(20)), "first")
    with (folder / "a.jsonl").open("a") as file:
        file.write('{"text": \n{"body": ""}\n')
    lines = "".join(json.dumps({"text": text}) + "\n" for text in numbered(*range(20, 40)))
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    table = pyarrow.table({"text": ["x", "y", None, "z"], "source": ["p", "q", "p", "q"]})
    pyarrow.parquet.write_table(table, folder / "c.parquet", row_group_size=2)
    (folder / "notes.md").write_text("not read")
    (folder / ".hidden.jsonl").write_text("not read")
    (folder / "_SUCCESS").write_text("")
    (folder / "more.txt").mkdir()
    return folder


def test_every_document_is_kept_once_and_every_bad_record_is_reported(mixed):
    result = run(mixed, max_refused_share=0.1, report_dir=f"{mixed}-report")
    expected = [("a poem", "poem"), ("x", "p"), ("y", "q"), ("z", "q")]
    expected += [(text, "first") for text in numbered(*range(20))]
    expected += [(text, "b") for text in numbered(*range(20, 40))]
    assert sorted(result.train + result.eval) == sorted(expected)

    counts = result.counts
    assert (counts["read"], counts["kept"], counts["refused"]) == (48, 44, 4)
    assert (counts["train"], counts["eval"]) == (len(result.train), len(result.eval))
    assert (counts["left_out"], counts["span"], counts["earlier_spans"]) == (0, None, [])
    assert result.old == []
    assert counts["files"] == 5
    assert counts["ignored_files"] == [".hidden.jsonl", "_SUCCESS", "more.txt/", "notes.md"]
    totals = {source: sum(splits.values()) for source, splits in counts["sources"].items()}
    assert totals == {"b": 20, "first": 20, "p": 1, "poem": 1, "q": 2}
    in_train = sum(source == "first" for _, source in result.train)
    assert counts["sources"]["first"] == {"train": in_train, "eval": 20 - in_train}

    refused = [json.loads(line) for line in read_lines(result.uri, "refused.jsonl")]
    assert sorted((r["file"], r["line"], r["reason"], r["record"]) for r in refused) == [
        (f"{mixed}/a.jsonl", 21, "broken JSON: Expecting value: column 10", "b'{\"text\": '"),
        (f"{mixed}/a.jsonl", 22, 'no "text"', 'b\'{"body": ""}\''),
        (f"{mixed}/broken.txt", 2, "invalid UTF-8: byte 0xff at offset 2", r"b'a\n\xff'"),
        (f"{mixed}/c.parquet", 3, '"text" is null, not a string', "None"),
    ]
    for name in ("counts.json", "refused.jsonl"):
        assert Path(f"{mixed}-report", name).read_text() == Path(result.uri, name).read_text()
    assert sorted(os.listdir(result.uri)) == [
        "Split-eval", "Split-train", "counts.json", "refused.jsonl"
    ]  # fmt: skip


def test_a_run_fails_above_the_share_of_refused_records_and_keeps_its_report(mixed):
    with pytest.raises(ValueError, match="4 of 48 records refused") as failure:
        run(mixed, max_refused_share=0.08)
    (report,) = Path(f"{mixed}-examples").glob("*-refused")
    message = str(failure.value)
    assert "8.333%, more than max_refused_share 8.000%" in message
    assert f"{report}/refused.jsonl" in message
    assert f"{mixed}/broken.txt:2: invalid UTF-8: byte 0xff at offset 2" in message
    assert len(read_lines(report, "refused.jsonl")) == 4
    assert json.loads((report / "counts.json").read_text())["kept"] == 44


def test_a_share_that_equals_the_limit_passes(tmp_path):
    write_lines(tmp_path / "in" / "a.jsonl", [*numbered(*range(19)), ""])
    result = run(tmp_path / "in", max_refused_share=0.05, eval_share=0.5)
    assert (result.counts["kept"], result.counts["refused"]) == (19, 1)


def test_a_split_depends_on_the_text_alone(tmp_path):
    folder = tmp_path / "in"
    write_lines(folder / "a.jsonl", numbered(*range(100)), "first")
    before = run(folder, eval_share=0.2)
    # More documents, and old ones again under other sources, in other files and formats.
    write_lines(folder / "b.jsonl", numbered(*range(50, 150)), "second")
    (folder / "c.txt").write_text("document 3")
    after = run(folder, eval_share=0.2)

    assert {text for text, _ in before.train} <= {text for text, _ in after.train}
    assert {text for text, _ in before.eval} <= {text for text, _ in after.eval}
    assert not {text for text, _ in after.train} & {text for text, _ in after.eval}
    assert len(after.train) + len(after.eval) == 201
    assert {text for text, _ in after.eval} == {
        text for text in numbered(*range(150)) if bucket(text) >= 800
    }


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=f"no input folder '{tmp_path}/nowhere'"):
        run(tmp_path / "nowhere")
    (tmp_path / "file.txt").write_text("a")
    with pytest.raises(ValueError, match=f"no input folder '{tmp_path}/file.txt'"):
        run(tmp_path / "file.txt")


def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path, monkeypatch):
    def listdir(path: str) -> list[str]:
        raise tf.errors.PermissionDeniedError(None, None, f"{path}; Permission denied")

    # Not by chmod: these tests may run as root, who may read everything.
    monkeypatch.setattr(fileio, "listdir", listdir)
    with pytest.raises(ValueError, match=f"cannot list the input folder '{tmp_path}'.*Permission"):
        run(tmp_path)


def test_a_folder_without_readable_documents_is_an_error(tmp_path):
    (tmp_path / "notes.md").write_text("a")
    with pytest.raises(ValueError, match="holds no readable documents") as failure:
        run(tmp_path)
    assert f"no file {tmp_path}/* of 1 ends in .txt, .jsonl, .jsonl.gz, .parquet" in str(
        failure.value
    )


def test_files_without_documents_are_an_error(tmp_path):
    (tmp_path / "a.jsonl").write_text("\n\n")
    with pytest.raises(ValueError, match="holds no documents: 0 records read from 1 files"):
        run(tmp_path)
    (tmp_path / "a.jsonl").write_text("{}\n")
    with pytest.raises(ValueError, match=r"holds no documents: 1 records .* 1 refused, none kept"):
        run(tmp_path, max_refused_share=1)


def test_an_empty_split_is_an_error(tmp_path):
    (in_train,) = [text for text in numbered(*range(20)) if bucket(text) < 100][:1]
    write_lines(tmp_path / "a.jsonl", [in_train])
    with pytest.raises(ValueError, match=r"the eval split is empty: 1 documents, eval_share 0\.1"):
        run(tmp_path)


@pytest.mark.parametrize("share", [0, 0.0004, 0.9996, 1, -0.1, float("nan")])
def test_an_eval_share_out_of_range_is_an_error(share):
    with pytest.raises(ValueError, match=r"eval_share is .*, must be from 0.001 to 0.999"):
        corpus_example_gen("corpus", eval_share=share)


@pytest.mark.parametrize("share", [-0.001, 1.001, float("nan")])
def test_a_max_refused_share_out_of_range_is_an_error(share):
    with pytest.raises(ValueError, match=r"max_refused_share is .*, must be from 0 to 1"):
        corpus_example_gen("corpus", max_refused_share=share)


@pytest.mark.parametrize("folder", ["data/*", "data/[old]"])
def test_a_folder_whose_name_is_a_pattern_is_an_error(folder):
    with pytest.raises(ValueError, match=r"must have none of \* \? \[ \] in it"):
        corpus_example_gen(folder)


def test_the_schema_holds_for_what_is_written_and_for_nothing_less(tmp_path):
    write_lines(tmp_path / "in" / "a.jsonl", numbered(*range(20)))
    result = run(tmp_path / "in", eval_share=0.5)
    schema = tfdv.load_schema_text(str(ROOT / "data" / "schema.pbtxt"))

    def anomalies(pattern: str) -> set[str]:
        statistics = tfdv.generate_statistics_from_tfrecord(
            pattern, pipeline_options=PipelineOptions(BEAM)
        )
        return set(tfdv.validate_statistics(statistics, schema).anomaly_info)

    assert anomalies(f"{result.uri}/Split-train/*") == set()
    example = tf.train.Example()
    example.features.feature["text"].bytes_list.value.extend([b"a", b"b"])
    example.features.feature["part"].bytes_list.value.append(b"newer")
    example.features.feature["extra"].bytes_list.value.append(b"c")
    with tf.io.TFRecordWriter(str(tmp_path / "bad.tfrecord")) as writer:
        writer.write(example.SerializeToString())
    assert anomalies(str(tmp_path / "bad.tfrecord")) == {
        "text", "source", "part", "extra"
    }  # fmt: skip


def test_a_rerun_comes_from_the_cache_until_the_files_change(tmp_path):
    folder = tmp_path / "in"
    outputs = Path(f"{folder}-root", "CorpusExampleGen", "examples")
    write_lines(folder / "a.jsonl", numbered(*range(100)))
    run_pipeline(folder)
    run_pipeline(folder)
    assert os.listdir(outputs) == ["1"]

    # TFX deletes a failing component's examples: the report lies beside them.
    write_lines(folder / "b.jsonl", [""])
    with pytest.raises(ValueError, match="1 of 101 records refused"):
        run_pipeline(folder)
    assert sorted(os.listdir(outputs)) == ["1", "3-refused"]
    assert "b.jsonl" in (outputs / "3-refused" / "refused.jsonl").read_text()
