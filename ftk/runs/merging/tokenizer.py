"""The tokenizer of a merged model, and where its tokens are in each of the models it is merged from."""

import filecmp
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ftk.core.errors import ModelError, RecipeError
from ftk.merging.configuration import Merge, ModelName, TokenRow, Tokens
from ftk.merging.open_model import OpenModel
from ftk.merging.plan import CHOOSE_TOKENS
from ftk.merging.tokens import TokenMatch

TOKENIZER = "tokenizer.json"
Vocabulary = Mapping[str, int]


@dataclass(frozen=True)
class MatchedTokenizer:
    """What the output's tokenizer is, where one was asked for."""

    source: ModelName
    """The model whose tokenizer files are copied."""
    rebuilt: Any = None
    """The tokenizer, where it is no model's own."""
    match: TokenMatch | None = None
    """Where its tokens are in the models; None where every model has all of them in the same rows."""


def match_tokenizers(
    merge: Merge, models: Mapping[ModelName, OpenModel], folders: Mapping[ModelName, Path]
) -> MatchedTokenizer | None:
    """The tokenizer that was asked for; None where none was, and the models' own agree.

    Args:
        merge: what was asked for.
        models: all models of it.
        folders: of their tokenizers.

    Raises:
        ModelError: a tokenizer is missing, or they differ and no choice was made.
        RecipeError: a token is in none of the models and its row was not said.
    """
    if merge.tokens is None:
        _require_agreeing({name: folders[name] for name in merge.sources()})
        return None
    base = merge.base or merge.models()[0]
    source = merge.tokens.source if isinstance(merge.tokens.source, ModelName) else base
    vocabularies = {name: _vocabulary(name, folders[name]) for name in models}
    rebuilt = None
    if merge.tokens.source == "union" and any(set(one) - set(vocabularies[source]) for one in vocabularies.values()):
        rebuilt = _union(source, folders, vocabularies)
    added = [
        token
        for token in merge.tokens.rows
        if token not in (vocabularies[source] if rebuilt is None else _ids(rebuilt))
    ]
    if added:
        rebuilt = _loaded(folders[source]) if rebuilt is None else rebuilt
        rebuilt.add_tokens(added)
    vocabulary = vocabularies[source] if rebuilt is None else _ids(rebuilt)
    match = _match(merge.tokens, models, vocabularies, vocabulary, source=source, base=base, is_own=rebuilt is None)
    return MatchedTokenizer(source, rebuilt, match)


