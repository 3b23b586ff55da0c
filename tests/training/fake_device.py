"""A second device without a GPU: PyTorch's fake tensors on `meta`, as a fake GPU needs a build for GPUs.

Fake tensors have a shape, a type and a device but no numbers; what mixes devices raises, as on a GPU.
"""

import copy
import copyreg
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext

import pytest
import torch
from torch._functorch import config as functorch_config
from torch._subclasses import fake_tensor
from torch.optim import optimizer as torch_optimizer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from nfn_transformer.features import network_invariants, probes
from nfn_transformer.weights import forward

DEVICE = torch.device("meta")
CACHES = (
    forward._encoding_on,
    probes._images,
    probes.random_texts,
    network_invariants.signals,
)

aten = torch.ops.aten
DEPENDS_ON_NUMBERS = (fake_tensor.DataDependentOutputException, fake_tensor.DynamicOutputShapeException)


def _one(number):
    return {torch.bool: True, torch.int64: 1}.get(number.dtype, 1.0)


def _all_of(tensor, masks):
    (mask,) = masks
    return tensor.flatten(0, mask.ndim - 1)[torch.arange(mask.numel(), device=mask.device)]


def _assert_addable(own, other):
    """Raise where `own += other` mixes devices, which fake tensors allow `meta` in this operation alone."""
    if isinstance(other, torch.Tensor) and own.device != other.device and (other.ndim or other.device == DEVICE):
        raise RuntimeError(f"add_: not on the same device, but on {own.device} and {other.device}")


def _assert_together(*lists, **rule):
    assert {tensor.device for tensors in lists[:3] for tensor in tensors} == {DEVICE}


# As if all numbers were 1 or True, and different where that counts.
ANSWERS = {
    aten.item.default: _one,
    aten._local_scalar_dense.default: _one,
    aten.bincount.default: lambda numbers, weights, least: numbers.new_empty(least),
    aten.index.Tensor: _all_of,
    aten.nonzero.default: lambda mask: torch.arange(len(mask), device=mask.device)[:, None],
    aten._fused_sgd_.default: _assert_together,  # fake tensors do not know it
    aten._unique2.default: lambda numbers, *options: (numbers, numbers, numbers),
}


class Answers(TorchDispatchMode):
    """Let fake tensors of a mode answer where a result depends on numbers; any other such question raises."""

    def __init__(self, mode):
        super().__init__()
        self._mode = mode

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if any(type(found) is torch.Tensor for found in tree_leaves((args, kwargs))):
            moves = function is aten._to_copy.default and kwargs.get("device") == DEVICE
            args, kwargs = tree_map_only(torch.Tensor, lambda tensor: self._faked(tensor, moves), (args, kwargs))
        if function is aten.add_.Tensor:
            _assert_addable(*args)
        try:
            return function(*args, **kwargs)
        except (*DEPENDS_ON_NUMBERS, NotImplementedError):
            if function not in ANSWERS:
                raise
            return ANSWERS[function](*args, **kwargs)

    def _faked(self, tensor, moves):
        """Return as fake what PyTorch makes of a list of numbers on `meta`, and constants that move there."""
        made = type(tensor) is torch.Tensor and (tensor.device == DEVICE or moves)
        return self._mode.from_tensor(tensor) if made else tensor


@contextmanager
def second_device() -> Iterator[Callable[..., tuple]]:
    """Give what makes values fake and enters the mode that they are used in; PyTorch takes `meta` for a GPU."""
    known = torch_optimizer._get_fused_kernels_supported_devices()
    mode = fake_tensor.FakeTensorMode()
    with (
        functorch_config.patch(fake_tensor_allow_meta=True),
        pytest.MonkeyPatch.context() as patch,
        ExitStack() as stack,
    ):
        patch.setattr(torch_optimizer, "_get_fused_kernels_supported_devices", lambda: [*known, DEVICE.type])
        patch.setattr(torch, "autocast", lambda *of, enabled: nullcontext())
        patch.setitem(copyreg.dispatch_table, torch.Generator, lambda generator: (torch.Generator, ()))

        def enter(*values):
            with fake_tensor.FakeCopyMode(mode):  # attributes that are tensors too
                values = copy.deepcopy(values)
            for cache in CACHES:  # no fake tensor is for other tests
                cache.cache_clear()
                stack.callback(cache.cache_clear)
            stack.enter_context(mode)
            stack.enter_context(Answers(mode))
            return values

        yield enter
