"""Before any test here imports transformers, timm or segmentation-models-pytorch, each of which imports torchvision."""

from lightmuseg.networks.torchvision_operators import declare_missing_operators

declare_missing_operators()
