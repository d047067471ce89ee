"""HTML parsed strictly, and the contrast of colours as WCAG 2 defines it; for tests of written pages."""

from html.parser import HTMLParser

VOID = {"meta", "img", "source", "input"}


class Page(HTMLParser):
    """A page whose tags must nest: ``tags`` in order with their attributes, ``text`` of everything that is shown."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open):
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of every element of a kind."""
        return [attributes for name, attributes in self.tags if name == tag]


def contrast(front: str, back: str) -> float:
    """The contrast of two colours ``#rrggbb``, from 1 to 21."""
    a, b = sorted(map(_luminance, (front, back)))
    return (b + 0.05) / (a + 0.05)


def _luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * channel for weight, channel in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
