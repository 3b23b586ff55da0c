"""Generation of zoos: recipes, tasks, populations of networks trained together, and files."""
