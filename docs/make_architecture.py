"""Draw the wings of bdtr and the arrows between them, from the imports: ``python docs/make_architecture.py``.

The picture is ``docs/architecture.svg``; a test fails when it no longer fits the imports.
"""

from __future__ import annotations

import ast
from collections import Counter
from functools import cache
from html import escape
from pathlib import Path

ROOT = Path(__file__).parent.parent / "bdtr"
PICTURE = Path(__file__).parent / "architecture.svg"
# From the ground up: what a wing imports stands below it.
FLOORS = [
    "results", "trial", "engine", "datasets", "data", "stages", "backward", "values", "decisions",
    "checks", "plots", "reports", "cli",
]  # fmt: skip
_ROW, _LEFT, _BOX, _CELL, _TOP = 46, 62, 430, 34, 92


@cache
def modules() -> dict[str, Path]:
    """Files by dotted name, the lists of names that each wing gives out apart."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        if path.name != "__init__.py":
            found[name] = path
    return found


def wing(module: str) -> str:
    """The wing that a file stands in."""
    return module.split(".")[0]


@cache
def arrows() -> dict[str, tuple[str, ...]]:
    """What each file imports of bdtr, type hints and imports within functions included."""
    return {name: tuple(sorted(_imported(path) - {name})) for name, path in modules().items()}


def _imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {
                a.name.removeprefix("bdtr.") for a in node.names if a.name.startswith("bdtr.")
            }
        if not isinstance(node, ast.ImportFrom) or (node.module or "").split(".")[0] != "bdtr":
            continue
        base = (node.module or "").removeprefix("bdtr").lstrip(".")
        for alias in node.names:
            deeper = f"{base}.{alias.name}".lstrip(".")
            found.add(deeper if deeper in modules() or not base else base)
    return found


def _counts() -> Counter[tuple[str, str]]:
    """Imports from one wing to another."""
    pairs = [(wing(m), wing(t)) for m, targets in arrows().items() for t in targets]
    return Counter((a, b) for a, b in pairs if a != b)


def _shortest(counts: Counter[tuple[str, str]]) -> list[tuple[str, str]]:
    """Arrows that no way round through other wings says as well."""
    reach: dict[str, set[str]] = {}
    for one in FLOORS:  # from the ground up
        below = {b for a, b in counts if a == one}
        reach[one] = below.union(*(reach[b] for b in below))
    return [
        (a, b)
        for a, b in sorted(counts)
        if not any(b in reach[c] for c in {y for x, y in counts if x == a} - {b})
    ]


def _says(name: str) -> str:
    """First line of the docstring of a wing."""
    path = ROOT / name / "__init__.py"
    source = path if path.exists() else ROOT / f"{name}.py"
    said = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or ""
    return said.split("\n")[0].split(": ")[-1] if name == "cli" else said.split("\n")[0]


def drawn() -> str:
    """The picture as SVG: floors from the ground up, arrows down, and how many imports each stands for."""
    counts, rows = _counts(), FLOORS[::-1]
    at = {name: _TOP + i * _ROW for i, name in enumerate(rows)}
    files = Counter(wing(m) for m in modules())
    right = _LEFT + _BOX + 20
    width, height = right + _CELL * len(rows) + 20, _TOP + _ROW * len(rows) + 20
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="13">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="#1b6ca8"/></marker></defs>',
        f'<text x="{_LEFT}" y="24" font-weight="bold">A wing uses only those below it</text>',
        f'<text x="{right}" y="24" font-weight="bold">Imports of files, row from column</text>',
    ]
    for name in rows:
        y = at[name]
        count = f"{files[name]} file" + ("s" if files[name] > 1 else "")
        out += [
            f'<rect x="{_LEFT}" y="{y}" width="{_BOX}" height="{_ROW - 10}" rx="4" fill="#eef4f9" '
            'stroke="#1b6ca8"/>',
            f'<text x="{_LEFT + 10}" y="{y + 15}" font-weight="bold">{name}</text>',
            f'<text x="{_LEFT + _BOX - 10}" y="{y + 15}" text-anchor="end" fill="#555555">{count}</text>',
            f'<text x="{_LEFT + 10}" y="{y + 30}" font-size="11" fill="#333333">{escape(_says(name))}</text>',
        ]
    for a, b in _shortest(counts):
        start, end = at[a] + 22, at[b] + 12
        bend = _LEFT - 14 - 8 * (rows.index(b) - rows.index(a))
        out.append(
            f'<path d="M{_LEFT} {start} C{bend} {start} {bend} {end} {_LEFT - 1} {end}" fill="none" '
            'stroke="#1b6ca8" stroke-width="1.3" marker-end="url(#tip)"/>'
        )
    for j, column in enumerate(rows):
        x = right + j * _CELL + _CELL / 2
        out.append(
            f'<text transform="translate({x:g} {_TOP - 6}) rotate(-60)" font-size="11">{column}</text>'
        )
        for i, row in enumerate(rows):
            y, count, side = at[row], counts[row, column], right + j * _CELL
            fill = "#d5d5d5" if i == j else "#f7f7f7" if i > j else "#ffffff"
            out.append(
                f'<rect x="{side}" y="{y}" width="{_CELL - 2}" height="{_ROW - 10}" fill="{fill}"/>'
            )
            if count:
                out.append(
                    f'<text x="{x - 1:g}" y="{y + 22}" text-anchor="middle" font-size="11">{count}</text>'
                )
    return "\n".join([*out, "</svg>"]) + "\n"


if __name__ == "__main__":
    PICTURE.write_text(drawn(), encoding="utf-8")
