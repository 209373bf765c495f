"""Make the two wheels that are built for glibc 2.39 load on an older glibc, or change nothing.

`ml-metadata` and `tensorflow-data-validation` 1.21.0 are published for glibc 2.39 and newer only.
They use six symbols that an older system lacks, and the loader refuses a library whose needed
versions it cannot find. For one environment this tool

1. compiles the six symbols, glibc_compat.cc, to a library in its site-packages;
2. has every Python process of the environment load that library, by a `.pth` file;
3. marks the versions that are missing as weak in the two extension modules, so that the loader
   takes the library's unversioned definitions instead of stopping.

    python tools/glibc_compat.py [--site-packages DIR]

It may run any number of times: what is right already stays as it is. All checks come before the
first change, and each file is written aside and then moved into place. That also leaves alone the
file in an installer's cache to which the installed one is a hard link.
"""

import argparse
import hashlib
import importlib.metadata
import os
import platform
import shutil
import struct
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import NamedTuple

# The wheels are tagged manylinux_2_39, so from there on they load as they are.
FIRST_GLIBC_WITHOUT_NEED = (2, 39)
# They need GLIBC_2.34 too, and nothing here supplies what came with that.
OLDEST_KNOWN_GLIBC = (2, 34)


class Wheel(NamedTuple):
    """A wheel that is known, and which needed versions of its extension module are to be weak."""

    name: str
    version: str
    extension: str
    missing_versions: frozenset[str]


KNOWN_WHEELS = (
    Wheel(
        name="ml-metadata",
        version="1.21.0",
        extension="ml_metadata/metadata_store/pywrap/metadata_store_extension.so",
        missing_versions=frozenset({"GLIBCXX_3.4.32", "CXXABI_1.3.15"}),
    ),
    Wheel(
        name="tensorflow-data-validation",
        version="1.21.0",
        extension="tensorflow_data_validation/pywrap/tensorflow_data_validation_extension.so",
        missing_versions=frozenset({"GLIBC_2.38", "GLIBCXX_3.4.32"}),
    ),
)

LIBRARY_SOURCE = Path(__file__).with_suffix(".cc")
LIBRARY_NAME = "_gpt2_tfx_glibc_compat.so"

# What the .pth file imports whenever Python starts. RTLD_GLOBAL shows the library's symbols to the
# extension modules. Python itself does without it, so that its absence is told but stops nothing.
LOADER_NAME = "_gpt2_tfx_glibc_compat_loader.py"
LOADER_CONTENT = f"""# Written by tools/glibc_compat.py, which says what this is for.
import ctypes
import os
import sys

try:
    ctypes.CDLL(os.path.join(os.path.dirname(__file__), "{LIBRARY_NAME}"), mode=ctypes.RTLD_GLOBAL)
except OSError as error:
    print(f"gpt2-tfx: {{error}}; run tools/glibc_compat.py again", file=sys.stderr)
"""
PTH_NAME = "_gpt2_tfx_glibc_compat.pth"
PTH_CONTENT = "import _gpt2_tfx_glibc_compat_loader\n"

# ELF, from elf.h. Only the files of 64-bit x86 are read: little-endian throughout.
ELF_64_LITTLE_ENDIAN = b"\x7fELF\x02\x01"
EM_X86_64 = 62
SHT_GNU_VERNEED = 0x6FFFFFFE
VER_FLG_WEAK = 0x2
# Elf64_Verneed: vn_version, vn_cnt, vn_file, vn_aux, vn_next. One for each needed library.
VERNEED = struct.Struct("<HHIII")
# Elf64_Vernaux: vna_hash, vna_flags, vna_other, vna_name, vna_next. One for each version of it.
VERNAUX = struct.Struct("<IHHII")
VNA_FLAGS_OFFSET = 4


class UnsupportedError(Exception):
    """The system or the environment is not what this tool knows; nothing was changed."""


class NeededVersion(NamedTuple):
    """A version that an ELF file needs of a library, and where in the file its flags stand."""

    name: str
    flags: int
    flags_offset: int


