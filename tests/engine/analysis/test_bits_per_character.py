"""Bits per character and comparisons of models by hand, under different tokenizers, with intervals of a bootstrap."""

import math
from dataclasses import replace
from itertools import product
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, normalizers, pre_tokenizers

from engine.analysis import evaluation
from engine.analysis.activations import compare_next_tokens
from engine.config import DataConfig
from engine.data.dataset import load_dataset
from engine.data.scripts import Turn, script_text
from engine.data.speakers import display_name
from engine.data.tokenizers import EOS_ID, BPETokenizer, CharacterTokenizer, WordTokenizer
from engine.errors import CorpusError
from engine.models.ngram import KneserNey, OrthographyModel, SpellingModel, Unigram
from engine.models.pretrained.tokenizer import PretrainedTokenizer, SpecialTokens
from tests.support.dialogues import dialogue_model
from tests.support.files import sentences, write_csv
from tests.support.models import UniformModel, naive_bits, text_bits_per_character
from tests.support.pretrained import new_sentencepiece
from tests.support.references import plain_next_probs, word_tokenizer

TEXT = "Gandalf: You shall not pass!\n\nFrodo: “Go back”… 🧙‍♂️ to the Shire?\n  So be  it.\n"
WORDS = WordTokenizer(("<unk>", "<eos>", "the", "king"))
MODES = ("line", "stream")  # modes of a text without speakers


def open_tokenizers():
    lines = [*TEXT.split("\n"), "the shire and the pass", "so be the shire"] * 3
    return [
        CharacterTokenizer([]),
        CharacterTokenizer(["“", "”"]),
        *(BPETokenizer.train(lines, size) for size in (258, 270, 320)),
    ]


def test_uniform_word_model_spells_its_unknown_words():
    """The king, the <unk> <eos>: five tokens of two bits, and the letters of `fool`."""
    spelling = SpellingModel(["the", "king"])
    spelled = (spelling.unknown_log_prob - spelling.log_probs(["fool"])[0]) / math.log(2)
    expected = (5 * 2 + spelled) / len("the king the fool\n")
    assert text_bits_per_character(UniformModel(WORDS), "The king -- the FOOL!\n", "line") == pytest.approx(expected)
    assert spelled > 4 * 4  # letters that the vocabulary has not are expensive


def test_stream_mode_of_words_also_counts_the_line_ends():
    """A line end after a word is estimated as .5 / 1, then .5 / 2, then 1.5 / 3; the last one is `<eos>`."""
    text = "the king\nthe king\n"
    tokens = 5 * 2  # four words and the end of the text
    separators = -math.log2(1 / 2) - math.log2(1 / 4) - math.log2(1 - 1.5 / 3)
    encoded = evaluation.EncodedText(text, WORDS, "stream")
    assert encoded.ids.tolist() == [2, 3, 2, 3, EOS_ID]
    assert encoded.token_bits(np.full(5, -math.log(4))).sum() == pytest.approx(tokens + separators)
    assert evaluation.EncodedText(text, WORDS, "line").token_bits(np.full(6, -math.log(4))).sum() == pytest.approx(12)
    assert evaluation.EncodedText("the\n", WORDS, "stream").untokenized_bits.tolist() == [0, 0]


@pytest.mark.parametrize("mode", MODES)
def test_uniform_bytes_give_the_same_figure_under_every_segmentation(mode):
    """Each byte has the probability 1/256, however bytes form tokens; a stream has one token more, its end."""
    expected = (len(TEXT.encode()) + (mode == "stream")) * 8 / len(TEXT)
    num_tokens = set()
    for tokenizer in open_tokenizers():
        encoded = evaluation.EncodedText(TEXT, tokenizer, mode)
        log_probs = np.array([-len(tokenizer.token_bytes[id]) * math.log(256) for id in encoded.ids])
        assert encoded.bits_per_character(log_probs) == pytest.approx(expected)
        num_tokens.add(len(encoded.ids))
    assert len(num_tokens) == 5


NAMES = ("words", "whitespace", "characters", "bpe")


