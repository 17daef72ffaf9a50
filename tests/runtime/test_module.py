"""What a compiled loss promises as a torch module."""

from __future__ import annotations

import copy
import io
import os
import pickle
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.parallel import DistributedDataParallel

import lossdsl
from lossdsl import LossInputError

DINO = """
loss dino(student: real[V, N, K], teacher: real[U, N, K]; tau: real > 0 = 0.1, momentum: real in [0, 1] = 0.9):
    state center: real[K] = 0
    p = stop(softmax[K]((teacher - center) / tau))
    q = log_softmax[K](student / tau)
    center := momentum * center + (1 - momentum) * mean[U, N](teacher)
    mean[u: U, v: V, n | u != v](-dot(p[u, n], q[v, n])) else 0
"""
PROTOTYPES = """
loss prototypes(z: real[N, D], labels: int[N] < C):
    param w: real[C, D] ~ normal(0, 1)
    param scale: real > 0 = 10
    s[i, c] = scale * cos(z[i], w[c])
    mean[i](logsumexp[c](s[i, c]) - s[i, labels[i]])
"""
NOISY = """
loss noisy(x: real[N, D]):
    draw e: real[N, D] ~ normal(0, 1)
    mean[N, D]((x + e)^2)
"""


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)), dtype=dtype)