def running_glibc() -> tuple[int, int]:
    """Returns this system's glibc version, such as (2, 36), or raises UnsupportedError."""
    try:
        library, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
        major, minor = version.split(".")[:2]
        if library == "glibc":
            return int(major), int(minor)
    except (AttributeError, OSError, ValueError):
        pass  # Windows has no confstr, macOS not this name, musl no value for it
    raise UnsupportedError(
        f"this is {platform.system()} without glibc; TFX's wheels are made for Linux with glibc, "
        "and nothing is known of how they fare elsewhere"
    )


def find_version_section(elf: bytes) -> tuple[int, int]:
    """Returns the offsets in the file of .gnu.version_r and of its string table."""
    if elf[:6] != ELF_64_LITTLE_ENDIAN:
        raise UnsupportedError("not a 64-bit little-endian ELF file")
    (machine,) = struct.unpack_from("<H", elf, 18)  # e_machine
    if machine != EM_X86_64:
        raise UnsupportedError(f"ELF machine {machine}; only {EM_X86_64} (x86_64) is known")
    (table,) = struct.unpack_from("<Q", elf, 40)  # e_shoff
    header_size, count = struct.unpack_from("<HH", elf, 58)  # e_shentsize, e_shnum
    for header in range(table, table + count * header_size, header_size):
        (section_type,) = struct.unpack_from("<I", elf, header + 4)  # sh_type
        if section_type == SHT_GNU_VERNEED:
            (offset,) = struct.unpack_from("<Q", elf, header + 24)  # sh_offset
            (link,) = struct.unpack_from("<I", elf, header + 40)  # sh_link
            (strings,) = struct.unpack_from("<Q", elf, table + link * header_size + 24)
            return offset, strings
    raise UnsupportedError("the ELF file has no section .gnu.version_r")


def read_needed_versions(elf: bytes) -> list[NeededVersion]:
    """Returns every entry of .gnu.version_r, in the file's order.

    Raises:
        UnsupportedError: this is no ELF file for x86_64, or it is broken.
    """
    try:
        need, strings = find_version_section(elf)
        entries = []
        while True:
            _, count, _, first, next_need = VERNEED.unpack_from(elf, need)
            auxiliary = need + first
            for _ in range(count):
                _, flags, _, name, next_auxiliary = VERNAUX.unpack_from(elf, auxiliary)
                start = strings + name
                text = elf[start : elf.index(b"\0", start)].decode("ascii")
                entries.append(NeededVersion(text, flags, auxiliary + VNA_FLAGS_OFFSET))
                auxiliary += next_auxiliary
            if next_need == 0:
                return entries
            need += next_need
    except (struct.error, ValueError) as error:
        raise UnsupportedError(f"broken ELF file: {error}") from error


def with_weak_versions(elf: bytes, names: frozenset[str]) -> bytes:
    """Returns the ELF file with the named needed versions weak: `elf` itself if they are already.

    Raises:
        UnsupportedError: a name has no entry, so that this is not the file which is known.
    """
    entries = [entry for entry in read_needed_versions(elf) if entry.name in names]
    absent = names - {entry.name for entry in entries}
    if absent:
        raise UnsupportedError(f".gnu.version_r has no entry {', '.join(sorted(absent))}")
    patched = bytearray(elf)
    for entry in entries:
        struct.pack_into("<H", patched, entry.flags_offset, entry.flags | VER_FLG_WEAK)
    return bytes(patched)


def plan_extensions(site_packages: Path) -> dict[Path, bytes]:
    """Returns the new content of the extension modules that have to change; check both wheels."""
    changes = {}
    for wheel in KNOWN_WHEELS:
        installed = importlib.metadata.distributions(name=wheel.name, path=[str(site_packages)])
        # An installation that broke off can leave two, and then nobody knows whose module it is.
        versions = sorted(distribution.version for distribution in installed)
        if versions != [wheel.version]:
            raise UnsupportedError(
                f"{wheel.name}: {', '.join(versions) or 'not installed'} in {site_packages}; "
                f"only {wheel.version} is known"
            )
        path = site_packages / wheel.extension
        if not path.is_file():
            raise UnsupportedError(f"{wheel.name} {wheel.version}: {path} is missing")
        content = path.read_bytes()
        try:
            patched = with_weak_versions(content, wheel.missing_versions)
        except UnsupportedError as error:
            raise UnsupportedError(f"{path}: {error}") from error
        if patched != content:
            changes[path] = patched
    return changes


