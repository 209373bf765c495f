"""tools/glibc_compat.py, on ELF files made here by hand and by the compiler."""

import importlib.metadata
import os
import re
import shutil
import struct
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tools import glibc_compat
from tools.glibc_compat import NeededVersion, UnsupportedError

OLD_GLIBC = (2, 36)
ROOT = Path(__file__).parent.parent
NAMES = frozenset({"GLIBC_2.38", "GLIBCXX_3.4.32", "CXXABI_1.3.15"})


def make_elf(needed: dict[str, dict[str, int]], machine: int = 62) -> bytes:
    """Return an ELF file with a .gnu.version_r alone: {library: {needed version: flags}}."""
    strings = b"\0"
    offsets = {}
    for name in [*needed, *(name for versions in needed.values() for name in versions)]:
        offsets[name] = len(strings)
        strings += name.encode() + b"\0"
    section = b""
    for library, versions in needed.items():
        is_last = library == list(needed)[-1]
        next_need = 0 if is_last else 16 + 16 * len(versions)
        section += struct.pack("<HHIII", 1, len(versions), offsets[library], 16, next_need)
        for version, flags in versions.items():
            next_version = 0 if version == list(versions)[-1] else 16
            section += struct.pack("<IHHII", 0xABCD, flags, 7, offsets[version], next_version)
    table = 64 + len(section) + len(strings)
    headers = b""
    for kind, offset, size, link in (
        (0, 0, 0, 0),
        (3, 64 + len(section), len(strings), 0),  # SHT_STRTAB
        (0x6FFFFFFE, 64, len(section), 1),  # SHT_GNU_verneed, whose strings are section 1
    ):
        headers += struct.pack("<IIQQQQIIQQ", 0, kind, 0, 0, offset, size, link, 0, 0, 0)
    identification = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header = struct.pack(
        "<HHIQQQIHHHHHH", 3, machine, 1, 0, 0, table, 0, 64, 0, 0, 64, len(headers) // 64, 0
    )
    return identification + header + section + strings + headers


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Return every file's content and inode, to see that nothing was written or replaced."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_ino)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def install(site_packages: Path, elf_by_wheel: dict[str, bytes]) -> None:
    """Put the two known wheels into a folder, each with an extension module of ours."""
    for wheel in glibc_compat.KNOWN_WHEELS:
        extension = site_packages / wheel.extension
        extension.parent.mkdir(parents=True, exist_ok=True)
        extension.unlink(missing_ok=True)
        extension.write_bytes(elf_by_wheel[wheel.name])
        extension.chmod(0o755)
        add_metadata(site_packages, wheel.name, wheel.version)


def compile_c(output: Path, source: str, *options: str) -> Path:
    """Compile a shared library and return its path."""
    output.with_suffix(".c").write_text(source)
    files = ["-o", str(output), str(output.with_suffix(".c"))]
    subprocess.run(["gcc", "-shared", "-fPIC", *files, *options], check=True)
    return output


def add_metadata(site_packages: Path, name: str, version: str) -> Path:
    folder = site_packages / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir(exist_ok=True)
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    (folder / "METADATA").write_text(metadata)
    return folder


@pytest.fixture
def wheels() -> dict[str, bytes]:
    """Return extension modules which need what the real ones need."""
    return {
        "ml-metadata": make_elf({"libstdc++.so.6": {"GLIBCXX_3.4.32": 0, "CXXABI_1.3.15": 0}}),
        "tensorflow-data-validation": make_elf(
            {"libc.so.6": {"GLIBC_2.38": 0}, "libstdc++.so.6": {"GLIBCXX_3.4.32": 0}}
        ),
    }


@pytest.fixture
def site_packages(tmp_path: Path, wheels: dict[str, bytes]) -> Path:
    folder = tmp_path / "site-packages"
    install(folder, wheels)
    return folder


def test_only_the_named_versions_become_weak_and_no_other_byte_changes() -> None:
    elf = make_elf(
        {
            "libc.so.6": {"GLIBC_2.2.5": 0, "GLIBC_2.38": 0},
            "libm.so.6": {"GLIBC_2.29": 2},
            "libstdc++.so.6": {"CXXABI_1.3.15": 1, "GLIBCXX_3.4.3": 0, "GLIBCXX_3.4.32": 0},
        }
    )
    patched = glibc_compat.with_weak_versions(elf, NAMES)
    # The section starts at 64; a needed library and a version of it take 16 bytes each, and the
    # flags of a version are its bytes 4 and 5.
    assert glibc_compat.read_needed_versions(patched) == [
        NeededVersion("GLIBC_2.2.5", 0, 84),
        NeededVersion("GLIBC_2.38", 2, 100),
        NeededVersion("GLIBC_2.29", 2, 132),
        NeededVersion("CXXABI_1.3.15", 3, 164),
        NeededVersion("GLIBCXX_3.4.3", 0, 180),
        NeededVersion("GLIBCXX_3.4.32", 2, 196),
    ]
    changed = [index for index in range(len(elf)) if elf[index] != patched[index]]
    assert changed == [100, 164, 196]
    assert len(patched) == len(elf)


