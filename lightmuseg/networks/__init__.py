"""The LightMuSeg network, its blocks and its encoder."""

from .frfm import FRFM
from .lightmuseg import LightMuSeg
from .mobilenet_v2 import MobileNetV2Encoder
from .msffm import MSFFM, SpatialAttention

__all__ = ["FRFM", "MSFFM", "LightMuSeg", "MobileNetV2Encoder", "SpatialAttention"]
