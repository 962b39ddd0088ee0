"""The `data` section of a recipe."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from ftk.core.config import OneOrMore, Section
from ftk.core.errors import FtkError
from ftk.data.formats import check_format
from ftk.data.limit import Limit
from ftk.data.retrieval import Retrieval
from ftk.data.split import parse_split
from ftk.data.system_message import SystemMessage
from ftk.data.template_arguments import check_argument_names


class Source(Section):
    """Where rows come from, and how they read."""

    source: str
    """A JSONL, JSON, CSV or Parquet file, a folder of these, a hub data set id, or `ftk://orders/train`.

    Under `task: cpt` also a file of plain text such as `book.txt` or `guide.md`, a folder with text files anywhere
    beneath it, or `ftk://stdlib`, the sources of Python's standard library. Of rows, the column `text` is read."""
    format: str = "auto"
    """`messages`, `sharegpt`, `alpaca`, `prompt_completion`, `context_question_answer`, `question_answer`,
    `gemini`, or your own `module:function`.

    Preference data: `pairs` (`prompt`, `chosen`, `rejected`), `ranked` (`prompt`, `ranked`: answers, the best first),
    `rated` (`prompt`, `completions` with ratings), `rated_messages` (`messages`, `rating`: rows with one prompt are
    compared), `unpaired` (`prompt`, `completion`, `label`). `auto` finds it from the columns and says which was
    taken."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Which column of the file plays which part of the format, such as `{question: problem, answer: solution}`.

    Under `task: cpt` there is one part: `{text: content}`."""
    glob: Annotated[tuple[str, ...], OneOrMore()] = ()
    """Which files of a folder are texts under `task: cpt`, such as `**/*.py` or `[src/**/*.py, "**/*.md"]`.

    Each file is a document, whatever its ending. Hidden, binary and empty files and those that are not UTF-8 are left
    out and counted."""
    separator: str | None = None
    """Text at which files of plain text are split into documents, such as `"\\n\\n\\n"`. By default a file is one."""
    limit: Limit | None = None
    """How much of the source is taken under `task: cpt`, from its beginning: documents, or tokens as `2M tokens`."""
    weight: Annotated[float, Field(gt=0)] | None = None
    """Share of the rows that come from this source, relative to the other sources; rows repeat or rest accordingly.

    Without weights each source is read once an epoch."""
    subset: str | None = None
    """Configuration of a hub data set."""
    split: str | None = None
    """Split of a hub data set, with slices such as `train[:95%]`; slices work on files too. `train` by default.

    A slice of texts counts documents; of one file of plain text without a `separator` it counts lines."""
    revision: str | None = None
    """Branch, tag or commit of a hub data set."""
    pairs: Literal["all", "adjacent", "best_worst"] = "all"
    """Which pairs several ranked or rated answers to one prompt give: every better one with every worse one, each with
    the next, or the best with the worst alone. Equal ratings give no pair."""
    system: SystemMessage | None = None
    """A system message put before rows that have none, or before all: `{text: Be brief., when: always}`."""

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
    """Longest row in tokens. By default what the model's positions allow, at most 2048; under `model.context` all of
    them."""
    truncation: Literal["right", "left", "drop", "error"] = "error"
    """What happens to longer rows: cut at the right or the left, drop the row, or stop with its number.

    Texts under `task: cpt` are cut into pieces instead, of which none is lost."""
    overlap: Annotated[int, Field(ge=0)] = 0
    """Tokens that each further piece of a text longer than `max_length` repeats from before it, under `task: cpt`.

    They are context for what follows and have weight 0, so that every token is learned once. At most half of
    `max_length`."""
    packing: bool = False
    """Fill rows of `max_length` with several documents that cannot see each other. Faster on an accelerator."""
    chat_template: str | None = None
    """A shipped template by name, or a Jinja file, instead of the model's own."""
    template_arguments: dict[str, Any] = Field(default_factory=dict)
    """Given to the chat template beside the messages, such as `{enable_thinking: false}`.

    They are kept with the model, in tokenizer_config.json, and `ftk generate`, `chat` and `eval` give them too. One
    that the template does not read is an error."""

    retrieval: Retrieval = Retrieval()
    """How rows with retrieved documents (`context`, `question`, `answer`) become prompts."""

    @field_validator("template_arguments")
    @classmethod
    def _may_be_set(cls, value: dict[str, Any]) -> dict[str, Any]:
        check_argument_names(value)
        return value
