"""kubeflow/Dockerfile and .dockerignore. There is no Docker here: nothing is built."""

import ast
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from docker.utils.build import exclude_paths

from tests import dockerfile

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "kubeflow" / "Dockerfile").read_text()
NOT_OURS = ["output/pushed/1/saved_model.pb", ".git/config", ".venv/bin/python", ".env", "notes.md"]
OURS = ["setup.py", "model/gpt2.py", "kubeflow/manifests/rbac.yaml", "data/sample/a.jsonl"]


def docker_context(root: Path) -> set[str]:
    """What the Docker client sends from a folder, by the project's .dockerignore."""
    return exclude_paths(str(root), (ROOT / ".dockerignore").read_text().splitlines())


@pytest.fixture(scope="module")
def context() -> set[str]:
    return docker_context(ROOT)


def locked_version(package: str) -> str:
    lock = (ROOT / "requirements.lock").read_text()
    found = re.search(rf"^{re.escape(package)}==(\S+)", lock, flags=re.MULTILINE)
    assert found, package
    return found[1]


def setup_arguments() -> dict[str, object]:
    """The arguments of setup() that are written out."""
    call = next(
        node
        for node in ast.walk(ast.parse((ROOT / "setup.py").read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "setup"
    )
    return {
        str(keyword.arg): ast.literal_eval(keyword.value)
        for keyword in call.keywords
        if keyword.arg in {"packages", "package_data"}
    }


def test_nothing_is_wrong_with_the_dockerfile(context):
    assert dockerfile.check(TEXT, context) == []


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("COPY model ./model", "COPY modell ./modell", "COPY modell: not in what Docker is given"),
        ("COPY setup.py", "COPY Makefile setup.py", "COPY Makefile: not in what Docker is given"),
        ("--from=build", "--from=built", "COPY --from=built: no such stage before"),
        ("--from=build /opt/venv", "--from=build /opt/env", "COPY /opt/env: not in build"),
        ("beam/boot /opt", "beam/start /opt", "COPY /opt/apache/beam/start: not in beam"),
        ("COPY requirements.lock ./\n", "", "no requirements.lock"),
        (" > uv.lock", " > uv", "no uv.lock"),
        (" --require-hashes --requirement", " --requirement", "without --require-hashes"),
        ("    --require-hashes --build", "    --build", "without --require-hashes"),
        ("    --no-build-isolation .", "    .", "without --require-hashes"),
        ("venv/bin/python --no-cache --comp", "env/bin/python --no-cache --comp", "no /opt/env"),
        ("awk '", "gawk '", "no program 'gawk' here"),
        ("mkdir /gcs /minio", "mkdir /gcs", "no /minio"),
        ("chown gpt2:gpt2", "chown gpt:gpt", "no such user"),
        ("USER 1000:1000\n", "", "USER must be numbers"),
        ("USER 1000:1000", "USER 0:0", "USER must be numbers"),
        ("USER 1000:1000", "USER gpt2", "USER must be numbers"),
        ('["/opt/apache/beam/boot"]', "/opt/apache/beam/boot", "ENTRYPOINT must be a list"),
        ('["/opt/apache/beam/boot"]', '["/opt/beam/boot"]', "ENTRYPOINT /opt/beam/boot: not in"),
        (" && groupadd", " && apt-get install g++ && groupadd", "installs into the image itself"),
        ("sdk:2.77.0", "sdk", "without a tag"),
        ("sdk:2.77.0", "sdk:latest", "without a tag"),
    ],
)
def test_a_mistake_in_the_dockerfile_is_found(context, old, new, problem):
    assert TEXT.count(old) >= 1
    problems = dockerfile.check(TEXT.replace(old, new), context)
    assert any(problem in each for each in problems), problems


@pytest.mark.parametrize("line", ["ADD model ./model", "RUN <<END", "COPPY a b"])
def test_an_instruction_that_is_not_known_is_an_error(line):
    with pytest.raises(ValueError, match="unknown instruction"):
        dockerfile.parse(f"{TEXT}\n{line}\n")


