"""DESIGN: imports go one way, and the project stands on nothing outside of itself."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = {"data", "model", "components", "pipeline", "serving", "kubeflow"}

# For each folder what it must not import, directly or inside a function.
FORBIDDEN = {
    "data": OURS - {"data"},
    "model": (OURS - {"model"}) | {"tfx", "apache_beam", "grpc"},
    "components": {"pipeline", "serving", "kubeflow"},
    "serving": {"components", "pipeline", "kubeflow", "tfx", "apache_beam"},
    "pipeline": set(),
    "kubeflow": set(),
}

# What git ignores, and git's own.
NOT_OURS = {".git", ".venv", "build", "dist", "output"}


def project_files() -> Iterator[Path]:
    """All files of the project, caches and what was installed or written by a run left out."""
    for path in ROOT.iterdir():
        if path.name in NOT_OURS or path.name.endswith((".egg-info", "_cache")):
            continue
        if path.is_file():
            yield path
        else:
            found = path.rglob("*")
            yield from (file for file in found if file.is_file() and file.suffix != ".pyc")


def imported_modules(source: str) -> Iterator[tuple[int, str]]:
    """The line and the full name of each absolute import, wherever in the file it stands."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.lineno, node.module
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            names = [node.args[0]] if node.args else []
            yield from (
                (node.lineno, str(name.value)) for name in names if isinstance(name, ast.Constant)
            )


@pytest.mark.parametrize("folder", sorted(FORBIDDEN))
def test_a_folder_imports_only_what_stands_before_it(folder):
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files, f"no Python files in {folder}"
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {module}"
        for path in files
        for line, module in imported_modules(path.read_text())
        if module.split(".")[0] in FORBIDDEN[folder]
    ]
    assert wrong == []


def test_no_import_is_relative_so_that_each_says_its_folder():
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in project_files()
        if path.suffix == ".py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert wrong == []


@pytest.mark.parametrize(
    "source",
    [
        "import tfx",
        "import tfx.v1 as tfx",
        "from tfx import v1",
        "from tfx.dsl.io import fileio",
        "def f():\n    import tfx",
        "try:\n    import tfx\nexcept ImportError:\n    pass",
        "importlib.import_module('tfx.v1')",
    ],
)
def test_the_search_finds_every_way_to_import(source):
    assert [module.split(".")[0] for _, module in imported_modules(source)] == ["tfx"]


def test_no_file_names_the_folder_that_the_developers_share():
    shared = "/".join(["", "work", "shared"])  # not written out: this file is searched too
    files = list(project_files())
    assert ROOT / "setup.py" in files
    assert ROOT / "pipeline" / "configs" / "tiny.yaml" in files
    wrong = [path for path in files if shared.encode() in path.read_bytes()]
    assert wrong == []


def test_no_module_of_a_package_has_the_packages_own_name():
    # TFX's command line runs pipeline/local_runner.py with its folder first on the path, where
    # pipeline/pipeline.py would be found in place of the package.
    assert [name for name in OURS if (ROOT / name / f"{name}.py").exists()] == []
