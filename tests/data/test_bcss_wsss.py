import importlib.util
import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from lightmuseg.data import load_tiles
from lightmuseg.data.bcss import CODES, read_mask
from lightmuseg.data.check import check_dataset
from lightmuseg.data.prepare import prepare_bcss_wsss
from lightmuseg.errors import InputError

# As the dataset's readme gives it.
PALETTE = [255, 0, 0, 0, 255, 0, 0, 0, 255, 153, 0, 255, 255, 255, 255]
NAMES = ("tumor", "stroma", "lymphocytic_infiltrate", "necrosis_or_debris", "outside_roi")
REGION = "TCGA-A1-A0SK-DX1_xmin45749_ymin25055_MPP-0.2500"
OTHER = "TCGA-EW-A1PB-DX1_xmin57214_ymin25940_MPP-0.2500"
# In the masks: the first shows what its label says, the second misses necrosis, the third shows a denied class.
TRAINING = {f"{REGION}+0[1101]": [0, 1, 3], f"{REGION}+1[0111]": [1, 2], f"{OTHER}+0[0100]": [1, 0]}


def palette_image(values):
    image = Image.fromarray(values).convert("P")
    image.putpalette(PALETTE)
    return image


def colour_image(values):
    return Image.fromarray(np.array(PALETTE, dtype=np.uint8).reshape(5, 3)[values])


