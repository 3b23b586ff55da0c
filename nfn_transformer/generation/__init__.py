"""Zoos made here: recipes, tasks, populations of networks trained together, and files."""
