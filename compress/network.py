"""A network with its preprocessing, which is trained, quantised and exported as one."""

from torch import Tensor, nn


class Model(nn.Module):
    """Raw inputs -> `frontend` (stays float) -> `network` -> outputs.

    Attributes:
        frontend: the task's preprocessing: normalisation, log-mel. It has no trainable parameters.
        network: what is distilled and quantised.
    """

    def __init__(self, frontend: nn.Module, network: nn.Module) -> None:
        super().__init__()
        self.frontend = frontend
        self.network = network

    def forward(self, raw: Tensor) -> Tensor:
        """(B, ...) raw inputs -> (B, ...) outputs."""
        output: Tensor = self.network(self.frontend(raw))
        return output
