import subprocess
import sys
from pathlib import Path

import pytest
import torch

# The file alone: the package would bring MONAI along.
LOAD = """
import importlib.util, sys, torch
spec = importlib.util.spec_from_file_location("operators", "lightmuseg/networks/torchvision_operators.py")
operators = importlib.util.module_from_spec(spec)
spec.loader.exec_module(operators)
"""
DECLARED = "print([name for name in ('nms', 'qnms') if hasattr(torch.ops.torchvision, name)])"


@pytest.fixture
def python(root):
    """Run a script in a fresh interpreter, where ``folder`` comes first on the path."""

    def call(script, folder=""):
        done = subprocess.run(
            [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(folder)!r}){LOAD}{script}"],
            cwd=root, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return call


def package(folder, extension):
    """A package torchvision with the file ``extension`` as its compiled operators."""
    (folder / "torchvision").mkdir()
    (folder / "torchvision" / "__init__.py").write_text("")
    if extension:
        (folder / "torchvision" / "_C.so").symlink_to(extension)


def test_torchvision_imports_and_a_second_call_does_nothing(python):
    pytest.importorskip("torchvision")
    calls = "operators.declare_missing_operators()\n" * 2
    assert python(f"{calls}import torchvision\n{calls}print(torchvision.ops.nms.__name__)") == "nms"


def test_operators_are_declared_where_the_extension_is_missing(python, tmp_path):
    package(tmp_path, extension=None)
    assert python(f"operators.declare_missing_operators()\n{DECLARED}", tmp_path) == "['nms', 'qnms']"


def test_operators_are_declared_where_the_extension_does_not_load(python, tmp_path):
    (tmp_path / "broken").write_text("no library")
    package(tmp_path, tmp_path / "broken")
    assert python(f"operators.declare_missing_operators()\n{DECLARED}", tmp_path) == "['nms', 'qnms']"


@pytest.mark.skipif(sys.platform != "linux", reason="takes a library of PyTorch's under its Linux name")
def test_nothing_is_declared_where_the_extension_loads(python, tmp_path):
    package(tmp_path, Path(torch.__file__).parent / "lib" / "libtorch_global_deps.so")
    assert python(f"operators.declare_missing_operators()\n{DECLARED}", tmp_path) == "[]"


def test_nothing_is_declared_without_torchvision(python):
    script = f"sys.modules['torchvision'] = None\noperators.declare_missing_operators()\n{DECLARED}"
    assert python(script) == "[]"
