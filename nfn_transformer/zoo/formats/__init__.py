"""Formats of the field's public zoos. A file in this folder registers one; no other file names it."""

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
