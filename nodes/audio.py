"""The host's AUDIO, read and checked: it may come from any pack, lazily, and in any form."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}
SAMPLE_RATES_HZ = (1_000, 768_000)
MAX_PEAK = 16.0  # of full scale: louder peaks are clipped up to here, beyond it the unit is another one
UNCONNECTED = "or leave the socket unconnected for a film without sound"


def read_audio(audio: object) -> dict:
    """Return ``audio`` as {"waveform": float32 [1, channels, samples] in -1…1, "sample_rate": int}.

    Integer samples are scaled to full scale, peaks beyond it are clipped. Raises ValueError, naming the socket, for
    anything that a film cannot have.
    """
    samples, rate, _ = waveform(audio)
    return {"waveform": samples[None], "sample_rate": rate}


def waveform(audio: object) -> tuple[Tensor, int, str]:
    """Return the first sound of the host's AUDIO: samples [channels, n], Hz, and the layout's name.

    Raises ValueError, naming the socket, where no film can have it.
    """
    if not isinstance(audio, Mapping):
        raise ValueError(f"audio: expected a sound, found {type(audio).__name__}. Connect Load Audio, {UNCONNECTED}.")
    samples, rate = (_read(audio, name) for name in ("waveform", "sample_rate"))
    return _samples(samples), _rate(rate), LAYOUTS[samples.shape[1]]


def _read(audio: Mapping, name: str) -> object:
    try:
        return audio[name]
    except KeyError as error:
        raise ValueError(f"audio: it has no {name}. Connect Load Audio, {UNCONNECTED}.") from error
    except Exception as error:  # a mapping of another pack that reads its file only now
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise ValueError(
            f"audio: it cannot be read ({reason[:200]}). The video may have no sound: choose another, {UNCONNECTED}."
        ) from error


def _samples(waveform: object) -> Tensor:
    """[batch, channels, n] of any number type -> [channels, n] float32 on the CPU, of the first in the batch."""
    if not isinstance(waveform, Tensor) or waveform.is_complex() or waveform.dtype == torch.bool or waveform.ndim != 3:
        found = type(waveform).__name__
        if isinstance(waveform, Tensor):
            found = f"{str(waveform.dtype).removeprefix('torch.')} {'×'.join(map(str, waveform.shape)) or 'number'}"
        raise ValueError(
            f"audio: its waveform must be numbers, batch × channels × samples; found {found}. Connect Load Audio, "
            f"{UNCONNECTED}."
        )
    if not len(waveform):
        raise ValueError("audio: there is no sound in it; leave the socket empty for a film without.")
    if waveform.shape[1] not in LAYOUTS:
        raise ValueError(
            f"audio: it has {waveform.shape[1]} channels; a film has {', '.join(map(str, LAYOUTS))}. Mix it to stereo, "
            f"{UNCONNECTED}."
        )
    samples = _scaled(waveform[0].cpu())
    if not samples.numel():
        return samples
    low, high = (float(value) for value in samples.aminmax())
    if not math.isfinite(low) or not math.isfinite(high):
        raise ValueError(f"audio: it holds values that are not finite. Choose another sound, {UNCONNECTED}.")
    if max(-low, high) > MAX_PEAK:
        raise ValueError(
            f"audio: its values reach {max(-low, high):.3g}, and full scale is 1. Divide it by that, {UNCONNECTED}."
        )
    return samples.clamp(-1, 1) if max(-low, high) > 1 else samples


def _scaled(samples: Tensor) -> Tensor:
    """float32, with integers brought to -1…1."""
    if samples.dtype.is_floating_point:
        return samples.float()
    if samples.dtype == torch.uint8:
        return (samples.float() - 128) / 128
    return samples.double().div(-torch.iinfo(samples.dtype).min).float()


def _rate(rate: object) -> int:
    lowest, highest = SAMPLE_RATES_HZ
    is_number = isinstance(rate, int | float) or (hasattr(rate, "item") and getattr(rate, "ndim", 1) == 0)
    if is_number and not isinstance(rate, bool):
        rate = rate.item() if hasattr(rate, "item") else rate
        if isinstance(rate, int | float) and lowest <= rate <= highest:
            return round(rate)
    raise ValueError(
        f"audio: {_shown(rate)} is no sample rate; {lowest} to {highest} Hz are possible. Choose another sound, "
        f"{UNCONNECTED}."
    )


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:39]}…"
