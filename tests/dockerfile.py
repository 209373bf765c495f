"""What is wrong with a Dockerfile, as far as that can be told without building it.

It knows the instructions and programs that kubeflow/Dockerfile has, and takes any other for a
mistake: a new one is to be added here together with what can be checked of it.
"""

import dataclasses
import json
import re
import shlex
from collections.abc import Collection, Iterator
from pathlib import PurePosixPath

_INSTRUCTIONS = {"FROM", "RUN", "WORKDIR", "ENV", "COPY", "USER", "ENTRYPOINT"}
# What Python's image on Debian has; pip and uv only where a stage has made or installed them.
_PROGRAMS = {"apt-get", "awk", "chown", "groupadd", "mkdir", "python", "rm", "useradd"}
_INSTALLERS = {"apt-get", "pip", "uv"}
# Where an image that is only copied from has what.
_IN_IMAGE = {"apache/beam_python3.11_sdk": {"/opt/apache/beam/boot"}}


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One instruction: its name, its `--flags`, and the rest of it."""

    name: str
    flags: dict[str, str]
    rest: str

    def words(self) -> list[str]:
        """The words of its JSON list, or of its text."""
        if self.rest.startswith("["):
            return json.loads(self.rest)
        return shlex.split(self.rest)


@dataclasses.dataclass
class Stage:
    """A part of the Dockerfile that makes one image, and what the checks have found it to have."""

    image: str
    name: str | None
    instructions: list[Instruction] = dataclasses.field(default_factory=list)
    folder: PurePosixPath = dataclasses.field(default_factory=lambda: PurePosixPath("/"))
    paths: set[str] = dataclasses.field(default_factory=set)
    programs: set[str] = dataclasses.field(default_factory=lambda: set(_PROGRAMS))
    users: set[str] = dataclasses.field(default_factory=set)

    def at(self, path: str) -> str:
        """The absolute path of one that may be relative to the stage's folder."""
        return str(self.folder / path)

    def last(self, name: str) -> Instruction | None:
        """The last instruction of that name."""
        return next((each for each in reversed(self.instructions) if each.name == name), None)

    def commands(self) -> Iterator[list[str]]:
        """The commands of all RUN instructions, as words."""
        for instruction in self.instructions:
            if instruction.name == "RUN":
                yield from _commands(instruction)


def parse(text: str) -> list[Stage]:
    """Returns the stages, in their order.

    Raises:
        ValueError: An instruction is none that we know, or comes before the first FROM.
    """
    joined = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    stages: list[Stage] = []
    for line in filter(None, map(str.strip, joined.splitlines())):
        name, _, rest = line.partition(" ")
        if name not in _INSTRUCTIONS or "<<" in rest:
            raise ValueError(f"unknown instruction: {line!r}")
        flags = {}
        while found := re.match(r"\s*--(\w+)=(\S+)\s", rest):
            flags[found[1]] = found[2]
            rest = rest[found.end() :]
        instruction = Instruction(name, flags, rest.strip())
        if name == "FROM":
            image, *alias = instruction.words()
            if alias and (len(alias) != 2 or alias[0] != "AS"):
                raise ValueError(f"not FROM image AS name: {line!r}")
            stages.append(Stage(image, alias[1] if alias else None))
        elif not stages:
            raise ValueError(f"before the first FROM: {line!r}")
        else:
            stages[-1].instructions.append(instruction)
    return stages


def check(text: str, context: Collection[str]) -> list[str]:
    """Returns a line for each thing that is wrong.

    Args:
        text: The Dockerfile.
        context: The files and folders that Docker is given, relative to the project's root.
    """
    stages = parse(text)
    problems: list[str] = []
    for index, stage in enumerate(stages):
        if not re.search(r":(?!latest$)[\w.-]+$", stage.image):
            problems.append(f"FROM {stage.image}: without a tag that says which")
        stage.paths |= _IN_IMAGE.get(stage.image.partition(":")[0], set())
        earlier = {each.name: each for each in stages[:index] if each.name}
        for instruction in stage.instructions:
            problems += _check_instruction(instruction, stage, earlier, context)
    problems += _check_last(stages[-1])
    return problems


