"""What a browser would see of a page: its elements, its tables, its text. Refuses markup that does not nest."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = ("meta", "input", "br")


@dataclass
class Element:
    name: str
    attributes: dict[str, str | None]
    children: list[Element | str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(child if isinstance(child, str) else child.text for child in self.children)

    def all(self, name: str) -> list[Element]:
        """Of that name below this one, in order."""
        inner = [child for child in self.children if isinstance(child, Element)]
        return [found for child in inner for found in ([child] if child.name == name else []) + child.all(name)]

    def tables(self) -> dict[str, list[list[str]]]:
        """Caption, or the first heads of one without -> rows of cells."""
        found = {}
        for table in self.all("table"):
            captions = table.all("caption")
            name = captions[0].text if captions else ", ".join(head.text for head in table.all("th"))
            found[name] = [[cell.text for cell in row.all("td")] for row in table.all("tr") if row.all("td")]
        return found


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.stack = [Element("", {})]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(attrs) == len(dict(attrs)), f"<{tag}> has an attribute twice: {attrs}"
        made = Element(tag, dict(attrs))
        self.stack[-1].children.append(made)
        if tag not in VOID:
            self.stack.append(made)

    def handle_endtag(self, tag: str) -> None:
        assert self.stack[-1].name == tag, f"</{tag}> closes <{self.stack[-1].name}>"
        self.stack.pop()

    def handle_data(self, data: str) -> None:
        self.stack[-1].children.append(data)


def read(page: str) -> Element:
    """The html element. AssertionError for what is not well-formed."""
    reader = _Reader()
    reader.feed(page)
    reader.close()
    assert len(reader.stack) == 1, f"left open: {[element.name for element in reader.stack]}"
    return next(child for child in reader.stack[0].children if isinstance(child, Element))


def section(page: Element, id: str) -> Element:
    return next(one for one in page.all("section") if one.attributes["id"] == id)
