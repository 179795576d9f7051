"""The U-Net of fastMRI and its normalised form for complex images.

Ronneberger et al. 2015, arXiv:1505.04597; Zbontar et al. 2018, arXiv:1811.08839. Parameter names are those of
fastMRI's `Unet` and `NormUnet`, so that its published weights load unchanged.
"""

import math

import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn

__all__ = ["NormUnet", "Unet"]

QUIET = 0.01
"""Of the weights of the last convolution, where the output begins near zero."""


class _ConvBlock(nn.Module):
    """Twice: 3 x 3 convolution, instance normalisation, LeakyReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels in (inputs, outputs):
            layers += [
                nn.Conv2d(channels, outputs, kernel_size=3, padding=1, bias=False),
                nn.InstanceNorm2d(outputs),
                nn.LeakyReLU(negative_slope=0.2, inplace=True),
                # fastMRI has dropout here; an identity keeps the numbering of its parameters.
                nn.Identity(),
            ]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return out


class _TransposeConvBlock(nn.Module):
    """2 x 2 transposed convolution of stride 2, instance normalisation, LeakyReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ConvTranspose2d(inputs, outputs, kernel_size=2, stride=2, bias=False),
            nn.InstanceNorm2d(outputs),
            nn.LeakyReLU(negative_slope=0.2, inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return out


class Unet(nn.Module):
    """U-Net with average pooling and transposed convolutions.

    Parameters
    ----------
    inputs, outputs
        Channels in and out.
    channels
        Of the first level; doubled at each pooling.
    pools
        Number of poolings.
    """

    def __init__(self, inputs: int, outputs: int, channels: int = 32, pools: int = 4) -> None:
        super().__init__()
        self.down_sample_layers = nn.ModuleList([_ConvBlock(inputs, channels)])
        for _ in range(pools - 1):
            self.down_sample_layers.append(_ConvBlock(channels, 2 * channels))
            channels *= 2
        self.conv = _ConvBlock(channels, 2 * channels)
        self.up_conv = nn.ModuleList()
        self.up_transpose_conv = nn.ModuleList()
        for level in range(pools):
            self.up_transpose_conv.append(_TransposeConvBlock(2 * channels, channels))
            block: nn.Module = _ConvBlock(2 * channels, channels)
            if level == pools - 1:
                block = nn.Sequential(block, nn.Conv2d(channels, outputs, kernel_size=1))
            self.up_conv.append(block)
            channels //= 2

    def forward(self, x: Float[Tensor, "batch inputs y x"]) -> Float[Tensor, "batch outputs y x"]:
        """Return the output on the grid of the input."""
        skips = []
        for layer in self.down_sample_layers:
            x = layer(x)
            skips.append(x)
            x = nn.functional.avg_pool2d(x, kernel_size=2)
        x = self.conv(x)
        for up, conv in zip(self.up_transpose_conv, self.up_conv, strict=True):
            x = up(x)
            skip = skips.pop()
            # An odd length lost its last line in pooling: reflect one back, as fastMRI does.
            missing_y, missing_x = skip.shape[-2] - x.shape[-2], skip.shape[-1] - x.shape[-1]
            if missing_y or missing_x:
                x = nn.functional.pad(x, (0, missing_x, 0, missing_y), mode="reflect")
            x = conv(torch.cat([x, skip], dim=1))
        return x


class NormUnet(nn.Module):
    """A U-Net on complex images: real and imaginary parts as channels, each normalised per image, then undone.

    The images are padded to multiples of 16 with zeros, half on each side, as fastMRI does for four poolings.

    Parameters
    ----------
    channels, pools
        Of the U-Net.
    residual
        Whether the output is a difference of images: it gets the scale of the input back but not its mean, and is
        nearly zero before training.
    """

    def __init__(self, channels: int, pools: int, *, residual: bool = False) -> None:
        super().__init__()
        self.unet = Unet(2, 2, channels, pools)
        self.multiple = 16 if pools <= 4 else 2**pools
        self.residual = residual
        if residual:
            with torch.no_grad():
                for parameter in self.unet.up_conv[-1].get_submodule("1").parameters():
                    parameter.mul_(QUIET)

    def forward(self, images: Complex[Tensor, "batch y x"]) -> Complex[Tensor, "batch y x"]:
        """Return complex images of the same shape; each depends on its own input only."""
        x = torch.view_as_real(images).permute(0, 3, 1, 2)
        std, mean = torch.std_mean(x, dim=(-2, -1), keepdim=True)
        # A constant channel has no contrast to normalise; the floor only keeps it finite.
        std = std.clamp_min(torch.finfo(std.dtype).tiny ** 0.5)
        height, width = x.shape[-2:]
        pad_y, pad_x = -height % self.multiple, -width % self.multiple
        top, left = math.floor(pad_y / 2), math.floor(pad_x / 2)
        normalised = nn.functional.pad((x - mean) / std, (left, pad_x - left, top, pad_y - top))
        out = self.unet(normalised)
        out = out[..., top : top + height, left : left + width] * std
        if not self.residual:
            out = out + mean
        return torch.view_as_complex(out.permute(0, 2, 3, 1).contiguous())
