"""Small tokenizers made on the spot that write holes as the well-known families do, or not at all."""

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

FAMILIES = {
    "CodeLlama": ("▁<PRE>", "▁<SUF>", "▁<MID>", "▁<EOT>"),
    "StarCoder": ("<fim_prefix>", "<fim_suffix>", "<fim_middle>", "<|endoftext|>"),
    "DeepSeek-Coder": ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>", "<｜end▁of▁sentence｜>"),
    "Qwen-Coder": ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|endoftext|>"),
}
"""What stands before prefix, suffix and middle, and at the end."""


def of_family(name: str) -> PreTrainedTokenizerFast:
    """A tokenizer with the tokens of a family; CodeLlama's puts a blank before a text, as SentencePiece does."""
    marks = FAMILIES[name]
    return like_sentencepiece(marks) if name == "CodeLlama" else of_bytes(marks, eos=marks[-1])


def of_bytes(special: tuple[str, ...] = (), *, eos: str = "<end>", bos: str | None = None) -> PreTrainedTokenizerFast:
    """Every byte a token, and a few pairs of letters; without a BOS unless one is named."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("e", "r"), ("r", "e"), ("t", "h"), ("Ġ", "Ġ"), ("ĠĠ", "ĠĠ"), ("r", "n"), ("a", "b")]
    words = [*alphabet, *("".join(pair) for pair in merges)]
    tokenizer = Tokenizer(models.BPE({word: number for number, word in enumerate(words)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    return _wrapped(tokenizer, special, eos=eos, bos=bos)


def like_sentencepiece(special: tuple[str, ...]) -> PreTrainedTokenizerFast:
    """A blank before each text, blanks as ▁, and bytes where a letter is unknown."""
    letters = [chr(code) for code in range(33, 127)]
    words = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *letters, "▁a", "▁▁"]
    merges = [("▁", "a"), ("▁", "▁")]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return _wrapped(tokenizer, special, eos="</s>", bos="<s>")


def _wrapped(tokenizer: Tokenizer, special: tuple[str, ...], *, eos: str, bos: str | None) -> PreTrainedTokenizerFast:
    named = [*special, *(token for token in (eos, bos) if token is not None and token not in special)]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in named])
    if bos is not None:
        number = tokenizer.token_to_id(bos)
        tokenizer.post_processor = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, number)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=eos, **({"bos_token": bos} if bos else {}))
