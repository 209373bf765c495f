"""benchmarks/load.py and load_cases.py: what a run finds, and that it finds what is wrong."""

import grpc
import numpy as np
import pytest

from benchmarks.load import Load, Record, run, table
from benchmarks.load_cases import Case
from benchmarks.server_process import make_request
from serving.predict import make_response

OK = grpc.StatusCode.OK
INVALID = grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.slow
@pytest.mark.long
def test_a_server_under_a_short_load_answers_all_and_takes_up_a_version(tmp_path):
    load = Load(minutes=0.02, clients=3, swap_seconds=0.5, models=1, max_growth=9.0)
    record = run(load, tmp_path)

    assert record.failures(load.max_growth) == []
    assert record.swaps >= 1
    assert record.ends["valid", "OK"] > 0
    codes = {code for kind, code in record.ends if kind in ("invalid", "oversized")}
    assert codes <= {
        "INVALID_ARGUMENT", "FAILED_PRECONDITION", "NOT_FOUND", "RESOURCE_EXHAUSTED",
    }  # fmt: skip


def encode_case(*answers: list[list[int]]) -> Case:
    """A case to which model k answers `answers[k]`."""
    outputs = tuple({"ids": np.array(ids), "lengths": np.array([1])} for ids in answers)
    return Case("valid", "a text", make_request("encode", {"texts": ["a"]}), (OK,), outputs)


@pytest.mark.parametrize(
    ("version", "ids", "is_right"),
    [
        (2, [[1, 2]], True),
        (3, [[3, 4]], True),
        (3, [[1, 2]], False),
        (2, [[1, 2, 0]], True),  # it ran beside a longer one
        (2, [[1, 2, 5]], False),
        (2, [[1]], False),
    ],
)
def test_an_answer_must_be_that_of_the_version_that_gave_it(version, ids, is_right):
    response = make_response("gpt2", version, "encode", {"ids": ids, "lengths": [1]})
    trouble = encode_case([[1, 2]], [[3, 4]]).trouble(OK, "", response)
    assert (trouble is None) == is_right


def test_a_code_that_is_not_the_cases_own_is_a_trouble():
    refused = Case("invalid", "no model", make_request("encode", {}), (INVALID,))
    assert refused.trouble(INVALID, "Missing ModelSpec", None) is None
    assert refused.trouble(grpc.StatusCode.UNKNOWN, "Exception", None) == (
        "no model: expected INVALID_ARGUMENT, got UNKNOWN: Exception"
    )


def test_memory_that_grows_after_the_third_tenth_is_a_failure():
    mebibytes = [1, 2, 100, 101, 102, 103, 104, 105, 106, 112]
    record = Record(memory=[each * 2**20 for each in mebibytes for _ in range(3)])
    assert record.failures(max_growth=0.13) == []
    assert record.failures(max_growth=0.1) == ["memory grew by 12.0%, allowed is 10%"]
    assert "1 2 100 101 102 103 104 105 106 112 MiB" in table(record)


@pytest.mark.parametrize("readings", [1, 2, 3, 9, 10, 11, 25])
def test_a_run_of_any_length_tells_its_memory(readings):
    parts = Record(memory=list(range(readings))).memory_parts()
    assert len(parts) == 10
    assert parts == sorted(parts)
    assert parts[0] == (0.5 if readings > 20 else 0)
    assert parts[-1] >= readings - 2


def test_a_trouble_of_any_kind_is_a_failure():
    record = Record(memory=[1])
    record.troubles["oversized"].append("rows: expected INVALID_ARGUMENT, got OK: ")
    assert record.failures(0.1) == ["oversized: rows: expected INVALID_ARGUMENT, got OK: "]
