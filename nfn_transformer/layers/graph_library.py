"""What PyTorch Geometric gives to graph layers. It takes seconds to import, so only what needs a graph imports this."""

import warnings

with warnings.catch_warnings():
    # It prepares functions by torch.jit while it is imported, of which this PyTorch says that it will go.
    warnings.simplefilter("ignore", DeprecationWarning)
    from torch_geometric.nn.conv import MessagePassing
    from torch_geometric.utils import softmax

__all__ = ["MessagePassing", "softmax"]
