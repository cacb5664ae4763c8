"""Text for a terminal."""

import unicodedata

# Controls, direction marks and other invisible signs, halves of characters, separators of lines and paragraphs.
_UNPRINTABLE = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def printable(text: str) -> str:
    """The text with escapes for characters that would control a terminal; tabs and line breaks stay."""
    if text.isprintable():
        return text
    return "".join(
        character.encode("unicode_escape").decode()
        if unicodedata.category(character) in _UNPRINTABLE and character not in "\n\t"
        else character
        for character in text
    )
