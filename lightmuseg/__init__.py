"""LightMuSeg: light multiscale segmentation of breast-cancer histology."""

__version__ = "0.2.0"
