"""Draw docs/images/architecture.svg from the imports of the package: python scripts/draw_architecture.py [OUTPUT].

A room is a folder or a file at the top of the package, or the bundle's configs; it stands right below what imports it.
An arrow that others imply is left out, lines to the same room join, and a circle of imports is refused.
"""

from __future__ import annotations

import ast
import re
import sys
import textwrap
from collections.abc import Mapping
from graphlib import TopologicalSorter
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).parents[1]
CONFIGS = "bundle/configs"
CONFIGS_SENTENCE = "Training, evaluation and inference, which name the parts by dotted path."
WIDTH, HEIGHT, GAP, LAYER, LETTERS, MOST, PULL = 190, 96, 12, 146, 28, 5, 0.9
FOLDER, FILE = 'fill="#e8f0fb" stroke="#5b85c2"', 'fill="#f8f4e9" stroke="#bfa767"'
STYLE = (
    "text{font-size:12px;text-anchor:middle;fill:#3a3f47}.name{font-size:14.5px;font-weight:bold;fill:#15181c}"
    "rect{rx:8px}path{fill:none;stroke:#8b95a5;stroke-width:1.5}marker path{fill:#8b95a5;stroke:none}"
    ".paper{fill:#fff;stroke:none}"
)
HEAD = """<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">
<path d="M0 0L8 4L0 8z"/></marker>"""
Graph = dict[str, set[str]]
Node = tuple[str, int]  # a room in its layer, or in one above it the point that lines to it pass


