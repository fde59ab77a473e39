"""Latents of a shot -> frames, for sampling with the stock nodes."""

import torch
from comfy_api.latest import io

from ..models import latents
from . import sockets
from .feedback import progress_of


class DecodeShot(sockets.Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=f"{sockets.PREFIX}DecodeShot",
            display_name="Decode Shot",
            category=sockets.SHOT,
            description="Decodes what a sampler made of Encode Shot's latent into exactly the frames it stands for. "
            "VAE Decode gives three frames more with CogVideoX's own VAE, and the video starts late.",
            inputs=[
                io.Latent.Input("samples", tooltip="From SamplerCustom or SamplerCustomAdvanced."),
                sockets.vae_input(),
            ],
            outputs=[io.Image.Output("images", tooltip="The video, as many frames as Encode Shot's report says.")],
            search_aliases=["vae decode", "decode video", "latent to image", "cogvideox decode"],
        )

    @classmethod
    def execute(cls, samples, vae) -> io.NodeOutput:
        latents.check_vae(vae)
        coded = samples.get("samples")
        shape = list(coded.shape) if isinstance(coded, torch.Tensor) else []
        if len(shape) != 5 or shape[1] != latents.CHANNELS or 0 in shape:
            raise ValueError(
                f"samples: this latent has the shape {shape}. CogVideoX's has five dimensions and "
                f"{latents.CHANNELS} channels; take it from a sampler behind Encode Shot."
            )
        done = progress_of(len(coded))
        videos = []
        for number, video in enumerate(coded.split(1), 1):
            videos.append(latents.decode_latents(vae, video))
            done(number)
        return io.NodeOutput(torch.cat(videos))


NODES = [DecodeShot]
