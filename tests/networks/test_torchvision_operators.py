import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

# The file alone: the package would bring MONAI along.
LOAD = """
import importlib.util, json, os, sys, torch
spec = importlib.util.spec_from_file_location("operators", "lightmuseg/networks/torchvision_operators.py")
operators = importlib.util.module_from_spec(spec)
spec.loader.exec_module(operators)
"""
# What is declared stays so, hence a process for each folder.
IN_EACH_FOLDER = """
for folder in sys.argv[1:]:
    child = os.fork()
    if child == 0:
        sys.path.insert(0, folder)
        if not os.path.exists(folder):
            sys.modules["torchvision"] = None
        operators.declare_missing_operators()
        print(json.dumps([name for name in ("nms", "qnms") if hasattr(torch.ops.torchvision, name)]), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""


@pytest.fixture
def python(root):
    """Run a script in a fresh interpreter."""

    def call(script, *arguments):
        command = [sys.executable, "-c", LOAD + script, *map(str, arguments)]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return call


def test_torchvision_imports_and_a_second_call_does_nothing(python):
    pytest.importorskip("torchvision")
    calls = "operators.declare_missing_operators()\n" * 2
    assert python(f"{calls}import torchvision\n{calls}print(torchvision.ops.nms.__name__)") == "nms\n"


@pytest.mark.skipif(not hasattr(os, "fork") or sys.platform == "darwin", reason="takes a library by its Linux name")
def test_operators_are_declared_only_where_the_extension_is_missing_or_does_not_load(python, tmp_path):
    libraries = {
        "missing": None,
        "broken": Path(__file__),
        "whole": Path(torch.__file__).parent / "lib" / "libtorch_global_deps.so",
    }
    for case, library in libraries.items():
        package = tmp_path / case / "torchvision"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("")
        if library:
            (package / "_C.so").symlink_to(library)
    cases = [*libraries, "no torchvision"]
    found = python(IN_EACH_FOLDER, *(tmp_path / case for case in cases)).splitlines()
    assert dict(zip(cases, map(json.loads, found))) == {
        "missing": ["nms", "qnms"],
        "broken": ["nms", "qnms"],
        "whole": [],
        "no torchvision": [],
    }
