"""Batch normalization of the modules that train with a student."""

from torch import nn
from torch.nn import functional as F


class _OneValue:
    """Takes the running statistics where a channel has no two values, and so no variance."""

    def forward(self, x):
        if self.training and x.numel() <= self.num_features:
            return F.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(x)


class BatchNorm(_OneValue, nn.BatchNorm2d):
    """BatchNorm2d for a 1 x 1 map of one image, too, as a coarse FPN level of a small image."""


class BatchNorm1d(_OneValue, nn.BatchNorm1d):
    """BatchNorm1d for one sample, too."""
