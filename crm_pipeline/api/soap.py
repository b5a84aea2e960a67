"""SOAP: a message as a tree of elements, within bounds, and with no way for it to define anything."""

from __future__ import annotations

from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from crm_pipeline.api.bodies import MAX_DEPTH, MAX_TEXT, MAX_VALUES
from crm_pipeline.api.problems import Problem

ENVELOPE = "{http://schemas.xmlsoap.org/soap/envelope/}"
_NOT_XML = "The body is not XML in UTF-8."


def parse(body: bytes) -> Element:
    """Read a message; names are ``{namespace}name``.

    Raises:
        Problem: it is not XML in UTF-8, beyond a bound, or it has a document type (400).
    """
    tree = _Tree()
    parser = expat.ParserCreate(namespace_separator="}")
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = _refuse_definitions
    parser.StartElementHandler = tree.start
    parser.EndElementHandler = tree.end
    parser.CharacterDataHandler = tree.text
    try:
        # As text: what the XML says of its encoding is not believed.
        parser.Parse(body.decode(), True)  # noqa: FBT003 - "is final"
    except (expat.ExpatError, ValueError):  # the error's text tells of the body
        raise Problem(400, _NOT_XML) from None
    return tree.builder.close()


def local(name: str) -> str:
    """A name without its namespace."""
    return name.rpartition("}")[2]


def _refuse_definitions(*_declared: object) -> None:
    raise Problem(400, "The XML must have no document type.")


class _Tree:
    """What the parser finds, held against the bounds that JSON bodies have."""

    def __init__(self) -> None:
        self.builder = TreeBuilder()
        self._depth = self._values = self._length = 0

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        self._values += 1 + len(attributes)
        self._length = 0
        if self._depth > MAX_DEPTH:
            raise Problem(400, "The XML is nested too deeply.")
        if self._values > MAX_VALUES:
            raise Problem(400, "The XML is too large.")
        self.builder.start(_named(name), {_named(key): value for key, value in attributes.items()})

    def end(self, name: str) -> None:
        self._depth -= 1
        self.builder.end(_named(name))

    def text(self, text: str) -> None:
        self._length += len(text)
        if self._length > MAX_TEXT:
            raise Problem(400, f"The XML holds a text of more than {MAX_TEXT} characters.")
        self.builder.data(text)


def _named(name: str) -> str:
    return f"{{{name}" if "}" in name else name
