"""Versions, the machine and hashes in run records."""

import hashlib
import json
import platform
import sys

import pytest
import torch

import lightmuseg
from lightmuseg.provenance import environment, sha256_of


@pytest.mark.parametrize("size", [0, 5, (1 << 20) + 3])
def test_sha256_equals_hashlibs(tmp_path, size):
    content = bytes(range(256)) * (size // 256 + 1)
    (tmp_path / "x").write_bytes(content[:size])
    assert sha256_of(tmp_path / "x") == hashlib.sha256(content[:size]).hexdigest()


def test_environment_names_versions_and_command():
    record = environment()
    assert record["lightmuseg"] == lightmuseg.__version__
    assert record["python"] == platform.python_version()
    assert record["packages"]["torch"] == torch.__version__
    assert record["command"] == sys.argv
    assert "no-such-package" not in record["packages"]
    assert json.loads(json.dumps(record)) == record