def _check_instruction(
    instruction: Instruction, stage: Stage, earlier: dict[str, Stage], context: Collection[str]
) -> Iterator[str]:
    if instruction.name == "WORKDIR":
        stage.folder = stage.folder / instruction.rest
        stage.paths.add(str(stage.folder))
    elif instruction.name == "COPY":
        *sources, target = instruction.words()
        origin = instruction.flags.get("from")
        if origin is not None and origin not in earlier:
            yield f"COPY --from={origin}: no such stage before"
            return
        for source in sources:
            there = earlier[origin].paths if origin is not None else context
            if source not in there:
                yield f"COPY {source}: not in {origin or 'what Docker is given'}"
            is_folder = target.endswith("/")
            copied = f"{target}{PurePosixPath(source).name}" if is_folder else target
            stage.paths.add(stage.at(copied))
    elif instruction.name == "RUN":
        for command in _commands(instruction):
            yield from _check_command(command, stage)


def _commands(instruction: Instruction) -> Iterator[list[str]]:
    words: list[str] = []
    for word in [*instruction.words(), "&&"]:
        if word == "&&":
            yield words
            words = []
        else:
            words.append(word)


def _check_command(words: list[str], stage: Stage) -> Iterator[str]:
    if ">" in words:
        stage.paths.add(stage.at(words[-1]))
        words = words[: words.index(">")]
    program, *arguments = words
    line = shlex.join(words)
    if program not in stage.programs:
        yield f"RUN {line}: no program {program!r} here"
    if words[:3] == ["python", "-m", "venv"]:
        stage.paths.add(words[3])
        stage.programs.add("pip")
    elif program == "mkdir":
        stage.paths.update(map(stage.at, arguments))
    elif program == "useradd":
        stage.users.add(arguments[-1])
    elif program == "chown":
        if arguments[0].partition(":")[0] not in stage.users:
            yield f"RUN {line}: no such user"
        yield from (f"RUN {line}: no {each}" for each in arguments[1:] if each not in stage.paths)
    elif program == "awk":
        if stage.at(arguments[-1]) not in stage.paths:
            yield f"RUN {line}: no {arguments[-1]}"
    elif program in {"pip", "uv"}:
        yield from _check_install(line, arguments, stage)


def _check_install(line: str, arguments: list[str], stage: Stage) -> Iterator[str]:
    """Whether everything that is downloaded is told by its hash, and the files are there."""
    ours = arguments[-1] == "."
    if "--require-hashes" not in arguments and not (
        ours and {"--no-deps", "--no-build-isolation"} <= set(arguments)
    ):
        yield f"RUN {line}: without --require-hashes"
    files = [] if ours else arguments[-1:]
    for flag in ("--build-constraints", "--requirement", "--python"):
        files += [arguments[arguments.index(flag) + 1]] if flag in arguments else []
    for file in files:
        path = stage.at(file)
        if path not in stage.paths and path.removesuffix("/bin/python") not in stage.paths:
            yield f"RUN {line}: no {file}"
    if "uv.lock" in arguments:
        stage.programs.add("uv")


def _check_last(stage: Stage) -> Iterator[str]:
    """What holds of the stage that becomes the image."""
    for words in stage.commands():
        if words[0] in _INSTALLERS:
            yield f"RUN {shlex.join(words)}: installs into the image itself"
    user = stage.last("USER")
    if user is None or not re.fullmatch(r"[1-9]\d*:[1-9]\d*", user.rest):
        yield f"USER must be numbers other than root's, got {user and user.rest}"
    entry_point = stage.last("ENTRYPOINT")
    if entry_point is None or not entry_point.rest.startswith("["):
        yield "ENTRYPOINT must be a list, so that signals reach it"
    elif entry_point.words()[0] not in stage.paths:
        yield f"ENTRYPOINT {entry_point.words()[0]}: not in the image"
