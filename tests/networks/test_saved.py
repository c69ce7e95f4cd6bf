"""Files in the place of weights: what is whole is read, whatever else is named."""

import gzip
import json
import pickle
import re
import struct
import sys
import tracemalloc
import zipfile

import pytest
import safetensors.torch
import torch

from lightmuseg.errors import InputError
from lightmuseg.networks.saved import read_saved

WEIGHTS = {"a.weight": torch.arange(4000.0).reshape(40, 100), "a.bias": torch.ones(40)}
REMEDY = "copy it again"


def refused(path, *words):
    with pytest.raises(InputError) as caught:
        read_saved(path, REMEDY)
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith(f"{path}: ")
    assert line.endswith(".")
    assert [word for word in words if word not in line] == [], line


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "Gewichte ä.pt"
    torch.save(WEIGHTS, path)
    return path


def rewritten(path, write):
    """The members of a file of torch.save in another archive; ``write(archive, info, content)`` writes one."""
    with zipfile.ZipFile(path) as archive:
        members = [(info, archive.read(info)) for info in archive.infolist()]
    with zipfile.ZipFile(path, "w") as archive:
        for info, content in members:
            write(archive, info, content)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "as before 1.6"])
def test_what_torch_saves_is_read(tmp_path, zipped):
    content = {**WEIGHTS, "epoch": 3, "options": {"classes": [1, 2], "seed": None, "name": "é"}}
    torch.save(content, tmp_path / "w.pt", _use_new_zipfile_serialization=zipped)
    read = read_saved(str(tmp_path / "w.pt"), REMEDY)
    assert all(torch.equal(read[name], tensor) for name, tensor in WEIGHTS.items())
    assert {name: value for name, value in read.items() if name not in WEIGHTS} == {
        "epoch": 3, "options": content["options"],
    }  # fmt: skip


def test_the_bundles_weights_and_published_ones_are_read(root, data):
    assert read_saved(root / "bundle" / "models" / "model.pt", REMEDY)
    for path in (data / "weights").glob("*.pth"):
        assert read_saved(path, REMEDY)


def test_one_other_bit_anywhere_is_noticed(saved):
    whole = saved.read_bytes()
    with zipfile.ZipFile(saved) as archive:
        infos = [info for info in archive.infolist() if info.file_size]
        places = [whole.index(archive.read(info), info.header_offset) + info.file_size // 2 for info in infos]
    assert len(places) >= 4
    for place in places:
        saved.write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
        refused(saved, "damaged", REMEDY)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_a_file_that_ends_early_is_named(saved, share):
    saved.write_bytes(saved.read_bytes()[: int(share * saved.stat().st_size)])
    refused(saved, "damaged", REMEDY)


def test_a_hole_of_zeros_is_noticed(saved):
    whole = saved.read_bytes()
    place = whole.index(WEIGHTS["a.weight"].numpy().tobytes()) + 4096
    saved.write_bytes(whole[:place] + bytes(512) + whole[place + 512 :])
    refused(saved, "damaged", REMEDY)


def test_a_packed_member_is_refused_before_it_fills_the_memory(saved):
    bomb = bytes(200_000_000)
    rewritten(saved, lambda archive, info, content: archive.writestr(
        info.filename, bomb if info.filename.endswith("data/0") else content, zipfile.ZIP_DEFLATED,
    ))  # fmt: skip
    assert saved.stat().st_size < 1_000_000
    tracemalloc.start()
    refused(saved, "claims to be larger than it is", "torch.save")
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_members_that_claim_more_than_the_file_holds_are_refused(saved):
    content = bytearray(saved.read_bytes())
    for found in re.finditer(rb"PK\x01\x02", content):
        # the size of the member, in the archive's table
        struct.pack_into("<I", content, found.start() + 24, 1_000_000_000)
    saved.write_bytes(content)
    refused(saved, "claims to be larger than it is")


class Network(torch.nn.Linear):
    """A network that somebody saves whole."""


OTHERS = {
    "empty": (lambda path: path.write_bytes(b""), ["is empty", REMEDY]),
    "web page": (lambda path: path.write_text("\n<!DOCTYPE html>\n<html>404"), ["web page", "download"]),
    "refusal": (lambda path: path.write_text("\ufeff<?xml version='1.0'?><Error>AccessDenied"), ["web page"]),
    "pointer": (
        lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n"),
        ["pointer of Git LFS", "git lfs pull"],
    ),
    "safetensors": (lambda path: safetensors.torch.save_file(WEIGHTS, path), ["safetensors", "torch.save"]),
    "Keras": (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100)), ["HDF5"]),
    "gzip": (lambda path: path.write_bytes(gzip.compress(b"x" * 100)), ["gzip", "unpack"]),
    "pickle": (lambda path: path.write_bytes(pickle.dumps({"a": [1.0]})), ["pickle", "torch.save"]),
    "TorchScript": (
        lambda path: torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)).save(path), ["TorchScript", "weights"],
    ),
    "zip": (lambda path: zipfile.ZipFile(path, "w").writestr("a.txt", "a"), ["zip archive", "torch.save"]),
    "network": (lambda path: torch.save(Network(2, 2), path), ["Network", "state_dict()"]),
    "old network": (
        lambda path: torch.save(Network(2, 2), path, _use_new_zipfile_serialization=False), ["Network", "state_dict()"],
    ),
    "text": (lambda path: path.write_text("hello world\n"), ["is no file of torch.save", REMEDY]),
    "zeros": (lambda path: path.write_bytes(bytes(1000)), ["is no file of torch.save", REMEDY]),
    "manifest": (lambda path: path.write_text(json.dumps({"a": 1})), ["is no file of torch.save", REMEDY]),
}  # fmt: skip


@pytest.mark.parametrize("kind", OTHERS)
def test_what_is_no_file_of_weights_is_named(tmp_path, kind):
    make, words = OTHERS[kind]
    path = tmp_path / "model.pt"
    make(path)
    refused(path, *words)


def test_nobody_is_told_to_trust_a_file(tmp_path):
    torch.save(Network(2, 2), tmp_path / "model.pt")
    with pytest.raises(InputError) as caught:
        read_saved(tmp_path / "model.pt", REMEDY)
    said = str(caught.value).removeprefix(str(tmp_path))
    assert "trust" not in said
    assert "weights_only" not in said
    assert f"{sys.modules[__name__].__name__}.Network" in said