def stripes(values):
    """A mask of vertical stripes, so that no two of them look alike turned."""
    return np.array(values, dtype=np.uint8).repeat(-(-224 // len(values)))[None, :224].repeat(224, axis=0)


@pytest.fixture
def source(tmp_path):
    """Three training patches and two of each other split, in the layout of the archive; val and test share a name."""
    folder = tmp_path / "BCSS-WSSS ü"
    rng = np.random.default_rng(0)
    images, masks = {}, {}
    for name in ("training", "train_PM/PM_bn7", "val/img", "val/mask", "test/img", "test/mask"):
        (folder / name).mkdir(parents=True)
    places = [("training", "train_PM/PM_bn7", "train", stem, values) for stem, values in TRAINING.items()]
    for split in ("val", "test"):
        for index, values in enumerate(([4, 3, 2], [0, 4])):
            places.append((f"{split}/img", f"{split}/mask", split, f"{REGION}+{index}", values))
    for image_folder, mask_folder, split, stem, values in places:
        image = rng.integers(0, 256, (224, 224, 3), dtype=np.uint8)
        Image.fromarray(image).save(folder / image_folder / f"{stem}.png")
        palette_image(stripes(values)).save(folder / mask_folder / f"{stem}.png")
        images[split, stem], masks[split, stem] = image, stripes(values)
    return SimpleNamespace(folder=folder, images=images, masks=masks)


@pytest.fixture
def prepared(source, tmp_path):
    output = tmp_path / "out"
    return SimpleNamespace(source=source, output=output, manifest=prepare_bcss_wsss(source.folder, output))


def as_codes(values):
    return np.array([CODES[name] for name in NAMES], dtype=np.uint8)[values]


def test_patches_become_tiles_of_the_published_splits(prepared):
    for split in ("train", "val", "test"):
        tiles = load_tiles(prepared.output, split)
        stems = [stem for part, stem in prepared.source.images if part == split]
        assert [tile["roi"] for tile in tiles] == [f"{split}_{stem}" for stem in sorted(stems)]
        for tile, stem in zip(tiles, sorted(stems)):
            assert np.array_equal(np.array(Image.open(tile["image"])), prepared.source.images[split, stem])
            assert np.array_equal(np.array(Image.open(tile["label"])), as_codes(prepared.source.masks[split, stem]))
            assert tile["patient"] == stem[:12]
            assert (tile["x"], tile["y"], tile["region_width"], tile["region_height"]) == (0, 0, 224, 224)
    assert prepared.manifest["options"]["split"] == "published"
    assert prepared.manifest["tile_size"] == 224


def test_image_level_labels_are_kept_as_codes(prepared):
    labels = {tile["roi"]: tile["image_label"] for tile in prepared.manifest["tiles"] if tile["split"] == "train"}
    assert labels == {
        f"train_{REGION}+0[1101]": [1, 2, 4],
        f"train_{REGION}+1[0111]": [2, 3, 4],
        f"train_{OTHER}+0[0100]": [2],
    }
    assert not any("image_label" in tile for tile in prepared.manifest["tiles"] if tile["split"] != "train")


def test_pseudo_labels_that_show_a_denied_class_are_counted(prepared):
    assert prepared.manifest["tiles_denied_by_image_label"] == 1
    on_disk = json.loads((prepared.output / "manifest.json").read_text(encoding="utf-8"))
    assert on_disk["tiles_denied_by_image_label"] == 1


def test_label_that_denies_everything_is_a_label(source, tmp_path):
    stem = f"{OTHER}+0[0100]"
    for folder in ("training", "train_PM/PM_bn7"):
        (source.folder / folder / f"{stem}.png").rename(source.folder / folder / f"{OTHER}+0[0000].png")
    manifest = prepare_bcss_wsss(source.folder, tmp_path / "out")
    assert [tile["image_label"] for tile in manifest["tiles"] if tile["split"] == "train"][2] == []
    assert manifest["tiles_denied_by_image_label"] == 1


def test_background_is_never_denied(source, tmp_path):
    for path in (source.folder / "train_PM" / "PM_bn7").iterdir():
        palette_image(stripes([4])).save(path)
    assert prepare_bcss_wsss(source.folder, tmp_path / "out")["tiles_denied_by_image_label"] == 0


@pytest.mark.parametrize("draw", [palette_image, Image.fromarray, colour_image])
def test_masks_may_be_index_grey_or_colour_images(source, draw):
    path = source.folder / "mask.png"
    values = stripes([3, 0, 4, 1, 2])
    draw(values).save(path)
    assert np.array_equal(read_mask(path, "bcss-wsss"), as_codes(values))


@pytest.mark.parametrize("draw", [palette_image, Image.fromarray])
def test_unknown_value_is_refused(source, draw):
    path = source.folder / "mask.png"
    draw(stripes([3, 5])).save(path)
    with pytest.raises(InputError, match=f"{re.escape(str(path))}: .*unknown mask code 5"):
        read_mask(path, "bcss-wsss")


def test_unknown_colour_is_refused(source):
    path = source.folder / "mask.png"
    colours = np.array(colour_image(stripes([0, 1])))
    colours[9, 8] = (154, 0, 255)
    Image.fromarray(colours).save(path)
    with pytest.raises(InputError, match=rf"{re.escape(str(path))}: .*unknown colour \(154, 0, 255\)"):
        read_mask(path, "bcss-wsss")


def test_unreadable_mask_is_refused(source):
    path = source.folder / "mask.png"
    path.write_text("no picture")
    with pytest.raises(InputError, match=f"{re.escape(str(path))}: not an image"):
        read_mask(path, "bcss-wsss")


def test_other_pseudo_labels_are_taken_from_the_folder_named(source, tmp_path):
    other = tmp_path / "mine"
    other.mkdir()
    for stem in TRAINING:
        colour_image(stripes([2, 3])).save(other / f"{stem}.png")
    manifest = prepare_bcss_wsss(source.folder, tmp_path / "out", str(other))
    half = 224 * 224 // 2
    training = [tile["code_pixels"] for tile in manifest["tiles"] if tile["split"] == "train"]
    assert training == [{"3": half, "4": half}] * 3


def test_training_folder_may_have_the_readmes_name(source, tmp_path):
    (source.folder / "training").rename(source.folder / "train")
    assert len(prepare_bcss_wsss(source.folder, tmp_path / "out")["tiles"]) == 7


@pytest.mark.parametrize(
    ("name", "words"), [("training", "training/"), ("train_PM", "--pseudo_labels"), ("val", "val/"), ("test/mask", "")]
)
def test_missing_folder_is_refused(source, tmp_path, name, words):
    (source.folder / name).rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=f"{re.escape(str(source.folder / name))}.*: no such folder.*{words}"):
        prepare_bcss_wsss(source.folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("training", f"{REGION}+7.png"),
        ("training", f"{REGION}+7[110].png"),
        ("training", f"{REGION}+7[1 1 0 1].png"),
        ("training", "slide+7[1101].png"),
        ("val/img", f"{REGION}+7[1101].png"),
        ("test/img", f"{REGION}.png"),
    ],
)
def test_foreign_name_is_refused(source, tmp_path, folder, name):
    Image.new("RGB", (224, 224)).save(source.folder / folder / name)
    with pytest.raises(InputError, match=f"{re.escape(folder)}.*not a BCSS"):
        prepare_bcss_wsss(source.folder, tmp_path / "out")


def test_patch_without_mask_is_refused(source, tmp_path):
    stem = sorted(TRAINING)[1]
    (source.folder / "train_PM" / "PM_bn7" / f"{stem}.png").unlink()
    with pytest.raises(InputError, match=f"{re.escape(stem)}.png: has no mask in .*PM_bn7"):
        prepare_bcss_wsss(source.folder, tmp_path / "out")


