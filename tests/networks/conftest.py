"""Before any test here imports timm or segmentation-models-pytorch, both of which import torchvision."""

from lightmuseg.networks.torchvision_operators import declare_missing_operators

declare_missing_operators()