def test_a_file_whose_versions_are_weak_stays_equal() -> None:
    elf = make_elf({"libstdc++.so.6": {"GLIBC_2.38": 2, "GLIBCXX_3.4.32": 2, "CXXABI_1.3.15": 2}})
    assert glibc_compat.with_weak_versions(elf, NAMES) == elf


def test_readelf_reads_the_compilers_file_as_we_do(tmp_path: Path) -> None:
    source = "#include <math.h>\ndouble f(double x) { return exp(x); }\n"
    library = compile_c(tmp_path / "library.so", source, "-lm")
    listing = subprocess.run(
        ["readelf", "--version-info", "--wide", library], capture_output=True, text=True, check=True
    ).stdout
    expected = re.findall(r"Name: (\S+)  Flags: none", listing)
    entries = glibc_compat.read_needed_versions(library.read_bytes())
    assert expected
    assert [entry.name for entry in entries] == expected
    assert {entry.flags for entry in entries} == {0}


@pytest.mark.parametrize(
    ("elf", "message"),
    [
        (b"MZ\x90\0", "not a 64-bit little-endian ELF file"),
        (make_elf({"libc.so.6": {"GLIBC_2.38": 0}}, machine=183), "ELF machine 183; only 62"),
        (make_elf({"libc.so.6": {"GLIBC_2.38": 0}})[:-64], "broken ELF file"),
        (make_elf({"libc.so.6": {"GLIBC_2.38": 0}})[:40], "broken ELF file"),
        (
            make_elf({"libc.so.6": {"GLIBC_2.38": 0}}).replace(b"\xfe\xff\xff\x6f", b"\0\0\0\0"),
            "no section .gnu.version_r",
        ),
        (
            make_elf({"libstdc++.so.6": {"GLIBC_2.38": 0, "GLIBCXX_3.4.3": 0}}),
            r"no entry CXXABI_1\.3\.15, GLIBCXX_3\.4\.32",
        ),
    ],
)
def test_an_unknown_elf_file_is_an_error_that_says_why(elf: bytes, message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        glibc_compat.with_weak_versions(elf, NAMES)


def test_the_first_run_writes_five_files_and_the_second_none(
    site_packages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = glibc_compat.make_compatible(site_packages, OLD_GLIBC, "x86_64")
    assert [path.relative_to(site_packages).as_posix() for path in changed] == [
        "_gpt2_tfx_glibc_compat.so",
        "_gpt2_tfx_glibc_compat_loader.py",
        "_gpt2_tfx_glibc_compat.pth",
        "ml_metadata/metadata_store/pywrap/metadata_store_extension.so",
        "tensorflow_data_validation/pywrap/tensorflow_data_validation_extension.so",
    ]
    flags = {
        (path.name.partition("_extension")[0], entry.name): entry.flags
        for path in changed[3:]
        for entry in glibc_compat.read_needed_versions(path.read_bytes())
    }
    assert flags == {
        ("metadata_store", "GLIBCXX_3.4.32"): 2,
        ("metadata_store", "CXXABI_1.3.15"): 2,
        ("tensorflow_data_validation", "GLIBC_2.38"): 2,
        ("tensorflow_data_validation", "GLIBCXX_3.4.32"): 2,
    }
    before = snapshot(site_packages)
    monkeypatch.setenv("PATH", "")  # the second run compiles nothing
    assert glibc_compat.make_compatible(site_packages, OLD_GLIBC, "x86_64") == []
    assert snapshot(site_packages) == before


def test_an_installers_cache_is_not_written_through_its_hard_link(
    site_packages: Path, tmp_path: Path, wheels: dict[str, bytes]
) -> None:
    extension = site_packages / glibc_compat.KNOWN_WHEELS[0].extension
    cached = tmp_path / "cached.so"
    os.link(extension, cached)
    glibc_compat.make_compatible(site_packages, OLD_GLIBC, "x86_64")
    assert cached.read_bytes() == wheels["ml-metadata"]
    assert extension.read_bytes() != wheels["ml-metadata"]
    assert extension.stat().st_mode & 0o777 == 0o755


def test_a_wheel_that_is_installed_again_is_patched_again(
    site_packages: Path, wheels: dict[str, bytes]
) -> None:
    glibc_compat.make_compatible(site_packages, OLD_GLIBC, "x86_64")
    install(site_packages, wheels)
    changed = glibc_compat.make_compatible(site_packages, OLD_GLIBC, "x86_64")
    assert changed == [site_packages / wheel.extension for wheel in glibc_compat.KNOWN_WHEELS]


def test_a_library_of_another_source_is_compiled_again(site_packages: Path) -> None:
    library = site_packages / glibc_compat.LIBRARY_NAME
    library.write_bytes(b"compiled from an earlier source")
    assert library in glibc_compat.make_compatible(site_packages, OLD_GLIBC, "x86_64")
    assert library.read_bytes()[:4] == b"\x7fELF"


@pytest.mark.parametrize("glibc", [(2, 39), (2, 41), (3, 0)])
def test_nothing_changes_on_glibc_2_39_and_newer(
    site_packages: Path, glibc: tuple[int, int]
) -> None:
    before = snapshot(site_packages)
    assert glibc_compat.make_compatible(site_packages, glibc, "x86_64") == []
    assert glibc_compat.make_compatible(site_packages, glibc, "aarch64") == []
    assert snapshot(site_packages) == before


def remove_wheel(site_packages: Path) -> None:
    shutil.rmtree(site_packages / "tensorflow_data_validation-1.21.0.dist-info")


def install_newer_wheel(site_packages: Path) -> None:
    remove_wheel(site_packages)
    add_metadata(site_packages, "tensorflow-data-validation", "1.22.0")


def install_second_wheel(site_packages: Path) -> None:
    add_metadata(site_packages, "tensorflow-data-validation", "1.20.0")


def remove_module(site_packages: Path) -> None:
    (site_packages / glibc_compat.KNOWN_WHEELS[1].extension).unlink()


def build_module_otherwise(site_packages: Path) -> None:
    (site_packages / glibc_compat.KNOWN_WHEELS[1].extension).write_bytes(
        make_elf({"libstdc++.so.6": {"GLIBCXX_3.4.32": 0}})
    )


# Each spoils the second wheel: the first, which is as it should be, may not be touched either.
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (remove_wheel, "tensorflow-data-validation: not installed in .*; only 1.21.0 is known"),
        (install_newer_wheel, "tensorflow-data-validation: 1.22.0 in .*; only 1.21.0 is known"),
        (install_second_wheel, "tensorflow-data-validation: 1.20.0, 1.21.0 in "),
        (remove_module, r"tensorflow_data_validation_extension\.so is missing"),
        (build_module_otherwise, r"_extension\.so: \.gnu\.version_r has no entry GLIBC_2\.38"),
    ],
)
def test_an_unknown_wheel_is_an_error_and_changes_nothing(
    site_packages: Path, spoil, message: str
) -> None:
    spoil(site_packages)
    before = snapshot(site_packages)
    with pytest.raises(UnsupportedError, match=message):
        glibc_compat.make_compatible(site_packages, OLD_GLIBC, "x86_64")
    assert snapshot(site_packages) == before


