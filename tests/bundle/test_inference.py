"""The bundle segments images of any size into files that other programs read right."""

import hashlib
import json

import nibabel
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from lightmuseg.networks import LightMuSeg

MEAN, DEVIATION = np.array((0.485, 0.456, 0.406)), np.array((0.229, 0.224, 0.225))
READERS = {
    "png": (".png", lambda path: np.asarray(Image.open(path))),
    "tiff": (".tif", tifffile.imread),
    "nifti": (".nii.gz", lambda path: np.asarray(nibabel.load(path).dataobj).T),
}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A tile and a larger, lopsided image: dark in its right upper corner alone."""
    folder = tmp_path_factory.mktemp("des images")
    generator = np.random.default_rng(1)
    for name, (height, width) in (("tile", (64, 64)), ("wide é", (100, 230))):
        pixels = generator.integers(180, 250, (height, width, 3), dtype=np.uint8)
        pixels[: height // 3, -width // 3 :] //= 3
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder


def infer(run, images, weights, output, *options):
    command = ("python", "-m", "monai.bundle", "run", "--config_file", "bundle/configs/inference.json")
    folders = ("--dataset_dir", images, "--checkpoint", weights, "--output_dir", output)
    return run(*command, *folders, "--tile_size", 64, *options)


@pytest.mark.parametrize("output_format", ["png", "tiff", "nifti"])
def test_maps_are_the_networks_and_stand_upright_in_every_format(output_format, images, weights, run, tmp_path):
    options = "--output_format", output_format, "--overlap", 0, "--inferer#margin", 0
    status, _, stderr = infer(run, images, weights, tmp_path / "out", *options)
    assert status == 0, stderr
    ending, read = READERS[output_format]
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["run.json", f"tile_classes{ending}", f"wide é_classes{ending}"]

    network = LightMuSeg(encoder_weights=None).eval()
    network.load_state_dict(torch.load(weights, weights_only=True))
    pixels = np.asarray(Image.open(images / "tile.png")) / 255
    with torch.no_grad():
        logits = network(torch.from_numpy(((pixels - MEAN) / DEVIATION).transpose(2, 0, 1)[None]).float())[0, 0].numpy()
    found = read(tmp_path / "out" / f"tile_classes{ending}")
    clear = np.abs(logits) > 1e-3
    assert 0.02 < found.mean() < 0.98
    assert clear.mean() > 0.99
    assert np.array_equal(found[clear], (logits > 0)[clear])
    assert read(tmp_path / "out" / f"wide é_classes{ending}").shape == (100, 230)

    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["weights_sha256"]["checkpoint"] == hashlib.sha256(weights.read_bytes()).hexdigest()


def test_large_image_is_the_gaussian_blend_of_its_windows(images, weights, run, tmp_path):
    status, _, stderr = infer(run, images, weights, tmp_path / "out", "--overlap", 0.5)
    assert status == 0, stderr
    network = LightMuSeg(encoder_weights=None).eval()
    network.load_state_dict(torch.load(weights, weights_only=True))
    # with a margin of 16 mirrored pixels, a quarter of the window
    framed = np.pad(np.asarray(Image.open(images / "wide é.png")), ((16, 16), (16, 16), (0, 0)), mode="reflect")
    pixels = torch.from_numpy(((framed / 255 - MEAN) / DEVIATION).transpose(2, 0, 1))
    # windows of 64 every 32 pixels, the last ones moved back to the edge; weight: a Gaussian of sigma 1/8 of the window
    along = torch.exp(-0.5 * ((torch.arange(64) - 31.5) / 8) ** 2)
    window = (along[:, None] * along[None]).clamp(min=1e-3)
    total, weight = torch.zeros(132, 262), torch.zeros(132, 262)
    for y in (0, 32, 64, 68):
        for x in (0, 32, 64, 96, 128, 160, 192, 198):
            with torch.no_grad():
                part = network(pixels[None, :, y : y + 64, x : x + 64].float())[0, 0]
            total[y : y + 64, x : x + 64] += window * part
            weight[y : y + 64, x : x + 64] += window
    blended = (total / weight)[16:-16, 16:-16].numpy()
    found = np.asarray(Image.open(tmp_path / "out" / "wide é_classes.png"))
    agreement = (found == (blended > 0)).mean()
    assert agreement > 0.999
    assert 0.02 < found.mean() < 0.98


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--checkpoint", "absent.pt"), "absent.pt: no such weights file"),
        (("--output_format", "gif"), "output_format='gif' is not known"),
        (("--dataset_dir", "no such folder"), "no such folder: no such folder; name a folder of images"),
    ],
)
def test_wrong_options_end_in_one_line(options, message, images, weights, run, tmp_path):
    status, _, stderr = infer(run, images, weights, tmp_path / "out", *options)
    assert status == 1
    assert "Traceback" not in stderr
    assert stderr.splitlines()[-1].startswith("lightmuseg: error: ")
    assert message in stderr.splitlines()[-1]


def test_weights_of_another_network_are_refused_by_name(images, run, tmp_path):
    other = tmp_path / "five classes.pt"
    torch.save(LightMuSeg(out_channels=5, encoder_weights=None).state_dict(), other)
    status, _, stderr = infer(run, images, other, tmp_path / "out")
    assert status == 1
    assert "five classes.pt: has 5 outputs, not 1 for the classes tumor; give the config" in stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="is refused only where there is no GPU")
def test_tensorrt_without_a_gpu_is_refused_in_one_line(images, weights, run, tmp_path):
    configs = "['bundle/configs/inference.json','bundle/configs/inference_trt.json']"
    folders = ("--dataset_dir", images, "--checkpoint", weights, "--output_dir", tmp_path / "out")
    status, _, stderr = run("python", "-m", "monai.bundle", "run", "--config_file", configs, *folders)
    assert status == 1
    assert "lightmuseg: error: --runtime tensorrt: runs on cuda, not on the device cpu" in stderr.splitlines()[-1]
    assert "Traceback" not in stderr
