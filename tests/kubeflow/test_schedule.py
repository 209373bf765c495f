"""`gpt2-tfx kubeflow schedule`, `list`, `pause`, `resume` and `delete`, by kfp's own client.

The API's server is tests/kfp_api_server.py; the compiled pipeline is from kfp's own compiler.
"""

from pathlib import Path

import pytest

from kubeflow.cluster import ClusterError
from tests.kfp_api_server import KfpApi, RefusedError
from tests.kubeflow_commands import API, ROOT, compile_pipeline, last_line, run


def test_a_new_schedule_is_uploaded_once_and_made_with_all_that_was_asked_for(
    api, schedule, file, capsys
):
    schedule("--parameter", "steps=200", "--parameter", "push=false")
    assert api.changes == [
        f"POST {API}/pipelines/upload",
        f"POST {API}/experiments",
        f"POST {API}/recurringruns",
        f"POST {API}/recurringruns/id-4:enable",
    ]
    assert api.bodies[f"POST {API}/pipelines/upload"] == Path(file).read_bytes()
    assert api.bodies[f"POST {API}/recurringruns"] == {
        "display_name": "nightly",
        "description": "by gpt2-tfx, to be active",
        "experiment_id": "id-3",
        "pipeline_version_reference": {"pipeline_id": "id-1", "pipeline_version_id": "id-2"},
        "runtime_config": {"parameters": {"steps": 200, "push": False}, "pipeline_root": ROOT},
        "trigger": {"cron_schedule": {"cron": "0 0 2 * * *"}},
        "max_concurrency": 1,
        "no_catchup": True,
        "mode": "DISABLE",  # until it is enabled, above
    }
    assert [each["status"] for each in api.recurring] == ["ENABLED"]
    assert api.experiments[0]["display_name"] == "gpt2"
    said = "nightly is new and active: 0 0 2 * * * (seconds first) in UTC's time"
    assert last_line(capsys) == said


def test_the_same_schedule_again_changes_nothing(api, schedule, capsys):
    schedule("--parameter", "threshold=0.25", "--parameter", 'sources=["a", "b"]')
    before = api.changes
    schedule("--parameter", "threshold=0.25", "--parameter", 'sources=["a", "b"]')
    assert api.changes == before
    assert last_line(capsys).startswith("nightly is unchanged and active")


def test_another_cron_replaces_the_schedule_and_never_are_none_or_two_of_it_there(
    api, schedule, capsys
):
    schedule()
    first = len(api.changes)
    schedule(cron="30 4 * * SUN")
    assert api.changes[first:] == [
        f"POST {API}/recurringruns",
        f"POST {API}/recurringruns/id-4:disable",
        f"POST {API}/recurringruns/id-5:enable",
        f"DELETE {API}/recurringruns/id-4",
    ]
    (kept,) = api.recurring
    assert kept["trigger"] == {"cron_schedule": {"cron": "0 30 4 * * 0"}}
    assert kept["status"] == "ENABLED"
    assert api.orphaned == ["id-4"]  # the run that it may have started goes on
    counts = [each["nightly"] for each in api.history[api.history.index({"nightly": (1, 1)}) :]]
    assert counts == [(1, 1), (2, 1), (2, 0), (2, 1), (1, 1)]
    assert last_line(capsys).startswith("nightly is replaced and active: 0 30 4 * * 0 ")


@pytest.mark.parametrize(
    "changed",
    [["--parameter", "steps=11"], ["--experiment", "other"], ["--service-account", "trainer"]],
)
def test_whatever_else_is_asked_for_anew_replaces_the_schedule_too(api, schedule, changed):
    schedule()
    schedule(*changed)
    assert [each["recurring_run_id"] == "id-4" for each in api.recurring] == [False]
    schedule(*changed)
    assert len(api.recurring) == 1