def test_patients_that_cross_published_splits_are_reported_and_no_fault(prepared):
    line = check_dataset(prepared.source.folder, prepared.output)
    assert "7 tiles equal their crops of 7 regions, 14 source files" in line
    assert "2 patients, 1 in more than one split, as published" in line


@pytest.fixture(scope="module")
def made(root, tmp_path_factory):
    """The set that the script makes from two regions, a third without a mask, and the module itself."""
    specification = importlib.util.spec_from_file_location("make_bcss_wsss", root / "scripts" / "make_bcss_wsss.py")
    script = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(script)
    folder = tmp_path_factory.mktemp("made")
    for kind in ("rgbs", "masks"):
        (folder / "BCSS" / kind).mkdir(parents=True)
    rng = np.random.default_rng(1)
    truth = {}
    for name in (REGION, OTHER, REGION.replace("A0SK", "A0SP")):
        rows, columns = np.mgrid[:950, :1200]
        Image.fromarray(rng.integers(0, 256, (950, 1200, 3), dtype=np.uint8)).save(folder / "BCSS/rgbs" / f"{name}.png")
        codes = np.where(rows + columns < 1000, 1, 2).astype(np.uint8)
        codes[600:] = 3
        codes[:224, 448:672] = 9
        # beside patches of tumor only, so that the distortion brings it into them
        codes[:448, 224:234] = 4
        truth[name] = codes
        if "A0SP" not in name:
            Image.fromarray(codes).save(folder / "BCSS/masks" / f"{name}.png")
    script.make(str(folder / "BCSS"), str(folder / "out"))
    return SimpleNamespace(folder=folder, output=folder / "out", truth=truth, make=script.make)


def test_made_set_has_the_layout_and_prepares(made, tmp_path):
    manifest = prepare_bcss_wsss(made.output, tmp_path / "tiles")
    count = {split: sum(tile["split"] == split for tile in manifest["tiles"]) for split in ("train", "val", "test")}
    # 5 x 4 patches of a region less the one of fat only
    assert sum(count.values()) == 2 * 19
    assert count["train"] == 26
    assert min(count.values()) > 0
    assert manifest["tiles_denied_by_image_label"] > 0
    assert Image.open(next((made.output / "val" / "mask").iterdir())).getpalette()[:15] == PALETTE
    assert "0 in more" not in check_dataset(made.output, tmp_path / "tiles")


def test_made_patches_are_crops_with_their_true_labels(made):
    images = {name: np.array(Image.open(made.folder / "BCSS/rgbs" / f"{name}.png")) for name in (REGION, OTHER)}
    place_of = {
        image[y : y + 224, x : x + 224].tobytes(): (name, y, x)
        for name, image in images.items()
        for y in range(0, 672 + 1, 224)
        for x in range(0, 896 + 1, 224)
    }
    wrong = total = 0
    for path in sorted((made.output / "training").iterdir()):
        name, y, x = place_of[np.array(Image.open(path)).tobytes()]
        codes = made.truth[name][y : y + 224, x : x + 224]
        assert path.name.startswith(f"{name}+")
        assert path.name.endswith("[" + "".join(str(int((codes == code).any())) for code in (1, 2, 3, 4)) + "].png")
        pseudo = read_mask(made.output / "train_PM" / "PM_bn7" / path.name, "bcss-wsss")
        wrong, total = wrong + (pseudo != np.where(codes == 9, 0, codes)).sum(), total + pseudo.size
    assert 0.01 < wrong / total < 0.2
    for path in sorted((made.output / "val" / "img").iterdir()):
        name, y, x = place_of[np.array(Image.open(path)).tobytes()]
        codes = made.truth[name][y : y + 224, x : x + 224]
        assert np.array_equal(
            read_mask(made.output / "val/mask" / path.name, "bcss-wsss"), np.where(codes == 9, 0, codes)
        )


def test_made_set_is_the_same_at_every_run(made, snapshot):
    made.make(str(made.folder / "BCSS"), str(made.folder / "again"))
    first, second = (snapshot(made.folder / name) for name in ("out", "again"))
    assert {name: content for name, (content, _) in first.items()} == {n: content for n, (content, _) in second.items()}


def test_made_set_overwrites_nothing(made):
    with pytest.raises(InputError, match="is there already"):
        made.make(str(made.folder / "BCSS"), str(made.output))
