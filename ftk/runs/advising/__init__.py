"""Advice before a run: what a recipe would take, what would make it fit, and a first recipe for some data."""
