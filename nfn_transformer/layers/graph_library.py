"""What PyTorch Geometric gives to graph layers. It takes seconds to import, so only what needs a graph imports this.

Its `MessagePassing` is not among it: for each class and process it leaves a file in the temporary directory.
"""

import warnings

with warnings.catch_warnings():
    # It prepares functions by torch.jit while it is imported, of which this PyTorch says that it will go.
    warnings.simplefilter("ignore", DeprecationWarning)
    from torch_geometric.utils import scatter, softmax

__all__ = ["scatter", "softmax"]
