"""Near duplicates against the Jaccard index computed from the sets themselves."""

import random
from itertools import combinations

import numpy as np
import pytest

from ftk.data.check.near_duplicates import (
    NearDuplicate,
    bands,
    groups,
    groups_of,
    rows_per_band,
    similarity,
    sketches,
)
from ftk.data.check.words import split_words, words_of

WORDS = [f"word{number}" for number in range(3000)]


def runs(text: str) -> set[tuple[str, ...]]:
    words = text.lower().split()
    return {tuple(words[place : place + 3]) for place in range(len(words) - 2)}


def jaccard(one: str, other: str) -> float:
    return len(runs(one) & runs(other)) / len(runs(one) | runs(other))


def changed(text: str, *, num_words: int, seed: int) -> str:
    draw = random.Random(seed)
    words = text.split()
    for place in draw.sample(range(len(words)), num_words):
        words[place] = f"other{draw.random()}"
    return " ".join(words)


def texts_of(number: int, *, seed: int = 0, length: int = 120) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=length)) for _ in range(number)]


def test_the_sketch_estimates_the_jaccard_index() -> None:
    errors = []
    for number, text in enumerate(texts_of(60)):
        other = changed(text, num_words=number % 20, seed=number)
        sketch_NP = sketches(words_of([text, other.replace(".", "")]), num_permutations=128, seed=1)
        estimate = similarity(sketch_NP[:1], sketch_NP[1:])[0]
        errors.append(estimate - jaccard(text, other.replace(".", "")))
    assert abs(np.mean(errors)) < 0.015  # a standard error of 0.044 at most, over 8
    assert np.abs(errors).max() < 0.15


def test_pairs_above_the_threshold_are_found_and_those_below_are_not() -> None:
    originals = texts_of(200)
    nearly = [changed(text, num_words=1, seed=number) for number, text in enumerate(originals)]
    far = [changed(text, num_words=25, seed=number) for number, text in enumerate(originals)]
    assert min(jaccard(*pair) for pair in zip(originals, nearly, strict=True)) > 0.93
    assert max(jaccard(*pair) for pair in zip(originals, far, strict=True)) < 0.6
    group_N = groups_of([*originals, *nearly, *far])
    assert group_N[:200].tolist() == list(range(200))
    assert group_N[200:400].tolist() == list(range(200))
    assert group_N[400:].tolist() == list(range(400, 600))


def test_groups_are_those_of_all_pairs() -> None:
    """Chains, and several texts of one kind, joined as a comparison of every pair would join them."""
    texts = []
    for number, text in enumerate(texts_of(30, length=60)):
        for _ in range(number % 4):
            text = changed(text, num_words=1, seed=len(texts))
            texts.append(text)
    texts = random.Random(3).sample(texts, len(texts))
    expected = list(range(len(texts)))
    pairs = {pair: jaccard(texts[pair[0]], texts[pair[1]]) for pair in combinations(range(len(texts)), 2)}
    for (one, other), alike in pairs.items():
        if alike > 0.85 and expected[one] != expected[other]:
            low, high = sorted((expected[one], expected[other]))
            expected = [low if group == high else group for group in expected]
    assert all(alike < 0.7 or expected[one] == expected[other] for (one, other), alike in pairs.items())
    assert len(set(expected)) == 22  # every fourth chain has no text
    assert groups_of(texts, threshold=0.78).tolist() == expected


def test_case_punctuation_and_white_space_do_not_count() -> None:
    assert groups_of(["Is it so? Yes, it is.", "is it so - yes it IS", "is it not so"]).tolist() == [0, 0, 2]
    assert groups_of(["Paris", "paris!", "Lyon"]).tolist() == [0, 0, 2]


def test_texts_without_words_are_like_none() -> None:
    assert groups_of(["", "...", " ", "", "a", "a"]).tolist() == [0, 1, 2, 3, 4, 4]
    assert groups_of([]).tolist() == []


def test_scripts_without_spaces_are_compared_by_characters() -> None:
    assert split_words("東京は日本の首都です") == list("東京は日本の首都です")
    assert split_words("GPU で学習する2回") == ["gpu", "で", "学", "習", "す", "る", "2", "回"]
    long = "東京は日本の首都であり、人口が最も多い都市です。政治と経済の中心でもあります。" * 2
    texts = [long, long.replace("政治", "文化"), "大阪は西日本の中心で、食べ物が有名です。"]
    assert groups_of(texts, threshold=0.7).tolist() == [0, 0, 2]  # 30 of 38 runs of three characters


def test_bands_have_the_recall_they_promise() -> None:
    assert rows_per_band(0.8, 128) == 8  # 1 - (1 - 0.8^8)^16 = 0.947, with 9 rows 0.867
    assert rows_per_band(1.0, 128) == 128
    assert rows_per_band(0.3, 128) == 2
    draw = np.random.default_rng(0)
    sketch_NP = draw.integers(0, 2**32, (2000, 128), dtype=np.uint32)
    other_NP = np.where(draw.random((2000, 128)) < 0.8, sketch_NP, sketch_NP ^ 1).astype(np.uint32)
    recall = (bands(sketch_NP, 8) == bands(other_NP, 8)).any(axis=1).mean()
    assert recall == pytest.approx(1 - (1 - 0.8**8) ** 16, abs=0.02)


def test_equal_sketches_in_every_process() -> None:
    """What is sent between processes must not depend on Python's own hashes, which differ between them."""
    measured = NearDuplicate().measure_texts(["the quick brown fox jumps"])
    assert (int(measured["bands"][0, 0]), int(measured["text"][0])) == (
        3824586979382937090,
        11033456989573087361,
    )


def test_a_bucket_may_hold_several_kinds_of_text() -> None:
    measured_N = np.zeros(4, NearDuplicate().dtype)
    measured_N["bands"] = np.arange(1, 65).reshape(4, 16)
    measured_N["bands"][:, 3] = 7  # all meet in one band alone
    measured_N["sketch"][[1, 3]] = 5
    assert groups(measured_N, threshold=0.8).tolist() == [0, 1, 0, 1]