def _match(
    tokens: Tokens,
    models: Mapping[ModelName, OpenModel],
    vocabularies: Mapping[ModelName, Vocabulary],
    vocabulary: Vocabulary,
    *,
    source: ModelName,
    base: ModelName,
    is_own: bool,
) -> TokenMatch | None:
    num_rows = {name: _num_rows(model) for name, model in models.items()}
    num_tokens = max(vocabulary.values()) + 1
    if is_own and tokens.pad_to_multiple_of is None:
        # Rows beyond the last token are the source's own padding, and stay.
        num_tokens = max(num_tokens, num_rows[source])
    multiple = tokens.pad_to_multiple_of or 1
    rows = {
        name: _rows(vocabulary, vocabularies[name], num_tokens=num_tokens, num_rows=num_rows[name]) for name in models
    }
    given = {vocabulary[token]: row for token, row in tokens.rows.items()}
    _require_origins(vocabulary, rows, given)
    num_padded = -(-num_tokens // multiple) * multiple
    in_place = torch.arange(num_padded)
    if not given and all(
        num_rows[name] == num_padded and len(found) == num_padded and torch.equal(found, in_place)
        for name, found in rows.items()
    ):
        return None
    return TokenMatch(num_padded, rows, base, given, vocabularies)


def _rows(vocabulary: Vocabulary, own: Vocabulary, *, num_tokens: int, num_rows: int) -> torch.Tensor:
    rows = torch.full((num_tokens,), -1, dtype=torch.int64)
    numbers = torch.tensor(list(vocabulary.values()), dtype=torch.int64)
    found = torch.tensor([own.get(token, -1) for token in vocabulary], dtype=torch.int64)
    rows[numbers] = torch.where(found < num_rows, found, -1)
    # Padding stays where it is, unless the model has a token there.
    is_free = torch.ones(num_tokens, dtype=torch.bool)
    is_free[numbers] = False
    taken = torch.tensor([number for number in own.values() if number < num_tokens], dtype=torch.int64)
    is_free[taken] = False
    is_free[num_rows:] = False
    rows[is_free] = is_free.nonzero().flatten()
    return rows


def _require_origins(
    vocabulary: Vocabulary, rows: Mapping[ModelName, torch.Tensor], given: Mapping[int, TokenRow]
) -> None:
    """Make sure that every token is in some model, or its row was said."""
    has = torch.stack(list(rows.values())).amax(0) >= 0
    for token, number in vocabulary.items():
        row = given.get(number)
        if not has[number] and (row is None or row.source is None):
            raise RecipeError(
                f"tokenizer.tokens: {token!r} is in none of the models, so that its embedding is not known. Say where "
                "it comes from: source: {kind: zero}, or {kind: model_token, model: ..., token: ...}"
            )


def _num_rows(model: OpenModel) -> int:
    if model.embedding is None:
        raise ModelError(
            f"{model.name} has no embeddings under a name that ftk knows, so that tokens cannot be matched"
        )
    return model.spec(model.embedding).shape[0]


def _vocabulary(name: ModelName, folder: Path) -> Vocabulary:
    """Every token's number. Read from the file where there is one, since transformers takes seconds to import."""
    file = folder / TOKENIZER
    if not file.exists():
        return _ids(_loaded(folder))
    try:
        content = json.loads(file.read_bytes())
        words = content["model"]["vocab"]
        # Unigram models list pieces with their scores.
        found = dict(words) if isinstance(words, dict) else {piece: number for number, (piece, _) in enumerate(words)}
        found.update({one["content"]: one["id"] for one in content.get("added_tokens", ())})
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{file} of {name} is no tokenizer that can be read ({type(error).__name__})") from error
    return found


def _require_agreeing(folders: Mapping[ModelName, Path]) -> None:
    """Make sure that no number means one token in one model and another in another."""
    files = {name: folder / TOKENIZER for name, folder in folders.items() if (folder / TOKENIZER).exists()}
    if len(files) < 2:
        return
    (first, reference), *others = files.items()
    for name, file in others:
        if filecmp.cmp(reference, file, shallow=False):
            continue
        tokens = {number: token for token, number in _vocabulary(first, folders[first]).items()}
        for token, number in _vocabulary(name, folders[name]).items():
            if tokens.get(number, token) != token:
                raise ModelError(
                    f"the models have different tokenizers: number {number} is {tokens[number]!r} in {first} and "
                    f"{token!r} in {name}. {CHOOSE_TOKENS}"
                )


def _loaded(folder: Path) -> Any:
    from transformers import AutoTokenizer

    from ftk.runs.quiet import quieten

    quieten()
    try:
        return AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        first_line = str(error).strip().split("\n")[0]
        raise ModelError(f"{folder} has no tokenizer that can be read ({first_line})") from error


def _ids(tokenizer: Any) -> Vocabulary:
    found: Vocabulary = tokenizer.get_vocab()
    return found


def _union(source: ModelName, folders: Mapping[ModelName, Path], vocabularies: Mapping[ModelName, Vocabulary]) -> Any:
    """The source's tokenizer with the tokens of the others added, which it does not split."""
    tokenizer = _loaded(folders[source])
    known = set(_ids(tokenizer))
    for name, vocabulary in vocabularies.items():
        lacking = sorted((token for token in vocabulary if token not in known), key=vocabulary.__getitem__)
        if lacking:
            special = {str(one): one for one in _loaded(folders[name]).added_tokens_decoder.values()}
            tokenizer.add_tokens([special.get(token, token) for token in lacking])
            known.update(lacking)
    return tokenizer