@pytest.mark.parametrize(("name", "mode"), [*product(NAMES, MODES), ("characters", "dialogue"), ("bpe", "dialogue")])
def test_tokens_are_those_of_the_dataset(tmp_path, name, mode):
    path = tmp_path / "corpus.csv"
    if mode == "dialogue":
        speakers = ["GANDALF", "Sam (V.O.)", "", "A passer-by"]
        lines = [f'{speakers[index % 4]},"{text}",{index // 13}' for index, text in enumerate(sentences(300))]
        path.write_text("\n".join(["char,dialog,movie", *lines, 'GANDALF,"The end: of  it, at LAST!",9']) + "\n")
    else:
        write_csv(path, [*sentences(80), "The end -- of  it, at LAST! (they say so)"])
    dataset = load_dataset(DataConfig(corpus=str(path), tokenizer=name, mode=mode, vocabulary_size=300))
    for split in ("train", "valid", "test"):
        lines = getattr(dataset.splits, split)
        written = evaluation.written_text(lines, mode)
        text = evaluation.convert_text(written, evaluation.native_form(dataset.tokenizer), mode)
        encoded, ids = evaluation.EncodedText(text, dataset.tokenizer, mode), getattr(dataset, split)
        assert encoded.ids.tolist() == ids.tolist()
        assert encoded.is_scored.tolist() == dataset.scored_mask(ids).tolist()


def test_only_the_texts_of_a_script_and_their_line_ends_count():
    script, texts = "Sam: the road\n\nGollum: a: b\nSam:\n", "the road\na: b\n\n"
    by_others = next(iter(open_tokenizers()))
    by_others.reads_line_ends = True
    for tokenizer in (*open_tokenizers(), by_others):
        encoded = evaluation.EncodedText(script, tokenizer, "dialogue")
        assert tokenizer.decode(encoded.ids[:-1].tolist()) == script
        assert encoded.num_characters == len(texts)
        log_probs = np.array([-len(tokenizer.token_bytes[id]) * math.log(256) for id in encoded.ids])
        num_spaces = 2  # before the texts, which the tokens have and the texts have not
        assert encoded.token_bits(log_probs).sum() == pytest.approx(8 * (len(texts) + num_spaces))
        assert encoded.block_bits(log_probs).sum() == pytest.approx(encoded.token_bits(log_probs).sum())
        ends = encoded.end_offsets[np.isin(encoded.ids, tokenizer.line_end_ids)]
        assert ends.tolist() == [9, 9, 14, 15, 15]


def text_of_tokens(encoded):
    """Return the text that the tokens stand for whose probabilities count."""
    tokenizer, ids, unknown = encoded.tokenizer, encoded.ids[encoded.is_scored], iter(encoded.unknown_words)
    if tokenizer.is_open:
        return tokenizer.for_scripts().decode(ids.tolist())
    return " ".join(next(unknown) if id == 0 else "\n" if id == EOS_ID else tokenizer.tokens[id] for id in ids)


@settings(max_examples=60, deadline=None)
@given(lines=st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1, max_size=4))
def test_every_character_that_counts_is_paid_for_by_all_models(lines):
    """Of any text, with any marks and names beside colons, and of any script: all tokenizers account for the same."""
    lines = [" ".join(line.split()) for line in lines]
    text, scenes = "".join(f"{line}\n" for line in lines), [[Turn("SAM (V.O.)", line)] for line in lines if line]
    for tokenizer in (*open_tokenizers(), new_sentencepiece()):
        assert text_of_tokens(evaluation.EncodedText(text, tokenizer, "line")).removeprefix(" ") == text
        for mode in ("line", "stream", "dialogue") if scenes else ():
            encoded = evaluation.EncodedText(script_text(scenes), tokenizer, mode, is_script=True)
            assert encoded.text == "".join(f"{line}\n" for line in lines if line)
            said = text_of_tokens(encoded)
            assert said == "".join(f" {line}\n" for line in lines if line)
    for tokenizer in (WORDS, WordTokenizer(("<unk>", "<eos>", "a"), "whitespace")):
        form = evaluation.native_form(tokenizer)
        if words := evaluation.convert_text(text, form):
            assert text_of_tokens(evaluation.EncodedText(words, tokenizer, "line")).split() == words.split()
            script = evaluation.convert_text(script_text(scenes), form, "dialogue")
            assert evaluation.EncodedText(script, tokenizer, "line", is_script=True).text == words


