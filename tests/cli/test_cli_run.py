"""`lossdsl run`: inputs from files and made up ones, values, gradients, state."""

import json
import math
import sys
import zipfile

import numpy as np
import pytest
import torch

import lossdsl


def arrays(**more):
    rng = np.random.default_rng(0)
    names = ("pi.chosen", "pi.rejected", "ref.chosen", "ref.rejected")
    return {**{n: rng.normal(size=8).astype("float32") for n in names}, **more}


def test_value_and_gradient_norms_are_those_of_the_loss(cli, dpo):
    given = arrays()
    np.savez("x.npz", **given)
    found = cli("run", dpo, "--inputs", "x.npz", "--json")
    assert found.status == 0, found.err
    tensors = {n: torch.from_numpy(a).requires_grad_() for n, a in given.items()}
    pi = {"chosen": tensors["pi.chosen"], "rejected": tensors["pi.rejected"]}
    ref = {"chosen": tensors["ref.chosen"], "rejected": tensors["ref.rejected"]}
    value = lossdsl.load(str(dpo))(pi=pi, ref=ref)
    value.backward()
    assert found.json["values"] == [{"shape": [], "value": value.item()}]
    for name, tensor in tensors.items():
        assert math.isclose(found.json["gradients"][name], tensor.grad.norm().item(), rel_tol=1e-5)


def test_text(cli, dpo):
    np.savez("x.npz", **arrays())
    out = cli("run", dpo, "--inputs", "x.npz").out
    assert "value  0." in out
    assert "pi.chosen     float32[8]" in out
    assert "gradient norms\n    pi.chosen" in out


def test_safetensors(cli, dpo):
    from safetensors.torch import save_file

    save_file({n: torch.from_numpy(a) for n, a in arrays().items()}, "x.safetensors")
    np.savez("x.npz", **arrays())
    one = cli("run", dpo, "--inputs", "x.safetensors", "--json").json
    assert one == cli("run", dpo, "--inputs", "x.npz", "--json").json


@pytest.mark.parametrize("dtype", ["float64", "float16", ">f4", "int64"])
def test_dtypes(cli, here, dtype):
    (here / "a.loss").write_text("loss l(x: real[N] >= 0):\n    mean[N](x^2)\n")
    np.savez("x.npz", x=np.arange(4).astype(dtype))
    found = cli("run", "a.loss", "--inputs", "x.npz", "--json")
    if dtype == "int64":
        assert found.status == 1
        assert "call .float()" in found.json["diagnostics"][0]["message"]
    else:
        assert found.json["values"][0]["value"] == 3.5


def test_state_before_and_after(cli):
    found = cli("run", "dino", "--sample", "--json").json
    change = found["state"]["center"]
    assert change["norm_before"] == 0
    assert change["entries_changed"] == change["shape"][0]
    assert change["change"] > 0


def test_state_from_the_file(cli, here):
    (here / "a.loss").write_text("loss l(x: real[N]):\n    state c: real[N] = 0\n    c := c + x\n    sum[N](c)\n")
    np.savez("x.npz", x=np.ones(3, "float32"), c=np.full(3, 2, "float32"))
    found = cli("run", "a.loss", "--inputs", "x.npz", "--json").json
    assert found["values"][0]["value"] == 9
    assert found["state"]["c"]["entries_changed"] == 3


def test_values_for_each_sample(cli):
    found = cli("run", "isogclr:rgcl", "--sample", "--json")
    assert found.status == 0
    assert set(found.json["values"][0]) == {"shape", "mean", "min", "max"}


def test_sampling_is_reproducible_and_seeded(cli):
    one, again, other = (cli("run", "rpo", "--sample", "--seed", s, "--json").out for s in (1, 1, 2))
    assert one == again != other


def test_sampling_takes_lengths(cli):
    found = cli("run", "supcon", "--sample", "--set", "N=9", "--set", "D=2", "--json").json
    assert found["inputs"] == {"z": ["float32", 9, 2], "labels": ["int64", 9]}


def test_sampling_respects_domains_and_lengths(cli, here):
    (here / "a.loss").write_text(
        "loss l(p: prob[N, C], u: unit[N, C], s: sign[N], y: int[N] < C, m: bool[N], r: real[N] > 2,\n"
        "       q: real[N] in (0, 1], d: real[N] < -1, t: int in [3, 4], x: real[J]; k: int >= 1 = 5):\n"
        "    each[n] = log(q[n]) + log(r[n] - 2) + log(-d[n] - 1) + u[n, 0] * p[n, y[n]] * s[n]\n"
        "    sum[a](x[a + 20 * k]) * t * sum[n | m[n]](each[n])\n"
    )
    assert cli("check", "a.loss").status == 0, cli("check", "a.loss").out
    for seed in range(5):
        found = cli("run", "a.loss", "--sample", "--seed", seed, "--json")
        assert found.status == 0, found.out
        assert math.isfinite(found.json["values"][0]["value"])
        assert found.json["inputs"]["x"][1] > 100


