"""Loops and declared derivatives as modules of a `torch.fx` graph."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lossdsl.runtime.functions import finished


class Loop(nn.Module):
    """Runs `body(counter, *carried, *captures) -> carried` a number of times.

    stop: which carried value ends the loop once all true. scan: results after each round are stacked along a new first axis at the
    counter's place. backwards: the counter runs down.
    """

    def __init__(self, body: nn.Module, stop: int | None, scan: bool, backwards: bool) -> None:
        super().__init__()
        self.body = body
        self.stop = stop
        self.scan = scan
        self.backwards = backwards

    def forward(self, count: int, initial: tuple[Tensor, ...], captures: tuple[Any, ...]) -> tuple[Tensor, ...]:
        carried = tuple(initial)
        history: list[tuple[Tensor, ...]] = []
        for round_ in range(count):
            counter = count - 1 - round_ if self.backwards else round_
            carried = tuple(self.body(counter, *carried, *captures))
            if self.scan:
                history.append(carried)
            if self.stop is not None and finished(carried[self.stop]):
                break
        if not self.scan:
            return carried
        if self.backwards:
            history.reverse()
        return tuple(torch.stack(items) for items in zip(*history, strict=True))


class Custom(nn.Module):
    """`forward_body(*inputs, *captures)` with the gradient `backward_body(*inputs, gradient, *captures)`."""

    def __init__(self, forward_body: nn.Module, backward_body: nn.Module) -> None:
        super().__init__()
        self.forward_body = forward_body
        self.backward_body = backward_body

    def forward(
        self, inputs: tuple[Tensor, ...], forward_captures: tuple[Any, ...], backward_captures: tuple[Any, ...]
    ) -> Tensor:
        return DeclaredGradient.apply(  # type: ignore[no-untyped-call, no-any-return]
            self.forward_body, self.backward_body, tuple(forward_captures), tuple(backward_captures), *inputs
        )


class DeclaredGradient(torch.autograd.Function):
    """A value whose derivative the program states."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        forward_body: Any, backward_body: Any, forward_captures: Any, backward_captures: Any, *inputs: Tensor
    ) -> Tensor:
        with torch.no_grad():
            return forward_body(*inputs, *forward_captures)  # type: ignore[no-any-return]

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        _, ctx.backward_body, _, ctx.captures, *tensors = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (gradient,) = gradients
        found = ctx.backward_body(*ctx.saved_tensors, gradient, *ctx.captures)
        return (None, None, None, None, *found)