def test_a_tokenizer_that_leaves_characters_out_is_refused():
    """Capitals, or a word outside the vocabulary, would cost the model nothing."""
    names = {name: id for id, name in enumerate(["<s>", *pre_tokenizers.ByteLevel.alphabet()])}
    lower = Backend(models.BPE(vocab=names, merges=[]))
    lower.normalizer, lower.decoder = normalizers.Lowercase(), decoders.ByteLevel()
    lower.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    known = Backend(models.WordLevel(vocab={"<unk>": 0, "<s>": 1, "a": 2, "\n": 3}, unk_token="<unk>"))
    known.pre_tokenizer = pre_tokenizers.Split("\n", "isolated")
    for backend, text, changed in ((lower, "hello\n", "Hello\n"), (known, "a\n", "incomprehensibilities\n")):
        tokenizer = PretrainedTokenizer(backend.to_str(), backend.get_vocab_size(), SpecialTokens(1, 1, (1,), (0, 1)))
        assert evaluation.EncodedText(text, tokenizer, "stream").num_characters == len(text)
        with pytest.raises(CorpusError, match=r"^the tokenizer of the model changes this text, .* use another text$"):
            evaluation.EncodedText(changed, tokenizer, "stream")


def test_bits_of_a_dialogue_in_double_precision():
    """Each token of the texts and of their line ends is predicted after all before it, names and scene ends too."""
    model = dialogue_model()
    scenes = [[Turn("GANDALF", "Where is the Ring?"), Turn("A MAN", "no")], [Turn("FRODO", "In the tower: up.")]]
    ids, expected = [EOS_ID], 0.0
    for number, scene in enumerate(scenes):
        ids += model.tokenizer.encode("\n").tolist() if number else []
        for turn in scene:
            ids += model.tokenizer.encode(f"{display_name(turn.speaker)}:").tolist()
            for id in model.tokenizer.encode(f" {turn.text}\n").tolist():
                expected -= np.log2(plain_next_probs(model.model, ids)[id])
                ids.append(id)
    candidates = [evaluation.Candidate("dialogue", model, "dialogue")]
    (comparison,) = evaluation.compare_models(candidates, script_text(scenes), is_script=True)
    assert comparison.num_characters == sum(len(turn.text) + 1 for scene in scenes for turn in scene)
    (scores,) = comparison.scores
    assert scores.bits_per_character == pytest.approx(expected / comparison.num_characters, rel=1e-5)


def test_forms_of_a_text():
    text = "The  King,\n\n - \nsaid:\x0bFool’s “Ho”"
    assert evaluation.convert_text(text, "original") == f"{text}\n"
    assert evaluation.convert_text(text, "whitespace") == "The King,\n-\nsaid:\nFool’s “Ho”\n"
    assert evaluation.convert_text(text, "words") == "the king\nsaid\nfool s ho\n"
    assert [evaluation.convert_text("", form) for form in ("original", "whitespace", "words")] == [""] * 3
    script = "GANDALF: The KING.\n\nSAM: Oh: no!"
    assert evaluation.convert_text(script, "words", "dialogue") == "GANDALF: the king\n\nSAM: oh no\n"
    assert evaluation.native_form(WORDS) == "words"
    assert evaluation.native_form(WordTokenizer(("<unk>", "<eos>"), "whitespace")) == "whitespace"
    assert [evaluation.native_form(tokenizer) for tokenizer in open_tokenizers()] == ["original"] * 5


@settings(max_examples=30, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1), mode=st.sampled_from([*MODES, "dialogue"]))
def test_any_text_has_finite_bits_and_the_blocks_have_all_of_them(text, mode):
    for tokenizer in (WORDS, WordTokenizer(("<unk>", "<eos>", "a"), "whitespace"), CharacterTokenizer(["é"])):
        if mode == "dialogue" and not tokenizer.is_open:
            continue
        converted = evaluation.convert_text(
            f"A: {text}" if mode == "dialogue" else text, evaluation.native_form(tokenizer), mode
        )
        if not converted:
            continue
        encoded = evaluation.EncodedText(converted, tokenizer, mode)
        log_probs = np.full(len(encoded.ids), -1.5)
        bits = encoded.token_bits(log_probs)
        assert np.isfinite(bits).all()
        assert encoded.end_offsets[-1] == encoded.num_characters == encoded.block_sizes.sum()
        assert encoded.block_bits(log_probs).sum() == pytest.approx(bits.sum())


