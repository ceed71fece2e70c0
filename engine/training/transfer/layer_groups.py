"""Layer groups: discriminative learning rates and gradual unfreezing (Howard and Ruder 2018, sections 3.2 and 3.3)."""

from engine.config import TrainingConfig
from engine.models.network import Network


def discard_frozen_gradients(network: Network, options: TrainingConfig, epoch_index: int) -> None:
    """Remove the gradients of the layer groups that are frozen in an epoch, so that the optimizer skips these groups.

    The top group is trained from the first epoch on, and one more group after every `unfreeze_epochs` epochs. The
    parameters keep `requires_grad`, because `DistributedDataParallel` expects a gradient of each.
    """
    if not options.unfreeze_epochs:
        return
    num_trained = 1 + epoch_index // options.unfreeze_epochs
    for group in network.layer_groups()[num_trained:]:
        for parameter in group.values():
            parameter.grad = None
