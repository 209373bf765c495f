"""Spans, in components/input_files.py and components/example_gen.py.

Which are read, what of them is trained and evaluated on, and what has a run start anew.
"""

import itertools
import json
import os
from pathlib import Path
from typing import Any

import pytest

from components.input_files import choose_earlier_spans
from tests.generated_examples import bucket, numbered, run, run_pipeline, write_lines


def write_spans(folder: Path, spans: dict[int, list[str]]) -> Path:
    for span, texts in spans.items():
        write_lines(folder / f"span-{span}" / "a.jsonl", texts, f"source {span}")
    return folder


def test_of_several_spans_the_newest_is_read(tmp_path):
    for span in (1, 2, 10):
        write_lines(tmp_path / "in" / f"span-{span}" / "a.jsonl", [f"{span}"] * 5 + numbered(0, 1))
    (tmp_path / "in" / "a.jsonl").write_text("not read")
    (tmp_path / "in" / "span-11").mkdir()  # empty: the next data are not there yet
    result = run(tmp_path / "in", spans=True, eval_share=0.5)
    assert result.counts["read"] == 7
    texts = {text for text, _ in result.train + result.eval}
    assert texts == {"10", "document 0", "document 1"}


def test_without_spans_an_error_names_the_folder(tmp_path):
    with pytest.raises(ValueError, match=f"'{tmp_path}' has no folder span-<number> with files"):
        run(tmp_path, spans=True)
    write_lines(tmp_path / "span-latest" / "a.jsonl", ["a"])
    with pytest.raises(ValueError, match=r"span-<number>.*latest"):
        run(tmp_path, spans=True)


def test_a_span_with_leading_zeros_is_an_error(tmp_path):
    write_lines(tmp_path / "span-007" / "a.jsonl", ["a"])
    with pytest.raises(ValueError, match=r"the newest span is 7.*without leading zeros"):
        run(tmp_path, spans=True)


def test_the_newest_span_is_trained_on_and_earlier_ones_are_evaluated_on_too(tmp_path):
    texts = {
        1: numbered(*range(100)),
        2: [*numbered(*range(100, 150)), ""],
        9: numbered(*range(90, 250)),  # with some that came in earlier spans already
        10: [*numbered(*range(240, 500)), "", " "],
    }
    folder = write_spans(tmp_path / "in", texts)
    result = run(folder, spans=True, eval_spans=5, eval_share=0.2, max_refused_share=0.02)

    def of_bucket(span: int, of_eval: bool) -> list[str]:
        return [text for text in texts[span] if text.strip() and (bucket(text) >= 800) == of_eval]

    old = [text for span in (1, 2, 9) for text in of_bucket(span, True)]
    assert sorted(text for text, _ in result.train) == sorted(of_bucket(10, False))
    assert sorted(text for text, _ in result.eval) == sorted([*old, *of_bucket(10, True)])
    assert sorted(result.old) == sorted(old)

    left_out = sum(len(of_bucket(span, False)) for span in (1, 2, 9))
    num_new = {of_eval: len(of_bucket(10, of_eval)) for of_eval in (True, False)}
    assert result.counts["parts"] == {
        "new": {
            "files": 1, "read": 262, "kept": 260, "refused": 2, "left_out": 0,
            "train": num_new[False], "eval": num_new[True],
        },
        "old": {
            "files": 3, "read": 311, "kept": len(old), "refused": 1, "left_out": left_out,
            "train": 0, "eval": len(old),
        },
    }  # fmt: skip
    totals = {name: result.counts[name] for name in ("read", "kept", "refused", "left_out")}
    assert totals == {"read": 573, "kept": 260 + len(old), "refused": 3, "left_out": left_out}
    assert totals["read"] == totals["kept"] + totals["refused"] + totals["left_out"]
    assert result.counts["sources"]["source 1"] == {"train": 0, "eval": len(of_bucket(1, True))}
    assert (result.counts["span"], result.counts["earlier_spans"]) == (10, [1, 2, 9])


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, []), (1, [38]), (2, [2, 38]), (3, [2, 20, 38]), (19, [*range(2, 40, 2)])],
)
def test_earlier_spans_lie_evenly_over_the_past_the_first_and_the_last_among_them(
    tmp_path, count, expected
):
    write_spans(tmp_path, {span: ["a"] for span in range(2, 43, 2)})
    assert choose_earlier_spans(str(tmp_path), newest=40, count=count) == expected