@pytest.mark.parametrize(
    ("glibc", "machine", "message"),
    [
        (OLD_GLIBC, "aarch64", "architecture aarch64; on this glibc only x86_64 is known"),
        ((2, 31), "x86_64", "glibc 2.31; the wheels need 2.34 or newer"),
    ],
)
def test_an_unknown_system_is_an_error_and_changes_nothing(
    site_packages: Path, glibc: tuple[int, int], machine: str, message: str
) -> None:
    before = snapshot(site_packages)
    with pytest.raises(UnsupportedError, match=message):
        glibc_compat.make_compatible(site_packages, glibc, machine)
    assert snapshot(site_packages) == before


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [("PATH", "", r"no C\+\+ compiler"), ("CXX", "false", "status 1")],
)
def test_without_a_working_compiler_nothing_changes(
    site_packages: Path,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    value: str,
    message: str,
) -> None:
    monkeypatch.setenv(variable, value)
    before = snapshot(site_packages)
    with pytest.raises(UnsupportedError, match=message):
        glibc_compat.make_compatible(site_packages, OLD_GLIBC, "x86_64")
    assert snapshot(site_packages) == before
    assert not list(site_packages.glob(".glibc_compat-*"))


def test_a_system_without_glibc_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "confstr", lambda name: None)
    monkeypatch.setattr(glibc_compat.platform, "system", lambda: "Plan 9")
    with pytest.raises(UnsupportedError, match="this is Plan 9 without glibc"):
        glibc_compat.running_glibc()


