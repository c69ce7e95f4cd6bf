"""The LightMuSeg network, its blocks and its encoders, and the U-Nets it is compared with."""

from .efficientnet_b0 import EfficientNetB0Encoder
from .fold import fold
from .frfm import FRFM
from .lightmuseg import LightMuSeg
from .mobilenet_v2 import MobileNetV2Encoder
from .msffm import MSFFM, SpatialAttention
from .unet import BASELINES, UNet
from .vit import ViTEncoder

__all__ = [
    "BASELINES",
    "FRFM",
    "MSFFM",
    "EfficientNetB0Encoder",
    "LightMuSeg",
    "MobileNetV2Encoder",
    "SpatialAttention",
    "UNet",
    "ViTEncoder",
    "fold",
]
