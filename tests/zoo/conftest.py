"""Fixtures of small zoos; a user's cache folder is a test's own."""

from small_zoo import user_cache, zoo  # noqa: F401 - pytest finds fixtures by their names