def test_the_command_fails_with_one_line_that_says_why(
    site_packages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove_module(site_packages)
    monkeypatch.setattr(glibc_compat, "running_glibc", lambda: OLD_GLIBC)
    with pytest.raises(SystemExit) as stopped:
        glibc_compat.main(["--site-packages", str(site_packages)])
    assert re.fullmatch(r"glibc_compat: tensorflow-data-.*\.so is missing", str(stopped.value))


@pytest.fixture
def loadable_site_packages(tmp_path: Path) -> Path:
    """Return wheels whose modules need __isoc23_strtol@GLIBC_2.38 of a library that lacks it.

    What glibc is to the real wheels is libprovider.so to these: they were linked with one that has
    the version, and find one that has not.
    """
    provider, versions = tmp_path / "libprovider.so", tmp_path / "versions"
    script = f"-Wl,--version-script={versions}"
    declaration = "long __isoc23_strtol(const char *text, char **end, int base)"

    versions.write_text("GLIBC_2.38 { global: __isoc23_strtol; };\n")
    compile_c(provider, f"{declaration} {{ return -1; }}\n", script)
    source = f"{declaration};\nlong parse(char *text) {{ return __isoc23_strtol(text, 0, 10); }}\n"
    linked = ("-L", str(tmp_path), "-lprovider", f"-Wl,-rpath,{tmp_path}")
    module = compile_c(tmp_path / "module.so", source, *linked).read_bytes()

    versions.write_text("OTHER_1.0 { global: unrelated; };\n")
    compile_c(provider, "int unrelated(void) { return 0; }\n", script)
    site_packages = tmp_path / "site-packages"
    install(site_packages, {wheel.name: module for wheel in glibc_compat.KNOWN_WHEELS})
    return site_packages


def parse_in_child(site_packages: Path) -> "subprocess.CompletedProcess[str]":
    """Have a fresh Python load the first module and parse "42" with it."""
    code = (
        "import ctypes, site, sys; site.addsitedir(sys.argv[1]); print('started', flush=True); "
        "print(ctypes.CDLL(sys.argv[2]).parse(b'42'))"
    )
    module = site_packages / glibc_compat.KNOWN_WHEELS[0].extension
    # Isolated and without site, so that the running environment's own library plays no part.
    command = [sys.executable, "-I", "-S", "-c", code, str(site_packages), str(module)]
    return subprocess.run(command, capture_output=True, text=True)


def test_a_module_that_did_not_load_does_afterwards_in_any_new_process(
    loadable_site_packages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # These modules use one of the three versions only.
    wheels = [
        wheel._replace(missing_versions=frozenset({"GLIBC_2.38"}))
        for wheel in glibc_compat.KNOWN_WHEELS
    ]
    monkeypatch.setattr(glibc_compat, "KNOWN_WHEELS", tuple(wheels))
    before = parse_in_child(loadable_site_packages)
    assert before.returncode != 0
    assert "version `GLIBC_2.38' not found" in before.stderr

    glibc_compat.make_compatible(loadable_site_packages, OLD_GLIBC, "x86_64")
    after = parse_in_child(loadable_site_packages)
    assert (after.returncode, after.stdout, after.stderr) == (0, "started\n42\n", "")


def test_python_starts_without_the_library_and_says_so(site_packages: Path) -> None:
    glibc_compat.make_compatible(site_packages, OLD_GLIBC, "x86_64")
    (site_packages / glibc_compat.LIBRARY_NAME).unlink()
    child = parse_in_child(site_packages)
    assert child.stdout == "started\n"
    assert "run tools/glibc_compat.py again" in child.stderr.splitlines()[0]


def test_the_compiled_library_defines_the_six_symbols(site_packages: Path) -> None:
    glibc_compat.make_compatible(site_packages, OLD_GLIBC, "x86_64")
    library = site_packages / glibc_compat.LIBRARY_NAME
    listing = subprocess.run(
        ["nm", "--dynamic", "--defined-only", library], capture_output=True, text=True, check=True
    ).stdout
    assert set(re.findall(r" T (\S+)", listing)) == {
        "__cxa_call_terminate",
        "__isoc23_strtol",
        "__isoc23_strtoll",
        "__isoc23_strtoul",
        "__isoc23_strtoull",
        "_ZSt21ios_base_library_initv",
    }


def test_the_known_wheels_are_those_of_the_lock_and_of_this_environment() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    for wheel in glibc_compat.KNOWN_WHEELS:
        assert f"\n{wheel.name}=={wheel.version} \\\n" in lock
        assert importlib.metadata.version(wheel.name) == wheel.version


@pytest.mark.parametrize("wheel", glibc_compat.KNOWN_WHEELS, ids=lambda wheel: wheel.name)
def test_the_installed_extension_module_loads_in_a_new_process(wheel: glibc_compat.Wheel) -> None:
    module = Path(sysconfig.get_path("platlib")) / wheel.extension
    code = "import ctypes, os, sys; ctypes.PyDLL(sys.argv[1], mode=os.RTLD_NOW)"
    subprocess.run([sys.executable, "-c", code, str(module)], check=True)
