"""Adapters folded into their base, put together, and taken out of a pair of models."""
