"""What Hugging Face's encoders make of known weights, kept so that the tests need not install transformers.

python tests/encoder_references.py      writes tests/networks/encoder_references.npz; needs transformers
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from lightmuseg.networks import MobileNetV2Encoder

PATH = Path(__file__).parent / "networks" / "encoder_references.npz"
SIZES = ((64, 96), (75, 53))
GRIDS = ((14, 14), (4, 6), (32, 20))
# of each map one value in so many is kept: of each channel, row and column some, as the number divides no side
EACH = 31


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    """Normal numbers that every version of NumPy gives alike."""
    return torch.from_numpy(np.random.RandomState(seed).standard_normal(shape).astype(np.float32))


def filled_mobilenet() -> MobileNetV2Encoder:
    """Our encoder with known weights, whose batch norms are wide enough for ReLU6 to cut.

    From layer to layer they multiply a difference by a hundred, so in float32 the last map depends on how a processor
    rounds, the weights' own tanh included; in float64 it does not.
    """
    encoder = MobileNetV2Encoder().eval().double()
    with torch.no_grad():
        for seed, module in enumerate(encoder.modules()):
            if isinstance(module, nn.Conv2d):
                fan_in = module.weight[0].numel()
                module.weight.copy_(numbers(*module.weight.shape, seed=seed).double() * (2 / fan_in) ** 0.5)
            elif isinstance(module, nn.BatchNorm2d):
                weight, bias, mean, variance = numbers(4, module.num_features, seed=seed).double()
                module.weight.copy_(2.5 + weight.tanh() * 1.5)
                module.bias.copy_(0.3 * bias)
                module.running_mean.copy_(0.3 * mean)
                module.running_var.copy_(1.25 + 0.75 * variance.tanh())
    return encoder


def picture(height: int, width: int) -> torch.Tensor:
    """float64 [2, 3, H, W]."""
    return numbers(2, 3, height, width, seed=1).double()


def positions() -> torch.Tensor:
    """Positions of DeiT-small's 14 x 14 tokens and its class token, [1, 197, 384]."""
    return 0.06 * numbers(1, 197, 384, seed=2)


def kept(values: torch.Tensor) -> np.ndarray:
    """Of the values what the file keeps."""
    return values.detach().flatten()[::EACH].float().numpy()


def _reference_name(name: str) -> str:
    """Our (torchvision's) parameter name in Hugging Face's MobileNetV2Model."""
    _, block, *rest = name.split(".")
    block, leaf = int(block), rest[-1]
    if block == 0:
        return f"conv_stem.first_conv.{('convolution', 'normalization')[int(rest[0])]}.{leaf}"
    parent = "conv_stem" if block == 1 else f"layer.{block - 2}"
    # conv.<i>.<0|1> are convolution and norm of a triple; the projection stands bare as conv.<n>, conv.<n + 1>
    layers = ["conv_3x3"] if block == 1 else ["expand_1x1", "conv_3x3"]
    index = int(rest[1])
    if index < len(layers):
        return f"{parent}.{layers[index]}.{('convolution', 'normalization')[int(rest[2])]}.{leaf}"
    return f"{parent}.reduce_1x1.{('convolution', 'normalization')[index - len(layers)]}.{leaf}"


def _mobilenet_references() -> dict[str, np.ndarray]:
    from transformers import MobileNetV2Config, MobileNetV2Model

    # PyTorch's padding and batch-norm epsilon, not TensorFlow's
    config = MobileNetV2Config(tf_padding=False, layer_norm_eps=1e-5, first_layer_is_expansion=True)
    model = MobileNetV2Model(config, add_pooling_layer=False).eval().double()
    weights = {_reference_name(name): value for name, value in filled_mobilenet().state_dict().items()}
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected
    assert all(name.startswith("conv_1x1.") for name in missing)
    references = {}
    with torch.no_grad():
        for height, width in SIZES:
            x = picture(height, width)
            layers = model(x, output_hidden_states=True).hidden_states
            maps = [model.conv_stem(x), layers[1], layers[4], layers[11], layers[15]]
            for level, values in enumerate(maps):
                name = f"mobilenet_v2 {height}x{width} {level}"
                references[f"{name} shape"], references[name] = np.array(values.shape), kept(values)
    return references


def _vit_references() -> dict[str, np.ndarray]:
    from transformers import ViTConfig
    from transformers.models.vit.modeling_vit import ViTEmbeddings

    embeddings = ViTEmbeddings(ViTConfig(hidden_size=384))
    embeddings.position_embeddings = nn.Parameter(positions())
    references = {}
    with torch.no_grad():
        for rows, columns in GRIDS:
            tokens = torch.zeros(1, 1 + rows * columns, 384)
            stretched = embeddings.interpolate_pos_encoding(tokens, 16 * rows, 16 * columns)
            references[f"vit {rows}x{columns}"] = kept(stretched)
    return references


if __name__ == "__main__":
    from lightmuseg.networks.torchvision_operators import declare_missing_operators

    declare_missing_operators()
    references = {**_mobilenet_references(), **_vit_references()}
    np.savez_compressed(PATH, **references)
    print(f"{PATH}: {sum(values.size for values in references.values())} values")