def test_an_empty_text_is_an_error():
    for text, mode in (("", "line"), ("... !\n\n", "line"), ("... !\n\n", "stream")):
        with pytest.raises(CorpusError, match=r"^the text has no words to score; use a longer text$"):
            text_bits_per_character(UniformModel(WORDS), text, mode)


TRAIN = ["The road goes on.", "Where is the road, then?", "The lamp is lit."]
LINES = ["The lamp is on?", "Where: the MINE of Moria."]


def test_model_of_words_pays_for_spelling_and_writing():
    tokenizer = word_tokenizer([word for line in TRAIN for word in line.lower().strip(".?").split()], 1)
    ids = np.array([id for line in TRAIN for id in [*tokenizer.encode(line), EOS_ID]], np.int32)
    model, orthography = KneserNey(ids, tokenizer, 3), OrthographyModel(TRAIN, "words")
    result = evaluation.measure_written_bits(model, "line", LINES, orthography)
    read = [id for line in LINES for id in [*tokenizer.encode(line).tolist(), EOS_ID]]
    spelling = SpellingModel(tokenizer.tokens[2:])
    spelled = spelling.log_probs(["mine", "of", "moria"]) - spelling.unknown_log_prob
    expected = naive_bits(model, read) - spelled.sum() / math.log(2)
    assert result.token_bits == pytest.approx(expected, rel=1e-5)
    assert result.orthography_bits == pytest.approx(sum(orthography.bits(line) for line in LINES))
    assert result.num_characters == sum(map(len, LINES)) + 2
    total = (result.token_bits + result.orthography_bits) / result.num_characters
    assert result.bits_per_character == pytest.approx(total)
    # `lotr-tui eval` states the bits of the words per character of the lower-case words.
    (comparison,) = evaluation.compare_models([evaluation.Candidate("words", model, "line")], "\n".join(LINES))
    assert result.token_bits / comparison.num_characters == pytest.approx(comparison.scores[0].bits_per_character)


SEA_LINES = ["The king rides to the sea.", "", "A king, a ship; and the sea!", "They sail: the ship rides."]
SEA_TEXT = "".join(f"{line}\n" for line in SEA_LINES * 12)
SEA_WORDS = WordTokenizer(("<unk>", "<eos>", "the", "king", "rides", "to", "sea", "a", "ship", "and"))


def candidates():
    bpe, words = BPETokenizer.train(SEA_LINES * 3, 280), evaluation.convert_text(SEA_TEXT, "words")
    return [
        evaluation.Candidate("words", Unigram(evaluation.EncodedText(words, SEA_WORDS, "line").ids, SEA_WORDS), "line"),
        evaluation.Candidate("bpe", KneserNey(evaluation.EncodedText(SEA_TEXT, bpe, "line").ids, bpe, 3), "line"),
        evaluation.Candidate("characters", UniformModel(CharacterTokenizer([])), "line"),
    ]


def test_words_are_compared_with_all_models_and_the_original_text_with_those_that_read_it():
    words, original = evaluation.compare_models(candidates(), SEA_TEXT)
    assert (words.form, original.form) == ("words", "original")
    assert {scores.candidate.name for scores in words.scores} == {"words", "bpe", "characters"}
    assert [scores.candidate.name for scores in original.scores] == ["bpe", "characters"]  # best first
    assert original.num_characters == len(SEA_TEXT)
    assert words.num_characters == len(evaluation.convert_text(SEA_TEXT, "words"))
    assert original.scores[1].bits_per_character == pytest.approx(np.log2(257))
    best, second = (scores.bits_per_character for scores in original.scores)
    assert original.best_two.difference == pytest.approx(best - second)
    assert original.best_two.confidence_interval[1] < 0
    for scores in original.scores:
        assert scores.bits_per_character == text_bits_per_character(scores.candidate.model, SEA_TEXT, "line")
        assert scores.evaluation.unk_rate == 0
        low, high = scores.confidence_interval
        assert low <= scores.bits_per_character + 1e-9 <= high + 2e-9


