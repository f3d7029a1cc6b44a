"""Checks that a page is well-formed HTML and lists what it would load."""

from __future__ import annotations

from html.parser import HTMLParser

INLINE = ("#", "data:image/png;base64,")
VOID = {"meta", "col", "br", "link", "img", "input", "hr"}


class Checker(HTMLParser):
    """Collects what a page would load, its ids, and tags that are not closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.ids: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        if tag in {"script", "link", "iframe", "img", "object"}:
            self.loads.append(tag)
        for name, value in attributes:
            if name in {"src", "href", "xlink:href", "data"} and not (value or "").startswith(INLINE):
                self.loads.append(f"{tag} {name}={value}")
            if name == "id":
                self.ids.append(value or "")

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def check(page: str) -> Checker:
    """Reads a page; fails if its tags are not closed in order."""
    checker = Checker()
    checker.feed(page)
    assert checker.open == []
    return checker