def dino_inputs(dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    return {"student": normal(4, 3, 5, dtype=dtype).requires_grad_(), "teacher": normal(2, 3, 5, dtype=dtype)}


# ---- state and params ------------------------------------------------------------------------


def test_state_and_params_bear_the_names_of_the_program() -> None:
    loss = lossdsl.compile(PROTOTYPES, C=7, D=4)
    assert set(loss.state_dict()) == {"w", "scale"}
    assert {name for name, _ in loss.named_parameters()} == {"w", "scale"}
    assert loss.state_dict()["w"].shape == (7, 4)
    assert loss.state_dict()["scale"] == 10


def test_params_are_trained() -> None:
    loss = lossdsl.compile(PROTOTYPES, C=3, D=2)
    optimizer = torch.optim.SGD(loss.parameters(), lr=0.5)
    z, labels = normal(6, 2), torch.tensor([0, 1, 2, 0, 1, 2])
    values = []
    for _ in range(30):
        optimizer.zero_grad()
        value = loss(z=z, labels=labels)
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < 0.5 * values[0]


def test_sizes_come_from_the_first_call() -> None:
    loss = lossdsl.compile(DINO)
    loss(**dino_inputs())
    assert loss.state_dict()["center"].shape == (5,)


def test_state_loads_into_a_fresh_module_before_any_call() -> None:
    first, second = lossdsl.compile(DINO), lossdsl.compile(DINO)
    first(**dino_inputs())
    second.load_state_dict(first.state_dict())
    assert torch.equal(second(**dino_inputs()), first(**dino_inputs()))


def test_state_of_other_inputs_is_refused_with_its_name() -> None:
    loss = lossdsl.compile(DINO)
    loss(**dino_inputs())
    with pytest.raises(LossInputError, match="center"):
        loss(student=normal(4, 3, 6), teacher=normal(2, 3, 6))


def test_unknown_length_names_the_keyword() -> None:
    loss = lossdsl.load("isogclr")
    with pytest.raises(LossInputError, match="M="):
        loss(z=normal(4, 3), w=normal(4, 3), index=torch.arange(4), epoch=0)


def test_eval_mode_uses_the_state_without_changing_it() -> None:
    loss = lossdsl.compile(DINO)
    loss(**dino_inputs())
    before = loss.state_dict()["center"].clone()
    loss.eval()
    loss(**dino_inputs())
    assert torch.equal(loss.state_dict()["center"], before)


def test_buffers_stay_in_place() -> None:
    loss = lossdsl.compile(DINO, K=5)
    (buffer,) = loss.buffers()
    loss(**dino_inputs())
    assert next(loss.buffers()) is buffer
    assert buffer.abs().sum() > 0


def test_gradients_are_right_after_the_state_has_moved_on() -> None:
    loss = lossdsl.compile(DINO)
    inputs = dino_inputs()
    first = loss(**inputs)
    loss(**dino_inputs())
    first.backward()
    assert torch.isfinite(inputs["student"].grad).all()


# ---- copies ----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["deepcopy", "pickle", "torch.save"])
def test_copies_compute_the_same_and_share_nothing(how: str) -> None:
    loss = lossdsl.compile(DINO, tau=0.2)
    loss(**dino_inputs())
    if how == "deepcopy":
        twin = copy.deepcopy(loss)
    elif how == "pickle":
        twin = pickle.loads(pickle.dumps(loss))
    else:
        buffer = io.BytesIO()
        torch.save(loss, buffer)
        buffer.seek(0)
        twin = torch.load(buffer, weights_only=False)
    assert torch.equal(twin.state_dict()["center"], loss.state_dict()["center"])
    assert torch.equal(twin(**dino_inputs()), loss(**dino_inputs()))
    twin(**dino_inputs())
    assert not torch.equal(twin.state_dict()["center"], loss.state_dict()["center"])


def test_a_module_in_a_model_copies_with_it() -> None:
    model = nn.ModuleDict({"head": nn.Linear(2, 2), "loss": lossdsl.compile(PROTOTYPES, C=3, D=2)})
    twin = copy.deepcopy(model)
    assert set(twin.state_dict()) == {"head.weight", "head.bias", "loss.w", "loss.scale"}


# ---- precision -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_inputs_are_computed_in_single_precision(dtype: torch.dtype) -> None:
    loss = lossdsl.load("info_nce")
    z, w = normal(8, 4).to(dtype).requires_grad_(), normal(8, 4, seed=1).to(dtype)
    value = loss(z=z, w=w)
    assert value.dtype is torch.float32
    assert torch.allclose(value, loss(z=z.float(), w=w.float()))
    value.backward()
    assert z.grad.dtype is dtype


def test_autocast_does_not_lower_the_precision() -> None:
    loss = lossdsl.load("info_nce")
    z, w = normal(8, 4), normal(8, 4, seed=1)
    plain = loss(z=z, w=w)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(loss(z=z, w=w), plain)


def test_double_moves_state_and_keeps_its_exact_first_value() -> None:
    loss = lossdsl.load("isogclr", M=6).double()
    assert loss.state_dict()["tau"].dtype is torch.float64
    assert (loss.state_dict()["tau"] == 0.1).all()


@pytest.mark.parametrize("name", ["info_nce", "supcon", "hinge", "dpo"])
def test_gradcheck_and_second_derivatives(name: str) -> None:
    loss = lossdsl.load(name)
    if name == "info_nce":
        inputs = (
            normal(4, 3, dtype=torch.float64).requires_grad_(),
            normal(4, 3, seed=1, dtype=torch.float64).requires_grad_(),
        )

        def run(*x: torch.Tensor) -> torch.Tensor:
            return loss(*x)
    elif name == "supcon":
        inputs = (normal(5, 3, dtype=torch.float64).requires_grad_(),)

        def run(*x: torch.Tensor) -> torch.Tensor:
            return loss(x[0], torch.tensor([0, 1, 0, 1, 2]))
    elif name == "hinge":
        inputs = (normal(6, dtype=torch.float64).requires_grad_(),)

        def run(*x: torch.Tensor) -> torch.Tensor:
            return loss(score=x[0], sign=torch.tensor([1.0, -1, 1, 1, -1, 1], dtype=torch.float64))
    else:
        inputs = tuple(normal(4, seed=k, dtype=torch.float64).requires_grad_() for k in range(2))
        ref = {"chosen": normal(4, seed=5, dtype=torch.float64), "rejected": normal(4, seed=6, dtype=torch.float64)}

        def run(*x: torch.Tensor) -> torch.Tensor:
            return loss(pi={"chosen": x[0], "rejected": x[1]}, ref=ref)

    assert torch.autograd.gradcheck(run, inputs)
    assert torch.autograd.gradgradcheck(run, inputs)


# ---- the rest of torch -----------------------------------------------------------------------


def test_torch_compile_has_no_graph_breaks_without_state() -> None:
    loss = lossdsl.load("supcon")
    fast = torch.compile(loss, backend="eager", fullgraph=True)
    z, labels = normal(6, 3).requires_grad_(), torch.tensor([0, 1, 0, 1, 2, 2])
    value = fast(z=z, labels=labels)
    assert torch.allclose(value, loss(z=z, labels=labels))


def test_torch_compile_has_no_graph_breaks_with_state() -> None:
    loss, plain = lossdsl.compile(DINO, K=5), lossdsl.compile(DINO, K=5)
    fast = torch.compile(loss, backend="eager", fullgraph=True)
    for _ in range(3):
        assert torch.allclose(fast(**dino_inputs()), plain(**dino_inputs()))
    assert torch.allclose(loss.state_dict()["center"], plain.state_dict()["center"])


def test_distributed_data_parallel_accepts_the_module(tmp_path: object) -> None:
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    try:
        loss = lossdsl.compile(PROTOTYPES, C=3, D=2)
        parallel = DistributedDataParallel(loss)
        value = parallel(z=normal(6, 2), labels=torch.tensor([0, 1, 2, 0, 1, 2]))
        value.backward()
        assert loss._get("w").grad is not None
    finally:
        torch.distributed.destroy_process_group()


def test_fake_tensors_of_an_accelerator_pass_through() -> None:
    loss = lossdsl.load("supcon")
    with FakeTensorMode():
        z = torch.empty(6, 3, device="cuda")
        labels = torch.empty(6, dtype=torch.int64, device="cuda")
        value = loss(z=z, labels=labels)
    assert value.device.type == "cuda"
    assert value.shape == ()


def test_meta_tensors_pass_through() -> None:
    value = lossdsl.load("info_nce")(z=torch.empty(4, 3, device="meta"), w=torch.empty(4, 3, device="meta"))
    assert value.device.type == "meta"


# ---- inputs ----------------------------------------------------------------------------------


def test_records_may_be_objects() -> None:
    policy = SimpleNamespace(chosen=normal(4), rejected=normal(4, seed=1))
    reference = {"chosen": normal(4, seed=2), "rejected": normal(4, seed=3)}
    loss = lossdsl.load("dpo")
    assert torch.equal(loss(pi=policy, ref=reference), loss(pi=vars(policy), ref=reference))


def test_draws_follow_the_generator_and_can_be_handed_in() -> None:
    loss = lossdsl.compile(NOISY)
    x = normal(3, 2)

    def seeded() -> torch.Generator:
        return torch.Generator().manual_seed(4)

    assert torch.equal(loss(x=x, generator=seeded()), loss(x=x, generator=seeded()))
    assert not torch.equal(loss(x=x), loss(x=x))
    e = normal(3, 2, seed=8)
    assert torch.allclose(loss(x=x, e=e), (x + e).square().mean())


def test_functions_are_inputs() -> None:
    loss = lossdsl.compile(
        "loss f(x: real[N, D], net: fn(real[N, D]) -> real[N, D]):\n    mean[N, D]((net(x) - x)^2)\n"
    )
    net, x = nn.Linear(3, 3), normal(4, 3)
    value = loss(x=x, net=net)
    assert torch.allclose(value, (net(x) - x).square().mean())
    value.backward()
    assert net.weight.grad is not None


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"z": normal(4, 3)}, ["w: real[N, D]"]),
        ({"z": normal(4, 3), "w": normal(5, 3)}, ["w", "N = 5", "N = 4"]),
        ({"z": normal(4, 3), "w": normal(4)}, ["w", "2 axes", "[4]"]),
        ({"z": normal(4, 3), "w": normal(4, 3).long()}, ["w", ".float()"]),
        ({"z": normal(4, 3), "w": normal(4, 3), "u": 1}, ["no input u"]),
        ({"z": normal(4, 3), "w": normal(4, 3), "tau": 1.0}, ["tau", "hyperparameter"]),
        ({"z": normal(4, 3), "w": [[1.0]]}, ["w", "list"]),
        ({"z": normal(4, 3), "w": torch.empty(4, 3, device="meta")}, ["w", "meta"]),
        ({"z": normal(0, 3), "w": normal(0, 3)}, ["N = 0"]),
    ],
)
def test_wrong_inputs_are_named(inputs: dict[str, object], words: list[str]) -> None:
    with pytest.raises(LossInputError) as error:
        lossdsl.load("info_nce")(**inputs)
    for word in words:
        assert word in str(error.value)


def test_values_are_checked_on_the_cpu_and_not_when_switched_off() -> None:
    loss = lossdsl.load("cross_entropy")
    with pytest.raises(LossInputError, match="labels"):
        loss(logits=normal(3), labels=torch.tensor(3))
    hinge = lossdsl.load("hinge")
    with pytest.raises(LossInputError, match="-1 or"):
        hinge(score=normal(3), sign=torch.tensor([1.0, 0.5, -1.0]))
    hinge.check_values = False
    hinge(score=normal(3), sign=torch.tensor([1.0, 0.5, -1.0]))


def test_losses_of_one_sample_lift() -> None:
    logits, labels = normal(2, 3, 5), torch.randint(0, 5, (2, 3), generator=torch.Generator().manual_seed(0))
    value = lossdsl.load("cross_entropy")(logits=logits, labels=labels)
    expected = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view(2, 3)
    assert torch.allclose(value, expected)
