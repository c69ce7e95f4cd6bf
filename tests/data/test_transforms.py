from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import Compose
from PIL import Image

from lightmuseg.data import ClassMapsd, CodesToClassesd

TRAIN_CONFIG = Path(__file__).parents[2] / "bundle" / "configs" / "train.json"
CLASSES = {"tumor": [1, 19, 20], "stroma": [2], "lymphocytic_infiltrate": [3, 10, 11]}


def slow_classes(codes, classes, ignored):
    result = np.zeros(codes.shape)
    for place in np.ndindex(codes.shape):
        for index, members in enumerate(classes.values(), start=1):
            if codes[place] in members:
                result[place] = index
            # not tumor: here class 1 of several
            if codes[place] == 22:
                result[place] = 0 if len(classes) == 1 else 254
        if codes[place] in ignored:
            result[place] = 255
    return result


@pytest.mark.parametrize("make", [torch.as_tensor, lambda codes: MetaTensor(torch.as_tensor(codes))])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.int64])
def test_classes_are_those_of_a_slow_loop(make, dtype):
    codes = np.random.default_rng(0).integers(0, 256, (1, 40, 30)).astype(dtype)
    result = CodesToClassesd("label", CLASSES, [0, 7])({"label": make(codes)})["label"]
    assert result.shape == (1, 40, 30)
    assert np.array_equal(np.asarray(result), slow_classes(codes, CLASSES, [0, 7]))


def test_file_name_and_the_input_are_kept():
    codes = MetaTensor(torch.ones(1, 4, 5), meta={"filename_or_obj": "mask ä.png"})
    result = CodesToClassesd("label", {"stroma": [2]})({"label": codes, "patient": "A"})
    assert result["label"].meta["filename_or_obj"] == "mask ä.png"
    assert result["patient"] == "A"
    assert result["label"].max() == 0
    assert codes.min() == 1


@pytest.mark.parametrize(
    ("classes", "ignored", "code"),
    [
        ({"tumor": [1, 2], "stroma": [2]}, [], 2),
        ({"tumor": [1, 1]}, [], 1),
        ({"tumor": [1]}, [0, 1], 1),
        ({"tumor": [-1]}, [], -1),
        ({"tumor": [255]}, [], 255),
        ({"tumor": [1]}, [256], 256),
    ],
)
def test_code_named_twice_or_out_of_range_is_refused(classes, ignored, code):
    with pytest.raises(ValueError, match=f"code {code} "):
        CodesToClassesd("label", classes, ignored)


@pytest.fixture
def train_config(tmp_path):
    config = ConfigParser()
    config.read_config(TRAIN_CONFIG)
    config["bundle_root"] = str(tmp_path)
    config["tile_size"] = 512
    return config


def write_sample(folder, picture, codes):
    Image.fromarray(picture).save(folder / "picture ü.png")
    Image.fromarray(codes).save(folder / "mask ü.png")
    return {"image": str(folder / "picture ü.png"), "label": str(folder / "mask ü.png")}


def test_loaded_sample_is_normalised_with_rows_and_columns_in_place(train_config, tmp_path):
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (40, 70, 3), dtype=np.uint8)
    codes = rng.integers(0, 22, (40, 70), dtype=np.uint8)
    parts = {key: train_config.get_parsed_content(key) for key in ("loading", "scaling", "normalising")}
    load = Compose([*parts["loading"], parts["scaling"], *parts["normalising"]])
    sample = load(write_sample(tmp_path, picture, codes))
    expected = (picture / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    assert sample["image"].shape == (3, 40, 70)
    np.testing.assert_allclose(sample["image"].numpy().transpose(1, 2, 0), expected, atol=1e-5)
    assert sample["label"].shape == (1, 40, 70)
    assert np.array_equal(sample["label"][0].numpy(), slow_classes(codes, {"tumor": [1]}, [0, 7]))
    assert sample["image"].meta["filename_or_obj"].endswith("picture ü.png")


def augmented(config, sample, seed):
    preprocessing = config.get_parsed_content("train#preprocessing")
    preprocessing.set_random_state(seed)
    return preprocessing(sample)


def red_of(image):
    return image[0].numpy() * 0.229 + 0.485


@pytest.mark.parametrize("seed", range(6))
def test_augmentation_keeps_image_and_mask_together(train_config, tmp_path, seed):
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6), dtype=np.uint8)
    tumor = np.array(Image.fromarray(coarse).resize((512, 512), Image.Resampling.BICUBIC)) > 140
    picture = np.zeros((512, 512, 3), dtype=np.uint8)
    picture[..., 0] = tumor * 200
    # between 1 and 9 lies the ignored code 7, which an interpolated mask would show
    codes = np.where(tumor, 1, 9).astype(np.uint8)
    sample = augmented(train_config, write_sample(tmp_path, picture, codes), seed)
    assert sample["image"].shape == (3, 512, 512)
    assert sample["label"].shape == (1, 512, 512)
    label = sample["label"][0].numpy()
    assert set(np.unique(label)) == {0, 1}
    assert ((red_of(sample["image"]) > 0.35) == label).mean() > 0.99
    assert (label != tumor).mean() > 0.1


