"""The code keeps the project's own rules."""

import ast
import subprocess
import sys

import pytest

LAYERS = {
    "errors": 0, "pages": 1, "record": 1,
    "networks": 2, "losses": 2, "metrics": 2, "inferers": 2, "data": 2,
    "handlers": 3, "runtimes": 3, "slides": 4, "label": 5, "cohort": 5, "view": 5, "cli": 6,
}  # fmt: skip


def sources(root):
    return sorted((root / "lightmuseg").rglob("*.py"))


@pytest.mark.parametrize("command", [("check",), ("format", "--check")])
def test_ruff_finds_nothing(command, root):
    done = subprocess.run([sys.executable, "-m", "ruff", *command, "."], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_imports_go_down_only(root):
    for path in sources(root):
        own = path.relative_to(root / "lightmuseg").parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            module = node.module if isinstance(node, ast.ImportFrom) and not node.level else None
            parts = (module or "").split(".")
            if parts[0] == "lightmuseg" and len(parts) > 1 and parts[1] != own:
                assert LAYERS[parts[1]] <= LAYERS[own], f"{path.name} imports {module}"


def test_no_file_is_two_ideas_long(root):
    long = {path.name: n for path in sources(root) if (n := len(path.read_text(encoding="utf-8").splitlines())) > 300}
    assert long == {}


def test_public_names_have_docstrings(root):
    bare = []
    for path in sources(root):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        public = [n for n in tree.body if isinstance(n, (ast.ClassDef, ast.FunctionDef)) and not n.name.startswith("_")]
        bare += [f"{path.name}: {node.name}" for node in public if ast.get_docstring(node) is None]
        if ast.get_docstring(tree) is None:
            bare.append(path.name)
    assert bare == []
