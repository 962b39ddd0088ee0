"""Keys and values that generation keeps."""

from ftk.memory.architecture import Architecture


def kv_cache_bytes(architecture: Architecture, *, rows: int, length: int, number_bytes: int) -> int:
    """Bytes of the keys and values of all layers for `rows` answers of `length` tokens.

    Derivation: two vectors of num_kv_heads * head_dim for each token, layer and row; a layer with a window keeps no
    more tokens than that, as transformers' `DynamicSlidingWindowLayer` drops older ones.
    """
    window = min(length, architecture.sliding_window or length)
    sliding = architecture.num_sliding_layers
    tokens = (architecture.num_layers - sliding) * length + sliding * window
    return 2 * architecture.keys * tokens * rows * number_bytes
