"""Pictures of a report, as the README has them.

python -m tests.report_screenshots output/report.html docs/
"""

import sys
import tempfile
from pathlib import Path

from tests.chromium import Page, find_chromium, open_page

WIDTH = 1240  # CSS pixels: all columns of the table

# For each picture: the taste of who looks, the first and the last element that it shows.
PICTURES = {
    "report-runs": ("light", "header", "#runs"),
    "report-training": ("light", "#training", "#training"),
    "report-lineage": ("dark", "#lineage h2", "#lineage details[open] .chain"),
}

_MARGIN = 12


def take_screenshots(page: Page, report: Path, folder: Path) -> list[Path]:
    """Writes the pictures as PNG and returns their paths."""
    paths = []
    for name, (scheme, first, last) in PICTURES.items():
        page.look(WIDTH, 900, scheme)
        page.open(report.resolve().as_uri())
        top = page.evaluate(f"document.querySelector('{first}').getBoundingClientRect().top")
        bottom = page.evaluate(f"document.querySelector('{last}').getBoundingClientRect().bottom")
        height = page.evaluate("document.documentElement.scrollHeight")
        page.look(WIDTH, height, scheme)
        begin = max(0, top - _MARGIN)
        end = min(height, bottom + _MARGIN)
        path = folder / f"{name}.png"
        path.write_bytes(page.screenshot(y=begin, width=WIDTH, height=end - begin))
        paths.append(path)
    return paths


def main() -> None:
    report, folder = map(Path, sys.argv[1:])
    program = find_chromium()
    if program is None:
        sys.exit("needs a browser")
    # The browser's last child may still be writing there.
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile,
        open_page(program, Path(profile)) as page,
    ):
        for path in take_screenshots(page, report, folder):
            print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
