"""3 x 3 convolutions in a quarter of the multiplications, for frozen networks on a CPU.

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (CVPR 2016, arXiv 1509.09308),
F(4 x 4, 3 x 3), section 4.3, as matrix products. Libraries for GPUs do this themselves.

N counts images, P tiles of 4 x 4 outputs, each of which reads 6 x 6 inputs.
"""

import torch
from detectron2.layers import Conv2d
from torch import Tensor, nn
from torch.nn import functional as F

TILE, WINDOW = 4, 6
MIN_CHANNELS = 128  # with fewer, the transforms take as long as the products that are saved
MIN_TILES = 256  # with fewer, the transform of the weights does
TILES_AT_ONCE = 320  # whose transforms stay in the cache
# With AVX-512 stock convolutions are as fast, and do not suffer when cores are busy.
IS_FASTER_HERE = torch.backends.cpu.get_cpu_capability() == "AVX2"

_INPUT = torch.tensor(  # B^T of the paper's equation (8), as are G and A^T
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
    dtype=torch.float64,
)
_WEIGHT = (
    torch.tensor(
        [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]],
        dtype=torch.float64,
    )
    / 24
)
_OUTPUT = torch.tensor(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]],
    dtype=torch.float64,
)
# Both sides of X d X^T at once: (36, 36), (36, 9) and (16, 36).
INPUT, WEIGHT, OUTPUT = (torch.kron(x, x).float() for x in (_INPUT, _WEIGHT, _OUTPUT))
ONES = 7  # the column of OUTPUT that is 1 for each output


class WinogradConv2d(nn.Conv2d):
    """Conv2d, 3 x 3 of stride 1, that a CPU computes in tiles where that is faster.

    It is where it computes in float32, for maps and batches that are not small. The weights are
    transformed at each call: kept, they would take four times their memory.
    """

    def __init__(self, conv: nn.Conv2d):
        """
        Args:
            conv: whose weight and bias it takes, the same tensors.
        """
        super().__init__(conv.in_channels, conv.out_channels, 3, padding=1, device="meta")
        self.weight, self.bias = conv.weight, conv.bias
        self.train(conv.training)

    def forward(self, x: Tensor) -> Tensor:
        """(N, out_channels, H, W) of (N, in_channels, H, W); best in channels_last."""
        return self._in_tiles(x) if self._is_faster(x) else super().forward(x)

    def _is_faster(self, x: Tensor) -> bool:
        number, _, height, width = x.shape
        rows, columns = -(-height // TILE), -(-width // TILE)
        return (
            x.device.type == "cpu"
            and x.dtype == torch.float32
            and not torch.is_autocast_enabled("cpu")
            and number * rows * columns >= MIN_TILES
            and 2 * height * width >= rows * columns * TILE**2  # not mostly beyond the map
        )

    def _in_tiles(self, x: Tensor) -> Tensor:
        number, _, height, width = x.shape
        rows, columns = -(-height // TILE), -(-width // TILE)
        below, right = rows * TILE + 1 - height, columns * TILE + 1 - width
        x = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, right, 1, below))
        weight = WEIGHT @ self.weight.permute(2, 3, 1, 0).reshape(9, -1)
        weight = weight.view(-1, self.in_channels, self.out_channels)
        output = x.new_empty(number, rows, TILE, columns, TILE, self.out_channels)
        images = max(TILES_AT_ONCE // (rows * columns), 1)  # at once, and rows of them:
        step = rows if images > 1 else min(rows, max(TILES_AT_ONCE // columns, 1))
        for first in range(0, number, images):
            for row in range(0, rows, step):
                end = min(row + step, rows)
                pixels = x[first : first + images, row * TILE : end * TILE + WINDOW - TILE]
                tiles = self._tiles(pixels, weight).unflatten(2, (-1, end - row, columns))
                output[first : first + images, row:end] = tiles.permute(2, 3, 0, 4, 1, 5)
        output = output.view(number, rows * TILE, columns * TILE, self.out_channels)
        return output[:, :height, :width].permute(0, 3, 1, 2)

    def _tiles(self, pixels: Tensor, weight: Tensor) -> Tensor:
        """(4, 4, P, out_channels) of padded pixels (n, H, W, in_channels) and G g G^T (36, ...)."""
        windows = pixels.unfold(1, WINDOW, TILE).unfold(2, WINDOW, TILE)  # (n, h, w, C, 6, 6)
        windows = windows.permute(4, 5, 0, 1, 2, 3).reshape(WINDOW**2, -1)
        windows = (INPUT @ windows).view(WINDOW**2, -1, self.in_channels)
        products = torch.bmm(windows, weight)
        if self.bias is not None:
            products[ONES] += self.bias
        return (OUTPUT @ products.flatten(1)).view(TILE, TILE, -1, self.out_channels)


def use_winograd(model: nn.Module) -> None:
    """Let a frozen model compute its wide 3 x 3 convolutions of stride 1 so, in place.

    On other processors than those with AVX2 alone, and of a model on another device, nothing
    changes. The weights stay the same tensors.
    """
    if not IS_FASTER_HERE:
        return
    for parent in list(model.modules()):
        for name, conv in list(parent.named_children()):
            if _can_be_tiled(conv):
                setattr(parent, name, WinogradConv2d(conv))


def _can_be_tiled(module: nn.Module) -> bool:
    is_plain = type(module) is nn.Conv2d
    if type(module) is Conv2d:  # Detectron2's, which may do more
        is_plain = module.norm is None and module.activation is None
    return (
        is_plain
        and (module.weight.device.type, module.weight.dtype) == ("cpu", torch.float32)
        and (module.kernel_size, module.stride, module.padding) == ((3, 3), (1, 1), (1, 1))
        and (module.dilation, module.groups) == ((1, 1), 1)
        and module.padding_mode == "zeros"
        and min(module.in_channels, module.out_channels) >= MIN_CHANNELS
    )