def test_sampling_makes_up_networks(cli, here):
    (here / "b.loss").write_text("loss l(x: real[N, D], f: fn(real[N, D]) -> real[N, K]):\n    mean[N, K](f(x)^2)\n")
    found = cli("run", "b.loss", "--sample", "--set", "K=3", "--json")
    assert found.status == 0, found.out
    assert found.json["gradients"]["x"] > 0
    assert "--set K=.." in cli("run", "b.loss", "--sample").err
    np.savez("x.npz", x=np.ones((2, 2), "float32"))
    refused = cli("run", "b.loss", "--inputs", "x.npz")
    assert refused.status == 1
    assert "f is a function" in refused.err


@pytest.mark.parametrize("name", [n for n in lossdsl.available() if not n.startswith("stop_regressing")])
@pytest.mark.slow
def test_the_whole_library_runs_on_made_up_inputs(cli, name):
    found = cli("run", name, "--sample", "--json")
    assert found.status == 0, found.out


# ---- refusals ------------------------------------------------------------------------------


def test_inputs_or_sample(cli, dpo):
    assert cli("run", dpo).status == 2
    assert cli("run", dpo, "--sample", "--inputs", "x.npz").status == 2


@pytest.mark.parametrize("seed", ["x", "1.5", str(2**70)])
def test_wrong_seeds(cli, dpo, seed):
    assert cli("run", dpo, "--sample", "--seed", seed).status == 2


def broken_files(folder):
    """Names of broken files, made in a folder."""
    (folder / "folder.npz").mkdir()
    (folder / "text.npz").write_text("no arrays here")
    (folder / "empty.npz").write_bytes(b"")
    (folder / "binary.safetensors").write_bytes(bytes(range(256)) * 4)
    (folder / "long.safetensors").write_bytes(b"\xff" * 16)
    np.savez(folder / "objects.npz", x=np.array([{"a": 1}], dtype=object))
    np.savez(folder / "words.npz", x=np.array(["a"]))
    np.savez(folder / "complex.npz", x=np.ones(2, complex))
    np.savez(folder / "none.npz")
    np.savez(folder / "good.npz", x=np.ones(100))
    data = (folder / "good.npz").read_bytes()
    (folder / "cut.npz").write_bytes(data[: len(data) // 2])
    (folder / "flipped.npz").write_bytes(data[:60] + bytes([data[60] ^ 255]) + data[61:])
    with zipfile.ZipFile(folder / "header.npz", "w") as file:
        file.writestr("x.npy", b"\x93NUMPY\x01\x00\x10\x00{'descr': (((((")
    np.save(folder / "one", np.ones(3))
    (folder / "one.npy").rename(folder / "single.npz")
    (folder / "array.txt").write_text("1 2 3")
    return [
        "folder.npz", "text.npz", "empty.npz", "binary.safetensors", "long.safetensors", "objects.npz",
        "words.npz", "complex.npz", "none.npz", "cut.npz", "flipped.npz", "header.npz", "single.npz",
        "array.txt", "missing.npz",
    ]  # fmt: skip


def test_broken_input_files(cli, here):
    (here / "a.loss").write_text("loss l(x: real[N]):\n    mean[N](x)\n")
    for name in broken_files(here):
        found = cli("run", "a.loss", "--inputs", name)
        assert found.status in (1, 2), name
        assert name in found.err, found.err
        assert len(found.err) < 500


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"pi.chosen": np.ones(5, "float32")}, "B = "),
        ({"pi.chose": np.ones(8, "float32")}, "chose"),
        ({"other": np.ones(8, "float32")}, "other"),
        ({"pi": np.ones(8, "float32")}, "the file has pi and fields of pi"),
        ({"pi.chosen": np.ones((8, 2), "float32")}, "pi.chosen"),
        ({"pi.chosen": np.ones(8, bool)}, "pi.chosen"),
    ],
)
def test_inputs_that_do_not_fit(cli, dpo, given, message):
    np.savez("x.npz", **arrays(**given))
    found = cli("run", dpo, "--inputs", "x.npz")
    assert found.status == 1
    assert message in found.err
    record = cli("run", dpo, "--inputs", "x.npz", "--json").json["diagnostics"][0]
    assert message in record["message"]
    assert record["code"] is None


def test_a_missing_input(cli, dpo):
    given = arrays()
    del given["ref.chosen"]
    np.savez("x.npz", **given)
    found = cli("run", dpo, "--inputs", "x.npz")
    assert found.status == 1
    assert "ref" in found.err


def test_numbers_outside_json(cli, here):
    (here / "a.loss").write_text("loss l(x: real[N]):\n    mean[N](x)\n")
    np.savez("x.npz", x=np.array([np.inf], "float32"))
    found = cli("run", "a.loss", "--inputs", "x.npz", "--json")
    assert json.loads(found.out, parse_constant=pytest.fail)["values"][0]["value"] is None


@pytest.mark.parametrize("name", ["numpy", "safetensors"])
def test_a_missing_package_is_named_with_its_extra(cli, dpo, monkeypatch, name):
    from safetensors.torch import save_file

    file = "x.npz" if name == "numpy" else "x.safetensors"
    if name == "numpy":
        np.savez(file, **arrays())
    else:
        save_file({"x": torch.ones(2)}, file)
    for module in [m for m in sys.modules if m.split(".")[0] == name]:
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, name, None)
    if name == "safetensors":
        monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    found = cli("run", dpo, "--inputs", file)
    assert found.status == 1
    assert f"needs {name}" in found.err
    assert "pip install 'lossdsl[run]'" in found.err
