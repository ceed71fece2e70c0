"""Layer groups: discriminative learning rates and gradual unfreezing (Howard and Ruder 2018, sections 3.2 and 3.3)."""

from torch import nn

from engine.config import TrainingConfig
from engine.models.lstm import LSTMModel

LayerGroup = dict[str, nn.Parameter]
"""Parameters of a layer group by name."""


def layer_groups(network: LSTMModel) -> list[LayerGroup]:
    """Return the layer groups from top to bottom: output layer, LSTM layers, embedding.

    A tied embedding is the output layer's matrix and belongs to the output layer's group, as in fastai.
    """
    num_layers = len(network.layers)
    groups: list[LayerGroup] = [{} for _ in range(num_layers + 2)]
    for name, parameter in network.named_parameters():
        if name.startswith("layers."):
            groups[num_layers - int(name.split(".")[1])][name] = parameter
        elif "embedding" in name and not network.config.tie_weights:
            groups[-1][name] = parameter
        else:
            groups[0][name] = parameter
    return [group for group in groups if group]


def discard_frozen_gradients(network: LSTMModel, options: TrainingConfig, epoch_index: int) -> None:
    """Remove the gradients of the layer groups that are frozen in an epoch, so that the optimizer skips these groups.

    The top group is trained from the first epoch on, and one more group after every `unfreeze_epochs` epochs. The
    parameters keep `requires_grad`, because `DistributedDataParallel` expects a gradient of each.
    """
    if not options.unfreeze_epochs:
        return
    num_trained = 1 + epoch_index // options.unfreeze_epochs
    for group in layer_groups(network)[num_trained:]:
        for parameter in group.values():
            parameter.grad = None