def test_without_the_service_account_that_it_had_a_schedule_is_replaced(api, schedule, capsys):
    schedule("--service-account", "trainer")
    (before,) = api.recurring
    assert before["description"] == "by gpt2-tfx, to be active, as trainer"
    schedule()
    assert last_line(capsys).startswith("nightly is replaced and active")
    (after,) = api.recurring
    assert after["service_account"] == "pipeline-runner"  # the cluster's default


def test_a_file_with_other_content_becomes_a_version_of_the_same_pipeline(
    api, host, file, tmp_path
):
    other = compile_pipeline(tmp_path / "gpt2.yaml", image="registry.example/gpt2:2")
    for each in (file, other, other, file):
        options = ["--host", host, "--name", "nightly", "--cron", "0 2 * * *"]
        run("schedule", each, "--pipeline-root", ROOT, *options)
        (kept,) = api.recurring
        used = kept["pipeline_version_reference"]["pipeline_version_id"]
        assert used == api.versions[each == other]["pipeline_version_id"]
    assert len(api.pipelines) == 1
    assert len(api.versions) == 2


# The four requests of a replacement, and what is active when the server fails at one of them.
REPLACING = {
    f"POST {API}/recurringruns": 1,
    f"POST {API}/recurringruns/id-4:disable": 1,
    f"POST {API}/recurringruns/id-5:enable": 0,
    f"DELETE {API}/recurringruns/id-4": 1,
}


def fail_once(api: KfpApi, failing: str) -> None:
    def before(request: str) -> None:
        if request == failing:
            api.before = lambda request: None
            raise RefusedError(500, "the database is away")

    api.before = before


@pytest.mark.parametrize(("failing", "active"), REPLACING.items())
def test_a_failure_while_replacing_leaves_no_two_active_and_the_same_again_mends_it(
    api, schedule, failing, active
):
    schedule()
    fail_once(api, failing)
    with pytest.raises(ClusterError, match=r"answered 500 .*: the database is away") as error:
        schedule(cron="0 3 * * *")
    assert [each["status"] for each in api.recurring].count("ENABLED") == active
    replacing = failing != f"POST {API}/recurringruns"
    assert ("give the same command again" in str(error.value)) == replacing
    schedule(cron="0 3 * * *")
    (kept,) = api.recurring
    assert kept["trigger"] == {"cron_schedule": {"cron": "0 0 3 * * *"}}
    assert kept["status"] == "ENABLED"
    assert all(total >= 1 and active <= 1 for (total, active) in states(api))


def test_the_old_line_again_after_a_failure_takes_the_replacement_back(api, schedule):
    schedule()
    fail_once(api, f"POST {API}/recurringruns/id-4:disable")
    with pytest.raises(ClusterError):
        schedule(cron="0 3 * * *")
    schedule()
    (kept,) = api.recurring
    assert kept["trigger"] == {"cron_schedule": {"cron": "0 0 2 * * *"}}
    assert kept["status"] == "ENABLED"


def states(api: KfpApi) -> list[tuple[int, int]]:
    first = next(i for i, counts in enumerate(api.history) if "nightly" in counts)
    return [counts.get("nightly", (0, 0)) for counts in api.history[first:]]


@pytest.mark.parametrize(
    "failing", [None, f"POST {API}/recurringruns", f"DELETE {API}/recurringruns/id-4"]
)
def test_a_paused_schedule_stays_paused_when_it_is_replaced_failure_or_not(
    api, schedule, host, failing, capsys
):
    schedule()
    run("pause", "nightly", "--host", host)
    before = len(api.history)
    if failing:
        fail_once(api, failing)
        with pytest.raises(ClusterError):
            schedule(cron="0 3 * * *")
    schedule(cron="0 3 * * *")
    (kept,) = api.recurring
    assert kept["trigger"] == {"cron_schedule": {"cron": "0 0 3 * * *"}}
    assert all(counts["nightly"][1] == 0 for counts in api.history[before:])
    assert last_line(capsys).startswith("nightly is replaced and paused")


