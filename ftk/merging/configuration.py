"""What a merge shall do, as its file says it: which models, which of their layers, by which method."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch

from ftk.merging.method import Method
from ftk.merging.parameters import Parameters


@dataclass(frozen=True)
class ModelName:
    """How a merge names a model: `id`, `id@revision` or `id+adapter`."""

    id: str
    revision: str | None = None
    adapter: str | None = None
    adapter_revision: str | None = None

    def __str__(self) -> str:
        text = f"{self.id}@{self.revision}" if self.revision else self.id
        adapter = f"{self.adapter}@{self.adapter_revision}" if self.adapter_revision else self.adapter
        return f"{text}+{adapter}" if adapter else text


@dataclass(frozen=True)
class Source:
    """One model's part in a slice."""

    model: ModelName
    place: str
    """`file:line`, for messages."""
    layers: tuple[int, int] | None = None
    """First layer and the one after the last; None is all of them."""
    parameters: Parameters = field(default_factory=dict)


@dataclass(frozen=True)
class Slice:
    """A run of layers of the output, merged from as many layers of each source."""

    sources: tuple[Source, ...]
    place: str
    base: ModelName | None = None
    """Instead of the whole merge's."""
    parameters: Parameters = field(default_factory=dict)


@dataclass(frozen=True)
class Module:
    """A part of the output, such as a decoder or a vision tower; `default` is the whole."""

    name: str
    slices: tuple[Slice, ...]
    place: str
    parameters: Parameters = field(default_factory=dict)


@dataclass(frozen=True)
class TokenRow:
    """Where the embedding of one token comes from in models that lack the token."""

    source: ModelName | Literal["zero"] | None = None
    token: str | None = None
    """Of `source`, where it is called otherwise there."""
    token_id: int | None = None
    force: bool = False
    """Whether models that have the token take this row too."""


@dataclass(frozen=True)
class Tokens:
    """Which tokens the output knows, and where rows come from that a model lacks."""

    source: ModelName | Literal["base", "union"]
    rows: Mapping[str, TokenRow] = field(default_factory=dict)
    pad_to_multiple_of: int | None = None


@dataclass(frozen=True)
class Upscale:
    """All layers twice, one copy upon the other, without those in the middle: from n layers 2 (n - drop).

    Source: SOLAR 10.7B, Kim et al. 2023 (arXiv:2312.15166), section 2: 32 layers and drop 8 give 48.
    """

    drop: int | None = None
    """Layers left out at the end of the first copy and at the start of the second; by default a quarter of them."""


@dataclass(frozen=True)
class Merge:
    """A whole merge."""

    name: str
    """Of the method, as the file has it."""
    method: Method
    modules: tuple[Module, ...]
    base: ModelName | None = None
    parameters: Parameters = field(default_factory=dict)
    dtype: torch.dtype | None = None
    """Inputs are cast to it before they are merged."""
    out_dtype: torch.dtype | None = None
    """Results are cast to it."""
    upscale: Upscale | None = None
    """Where its one model is stacked upon itself."""
    tokens: Tokens | None = None
    chat_template: str | None = None
    seed: int = 0

    def sources(self) -> list[ModelName]:
        """The models whose layers are listed."""
        named = [source.model for module in self.modules for one in module.slices for source in one.sources]
        return list(dict.fromkeys(named))

    def models(self) -> list[ModelName]:
        """All models that are named, the one first whose configuration the output takes."""
        found = [self.base] if self.base is not None else []
        found += self.sources()
        found += [one.base for module in self.modules for one in module.slices if one.base is not None]
        if self.tokens is not None:
            rows = [row.source for row in self.tokens.rows.values()]
            found += [name for name in (self.tokens.source, *rows) if isinstance(name, ModelName)]
        return list(dict.fromkeys(found))
