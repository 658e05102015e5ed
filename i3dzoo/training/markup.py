"""HTML that cannot be injected into: whatever is not markup already is escaped."""

import html

__all__ = ["Markup", "join", "tag"]


_VOID = ("img", "meta")  # elements that HTML does not close


class Markup(str):
    """Text that is HTML; made by `tag` and `join` alone."""

    __slots__ = ()


def tag(name: str, /, *children: str, **attributes: str | float) -> Markup:
    """Make an element.

    Args:
        name: Of the element.
        children: Markup as it is; any other text is escaped.
        attributes: Always escaped. A final underscore is dropped, other underscores become
            hyphens: `class_="a"`, `data_tip="b"`. Numbers are written short.
    """
    written = "".join(f' {_name(key)}="{_attribute(value)}"' for key, value in attributes.items())
    if name in _VOID:
        return Markup(f"<{name}{written}>")
    return Markup(f"<{name}{written}>{join(*children)}</{name}>")


def join(*children: str) -> Markup:
    """Put pieces after each other; what is no markup is escaped."""
    return Markup(
        "".join(each if isinstance(each, Markup) else html.escape(each) for each in children)
    )


def _name(key: str) -> str:
    if key == "viewBox":
        return key
    return key.removesuffix("_").replace("_", "-")


def _attribute(value: str | float) -> str:
    text = value if isinstance(value, str) else f"{value:.6g}"
    return html.escape(text).replace("\n", "&#10;")  # XML takes a bare line end for a space
