"""Planes through the weights of a network, along two random filter-normalised directions.

Li, Xu, Taylor, Studer, Goldstein, "Visualizing the Loss Landscape of Neural Nets", NeurIPS 2018,
arXiv 1712.09913, section 4.
"""

import torch
from torch import Tensor, nn


class WeightPlane:
    """Weights on the plane W + alpha D_1 + beta D_2.

    A direction is drawn from the normal distribution, and each filter of it (the weights of one
    output of a convolution or linear layer) is scaled to the norm of the network's own filter.
    Biases, the parameters of norms and the running statistics of batch norms do not change, as by
    default in the authors' code (`--dir_type weights --xignore biasbn`), which evaluates in eval
    mode.

    The network is not changed.
    """

    def __init__(self, model: nn.Module, seed: int):
        """
        Args:
            model: network in eval mode.
            seed: seed of the directions, which before scaling are the same for all networks of an
                architecture, on any device.
        """
        generator = torch.Generator().manual_seed(seed)
        self._weights = {name: p.detach() for name, p in model.named_parameters() if p.dim() > 1}
        self._directions = [
            {name: _direction(w, generator) for name, w in self._weights.items()} for _ in range(2)
        ]

    def weights(self, alpha: float, beta: float) -> dict[str, Tensor]:
        """Return the changed parameters by name, for torch.func.functional_call."""
        first, second = self._directions
        return {
            name: w + alpha * first[name] + beta * second[name] for name, w in self._weights.items()
        }


def _direction(weight: Tensor, generator: torch.Generator) -> Tensor:
    """Draw a random direction for a weight, (filters, ...); it is zero for a filter of zeros."""
    drawn = torch.randn(weight.shape, generator=generator).to(weight)
    norm, own = (x.flatten(1).norm(dim=1) for x in (drawn, weight))
    factor = own / norm.clamp(min=torch.finfo(norm.dtype).tiny)
    return drawn * factor.view(-1, *[1] * (weight.dim() - 1))
