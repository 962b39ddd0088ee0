"""The `data` section of a recipe."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from ftk.core.config import OneOrMore, Section
from ftk.core.errors import FtkError
from ftk.data.formats import check_format
from ftk.data.split import parse_split


class Source(Section):
    """Where rows come from, and how they read."""

    source: str
    """A JSONL, JSON, CSV or Parquet file, a folder of these, a hub data set id, or `ftk://orders/train`."""
    format: str = "auto"
    """`messages`, `sharegpt`, `alpaca`, `prompt_completion`, `question_answer`, or your own `module:function`.

    Preference data: `pairs` (`prompt`, `chosen`, `rejected`), `ranked` (`prompt`, `ranked`: answers, the best first),
    `rated` (`prompt`, `completions` with ratings), `rated_messages` (`messages`, `rating`: rows with one prompt are
    compared), `unpaired` (`prompt`, `completion`, `label`). `auto` finds it from the columns and says which was
    taken."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Which column of the file plays which part of the format, such as `{question: problem, answer: solution}`."""
    weight: Annotated[float, Field(gt=0)] | None = None
    """Share of the rows that come from this source, relative to the other sources; rows repeat or rest accordingly.

    Without weights each source is read once an epoch."""
    subset: str | None = None
    """Configuration of a hub data set."""
    split: str | None = None
    """Split of a hub data set, with slices such as `train[:95%]`; slices work on files too. `train` by default."""
    revision: str | None = None
    """Branch, tag or commit of a hub data set."""
    pairs: Literal["all", "adjacent", "best_worst"] = "all"
    """Which pairs several ranked or rated answers to one prompt give: every better one with every worse one, each with
    the next, or the best with the worst alone. Equal ratings give no pair."""
    system: str | None = None
    """A system message put before rows that have none."""

    @field_validator("format")
    @classmethod
    def _is_known(cls, value: str) -> str:
        return check_format(value)

    @field_validator("split")
    @classmethod
    def _reads(cls, value: str | None) -> str | None:
        try:
            parse_split(value or "train", place="split")
        except FtkError as error:
            raise ValueError(error.message) from error
        return value


Sources = Annotated[tuple[Source, ...], OneOrMore()]


class DataSettings(Section):
    """What the model is trained and evaluated on."""

    train: Annotated[Sources, Field(min_length=1)]
    """One source or a list of sources."""
    eval: Sources = ()
    """Held-out rows, never trained on."""
    max_length: Annotated[int, Field(ge=8)] | None = None
    """Longest row in tokens. By default what the model's positions allow, at most 2048."""
    truncation: Literal["right", "left", "drop", "error"] = "error"
    """What happens to longer rows: cut at the right or the left, drop the row, or stop with its number."""
    packing: bool = False
    """Fill rows of `max_length` with several documents that cannot see each other. Faster on an accelerator."""
    chat_template: str | None = None
    """A shipped template by name, or a Jinja file, instead of the model's own."""
