"""`ftk generate` and `ftk chat`: one answer after another, told as it comes."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ftk.core.errors import DataError, RecipeError
from ftk.core.types import Conversation, Message
from ftk.data.infill_prompt import InfillPrompts
from ftk.data.render import Renderer, renderer_for
from ftk.generation.decode import decode
from ftk.generation.detokenize import Detokenizer
from ftk.models.load import max_positions
from ftk.models.settings import ModelSettings
from ftk.recipe.load import load_recipe
from ftk.runs.answers import end_token_ids, named_end_token_ids
from ftk.runs.infilling import hole_end_token_ids
from ftk.runs.out_of_memory import USE_REMEDIES, out_of_memory_told
from ftk.runs.ready_model import ReadyModel, load_ready_model, recipe_beside
from ftk.runs.trust import tell_of_code


@dataclass(frozen=True)
class Sampling:
    """How an answer is drawn."""

    temperature: float = 0.0
    """0 takes the most probable token each time."""
    top_p: float = 1.0
    """Draw from the fewest tokens that together have this probability."""
    seed: int = 0
    max_new_tokens: int = 256

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < 100:
            raise RecipeError(f"the temperature is {self.temperature}, expected 0 for the most probable, or about 1")
        if not 0 < self.top_p <= 1:
            raise RecipeError(f"top-p is {self.top_p}, expected a probability: more than 0, at most 1")
        if self.seed < 0:
            raise RecipeError(f"the seed is {self.seed}, expected a whole number from 0")
        if self.max_new_tokens < 1:
            raise RecipeError(f"max-new-tokens is {self.max_new_tokens}, expected at least 1")


@dataclass(frozen=True)
class Reply:
    """One answer."""

    text: str
    num_tokens: int
    seconds: float
    finish_reason: Literal["stop", "length"]
    """`stop`: it ended by itself; `length`: it was cut at `max_new_tokens` or at the model's last position."""

    def as_json(self) -> dict[str, Any]:
        return {
            "text": self.text,
            "num_tokens": self.num_tokens,
            "seconds": self.seconds,
            "finish_reason": self.finish_reason,
        }


class Speaker:
    """A model that answers."""

    @out_of_memory_told(USE_REMEDIES)
    def __init__(self, model: str, *, revision: str | None = None, chat_template: str | None = None) -> None:
        """Load it; a run folder brings the quantization and template that it was trained with.

        Raises:
            ModelError: there is no such model, or it cannot be used.
            RecipeError: the run's recipe cannot be read.
        """
        own = recipe_beside(model)
        recipe = load_recipe(str(own)).recipe if own is not None else None
        trusted = recipe is not None and recipe.model.trust_remote_code
        settings = ModelSettings(id=model, revision=revision, trust_remote_code=trusted)
        tell_of_code(settings)
        self._name = model
        self._chat_template = chat_template
        self._ready: ReadyModel = load_ready_model(settings, quantization=recipe.quantization if recipe else None)

    def answer(
        self, messages: Sequence[Message], sampling: Sampling, *, on_text: Callable[[str], None] | None = None
    ) -> Reply:
        """The answer to a conversation that ends in a question; `on_text` is told it piece by piece.

        Raises:
            DataError: the model has no chat template, or the conversation leaves no position for an answer.
        """
        renderer = self._renderer()
        # The renderer stops before the last answer, so there must be one.
        open_end: Message = {"role": "assistant", "content": ""}
        prompt = renderer.render_prompt(Conversation((*messages, open_end), 1, "prompt", {}))
        return self._reply(prompt, end_token_ids(self._ready.causal_lm, renderer), sampling, on_text)

    def go_on(self, text: str, sampling: Sampling, *, on_text: Callable[[str], None] | None = None) -> Reply:
        """How the model goes on from a text as it stands, without a chat template.

        Raises:
            DataError: the text is empty, or leaves no position to go on.
        """
        tokenizer = self._ready.tokenizer
        ends = named_end_token_ids(self._ready.causal_lm, tokenizer)
        return self._reply(tokenizer(text, verbose=False)["input_ids"], ends, sampling, on_text)

    def fill(self, prefix: str, suffix: str, sampling: Sampling) -> Reply:
        """What the model puts between a prefix and a suffix.

        Raises:
            DataError: the model has no infilling tokens, or prefix and suffix leave no position for a middle.
        """
        prompts = InfillPrompts(self._ready.tokenizer)
        ends = hole_end_token_ids(self._ready.causal_lm, self._ready.tokenizer, prompts)
        return self._reply(prompts.prompt(prefix, suffix), ends, sampling, None, decode_tokens=prompts.middle)

    def _renderer(self) -> Renderer:
        tokenizer = self._ready.tokenizer
        if self._chat_template is None and tokenizer.chat_template is None:
            raise DataError(
                f"{self._name} has no chat template, so it does not know questions from answers. Name one with "
                "--chat-template, such as chatml, or let it go on from a text with `ftk generate --raw`"
            )
        return renderer_for(tokenizer, chat_template=self._chat_template)

    @out_of_memory_told(USE_REMEDIES)
    def _reply(
        self,
        prompt: Sequence[int],
        ends: Sequence[int],
        sampling: Sampling,
        on_text: Callable[[str], None] | None,
        *,
        decode_tokens: Callable[[list[int]], str] | None = None,
    ) -> Reply:
        self._check_length(prompt)
        start = time.perf_counter()
        detokenizer = Detokenizer(self._ready.tokenizer)

        def tell(piece: str) -> None:
            if piece and on_text is not None:
                on_text(piece)

        tokens = decode(
            self._ready.causal_lm,
            [prompt],
            max_new_tokens=sampling.max_new_tokens,
            end_token_ids=ends,
            pad_token_id=self._ready.pad_token_id,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seed=sampling.seed,
            on_token=lambda token: tell(detokenizer.push(token)),
        )[0]
        tell(detokenizer.flush())
        return Reply(
            text=self._ready.tokenizer.decode(tokens, skip_special_tokens=True)
            if decode_tokens is None
            else decode_tokens(tokens),
            num_tokens=len(tokens),
            seconds=time.perf_counter() - start,
            finish_reason="length" if self._was_cut(prompt, tokens, sampling) else "stop",
        )

    def _was_cut(self, prompt: Sequence[int], tokens: Sequence[int], sampling: Sampling) -> bool:
        positions = max_positions(self._ready.causal_lm.config)
        at_the_end = positions is not None and len(prompt) + len(tokens) >= positions
        return len(tokens) >= sampling.max_new_tokens or at_the_end

    def _check_length(self, prompt: Sequence[int]) -> None:
        positions = max_positions(self._ready.causal_lm.config)
        if not prompt:
            raise DataError("the prompt is empty; there is nothing to go on from")
        if positions is not None and len(prompt) >= positions:
            raise DataError(
                f"the prompt has {len(prompt)} tokens and the model {positions} positions, so none is left for "
                "an answer. Shorten the prompt; in a chat, /reset starts afresh"
            )
