"""Draw the layers of `hpc_llm` from what import-linter checks: `python docs/layers.py`.

The order and the colours of the packages come from the contracts in `setup.cfg`, the descriptions
from the docstrings of the packages, the subpackages from their folders, so the figure matches the
code. `mkdocs build` runs it too (a hook in `mkdocs.yml`). It writes `docs/images/layers.svg` only
if the figure has changed.
"""

import ast
from configparser import ConfigParser
from html import escape
from pathlib import Path
from textwrap import wrap
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "images" / "layers.svg"
WIDTH, MARGIN, GAP, LEGEND_HEIGHT = 960, 16, 8, 34  # pixels
WIDE_HEIGHT, NARROW_HEIGHT = 48, 64  # pixels: one line of description, or two
LETTER = 6.7  # mean width of a letter of the description, pixels
COLOURS = {"torch": "#fde8d3", "light": "#dcebf7", "hydra": "#e3f1de"}
MEANINGS = {
    "torch": "may import torch, DeepSpeed, transformers, peft",
    "light": "never imports them: starts at once",
    "hydra": "the only package that imports Hydra",
}


def contracts() -> ConfigParser:
    """Read setup.cfg."""
    parser = ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def layers(parser: ConfigParser) -> list[list[str]]:
    """Return the packages of each layer, from the top down."""
    lines = parser["importlinter:contract:layers"]["layers"].split("\n")
    return [[package.strip() for package in line.split("|")] for line in lines if line.strip()]


def kind(package: str, parser: ConfigParser) -> str:
    """Return the contract that colours a package: a key of `COLOURS`."""

    def sources(contract: str) -> list[str]:
        return parser[f"importlinter:contract:{contract}"]["source_modules"].split()

    if package != "errors" and f"hpc_llm.{package}" not in sources("hydra"):
        return "hydra"
    return "light" if package == "errors" or f"hpc_llm.{package}" in sources("light") else "torch"


def description(package: str) -> str:
    """Return the first sentence of a package's docstring."""
    folder = ROOT / "hpc_llm" / package
    source = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
    text = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].replace("`", "").split())


def subpackages(package: str) -> list[str]:
    """Return the names of the packages inside a package."""
    return sorted(path.parent.name for path in (ROOT / "hpc_llm" / package).glob("*/__init__.py"))


def draw_subpackages(names: list[str], right: float, top: float) -> str:
    """Return small boxes for the subpackages, from `right` leftwards."""
    parts = []
    for name in reversed(names):
        width = 16 + LETTER * len(name)
        right -= width
        parts.append(
            f'<rect x="{right:.0f}" y="{top:.0f}" width="{width:.0f}" height="22" rx="4" '
            f'fill="#ffffff" fill-opacity="0.7" stroke="#8a94a0"/>'
            f'<text x="{right + 8:.0f}" y="{top + 15:.0f}" class="words">{name}/</text>'
        )
        right -= GAP
    return "".join(parts)


def draw_package(package: str, left: float, top: float, width: float, colour: str) -> str:
    """Return one box: the package's name, its description and its subpackages."""
    narrow = width < WIDTH / 2
    height = NARROW_HEIGHT if narrow else WIDE_HEIGHT
    lines = wrap(description(package), int((width - 24) / LETTER))[: 2 if narrow else 1]
    words = "".join(
        f'<text x="{left + 12:.0f}" y="{top + 39 + 15 * i:.0f}" class="words">{escape(line)}</text>'
        for i, line in enumerate(lines)
    )
    return (
        f'<rect x="{left:.0f}" y="{top:.0f}" width="{width:.0f}" height="{height}" rx="6" '
        f'fill="{colour}" stroke="#8a94a0"/>'
        f'<text x="{left + 12:.0f}" y="{top + 21:.0f}" class="package">{package}</text>{words}'
        f"{draw_subpackages(subpackages(package), left + width - 12, top + 6)}"
    )


def legend(top: float) -> str:
    """Return what the colours mean."""
    parts = []
    for i, (name, meaning) in enumerate(MEANINGS.items()):
        left = MARGIN + i * (WIDTH - 2 * MARGIN) / len(MEANINGS)
        parts.append(
            f'<rect x="{left:.0f}" y="{top:.0f}" width="14" height="14" '
            f'fill="{COLOURS[name]}" stroke="#8a94a0"/>'
            f'<text x="{left + 20:.0f}" y="{top + 12:.0f}" class="words">{meaning}</text>'
        )
    return "".join(parts)


def draw() -> str:
    """Return the figure as SVG."""
    parser = contracts()
    parts, top = [legend(MARGIN)], MARGIN + LEGEND_HEIGHT
    for packages in layers(parser):
        width = (WIDTH - 2 * MARGIN - GAP * (len(packages) - 1)) / len(packages)
        for i, package in enumerate(packages):
            colour = COLOURS[kind(package, parser)]
            parts.append(draw_package(package, MARGIN + i * (width + GAP), top, width, colour))
        top += (WIDE_HEIGHT if len(packages) == 1 else NARROW_HEIGHT) + GAP
    style = (
        "text{font-family:system-ui,sans-serif;fill:#1c2733}"
        ".package{font-size:15px;font-weight:600}.words{font-size:12px}"
    )
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top + MARGIN}" role="img" '
        f'aria-label="The packages of hpc_llm; a package imports only packages of lower layers">\n'
        f'<style>{style}</style>\n<rect width="100%" height="100%" fill="#ffffff"/>\n'
        f"{body}\n</svg>\n"
    )


def main() -> None:
    """Write the figure if it differs from the file."""
    picture = draw()
    if not PICTURE.exists() or PICTURE.read_text(encoding="utf-8") != picture:
        PICTURE.write_text(picture, encoding="utf-8")


def on_pre_build(config: Any) -> None:
    """Draw before MkDocs builds the pages."""
    del config
    main()


if __name__ == "__main__":
    main()
