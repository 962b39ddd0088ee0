"""How many tokens go through the model at once where nothing is learned from them."""

import torch

from ftk.train.rehearse import CPU_TOKENS

ACCELERATOR_TOKENS = 8192
"""Tokens of a forward pass, whose activations are not kept. A CPU takes no more than in training, by which a pass over
held-out rows never needs more memory than a step."""


def forward_tokens(device: torch.device) -> int:
    """Tokens of a forward pass without gradients, padding included; a longer row goes alone."""
    return CPU_TOKENS if device.type == "cpu" else ACCELERATOR_TOKENS
