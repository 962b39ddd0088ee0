"""A key-value cache that grows in place.

transformers' own dynamic layer concatenates, so that each new token copies all keys and values before it. For 200 rows
of 660 positions in a model of 2.3M parameters, 60 steps took 17 s of one CPU core with it and 6.5 s in place.

Shapes: B rows, H heads, L positions, D head width.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedConfig
from transformers.cache_utils import DynamicCache, DynamicLayer


class RoomyLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values of one layer of full attention, in buffers with room for `room` positions."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self._room = room
        self._buffers: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append states of shape [B, H, L, D], and return all that are held."""
        start = self.get_seq_length()
        self.dtype, self.device, self.is_initialized = key_states.dtype, key_states.device, True
        end = start + key_states.shape[-2]
        buffers = self._with_room(key_states, value_states, start=start, end=end)
        for buffer, states in zip(buffers, (key_states, value_states), strict=True):
            buffer[:, :, start:end] = states
        self._show(buffers, length=end)
        return self.keys, self.values

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Keep the rows `beam_idx`, in this order; only rows that change their place are copied."""
        if self._buffers is None:
            return
        num_rows, length = len(beam_idx), self.get_seq_length()
        rows = beam_idx.to(self._buffers[0].device)
        moved = torch.nonzero(rows != torch.arange(num_rows, device=rows.device)).flatten()
        for buffer in self._buffers:
            buffer[moved, :, :length] = buffer[rows[moved], :, :length]
        self._show((self._buffers[0][:num_rows], self._buffers[1][:num_rows]), length=length)

    def _with_room(self, key_states: Tensor, value_states: Tensor, *, start: int, end: int) -> tuple[Tensor, Tensor]:
        if self._buffers is not None and end <= self._buffers[0].shape[2]:
            return self._buffers
        self._room = max(self._room, end)
        buffers = (_empty(key_states, room=self._room), _empty(value_states, room=self._room))
        if self._buffers is not None:
            for new, old in zip(buffers, self._buffers, strict=True):
                new[:, :, :start] = old[:, :, :start]
        return buffers

    def _show(self, buffers: tuple[Tensor, Tensor], *, length: int) -> None:
        self._buffers = buffers
        self.keys, self.values = buffers[0][:, :, :length], buffers[1][:, :, :length]


def _empty(states: Tensor, *, room: int) -> Tensor:
    num_rows, num_heads, _, width = states.shape
    return states.new_empty(num_rows, num_heads, room, width)


def new_cache(config: PreTrainedConfig, *, room: int) -> DynamicCache:
    """An empty cache for a model: layers of full attention get room for `room` positions.

    Layers with a sliding window or a recurrent state stay transformers' own; they are bounded.
    """
    cache = DynamicCache(config=config)
    cache.layers = [RoomyLayer(room) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def sees_everything(cache: DynamicCache) -> bool:
    """Whether all layers attend to all positions, so that padding may lie within a row and not only before it.

    A sliding window counts padding as positions, and a recurrent state runs through it.
    """
    return bool(cache.layers) and all(type(layer) is RoomyLayer for layer in cache.layers)


def copy_for_rows(prefix: DynamicCache, config: PreTrainedConfig, *, num_rows: int, room: int) -> DynamicCache:
    """A cache in which each of `num_rows` rows begins with the one row of `prefix`."""
    cache = new_cache(config, room=room)
    for index, layer in enumerate(prefix.layers):
        cache.update(layer.keys.expand(num_rows, -1, -1, -1), layer.values.expand(num_rows, -1, -1, -1), index)
    return cache


def bytes_per_position(config: PreTrainedConfig, *, element_bytes: int) -> int:
    """Bytes that one position of one row takes in the cache, at most: every layer as if it held all positions."""
    text = config.get_text_config(decoder=True)
    num_heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return int(2 * text.num_hidden_layers * num_heads * width * element_bytes)
