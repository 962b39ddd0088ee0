"""What libraries say unasked: hidden where it is noise to a user, left alone where it matters."""

import logging
import os
import warnings


def quieten() -> None:
    """Hide progress bars of loading and remarks of libraries; errors stay. ftk says itself what a person must know."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("accelerate").setLevel(logging.ERROR)
    # It says of every product of int8 weights that its input becomes float16, as LLM.int8() has it.
    logging.getLogger("bitsandbytes.autograd").setLevel(logging.ERROR)
    # Deprecations are for those who write code, not for those who run it.
    for category in (FutureWarning, DeprecationWarning):
        warnings.filterwarnings("ignore", category=category)
    # Both are right for GPT-2: weights stored the other way round, and an embedding trained together with its head.
    for remark in ("fan_in_fan_out is set to False", "Model has `tie_word_embeddings=True` and a tied layer"):
        warnings.filterwarnings("ignore", message=remark, category=UserWarning)