def test_augmentation_scales_both_directions_alike(train_config, tmp_path):
    rows, columns = np.mgrid[:512, :512] - 256
    disc = (rows**2 + columns**2 < 90**2).astype(np.uint8) * 2 + 1
    sample = write_sample(tmp_path, np.zeros((512, 512, 3), dtype=np.uint8), 4 - disc)
    areas = []
    for seed in range(8):
        places = np.argwhere(augmented(train_config, sample, seed)["label"][0].numpy() == 1)
        short, long = np.sqrt(np.linalg.eigvalsh(np.cov(places.T)))
        areas.append(len(places) / (np.pi * 90**2))
        assert long / short < 1.05
    assert min(areas) < 0.9
    assert max(areas) > 1.1


def test_brightness_changes_and_the_label_does_not(train_config, tmp_path):
    picture = np.full((512, 512, 3), 128, dtype=np.uint8)
    sample = write_sample(tmp_path, picture, np.ones((512, 512), dtype=np.uint8))
    results = [augmented(train_config, sample, seed) for seed in range(8)]
    factors = [float(red_of(result["image"]).mean()) / (128 / 255) for result in results]
    assert len({round(factor, 3) for factor in factors}) > 2
    assert min(factors) > 0.79
    assert max(factors) < 1.21
    assert all(result["label"].unique().tolist() == [1] for result in results)


def test_augmented_sample_is_the_same_for_the_same_seed(train_config, tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (512, 512, 3), dtype=np.uint8)
    sample = write_sample(tmp_path, picture, (picture[..., 0] % 3))
    first, again, other = (augmented(train_config, sample, seed)["image"] for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_merged_codes_take_the_class_of_the_other():
    codes = torch.tensor([[[1, 19, 20, 3, 10, 11, 2]]])
    merged = {"19": 1, "20": 1, "10": 3, "11": 3}
    transform = CodesToClassesd("label", {"tumor": [1], "lymphocytic_infiltrate": [3]}, [0], merged)
    assert transform({"label": codes})["label"].tolist() == [[[1, 1, 1, 2, 2, 2, 0]]]


@pytest.mark.parametrize(
    ("classes", "value"),
    [
        ({"tumor": [1]}, 0), ({"tumor": [1, 19]}, 0), ({"stroma": [2]}, 255),
        ({"tumor": [1], "stroma": [2]}, 254), ({"stroma": [2], "tumor": [20, 1]}, 253),
        ({"stroma": [2], "necrosis": [4]}, 255), ({"stroma": [2], "benign": [22]}, 2),
    ],
)  # fmt: skip
def test_not_tumor_says_as_much_as_is_known(classes, value):
    assert CodesToClassesd("label", classes)({"label": torch.tensor([[[22]]])})["label"].tolist() == [[[value]]]


def test_not_tumor_can_be_ignored():
    assert CodesToClassesd("label", {"tumor": [1]}, [22])({"label": torch.tensor([[[22]]])})["label"].item() == 255


def test_what_a_pixel_is_not_is_left_out_of_metrics():
    maps = ClassMapsd()({"pred": torch.randn(4, 1, 2), "label": torch.tensor([[[254.0, 2.0]]])})
    assert maps["label"][:, 0].T.tolist() == [[0, 0, 0, 0], [0, 0, 1, 0]]
    assert maps["mask"][:, 0].T.tolist() == [[255, 255, 255], [0, 1, 0]]


def test_code_merged_and_named_is_refused():
    with pytest.raises(ValueError, match="code 1 is merged into 2"):
        CodesToClassesd("label", {"tumor": [1]}, [0], {"1": 2})


def test_maps_of_one_class_are_binary_with_255():
    logits = torch.tensor([[[-1.0, 0.0, 2.0]]])
    label = torch.tensor([[[0.0, 255.0, 1.0]]])
    maps = ClassMapsd()({"pred": logits, "label": label})
    assert maps["pred"].tolist() == [[[0, 1, 1]]]
    assert torch.equal(maps["label"], label)
    assert torch.equal(maps["mask"], label)
    assert torch.allclose(maps["probability"], 1 / (1 + torch.exp(-logits)))


def test_maps_of_several_classes_are_one_hot_and_empty_where_nothing_is_annotated():
    logits = torch.randn(4, 2, 3)
    label = torch.tensor([[[0.0, 1.0, 2.0], [3.0, 255.0, 1.0]]])
    maps = ClassMapsd()({"pred": logits.half(), "label": label})
    assert torch.equal(maps["pred"].argmax(dim=0), logits.half().argmax(dim=0))
    assert torch.equal(maps["pred"].sum(dim=0), torch.ones(2, 3))
    assert maps["label"][:, 0].T.tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]
    assert maps["label"][:, 1, 1].tolist() == [0, 0, 0, 0]
    assert maps["mask"][:, 1].T.tolist() == [[0, 0, 1], [255, 255, 255], [1, 0, 0]]
    assert torch.allclose(maps["probability"], logits.half().float().softmax(dim=0)[1:])
