"""probabilities.zarr, read back by zarr and byte by byte."""

import builtins
import json
import resource
from types import SimpleNamespace

import numpy as np
import pytest
from segmented_slides import segmented

from lightmuseg.errors import InputError
from lightmuseg.outputs.probabilities import write

zarr = pytest.importorskip("zarr")


def class_map_of(probabilities, names, mpp=0.5):
    def bands(height):
        return (probabilities[:, top : top + height] for top in range(0, probabilities.shape[1], height))

    _, height, width = probabilities.shape
    return SimpleNamespace(width=width, height=height, mpp=mpp, class_names=names, probability_bands=bands)


def write_probabilities(path, class_map):
    write(path, segmented(class_map))


def random_map(channels, height, width, names):
    return class_map_of(np.random.default_rng(0).integers(0, 256, (channels, height, width), np.uint8), names)


def values_of(class_map):
    return np.concatenate(list(class_map.probability_bands(100)), axis=1)


@pytest.mark.parametrize("size", [(1, 1), (1300, 7), (600, 1100), (512, 512)])
@pytest.mark.parametrize("names", [("tumor",), ("tumor", "stroma")])
def test_zarr_reads_the_values_back(tmp_path, size, names):
    class_map = random_map(1 if len(names) == 1 else 3, *size, names)
    write_probabilities(tmp_path / "probabilities.zarr", class_map)
    array = zarr.open_array(tmp_path / "probabilities.zarr" / "0", mode="r")
    assert array.dtype == np.uint8
    assert np.array_equal(array[:], values_of(class_map))
    assert array.attrs["scale_factor"] * 255 == pytest.approx(1)


def test_each_chunk_is_a_zstd_file_of_its_own(tmp_path):
    """The Zarr 3 layout by hand: c/<channel>/<row>/<column>, filled up to whole chunks; zeros have no file."""
    zstd = pytest.importorskip("imagecodecs").zstd_decode
    probabilities = np.random.default_rng(0).integers(0, 256, (3, 600, 700), np.uint8)
    probabilities[1, 512:, :512] = 0
    probabilities[2] = 0
    write_probabilities(tmp_path / "p.zarr", class_map_of(probabilities, ("tumor", "stroma")))
    folder = tmp_path / "p.zarr" / "0" / "c"
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    assert files == ["0/0/0", "0/0/1", "0/1/0", "0/1/1", "1/0/0", "1/0/1", "1/1/1"]
    chunk = np.frombuffer(zstd((folder / "1/1/1").read_bytes()), np.uint8).reshape(512, 512)
    assert np.array_equal(chunk[: 600 - 512, : 700 - 512], probabilities[1, 512:, 512:])


@pytest.mark.parametrize(
    ("names", "labels", "colours"),
    [
        (("tumor",), ["tumor"], ["DC2626"]),
        (("tumor", "stroma"), ["other", "tumor", "stroma"], ["FFFFFF", "DC2626", "22A046"]),
    ],
)
def test_ome_metadata_names_axes_scale_and_channels(tmp_path, names, labels, colours):
    class_map = random_map(len(labels), 30, 20, names)
    class_map.mpp = 0.4987
    write_probabilities(tmp_path / "probabilities.zarr", class_map)
    group = json.loads((tmp_path / "probabilities.zarr" / "zarr.json").read_text())
    assert group["zarr_format"] == 3
    ome = group["attributes"]["ome"]
    assert ome["version"] == "0.5"
    assert ome["multiscales"] == [
        {
            "name": "probabilities",
            "axes": [
                {"name": "c", "type": "channel"},
                {"name": "y", "type": "space", "unit": "micrometer"},
                {"name": "x", "type": "space", "unit": "micrometer"},
            ],
            "datasets": [
                {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1.0, 0.4987, 0.4987]}]}
            ],
        }
    ]
    channels = ome["omero"]["channels"]
    assert [channel["label"] for channel in channels] == labels
    assert [channel["color"] for channel in channels] == colours
    assert channels[0]["window"] == {"min": 0, "max": 255, "start": 0, "end": 255}
    array = json.loads((tmp_path / "probabilities.zarr" / "0" / "zarr.json").read_text())
    assert array["dimension_names"] == ["c", "y", "x"]


def test_two_runs_write_the_same_bytes_also_over_an_old_one(tmp_path):
    class_map = random_map(3, 700, 900, ("tumor", "stroma"))
    write_probabilities(tmp_path / "b", random_map(1, 2000, 2000, ("tumor",)))
    trees = []
    for name in ("a", "b"):
        write_probabilities(tmp_path / name, class_map)
        files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        content = [(path.relative_to(tmp_path / name).as_posix(), path.read_bytes()) for path in files]
        trees.append([(path, data.replace(f'"name": "{name}"'.encode(), b"")) for path, data in content])
    assert trees[0] == trees[1]


def test_a_full_disk_is_an_error(tmp_path):
    class_map = random_map(1, 700, 900, ("tumor",))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (0, 100, 200_000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        try:
            with pytest.raises(OSError):
                write_probabilities(tmp_path / "probabilities.zarr", class_map)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_without_zarr_the_extra_is_named(tmp_path, monkeypatch):
    importing = builtins.__import__

    def refusing(name, *rest):
        if name == "zarr":
            raise ImportError(name)
        return importing(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refusing)
    with pytest.raises(InputError, match=r"needs zarr 3 .*; pip install 'lightmuseg\[slides\]'"):
        write_probabilities(tmp_path / "probabilities.zarr", random_map(1, 2, 2, ("tumor",)))
