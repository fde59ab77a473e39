"""The Background Motion Learner while it is trained: models/background_motion.py's low-rank change as hooks on the
frozen base, so that its layers stay the host's own and the same file comes out."""

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..models import background_motion

PREFIX = "diffusion_model."  # of the host's LoRA names
DOWN, UP = ".lora_A.weight", ".lora_B.weight"


class BackgroundMotion(nn.Module):
    """B of eq. 2: every attention layer y = Wx + b of the base gives y + up(down(x)).

    In numbers it is the layer with W + up·down, which is what the host's LoRA loader makes of the file.
    """

    def __init__(self, base: nn.Module, rank: int, seed: int = 0, dtype=None) -> None:
        super().__init__()
        state = background_motion.build(base, rank, seed=seed, dtype=dtype or next(base.parameters()).dtype)
        # Module names hold no dots; the file's names do.
        self.layers = [key.removeprefix(PREFIX).removesuffix(DOWN) for key in state if key.endswith(DOWN)]
        self.down = nn.ParameterList(state[f"{PREFIX}{layer}{DOWN}"] for layer in self.layers)  # [rank, in]
        self.up = nn.ParameterList(state[f"{PREFIX}{layer}{UP}"] for layer in self.layers)  # [out, rank]

    def attach(self, base: nn.Module) -> list[RemovableHandle]:
        """Add the change to the layers of ``base``; removing the handles takes it away again."""
        handles = []
        for layer, down, up in zip(self.layers, self.down, self.up):
            handles.append(base.get_submodule(layer).register_forward_hook(_change(down, up)))
        return handles

    def file_state(self) -> dict[str, Tensor]:
        """The group background_motion of an adapter."""
        state = {}
        for layer, down, up in zip(self.layers, self.down, self.up):
            state |= {f"{PREFIX}{layer}{DOWN}": down.detach(), f"{PREFIX}{layer}{UP}": up.detach()}
        return state

    def load_file_state(self, state: dict[str, Tensor]) -> None:
        """Take over a group background_motion. Raises ValueError when it has other layers or another rank."""
        own = self.file_state()
        if own.keys() != state.keys() or any(own[key].shape != state[key].shape for key in own):
            raise ValueError(
                f"background_motion: the file has {len(state)} tensors of rank {background_motion.rank_of(state)}; "
                f"expected {len(own)} of rank {background_motion.rank_of(own)}. Set model.rank as it was trained."
            )
        for key, value in own.items():
            value.copy_(state[key])


def _change(down: Tensor, up: Tensor):
    def hook(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output + nn.functional.linear(nn.functional.linear(inputs[0], down), up)

    return hook
