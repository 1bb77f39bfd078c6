"""Planes through the weights of a network: two random directions, normalised filter by filter.

Li, Xu, Taylor, Studer, Goldstein, "Visualizing the Loss Landscape of Neural Nets", NeurIPS 2018,
arXiv 1712.09913, section 4.
"""

import torch
from torch import Tensor, nn


class WeightPlane:
    """Weights on the plane W + alpha D_1 + beta D_2.

    A direction is drawn from the normal distribution, and each filter of it (what makes one channel
    of a convolution or one output of a linear layer) is scaled to the norm of the network's own.
    Biases and the parameters of norms stay as they are, and so do the running statistics of batch
    norms: the defaults of the authors' code (`--dir_type weights --xignore biasbn`), which
    evaluates in eval mode.

    The network is not changed.
    """

    def __init__(self, model: nn.Module, seed: int):
        """
        Args:
            model: in eval mode.
            seed: of the directions. Networks of one architecture get the same numbers before they
                are scaled, whatever their device.
        """
        generator = torch.Generator().manual_seed(seed)
        self._weights = {name: p.detach() for name, p in model.named_parameters() if p.dim() > 1}
        self._directions = [
            {name: _direction(w, generator) for name, w in self._weights.items()} for _ in range(2)
        ]

    def weights(self, alpha: float, beta: float) -> dict[str, Tensor]:
        """The parameters that move, by name, as torch.func.functional_call takes them."""
        first, second = self._directions
        return {
            name: w + alpha * first[name] + beta * second[name] for name, w in self._weights.items()
        }


def _direction(weight: Tensor, generator: torch.Generator) -> Tensor:
    """A random direction like a weight, (filters, ...); that of a filter of zeros is zero."""
    drawn = torch.randn(weight.shape, generator=generator).to(weight)
    norm, own = (x.flatten(1).norm(dim=1) for x in (drawn, weight))
    factor = own / norm.clamp(min=torch.finfo(norm.dtype).tiny)
    return drawn * factor.view(-1, *[1] * (weight.dim() - 1))
