"""The LightMuSeg network."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from monai.networks.blocks import Convolution, UpSample
from monai.networks.nets.flexible_unet import FLEXUNET_BACKBONE
from torch import nn

from .encoder_weights import build_encoder
from .frfm import FRFM
from .msffm import MSFFM
from .weights import pretrained_part


class UpBlock(nn.Sequential):
    """Double the resolution, then 3x3 convolution, batch norm, ReLU: [B, in, H, W] to [B, out, 2H, 2W]."""

    def __init__(self, in_channels: int, out_channels: int, dropout: float) -> None:
        super().__init__(
            UpSample(2, in_channels, scale_factor=2, mode="nontrainable", pre_conv=None, align_corners=True,
                     out_channels=in_channels),
            Convolution(
                2, in_channels, out_channels, kernel_size=3, act="relu", norm="batch", adn_ordering="NAD",
                dropout=("dropout", {"p": dropout}) if dropout else None, dropout_dim=2,
            ),
        )  # fmt: skip


class SideHead(nn.Sequential):
    """Logits of one decoder level for deep supervision: [B, in, h, w] to [B, classes, h, w]."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            Convolution(2, in_channels, in_channels // 4, kernel_size=3, act="relu", norm="batch",
                        adn_ordering="NAD", dropout=0.1, dropout_dim=2),
            Convolution(2, in_channels // 4, out_channels, kernel_size=1, conv_only=True),
        )  # fmt: skip


class LightMuSeg(nn.Module):
    """LightMuSeg: MobileNetV2 encoder, an MSFFM on each of its levels, and a decoder that fuses them by FRFMs.

    Args:
        in_channels: channels of the image.
        out_channels: classes; 1 for a binary map.
        backbone: an encoder with five outputs registered in MONAI's ``FLEXUNET_BACKBONE``.
        encoder_weights: "imagenet", a path, None, or "auto"; see :func:`.encoder_weights.build_encoder`.
        freeze_encoder: keep the encoder's parameters and batch-norm statistics as they are (V1); of an encoder such as
            "vit" only its pretrained ``trunk``, because its other parts have no weights worth keeping.
        deep_supervision: in training, also give the logits of three side heads (V3).
        msffm: False replaces each MSFFM by the identity (the paper's ablation).
        dropout: share of channels dropped behind each up-sampling block; 0 in the paper. Left on at inference it
            gives Monte Carlo samples.
        output_stride: 2 leaves the output at the head's own resolution, half the image's, where not training.

    Raises:
        ValueError: for an unknown backbone, ``dropout`` outside [0, 1), counts below 1, or another stride than 1 or 2.
        InputError: for encoder weights that do not fit.

    Example:
        >>> network = LightMuSeg(encoder_weights=None)
        >>> sum(parameter.numel() for parameter in network.parameters())
        6640221

    Reference:
        Muhammad and Della Mea, Lightweight multiscale feature refinement network for breast cancer histopathology
        segmentation, Informatics in Medicine Unlocked, 2026, https://doi.org/10.1016/j.imu.2026.101754.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 1,
        backbone: str = "mobilenet_v2",
        encoder_weights: str | None = "auto",
        freeze_encoder: bool = False,
        deep_supervision: bool = False,
        msffm: bool = True,
        dropout: float = 0.0,
        output_stride: int = 1,
    ) -> None:
        super().__init__()
        if output_stride not in (1, 2):
            raise ValueError(f"output_stride={output_stride} must be 1 or 2.")
        if in_channels < 1 or out_channels < 1:
            raise ValueError(f"in_channels={in_channels} and out_channels={out_channels} must be at least 1.")
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"dropout={dropout} must be in [0, 1).")
        # what a model's card says of it
        self.arguments = {"backbone": backbone, "msffm": msffm, "dropout": dropout}
        self.freeze_encoder = freeze_encoder
        self.deep_supervision = deep_supervision
        self.output_stride = output_stride
        self.encoder = build_encoder(backbone, in_channels, encoder_weights)
        pretrained_part(self.encoder).requires_grad_(not freeze_encoder)

        channels = FLEXUNET_BACKBONE.register_dict[backbone]["feature_channel"]
        self.msffm = nn.ModuleList(MSFFM(c) if msffm else nn.Identity() for c in channels)
        deep_to_shallow = list(reversed(channels))
        self.up = nn.ModuleList(UpBlock(deep, shallow, dropout) for deep, shallow in pairwise(deep_to_shallow))
        self.frfm = nn.ModuleList(FRFM(c) for c in deep_to_shallow[1:])
        self.head = Convolution(2, channels[0], out_channels, kernel_size=3, conv_only=True)
        side_channels = deep_to_shallow[1:-1] if deep_supervision else []
        self.side_heads = nn.ModuleList(SideHead(c, out_channels) for c in side_channels)
        self.train()

    def train(self, mode: bool = True) -> LightMuSeg:
        """As for any module, but a frozen encoder stays in evaluation mode, so that its statistics stay fixed."""
        super().train(mode)
        if self.freeze_encoder:
            pretrained_part(self.encoder).eval()
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of an image.

        Args:
            x: [B, in_channels, H, W], H and W multiples of 32, scaled to [0, 1] and normalised with ImageNet's
                mean and standard deviation.

        Returns:
            [B, out_channels, H, W], or H / 2 and W / 2 for ``output_stride`` 2; in training with deep supervision
            [B, 4, out_channels, H, W], the network's own output first, then the side heads' from deep to shallow.

        Raises:
            ValueError: for a height or width that is no multiple of 32.
        """
        if x.shape[-2] % 32 != 0 or x.shape[-1] % 32 != 0:
            raise ValueError(f"Height and width must be multiples of 32, got {x.shape[-2]} x {x.shape[-1]} pixels.")
        size = [x.shape[-2], x.shape[-1]]
        features: list[torch.Tensor] = self.encoder(x)
        skips: list[torch.Tensor] = []
        for index, fuse in enumerate(self.msffm):
            skips.append(fuse(features[index]))

        x = skips.pop()
        levels: list[torch.Tensor] = []
        for up, frfm in zip(self.up, self.frfm):
            x = frfm(up(x), skips.pop())
            levels.append(x)

        logits = self.head(x)
        if self.output_stride == 2 and not self.training:
            return logits
        logits = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
        if not (self.training and self.deep_supervision):
            return logits
        outputs = [logits]
        for index, side_head in enumerate(self.side_heads):
            outputs.append(F.interpolate(side_head(levels[index]), size=size, mode="bilinear", align_corners=False))
        return torch.stack(outputs, dim=1)
