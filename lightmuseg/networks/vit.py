"""A vision transformer as an encoder of five feature maps."""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from monai.networks.blocks import Convolution
from monai.networks.nets.flexible_unet import FLEXUNET_BACKBONE
from torch import nn

from .encoder import RegisteredEncoder
from .weights import download_weights, load_published

PATCH = 16  # pixels
GRID = 14  # patches a side of the images that the published weights were trained on
WIDTH = 384
DEPTH = 12
HEADS = 6
# After these blocks, counted from one, the trunk gives a map.
TAPS = (3, 6, 9, 12)


class Attention(nn.Module):
    """Multi-head self-attention, [B, N, width] to [B, N, width]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, tokens, width = x.shape
        # [3, B, heads, N, width / heads]
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        x = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2])
        return self.proj(x.transpose(1, 2).reshape(batch, tokens, width))


class Block(nn.Module):
    """Attention and a two-layer perceptron, each behind a layer norm and added to its input.

    MONAI's ``TransformerBlock`` needs einops and holds a norm that nothing uses without cross-attention.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(
            OrderedDict(fc1=nn.Linear(width, 4 * width), act=nn.GELU(), fc2=nn.Linear(4 * width, width))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class VisionTransformer(nn.Module):
    """ViT-S/16 for images of any multiple of 16 pixels; its position embeddings are stretched to the image's patches.

    Parameter names are timm's and DeiT's (``blocks.0.attn.qkv.weight``, ...), so that their weight files load.

    Args:
        in_channels: channels of the image.

    Reference:
        Dosovitskiy et al., An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale, ICLR 2021.
    """

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        # here as well, because TorchScript knows no global numbers
        self.grid, self.taps = GRID, TAPS
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(in_channels, WIDTH, PATCH, stride=PATCH)})
        self.cls_token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + GRID * GRID, WIDTH))
        self.blocks = nn.ModuleList(Block(WIDTH, HEADS) for _ in range(DEPTH))
        self.norm = nn.LayerNorm(WIDTH, eps=1e-6)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def positions(self, rows: int, columns: int) -> torch.Tensor:
        """The position embeddings of the class token and of ``rows`` x ``columns`` patches, [1, 1 + N, width]."""
        grid = self.pos_embed[:, 1:].reshape(1, self.grid, self.grid, -1).permute(0, 3, 1, 2)
        grid = F.interpolate(grid, size=[rows, columns], mode="bicubic", align_corners=False)
        return torch.cat([self.pos_embed[:, :1], grid.flatten(2).transpose(1, 2)], dim=1)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Four maps [B, 384, H / 16, W / 16] of ``x`` [B, C, H, W], after blocks 3, 6, 9 and (normalised) 12."""
        x = self.patch_embed["proj"](x)
        rows, columns = x.shape[-2], x.shape[-1]
        x = x.flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1) + self.positions(rows, columns)
        maps: list[torch.Tensor] = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index + 1 in self.taps:
                tokens = self.norm(x) if index + 1 == len(self.blocks) else x
                maps.append(tokens[:, 1:].transpose(1, 2).reshape(x.shape[0], -1, rows, columns))
        return maps

    @staticmethod
    def from_published(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """DeiT's or timm's weights without the classifier."""
        return {key: value for key, value in weights.items() if not key.startswith("head.")}


class Adapter(nn.Sequential):
    """A map of the trunk with the channels and the stride of one encoder level: [B, 384, h, w] to [B, out, ., .]."""

    def __init__(self, out_channels: int, stride: int) -> None:
        layers = [_convolution(WIDTH, out_channels, kernel_size=1)]
        for _ in range((PATCH // stride).bit_length() - 1):
            # padding and output_padding: each pixel becomes two by two, no more
            layers.append(
                _convolution(out_channels, out_channels, kernel_size=2, strides=2, is_transposed=True,
                             padding=0, output_padding=0)
            )  # fmt: skip
        if stride > PATCH:
            layers.append(_convolution(out_channels, out_channels, kernel_size=3, strides=stride // PATCH))
        super().__init__(*layers)


def _convolution(in_channels: int, out_channels: int, **options) -> Convolution:
    return Convolution(2, in_channels, out_channels, act="relu", norm="batch", adn_ordering="NA", bias=False, **options)


class ViTEncoder(nn.Module, RegisteredEncoder):
    """ViT-S/16 as an encoder, registered in MONAI's ``FLEXUNET_BACKBONE`` as "vit".

    The plain transformer has one resolution. As in UNETR, maps are taken after blocks 3, 6, 9 and 12, the shallow ones
    for the fine levels, and the finest level comes from the image itself; maps of the last block alone, as in ViTDet,
    would leave the fine levels without detail of their own. Channels are MobileNetV2's, so that the decoder is the
    same. The paper says only that the whole network has more than 27 million parameters; here it has 27.6.

    ``trunk`` is what published weights, DeiT-small's, fill and ``freeze_encoder`` freezes; ``stem`` and ``adapters``
    are trained. Arguments and errors are those of :class:`.RegisteredEncoder`.

    Reference:
        Hatamizadeh et al., UNETR: Transformers for 3D Medical Image Segmentation, WACV 2022. Touvron et al., Training
        data-efficient image transformers and distillation through attention, ICML 2021 (weights).
    """

    backbone = "vit"
    imagenet_url = "https://dl.fbaipublicfiles.com/deit/deit_small_patch16_224-cd65a155.pth"
    channels = (16, 24, 32, 96, 320)

    def __init__(self, spatial_dims: int = 2, in_channels: int = 3, pretrained: bool = False) -> None:
        super().__init__()
        self.check_arguments(spatial_dims, in_channels, pretrained)
        self.trunk = VisionTransformer(in_channels)
        self.stem = _convolution(in_channels, self.channels[0], kernel_size=3, strides=2)
        self.adapters = nn.ModuleList(Adapter(c, stride) for c, stride in zip(self.channels[1:], (4, 8, 16, 32)))
        if pretrained:
            load_published(self, download_weights(self.imagenet_url))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Five maps of ``x`` [B, C, H, W], with 16, 24, 32, 96 and 320 channels at strides 2, 4, 8, 16 and 32."""
        maps: list[torch.Tensor] = [self.stem(x)]
        taps = self.trunk(x)
        for index, adapter in enumerate(self.adapters):
            maps.append(adapter(taps[index]))
        return maps


FLEXUNET_BACKBONE.register_class(ViTEncoder)
