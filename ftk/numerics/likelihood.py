"""What a negative log-likelihood says of a text, in the units in which models are compared."""

import math


def perplexity(loss: float) -> float:
    """The number of equally likely tokens that a loss in nats a token stands for; infinite past what a float holds."""
    return math.exp(loss) if loss < 700 else math.inf


def bits_per_byte(nll: float, num_bytes: float) -> float:
    """Bits that the model needs for each byte of a text, comparable across tokenizers; NaN for no text.

    `nll` is the sum over its tokens in nats. Source: Gao et al. 2020 (arXiv:2101.00027), section 3.1.
    """
    return nll / (math.log(2) * num_bytes) if num_bytes else math.nan
