"""Prompts: cut off before T5 reads them. The host's own tokenizer and classes, with a T5 of toy size."""

import pytest
import torch
from animate_anywhere.models import text
from animate_anywhere.models.dit import TEXT_TOKENS
from animate_anywhere.nodes import dynamictrl as nodes
from support import toy_networks

import nodes as stock

LONG = " ".join(f"word{i}" for i in range(300))  # more than one token each


@pytest.fixture(scope="module")
def clip():
    return toy_networks.clip()


def encoded(clip, prompt):
    conditioning, report = nodes.EncodePrompt.execute(clip, prompt).result
    return conditioning[0][0], report


@pytest.mark.parametrize("prompt", ["", "a woman dances", "a (red:1.4) dress and [a] hat, (stressed)", "(a:0.5) b"])
def test_up_to_226_tokens_it_is_the_hosts_own_text_node(clip, prompt):
    """With the empty prompt, and with emphasis."""
    ((expected, _),) = stock.CLIPTextEncode().encode(clip, prompt)[0]
    ours, report = encoded(clip, prompt)
    assert ours.shape == (1, TEXT_TOKENS, 24) and torch.equal(ours, expected)
    assert report == "Read as a whole."


def test_emphasis_does_something(clip):
    assert not torch.equal(encoded(clip, "a (red:1.4) dress")[0], encoded(clip, "a red dress")[0])


def test_a_long_text_is_cut_to_what_was_trained(clip):
    """As T5's tokenizer of transformers truncates: 225 tokens and the end."""
    tokens = clip.tokenize(LONG)
    whole = [token for token, _ in tokens["t5xxl"][0]]
    cut, left_out = text.cut(tokens)
    own = clip.tokenizer.clip_t5xxl.tokenizer(LONG, truncation=True, max_length=TEXT_TOKENS)["input_ids"]
    assert [token for token, _ in cut["t5xxl"][0]] == own
    assert left_out == len(whole) - TEXT_TOKENS > 0
    assert len(tokens["t5xxl"][0]) == len(whole)  # what was given stays


def test_it_is_cut_before_t5_reads_it_not_after(clip):
    """What T5 says of the first 226 tokens depends on those behind; and the end has to be there."""
    ours, report = encoded(clip, LONG)
    ((whole, _),) = stock.CLIPTextEncode().encode(clip, LONG)[0]
    assert ours.shape == (1, TEXT_TOKENS, 24) and whole.shape[1] > TEXT_TOKENS
    assert (ours - whole[:, :TEXT_TOKENS]).norm() > 0.1 * ours.norm()
    assert report.startswith(f"The last {whole.shape[1] - TEXT_TOKENS} tokens were cut off")


def test_no_text_encoder_is_named():
    with pytest.raises(ValueError, match="clip: there is no text encoder in it. Load T5-XXL"):
        nodes.EncodePrompt.execute(None, "a")
