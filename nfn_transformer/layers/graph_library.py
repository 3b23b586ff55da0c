"""Functions of PyTorch Geometric for graph layers. Their import takes seconds, so only graph layers import this module.

`MessagePassing` is not imported: for each class and process it leaves a file in the temporary directory.
"""

import warnings

from nfn_transformer.extras import extra

with warnings.catch_warnings():
    # The library uses torch.jit while it is imported, which PyTorch has deprecated.
    warnings.simplefilter("ignore", DeprecationWarning)
    with extra("graph", "--enc_mode graph"):
        from torch_geometric.utils import scatter, softmax

__all__ = ["scatter", "softmax"]
