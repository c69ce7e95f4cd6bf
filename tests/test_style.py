"""The code keeps the project's own rules."""

import ast
import re
import subprocess
import sys
from collections import Counter

import pytest

LAYERS = {
    "errors": 0, "classes": 0, "files": 1, "guard": 1, "process": 1, "progress": 1, "lock": 2, "pages": 2,
    "text_files": 2, "provenance": 2, "pictures": 2, "networks": 3, "losses": 3, "metrics": 3, "inferers": 3,
    "wsi": 3, "models": 4, "data": 4, "areas": 4, "handlers": 5, "runtimes": 5, "engine": 6, "outputs": 7, "slides": 8,
    "label": 9, "cohort": 9, "view": 9, "cli": 10,
}  # fmt: skip


def sources(root):
    return sorted((root / "lightmuseg").rglob("*.py"))


@pytest.mark.parametrize("command", [("check",), ("format", "--check")])
def test_ruff_finds_nothing(command, root):
    done = subprocess.run([sys.executable, "-m", "ruff", *command, "."], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def imported(tree):
    """The modules that a file imports from the package, by their full names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            # a name may be a module too
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_imports_go_down_only(root):
    for path in sources(root):
        own = path.relative_to(root / "lightmuseg").parts[0].removesuffix(".py")
        for module in imported(ast.parse(path.read_text(encoding="utf-8"))):
            parts = module.split(".")
            if parts[0] == "lightmuseg" and parts[1:2] and parts[1] in LAYERS and parts[1] != own:
                assert LAYERS[parts[1]] <= LAYERS[own], f"{path.name} imports {module}"


@pytest.mark.parametrize(
    ("text", "modules"),
    [
        ("import lightmuseg.cli", ["lightmuseg.cli"]), ("import os, lightmuseg.view as v", ["os", "lightmuseg.view"]),
        ("from lightmuseg.engine.plan import Plan", ["lightmuseg.engine.plan.Plan"]),
        ("from lightmuseg import cohort", ["lightmuseg.cohort"]), ("from .plan import Plan", []),
    ],
)  # fmt: skip
def test_every_way_to_import_is_seen(text, modules):
    assert list(imported(ast.parse(text))) == modules


def test_slides_load_neither_monai_nor_pytorch(root, run):
    files = [path for path in sources(root) if "slides" in path.parts and path.name != "__init__.py"]
    modules = [".".join(path.relative_to(root).with_suffix("").parts) for path in files]
    # which parses the bundle's config
    modules.remove("lightmuseg.slides.bundle_config")
    modules += ["lightmuseg.cohort", "lightmuseg.data.demo"]
    code = f"import importlib, sys\nfor name in {modules}: importlib.import_module(name)\n"
    code += "print({'monai', 'torch'} & sys.modules.keys())"
    assert run("python", "-c", code, truly=True) == (0, "set()\n", "")


def test_no_file_is_two_ideas_long(root):
    long = {path.name: n for path in sources(root) if (n := len(path.read_text(encoding="utf-8").splitlines())) > 300}
    assert long == {}


def test_no_function_needs_scrolling(root):
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = ((path, node) for path in sources(root) for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    long = {
        f"{path.name}: {node.name}": node.end_lineno - node.lineno + 1
        for path, node in nodes
        if isinstance(node, functions) and node.end_lineno - node.lineno >= 60
    }
    assert long == {}


def test_library_code_prints_nothing(root):
    # the command line, the reports of faults, and the label server's own processes do
    printing = {
        path.relative_to(root / "lightmuseg").as_posix()
        for path in sources(root)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    }
    assert {name for name in printing if name.split("/")[0] not in ("cli", "errors.py", "label")} == set()


def test_a_modules_name_is_met_once(root):
    counted = Counter(path.stem for path in sources(root) if path.stem not in ("__init__", "__main__"))
    assert [name for name, count in counted.items() if count > 1] == []


def test_public_names_have_docstrings(root):
    bare = []
    for path in sources(root):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        public = [n for n in tree.body if isinstance(n, (ast.ClassDef, ast.FunctionDef)) and not n.name.startswith("_")]
        bare += [f"{path.name}: {node.name}" for node in public if ast.get_docstring(node) is None]
        if ast.get_docstring(tree) is None:
            bare.append(path.name)
    assert bare == []


def test_every_extra_that_is_named_is_there(root):
    (extras,) = (
        keyword.value
        for node in ast.walk(ast.parse((root / "setup.py").read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg == "extras_require"
    )
    known = {key.value for key in extras.keys}
    kinds = ("*.md", "docs/**/*.md", "bundle/docs/*.md", "lightmuseg/**/*.py", "scripts/**/*", "deploy/*", "setup.py")
    named = [
        (path.relative_to(root).as_posix(), extra)
        for path in sorted({path for kind in kinds for path in root.glob(kind) if path.is_file()})
        for words in re.findall(
            r"(?:lightmuseg|(?<=['\"\s])\.)\[([a-z0-9_, -]+)\]", path.read_text(encoding="utf-8", errors="replace")
        )
        for extra in words.replace(" ", "").split(",")
    ]
    assert len(named) > 20
    assert [one for one in named if one[1] not in known] == []
