"""What a page of HTML says, read by Python's own parser."""

import html.parser


class PageText(html.parser.HTMLParser):
    """A page's tags with their attributes, each section's text, and its tables' cells.

    Attributes:
        tags: Name and attributes, in order.
        sections: The text of each element that has an id, by that id.
        rows: The cells of each table row, by the id of the section that it is in.
    """

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.sections: dict[str, str] = {}
        self.rows: dict[str, list[list[str]]] = {}
        self._section = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        self._section = attributes.get("id") or self._section
        rows = self.rows.setdefault(self._section, [])
        if tag == "tr":
            rows.append([])
        elif tag in ("td", "th"):
            rows[-1].append("")

    def handle_data(self, data: str) -> None:
        text = self.sections.get(self._section, "")
        self.sections[self._section] = " ".join(f"{text} {data}".split())
        rows = self.rows.get(self._section)
        if rows and rows[-1]:
            rows[-1][-1] = " ".join(f"{rows[-1][-1]} {data}".split())
