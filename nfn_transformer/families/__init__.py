"""Families of networks: how a state dict of each becomes weights, and back. A file in this folder registers one."""

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