def test_models_of_all_modes_are_compared_on_the_same_characters_of_a_script_and_of_a_text_without_names():
    texts = [line for line in SEA_LINES if line] * 12
    script = "".join(f"King: {line}\n" for line in texts)
    words, bpe, characters = candidates()
    mixed = [words, replace(bpe, mode="dialogue"), characters]
    for text, is_script in ((script, True), ("".join(f"{line}\n" for line in texts), False)):
        lower, original = evaluation.compare_models(mixed, text, is_script=is_script)
        assert [len(lower.scores), len(original.scores)] == [3, 2]
        assert lower.num_characters == len(evaluation.convert_text("\n".join(texts), "words"))
        assert original.num_characters == sum(len(line) + 1 for line in texts)
        uniform = next(scores for scores in original.scores if scores.candidate is characters)
        num_bytes = original.num_characters + is_script * len(texts)  # the space after each name
        assert uniform.bits_per_character == pytest.approx(np.log2(257) * num_bytes / original.num_characters)
        assert uniform.evaluation.tokens == num_bytes
        figure = next(scores for scores in lower.scores if scores.candidate is words).bits_per_character
        expected = text_bits_per_character(words.model, evaluation.convert_text("\n".join(texts), "words"), "line")
        assert figure == pytest.approx(expected)


WEIGHTS = st.lists(st.floats(0.01, 10), min_size=6, max_size=6)


def log_probs(weights):
    return np.log(np.array(weights) / sum(weights)).astype(np.float32)


@given(WEIGHTS, WEIGHTS)
def test_divergence_is_the_expected_difference_of_bits(first, second):
    p, q = ([weight / sum(each) for weight in each] for each in (first, second))
    expected = math.fsum(a * (math.log2(a) - math.log2(b)) for a, b in zip(p, q, strict=True))
    comparison = compare_next_tokens(log_probs(first), log_probs(second), 1)
    assert comparison.divergence_bits == pytest.approx(expected, abs=1e-5)


@given(WEIGHTS, WEIGHTS, st.integers(1, 6))
def test_comparison_lists_what_is_likely_in_either(first, second, count):
    p, q = log_probs(first), log_probs(second)
    comparison = compare_next_tokens(p, q, count)
    larger = [max(a, b) for a, b in zip(p.tolist(), q.tolist(), strict=True)]
    assert sorted((larger[id] for id in comparison.ids.tolist()), reverse=True) == sorted(larger, reverse=True)[:count]
    assert comparison.probs[0] == pytest.approx(np.exp(p[comparison.ids]), abs=1e-6)
    assert comparison.probs[1] == pytest.approx(np.exp(q[comparison.ids]), abs=1e-6)
    assert comparison.best == (int(np.argmax(p)), int(np.argmax(q)))
    assert comparison.agrees == (np.argmax(p) == np.argmax(q))


SIZES = np.full(400, 100.0)


def random_bits(num_blocks, seed, mean=200.0, spread=30.0):
    return np.random.default_rng(seed).normal(mean, spread, num_blocks)


def test_the_interval_has_the_width_of_a_normal_distribution():
    bits = random_bits(400, seed=0)
    low, high = evaluation.rate_confidence_interval(bits, SIZES[: len(bits)])
    standard_error = bits.std() / math.sqrt(400) / 100
    assert (low + high) / 2 == pytest.approx(bits.mean() / 100, abs=standard_error / 5)
    assert high - low == pytest.approx(2 * 1.96 * standard_error, rel=0.08)
    assert evaluation.rate_confidence_interval(bits, SIZES[: len(bits)]) == (low, high)


def test_the_interval_of_a_perplexity_has_the_width_of_a_normal_distribution():
    log_probs = np.random.default_rng(5).normal(-4, 2, 8000)
    low, high = evaluation.perplexity_confidence_interval(log_probs)
    expected = NormalDist(-log_probs.mean(), log_probs.std() / math.sqrt(8000))
    assert (math.log(low), math.log(high)) == pytest.approx(
        (expected.inv_cdf(0.025), expected.inv_cdf(0.975)), abs=expected.stdev / 3
    )
    assert evaluation.perplexity_confidence_interval(log_probs[:180]) is None


def test_short_texts_and_impossible_tokens_have_no_interval():
    bits = random_bits(evaluation.MIN_BLOCKS, seed=3)
    assert evaluation.rate_confidence_interval(bits, SIZES[: len(bits)]) is not None
    short = bits[1:]
    assert evaluation.rate_confidence_interval(short, SIZES[: len(short)]) is None
    bits[4] = math.inf
    assert evaluation.rate_confidence_interval(bits, SIZES[: len(bits)]) is None