def modules_of(package: Path) -> dict[str, tuple[Path, ast.Module]]:
    """The modules of the package by their full names, parsed."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        found[".".join(parts).removesuffix(".__init__")] = path, ast.parse(path.read_text(encoding="utf-8"))
    return found


def imports_of(name: str, path: Path, tree: ast.Module, known: Mapping[str, object]) -> set[str]:
    """The modules of the package that a module imports, wherever in it."""
    parts, found = name.split("."), set()
    folder = parts if path.name == "__init__.py" else parts[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = folder[: len(folder) + 1 - node.level] if node.level else []
            stem = ".".join([*start, *([node.module] if node.module else [])])
            # a name may be a module too
            found |= {full if (full := f"{stem}.{alias.name}") in known else stem for alias in node.names}
    return (found & known.keys()) - {name}


def rooms_of(graph: Graph, configs: Path) -> Graph:
    """The rooms that each room imports, without those that others imply."""
    named = re.findall(r"lightmuseg\.\w+", " ".join(path.read_text("utf-8") for path in configs.glob("*.json")))
    rooms: Graph = {CONFIGS: {name.split(".")[1] for name in named if name in graph}}
    for name, targets in graph.items():
        if "." in name:
            rooms.setdefault(room := name.split(".")[1], set())
            rooms[room] |= {target.split(".")[1] for target in targets if "." in target} - {room}
    below: Graph = {}
    for name in TopologicalSorter(rooms).static_order():
        below[name] = rooms[name].union(*(below[target] for target in rooms[name]))
    return {name: some - set().union(*(below[one] for one in some)) for name, some in rooms.items()}


def levels_of(rooms: Graph) -> dict[str, int]:
    """The layer of each room, from 0 at the top, below what imports it; rooms that import none leave a full one."""
    levels: dict[str, int] = {}
    for name in reversed([*TopologicalSorter(rooms).static_order()]):
        levels[name] = 1 + max((levels[one] for one, some in rooms.items() if name in some), default=-1)
    for level in range(max(levels.values())):
        row = sorted(name for name in levels if levels[name] == level)
        levels |= dict.fromkeys([name for name in row if not rooms[name]][: max(0, len(row) - MOST)], level + 1)
    return levels


def places_of(links: list[tuple[Node, Node]], levels: dict[str, int]) -> tuple[dict[Node, float], float]:
    """The middle of each node, x, near to those that it is linked to; and the width of it all."""
    nodes = sorted({*levels.items(), *(node for link in links for node in link)})
    width = {node: WIDTH + GAP if node in levels.items() else 2 * GAP for node in nodes}
    layers = [[node for node in nodes if node[1] == level] for level in range(max(levels.values()) + 1)]
    most = max(sum(width[node] for node in layer) for layer in layers) / 2
    linked = {node: [(set(link) - {node}).pop() for link in links if node in link] for node in nodes}
    x: dict[Node, float] = {}
    for turn in range(40):
        for layer in layers if turn % 2 == 0 else layers[::-1]:
            known = {node: [x[one] for one in linked[node] if one in x] for node in layer}
            wished = {node: PULL * sum(known[node]) / max(1, len(known[node])) for node in layer}
            # those that would lie over one another are put side by side, around the mean of what they wish
            blocks: list[tuple[list[Node], float, float]] = []
            for node in sorted(layer, key=lambda one: (wished[one], one)):
                block, size = [node], width[node]
                middle = min(max(wished[node], size / 2 - most), most - size / 2)
                while blocks and blocks[-1][1] + blocks[-1][2] / 2 > middle - size / 2:
                    before, _, taken = blocks.pop()
                    block, size = before + block, taken + size
                    middle = sum(wished[one] for one in block) / len(block)
                    middle = min(max(middle, size / 2 - most), most - size / 2)
                blocks.append((block, middle, size))
            for block, middle, size in blocks:
                for node in block:
                    x[node] = middle - size / 2 + width[node] / 2
                    middle += width[node]
    left = min(x[node] - width[node] / 2 for node in nodes)
    return {node: x[node] - left for node in nodes}, max(x[node] + width[node] / 2 for node in nodes) - left


def draw(package: Path, configs: Path) -> str:
    """The picture as SVG; a CycleError where imports of modules, or of rooms, go round in a circle."""
    modules = modules_of(package)
    graph = {name: imports_of(name, *module, modules) for name, module in modules.items()}
    TopologicalSorter(graph).prepare()
    rooms = rooms_of(graph, configs)
    levels = levels_of(rooms)
    steps = [(name, one, y) for name in rooms for one in rooms[name] for y in range(levels[name], levels[one])]
    links = sorted({((name if y == levels[name] else one, y), (one, y + 1)) for name, one, y in steps})
    x, width = places_of(links, levels)
    lines, boxes = [], []
    for (upper, level), (lower, _) in links:
        bottom, top = GAP + level * LAYER + HEIGHT, GAP + (level + 1) * LAYER
        start, end = x[upper, level], x[lower, level + 1]
        start_y = bottom if levels[upper] == level else bottom - HEIGHT
        head = 'marker-end="url(#head)"' if levels[lower] == level + 1 else ""
        curve = f"C{start:.0f} {bottom + 26} {end:.0f} {top - 26} {end:.0f} {top}"
        lines.append(f'<path d="M{start:.0f} {start_y}V{bottom}{curve}" {head}/>')
    for name, level in sorted(levels.items()):
        path, tree = modules.get(f"lightmuseg.{name}", (Path("__init__.py"), ast.Module([], [])))
        sentence = (ast.get_docstring(tree) or CONFIGS_SENTENCE).split("\n")[0].replace("`", "")
        middle, y = x[name, level], GAP + level * LAYER
        kind, title = (FOLDER, name) if path.name == "__init__.py" else (FILE, path.name)
        boxes.append(f'<rect x="{middle - WIDTH / 2:.0f}" y="{y}" width="{WIDTH}" height="{HEIGHT}" {kind}/>')
        boxes.append(f'<text class="name" x="{middle:.0f}" y="{y + 21}">{title}</text>')
        for row, text in enumerate(textwrap.wrap(sentence, LETTERS)):
            boxes.append(f'<text x="{middle:.0f}" y="{y + 39 + 15 * row}">{escape(text)}</text>')
    height = max(levels.values()) * LAYER + HEIGHT + 2 * GAP
    size = f'viewBox="0 0 {width:.0f} {height}" font-family="Helvetica, Arial, sans-serif"'
    head = [f'<svg xmlns="http://www.w3.org/2000/svg" {size}>', f"<style>{STYLE}</style>", f"<defs>{HEAD}</defs>"]
    return "\n".join([*head, '<path class="paper" d="M0 0H9999V9999H0z"/>', *lines, *boxes, "</svg>\n"])


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "images" / "architecture.svg"
    target.write_text(draw(ROOT / "lightmuseg", ROOT / "bundle" / "configs"), encoding="utf-8")