@pytest.mark.parametrize(("command", "status"), [("pause", "DISABLED"), ("resume", "ENABLED")])
@pytest.mark.parametrize("failing", REPLACING)
def test_to_pause_or_resume_what_is_half_replaced_leaves_one(
    api, schedule, host, command, status, failing
):
    schedule()
    fail_once(api, failing)
    with pytest.raises(ClusterError):
        schedule(cron="0 3 * * *")
    run(command, "nightly", "--host", host)
    (kept,) = api.recurring
    assert kept["status"] == status
    assert all(active <= 1 for _, active in states(api))
    schedule(cron="0 3 * * *")
    assert [each["status"] for each in api.recurring] == [status]


def test_pause_resume_and_delete_touch_the_one_of_that_name_and_list_tells(
    api, schedule, host, capsys
):
    api.ignores_filters = True  # as long as names are compared, nothing depends on the server
    for name in ("night", "nightly", "nightly 2"):
        schedule(name=name)

    def states() -> dict[str, str]:
        return {each["display_name"]: each["status"] for each in api.recurring}

    on, off = "ENABLED", "DISABLED"
    run("pause", "nightly", "--host", host)
    assert states() == {"night": on, "nightly": off, "nightly 2": on}
    run("pause", "night", "--host", host)
    run("resume", "nightly", "--host", host)
    assert states() == {"night": off, "nightly": on, "nightly 2": on}
    capsys.readouterr()
    run("list", "--host", host)
    assert capsys.readouterr().out == (
        "NAME       STATE   CRON (SECONDS FIRST)  CREATED\n"
        "night      paused  0 0 2 * * *           2027-01-01 00:00 UTC\n"
        "nightly    active  0 0 2 * * *           2027-01-01 00:00 UTC\n"
        "nightly 2  active  0 0 2 * * *           2027-01-01 00:00 UTC\n"
    )
    run("delete", "nightly", "--host", host)
    assert states() == {"night": off, "nightly 2": on}
    with pytest.raises(ValueError, match="name is 'nightly': must be a schedule's: night, nightly"):
        run("pause", "nightly", "--host", host)


def test_what_stands_on_later_pages_is_found(api, schedule, host, capsys):
    api.largest_page = 2
    api.ignores_filters = True
    for name in ("a", "b", "c", "d", "e"):
        schedule(name=name)
    schedule(name="e", cron="0 3 * * *")
    assert len(api.recurring) == 5
    assert len(api.pipelines) == len(api.versions) == 1
    capsys.readouterr()
    run("list", "--host", host)
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert names == ["NAME", "a", "b", "c", "d", "e"]


def test_in_a_kubeflow_with_several_users_all_is_asked_of_the_given_namespace(api, file, host):
    api.multi_user = True
    given = ["--host", host, "--namespace", "team-a"]
    options = ["--pipeline-root", ROOT, "--name", "nightly", "--cron", "0 2 * * *"]
    run("schedule", file, *options, *given)
    run("pause", "nightly", *given)
    assert api.pipelines[0]["namespace"] == "team-a"
    assert api.experiments[0]["namespace"] == "team-a"
    with pytest.raises(ClusterError, match=r"answered 400 .*: In multi-user mode"):
        run("pause", "nightly", "--host", host)


def test_a_line_for_another_zone_is_moved_to_the_clusters(api, schedule, capsys):
    schedule("--timezone", "Asia/Tokyo", cron="0 2 * * MON-FRI")
    assert api.recurring[0]["trigger"] == {"cron_schedule": {"cron": "0 0 17 * * 0,1,2,3,4"}}
    schedule("--timezone", "Europe/Berlin", "--cluster-timezone", "Europe/Berlin")
    assert api.recurring[0]["trigger"] == {"cron_schedule": {"cron": "0 0 2 * * *"}}
    assert last_line(capsys).endswith("0 0 2 * * * (seconds first) in Europe/Berlin's time")
