"""Terms on the projections that keep them from collapsing into a few directions."""
import torch
import torch.distributed.nn.functional as distributed
from mmengine.dist import get_world_size
from mmselfsup.registry import MODELS
from torch import Tensor, nn


@MODELS.register_module()
class VarianceCovariance(nn.Module):
    """Variance and covariance terms of VICReg (Bardes et al., ICLR 2022).

    With projections z (n, C) of all ranks, their standard deviations s_j = sqrt(var(z_j) + eps) and
    their covariance matrix c (both with n - 1 in the denominator):

        variance_weight / C * sum_j max(0, 1 - s_j) + covariance_weight / C * sum_{i != j} c_ij^2

    The statistics are those of the objects of all ranks, as if they were one batch, and are computed in
    float32, also under autocast.

    Args:
        variance_weight (float): Weight of the first term. Defaults to 1 (our choice).
        covariance_weight (float): Weight of the second term. Defaults to 0.16 (our choice, see
            docs/results/collapse.md; in the paper it is 0.04 of the first weight).
        eps (float): As in the paper. Defaults to 1e-4.

    Raises:
        ValueError: If a weight is negative.
    """

    def __init__(self, variance_weight: float = 1.0, covariance_weight: float = 0.16,
                 eps: float = 1e-4) -> None:
        super().__init__()
        if variance_weight < 0 or covariance_weight < 0:
            raise ValueError('VarianceCovariance: the weights must be at least 0, not '
                             f'{variance_weight} and {covariance_weight}.')
        self.variance_weight = variance_weight
        self.covariance_weight = covariance_weight
        self.eps = eps

    def forward(self, projections: Tensor) -> Tensor:
        """Return the weighted sum of both terms.

        Args:
            projections (Tensor): (n, C) of this rank; n is the same on every rank.

        Returns:
            Tensor: A scalar. Its gradient, averaged over the ranks as DDP does, is that of the joint
            batch.
        """
        with torch.autocast(projections.device.type, enabled=False):
            z = projections.float()
            if get_world_size() > 1:
                z = torch.cat(distributed.all_gather(z))
            n, dimensions = z.shape
            z = z - z.mean(dim=0)
            covariance = z.T @ z / (n - 1)
            variances = covariance.diagonal()
            variance = (1 - (variances + self.eps).sqrt()).relu().sum() / dimensions
            off_diagonal = (covariance.square().sum() - variances.square().sum()) / dimensions
            return self.variance_weight * variance + self.covariance_weight * off_diagonal
