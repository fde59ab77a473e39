"""Prompts: cut off before T5 reads them. The host's own tokenizer and classes, with a T5 of toy size."""

from functools import partial

import comfy.sd
import comfy.sd1_clip
import comfy.supported_models_base
import comfy.text_encoders.cogvideo
import comfy.text_encoders.t5
import pytest
import torch
import toys
from animate_anywhere.models import text
from animate_anywhere.models.dit import TEXT_TOKENS
from animate_anywhere.nodes import dynamictrl as nodes

import nodes as stock

CONFIG = {
    "d_ff": 48, "d_kv": 8, "d_model": 24, "dense_act_fn": "gelu_pytorch_tanh", "is_gated_act": True, "num_heads": 3,
    "model_type": "t5", "num_layers": 2, "vocab_size": 32128, "eos_token_id": 1, "pad_token_id": 0,
}  # fmt: skip
LONG = " ".join(f"word{i}" for i in range(300))  # more than one token each


class ToyT5(comfy.sd1_clip.SDClipModel):
    """comfy.text_encoders.sd3_clip.T5XXLModel, but for its size."""

    def __init__(self, device="cpu", dtype=None, model_options={}) -> None:  # noqa: B006, as the host's
        super().__init__(
            device=device, dtype=torch.float32, textmodel_json_config=CONFIG, model_options=model_options,
            special_tokens={"end": 1, "pad": 0}, model_class=comfy.text_encoders.t5.T5, layer="last",
        )  # fmt: skip


@pytest.fixture(scope="module")
def clip():
    target = comfy.supported_models_base.ClipTarget(
        comfy.text_encoders.cogvideo.CogVideoXTokenizer,
        partial(comfy.sd1_clip.SD1ClipModel, name="t5xxl", clip_model=ToyT5),
    )
    made = comfy.sd.CLIP(target)
    toys.randomised(made.cond_stage_model, scale=2.0)
    return made


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
