"""Text in LaTeX, shown as it is."""

import re

__all__ = ["text"]

MARKUP = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
SPECIAL = re.compile(r"[\\~^&%$#_{}]")
SUPERSCRIPTS = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
POWER = re.compile("[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+")


def text(value: object) -> str:
    """Return a value as text of one line; powers, times and minus signs in maths mode."""
    line = " ".join(str(value).split())
    line = SPECIAL.sub(lambda found: MARKUP.get(found[0], f"\\{found[0]}"), line)
    line = POWER.sub(lambda found: f"$^{{{found[0].translate(SUPERSCRIPTS)}}}$", line)
    return line.replace("×", r"$\times$").replace("−", "$-$")
