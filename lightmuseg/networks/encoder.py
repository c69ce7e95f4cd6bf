"""What the package's encoders tell MONAI's registry."""

from __future__ import annotations

from monai.networks.blocks import BaseEncoder


class RegisteredEncoder(BaseEncoder):
    """An encoder of MONAI's ``FLEXUNET_BACKBONE``, under the name ``backbone`` and with these ``channels`` of its maps.

    Args:
        spatial_dims: 2; MONAI's registry passes it.
        in_channels: channels of the image.
        pretrained: load the official ImageNet weights (downloaded once, their hash checked).

    Raises:
        ValueError: for ``spatial_dims`` other than 2, or ``pretrained`` with ``in_channels`` other than 3.
        OSError: when the weights are neither cached nor can be downloaded.
    """

    backbone: str
    channels: tuple[int, ...]

    @classmethod
    def check_arguments(cls, spatial_dims: int, in_channels: int, pretrained: bool) -> None:
        """Raise a ValueError for other than 2 dimensions, and for ImageNet weights on other than 3 channels."""
        if spatial_dims != 2:
            raise ValueError(f"{cls.__name__} is for 2 spatial dimensions, got spatial_dims={spatial_dims}.")
        if pretrained and in_channels != 3:
            raise ValueError(f"The ImageNet weights are for 3 input channels, got in_channels={in_channels}.")

    @classmethod
    def get_encoder_parameters(cls) -> list[dict]:
        return [{"spatial_dims": 2, "in_channels": 3, "pretrained": False}]

    @classmethod
    def num_channels_per_output(cls) -> list[tuple[int, ...]]:
        return [cls.channels]

    @classmethod
    def num_outputs(cls) -> list[int]:
        return [len(cls.channels)]

    @classmethod
    def get_encoder_names(cls) -> list[str]:
        return [cls.backbone]