def test_beams_program_is_of_the_locked_version_and_python():
    beam, build, final = dockerfile.parse(TEXT)
    assert beam.image == f"apache/beam_python3.11_sdk:{locked_version('apache-beam')}"
    assert build.image == final.image == "python:3.11-slim-trixie"
    assert "--python-version 3.11 " in (ROOT / "Makefile").read_text()


def test_the_container_says_how_beam_and_python_find_what_is_installed():
    env = dockerfile.parse(TEXT)[-1].last("ENV")
    assert env is not None
    values = dict(word.split("=", 1) for word in env.words())
    assert values["PATH"].startswith("/opt/venv/bin:")
    # Beam's boot (sdks/python/container/boot.go) makes an environment of its own otherwise.
    assert values["RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT"] == "1"
    assert values["PYTHONSAFEPATH"] == "1"


def test_the_programs_that_containers_are_started_with_are_in_our_package():
    commands = re.findall(r"python[ ,]+-m[ ,]+([\w.]+)", TEXT.partition("FROM")[0])
    assert commands == ["kubeflow.entrypoint", "components.training_worker"]
    for module in commands:
        package, _, name = module.partition(".")
        assert package in setup_arguments()["packages"]  # type: ignore[operator]
        assert '__name__ == "__main__"' in (ROOT / package / f"{name}.py").read_text()


def test_docker_is_given_what_is_copied_and_nothing_else(tmp_path):
    caches = ["model/__pycache__/gpt2.cpython-311.pyc", "tests/test_gpt2.py"]
    for name in [*OURS, *NOT_OURS, *caches]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    given = {each for each in docker_context(tmp_path) if (tmp_path / each).is_file()}
    assert given == set(OURS)


def test_no_file_of_ours_that_git_has_is_kept_from_docker(context):
    packages = [str(each) for each in setup_arguments()["packages"]]  # type: ignore[attr-defined]
    tracked = subprocess.run(
        ["git", "ls-files", *packages, "kubeflow", "setup.py", "requirements.lock"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    if not tracked:
        pytest.skip("not a git repository")
    assert [each for each in tracked if each not in context] == []


def test_every_package_of_ours_is_copied_and_no_other_folder(context):
    build = dockerfile.parse(TEXT)[1]
    copied = {
        source
        for instruction in build.instructions
        if instruction.name == "COPY"
        for source in instruction.words()[:-1]
        if (ROOT / source).is_dir()
    }
    assert copied == {*setup_arguments()["packages"], "kubeflow"}  # type: ignore[misc]


@pytest.mark.slow
def test_what_is_copied_is_enough_to_build_the_whole_package(tmp_path, context):
    """As the Dockerfile's last installation does it, from the files that it copies."""
    build = dockerfile.parse(TEXT)[1]
    folder = tmp_path / "build"
    folder.mkdir()
    for instruction in build.instructions:
        if instruction.name == "COPY":
            *sources, target = instruction.words()
            for source in sources:
                for path in context:
                    inside = path == source or path.startswith(f"{source}/")
                    if inside and (ROOT / path).is_file():
                        assert target in {"./", f"./{source}"}
                        (folder / path).parent.mkdir(parents=True, exist_ok=True)
                        shutil.copyfile(ROOT / path, folder / path)
    pip_wheel = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip_wheel, "--no-index", "--wheel-dir", tmp_path, folder], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    arguments = setup_arguments()
    patterns = {package: ["*.py"] for package in arguments["packages"]}  # type: ignore[attr-defined]
    for package, more in arguments["package_data"].items():  # type: ignore[attr-defined]
        patterns[package] = [*patterns[package], *more]
    expected = {
        str(path.relative_to(ROOT))
        for package, globs in patterns.items()
        for pattern in globs
        for path in (ROOT / package).glob(pattern)
    }
    assert len(expected) > 50
    assert expected <= names
