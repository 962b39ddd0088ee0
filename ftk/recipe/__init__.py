"""Recipes: the schema, reading YAML with its places, and what must hold across sections."""