def compile_library(digest: str, folder: Path) -> bytes:
    """Returns the compiled library, with `digest` in it; `folder` takes the compiler's output."""
    names = (os.environ.get("CXX", ""), "c++", "g++", "clang++")
    compiler = next(filter(None, map(shutil.which, names)), None)
    if compiler is None:
        raise UnsupportedError(
            "no C++ compiler (c++, g++, clang++); on Debian: apt-get install g++"
        )
    library = folder / LIBRARY_NAME
    options = ["-std=c++17", "-O2", "-fPIC", "-shared", f'-DSOURCE_DIGEST="{digest}"']
    command = [compiler, *options, "-o", str(library), str(LIBRARY_SOURCE)]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        raise UnsupportedError(f"{' '.join(command)}: status {result.returncode}\n{result.stderr}")
    return library.read_bytes()


def plan_loader(site_packages: Path, stage: Path) -> dict[Path, bytes]:
    """Returns the new content of the library, its loader and the .pth file, where they differ."""
    changes = {}
    digest = hashlib.sha256(LIBRARY_SOURCE.read_bytes()).hexdigest()
    library = site_packages / LIBRARY_NAME
    if not (library.is_file() and digest.encode() in library.read_bytes()):
        changes[library] = compile_library(digest, stage)
    for name, content in ((LOADER_NAME, LOADER_CONTENT), (PTH_NAME, PTH_CONTENT)):
        path = site_packages / name
        if not (path.is_file() and path.read_text() == content):
            changes[path] = content.encode()
    return changes


def replace_file(path: Path, content: bytes, stage: Path) -> None:
    """Puts a new file in the place of `path`, with the old one's permissions."""
    staged = stage / path.name
    staged.write_bytes(content)
    if path.exists():
        shutil.copymode(path, staged)
    os.replace(staged, path)


def make_compatible(site_packages: Path, glibc: tuple[int, int], machine: str) -> list[Path]:
    """Makes the two wheels in `site_packages` load on this glibc; returns the files that changed.

    Args:
        site_packages: The environment's folder of installed packages.
        glibc: The system's version, such as (2, 36).
        machine: The processor's architecture, as `platform.machine()` names it.

    Raises:
        UnsupportedError: The system or the environment is not one that is known. Nothing changed.
    """
    if glibc >= FIRST_GLIBC_WITHOUT_NEED:
        return []
    if glibc < OLDEST_KNOWN_GLIBC:
        oldest = "{}.{}".format(*OLDEST_KNOWN_GLIBC)
        raise UnsupportedError(f"glibc {glibc[0]}.{glibc[1]}; the wheels need {oldest} or newer")
    if machine != "x86_64":
        raise UnsupportedError(f"architecture {machine}; on this glibc only x86_64 is known")
    extensions = plan_extensions(site_packages)
    # Inside site-packages, because os.replace is atomic within one file system only.
    with tempfile.TemporaryDirectory(prefix=".glibc_compat-", dir=site_packages) as folder:
        stage = Path(folder)
        # The library first: a weak version is of no use without it.
        changes = plan_loader(site_packages, stage) | extensions
        for path, content in changes.items():
            replace_file(path, content, stage)
    return list(changes)


def main(arguments: list[str] | None = None) -> None:
    """Makes one environment compatible and prints what changed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--site-packages",
        type=Path,
        default=Path(sysconfig.get_path("platlib")),
        help="the environment's folder of packages (default: %(default)s)",
    )
    site_packages = parser.parse_args(arguments).site_packages
    try:
        glibc = running_glibc()
        changed = make_compatible(site_packages, glibc, platform.machine())
    except (UnsupportedError, OSError) as error:
        sys.exit(f"glibc_compat: {error}")
    system = f"glibc_compat: glibc {glibc[0]}.{glibc[1]}"
    if glibc >= FIRST_GLIBC_WITHOUT_NEED:
        print(f"{system}: not needed, nothing changed")
    elif not changed:
        print(f"{system}: already done, nothing changed")
    for path in changed:
        print(f"{system}: wrote {path}")


if __name__ == "__main__":
    main()