@pytest.mark.parametrize("number", [4, 5, 100, 365])
@pytest.mark.parametrize("count", [2, 3, 4])
def test_as_many_earlier_spans_are_chosen_as_were_asked_for(tmp_path, number, count):
    write_spans(tmp_path, {span: ["a"] for span in range(number + 1)})
    spans = choose_earlier_spans(str(tmp_path), number, count)
    assert len(set(spans)) == len(spans) == count
    steps = {later - earlier for earlier, later in itertools.pairwise(spans)}
    assert max(steps) - min(steps) <= 1


def test_an_earlier_span_without_a_file_to_read_is_none(tmp_path):
    write_spans(tmp_path, {2: ["a"], 4: ["a"]})
    (tmp_path / "span-1").mkdir()
    (tmp_path / "span-3").mkdir()
    (tmp_path / "span-3" / "_SUCCESS").write_text("")
    (tmp_path / "spanner-2").mkdir()
    (tmp_path / "spanner-2" / "a.txt").write_text("a")
    assert choose_earlier_spans(str(tmp_path), newest=4, count=9) == [2]


@pytest.mark.parametrize("name", ["span-007", "span-1b", "span--3", "span-+4", "span-²"])
def test_an_earlier_span_whose_folder_is_not_named_by_a_number_is_an_error(tmp_path, name):
    write_spans(tmp_path, {10: ["a"]})
    write_lines(tmp_path / name / "a.jsonl", ["a"])
    with pytest.raises(ValueError, match=r"must be named span-<number>, without") as failure:
        choose_earlier_spans(str(tmp_path), newest=10, count=1)
    assert f"input_base {str(tmp_path)!r}: {str(tmp_path / name)!r} must" in str(failure.value)


def test_a_bad_newest_span_is_not_hidden_by_many_good_earlier_ones(tmp_path):
    texts = {span: numbered(*range(span * 100, span * 100 + 100)) for span in (1, 2, 3)}
    texts[1].append("")  # 1 of 201 in the earlier ones
    texts[3] += ["", ""]
    folder = write_spans(tmp_path / "in", texts)
    settings: dict[str, Any] = {"spans": True, "eval_spans": 2, "eval_share": 0.5}
    with pytest.raises(ValueError, match=r"2 of 102 records refused, 1.961%") as failure:
        run(folder, **settings, max_refused_share=0.019)
    message = str(failure.value)
    assert message.startswith(f"'{folder}/span-3': 2 of 102")
    assert message.count("a.jsonl:") == message.count(f"{folder}/span-3/a.jsonl:") == 2

    with pytest.raises(ValueError, match="refused") as failure:
        run(write_spans(folder, {3: texts[3][:100]}), **settings, max_refused_share=0.004)
    message = str(failure.value)
    assert message.startswith(f"'{folder}/span-1', '{folder}/span-2': 1 of 201 records refused")
    assert f"\n  {folder}/span-1/a.jsonl:101: " in message


def test_documents_of_earlier_spans_do_not_make_up_for_a_newest_span_without_any(tmp_path):
    in_train = [text for text in numbered(*range(20)) if bucket(text) < 500]
    folder = write_spans(tmp_path / "in", {1: numbered(*range(20)), 2: in_train})
    with pytest.raises(ValueError, match=r"'.*/span-2': the eval split is empty"):
        run(folder, spans=True, eval_spans=1, eval_share=0.5)
    (folder / "span-2" / "a.jsonl").write_text("\n")
    with pytest.raises(ValueError, match=r"'.*/span-2' holds no documents: 0 records .* 1 files"):
        run(folder, spans=True, eval_spans=1, eval_share=0.5)


def test_a_number_of_earlier_spans_below_zero_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="eval_spans is -1, must be >= 0"):
        run(tmp_path, spans=True, eval_spans=-1)


def test_a_run_comes_from_the_cache_until_a_span_is_new_or_changed(tmp_path):
    folder = write_spans(tmp_path / "in", {n: numbered(*range(100)) for n in (1, 2, 3)})
    outputs = Path(f"{folder}-root", "CorpusExampleGen", "examples")

    def run_and_count() -> int:
        run_pipeline(folder, spans=True, eval_spans=1)
        return len(os.listdir(outputs))

    assert run_and_count() == 1
    assert run_and_count() == 1
    write_spans(folder, {1: ["a span that is not read"]})
    assert run_and_count() == 1
    write_spans(folder, {2: numbered(*range(100, 250))})
    assert run_and_count() == 2
    assert run_and_count() == 2
    write_spans(folder, {4: numbered(*range(100))})
    assert run_and_count() == 3
    newest = max(outputs.iterdir(), key=lambda path: int(path.name))
    counts = json.loads((newest / "counts.json").read_text())
    assert (counts["span"], counts["earlier_spans"]) == (4, [3])
