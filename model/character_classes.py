r"""Which characters are letters, numbers and white space to GPT-2's split pattern.

Each version of Unicode has more letters, and Python, its package `regex` and tiktoken each follow
one of their own. So tiktoken's engine is asked. It drops what its pattern does not match: an
encoding of single bytes with the pattern `\p{L}` gives back the letters of a text and nothing else.
"""

import functools
import sys

import numpy as np
import tiktoken

OTHER, LETTER, NUMBER, SPACE = range(4)

_PATTERNS = {LETTER: r"\p{L}+", NUMBER: r"\p{N}+", SPACE: r"\s+"}
_SURROGATES = range(0xD800, 0xE000)


@functools.cache
def character_classes() -> np.ndarray:
    """Returns uint8 [0x110000]: the class of each code point, OTHER for surrogates.

    Surrogates are no characters: text that was decoded from UTF-8 has none.
    """
    points = (point for point in range(sys.maxunicode + 1) if point not in _SURROGATES)
    text = "".join(map(chr, points))
    classes = np.full(sys.maxunicode + 1, OTHER, np.uint8)
    for number, pattern in _PATTERNS.items():
        classes[[ord(character) for character in _matches(pattern, text)]] = number
    classes.flags.writeable = False  # it is everyone's
    return classes


def _matches(pattern: str, text: str) -> str:
    """Returns what tiktoken's pattern engine matches in `text`, one match behind the other."""
    single_bytes = {bytes([value]): value for value in range(256)}
    probe = tiktoken.Encoding(
        "probe", pat_str=pattern, mergeable_ranks=single_bytes, special_tokens={}
    )
    return bytes(probe.encode_ordinary(text)).decode()
