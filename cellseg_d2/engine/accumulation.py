"""Train on several batches per iteration in the memory of one."""

from __future__ import annotations

import time
from contextlib import nullcontext

import torch
from detectron2.engine import SimpleTrainer
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.utils.data import DataLoader


class AccumulatingTrainer(SimpleTrainer):
    """Detectron2's ``SimpleTrainer``, of which an iteration draws several batches and steps on their mean gradient.

    The losses that it reports are their means too. Processes that train together exchange gradients once an iteration.

    Args:
        model, data_loader, optimizer: as for ``SimpleTrainer``.
        batches: number of batches per iteration, at least 1.
        amp: whether to compute in mixed precision, as ``AMPTrainer`` does; for CUDA.
    """

    def __init__(
        self, model: nn.Module, data_loader: DataLoader, optimizer: Optimizer, batches: int, amp: bool = False
    ):
        super().__init__(model, data_loader, optimizer)
        self._batches = batches
        self._amp = amp
        self.grad_scaler = torch.amp.GradScaler("cuda", enabled=amp)

    def run_step(self) -> None:
        self.optimizer.zero_grad()
        means: dict[str, torch.Tensor] = {}
        data_time = 0.0
        for index in range(self._batches):
            start = time.perf_counter()
            data = next(self._data_loader_iter)
            data_time += time.perf_counter() - start
            last = index == self._batches - 1
            waits = isinstance(self.model, DistributedDataParallel) and not last
            with self.model.no_sync() if waits else nullcontext():
                with torch.autocast("cuda", dtype=torch.float16, enabled=self._amp):
                    losses = {name: loss / self._batches for name, loss in self.model(data).items()}
                self.grad_scaler.scale(sum(losses.values())).backward()
            means = {name: means.get(name, 0) + loss.detach() for name, loss in losses.items()}
        self.after_backward()
        self._write_metrics(means, data_time)
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()

    def state_dict(self) -> dict:
        return {**super().state_dict(), "grad_scaler": self.grad_scaler.state_dict()}

    def load_state_dict(self, state_dict: dict) -> None:
        super().load_state_dict(state_dict)
        if scale := state_dict.get("grad_scaler"):
            self.grad_scaler.load_state_dict(scale)
