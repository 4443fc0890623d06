"""The kernels for a GPU: in Triton's interpreter beside torch, and compiled for devices."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch

triton = pytest.importorskip("triton")
WIDE = {torch.float64: torch.float64}
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
interpreted = pytest.mark.skipif(not IS_INTERPRETED, reason="runs below a test, interpreted")


@pytest.mark.skipif(IS_INTERPRETED, reason="is what runs")
def test_interpreted_kernels_do_what_torch_does():
    """All tests below that are marked so: Triton asks how it runs when it is first imported."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    found = subprocess.run([*command, __file__], env=environment, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout[-4000:]
    assert "42 passed" in found.stdout


@pytest.fixture(params=[1024, 64, 1])
def kernels(request, monkeypatch):
    """With one channel a program, with two, and with as many as there are; the counters stay, as
    they do on a device."""
    from vidcfg.guidance import kernels

    counters = torch.zeros(64, dtype=torch.int32)
    monkeypatch.setattr(kernels, "_PROGRAMS", request.param)
    monkeypatch.setattr(kernels, "_counters", lambda beside, num_rows: counters)
    yield kernels
    assert not counters.any()


def blocks(dtype, count=4, batch=2):
    """(B, C, F, N) with a length that is no multiple of a block."""
    generator = torch.Generator().manual_seed(0)
    shape = (batch, 3, 4, 2500)
    return [torch.randn(shape, generator=generator).to(dtype) for _ in range(count)]


@interpreted
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_inner_products_are_those_of_float64(dtype, kernels):
    base, cond, weak, noisy = blocks(dtype)
    found = kernels.moments([base, cond, weak, noisy], 2)
    parts = [p.double() for p in (base, cond - base, weak - base, noisy)]
    sums = [p.sum((1, 3)) for p in parts]
    sums += [(parts[i] * parts[j]).sum((1, 3)) for i in range(4) for j in range(i, 4)]
    torch.testing.assert_close(found, torch.stack(sums, -1), rtol=1e-12, atol=1e-9)


@interpreted
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_weighted_sum_has_every_rounding_of_torch(dtype, shared, kernels):
    base, cond, weak, noisy = blocks(dtype, batch=1 if shared else 2)
    wide = WIDE.get(dtype, torch.float32)
    numbers = torch.rand(6, 2, 4, generator=torch.Generator().manual_seed(1)).to(wide) + 0.5
    numbers[2] = torch.tensor([[0, 1, 0, 0], [0, 0, 0, 1]])
    out = torch.empty(2, 3, 4, 2500, dtype=dtype)
    sums = kernels.weighted(out, base, cond, [cond, weak, noisy], 2, numbers)

    def near(values):
        return values.to(dtype).to(wide)

    gain, factor, off, *amounts = numbers[:, :, None, :, None]
    total = near(base.to(wide) * gain)
    for part, amount in zip((cond - base, weak - base, noisy), amounts):
        total = near(total + near(part.to(wide) * amount))
    total = torch.where(off == 1, cond.to(wide), near(total * factor)).to(dtype)
    assert torch.equal(out, total)
    kept = cond.double().expand(total.shape)
    exact = [f.sum((1, 3)) for f in (kept, kept**2, total.double(), total.double() ** 2)]
    torch.testing.assert_close(sums, torch.stack(exact, -1), rtol=1e-12, atol=1e-9)


@interpreted
def test_nan_stays_in_bfloat16(kernels):
    """The bits of the NaN that a GPU makes would be those of -0 after rounding up."""
    base, cond, part = blocks(torch.bfloat16, 3, batch=1)
    numbers = torch.ones(4, 1, 4)
    numbers[2] = 0
    numbers[3] = torch.tensor(0x7FFFFFFF, dtype=torch.int32).view(torch.float32)
    out = torch.empty_like(base)
    kernels.weighted(out, base, cond, [part], 1, numbers)
    assert out.isnan().all()


def fused(ptx: str) -> list[str]:
    """Instructions that multiply and add with one rounding; those that multiply by 1 or -1 are how
    older devices add in bfloat16."""
    ones = re.findall(r"mov\.b(?:32|16)\s+(%\w+), (?:1065369472|-1082081408|0x3F80|0xBF80);", ptx)
    found = re.findall(r"fma\.rn\.\w+\s+([^;]+);", ptx)
    return [each for each in found if not set(ones) & set(each.split(", ")[1:3])]


@pytest.mark.skipif(IS_INTERPRETED, reason="compiles")
@pytest.mark.parametrize("architecture", [80, 90])
@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp64"])
def test_they_compile_for_a_device_without_fused_operations(dtype, architecture):
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from vidcfg.guidance import kernels

    numbers = "fp64" if dtype == "fp64" else "fp32"
    types = {"found": "*fp64", "parts": "*fp64", "counters": "*i32", "numbers": f"*{numbers}"}
    types |= dict.fromkeys(("out", "base", "cond", "p0", "p1", "p2", "p3"), f"*{dtype}")
    shared = {"EACH": 4, "BLOCK": 512, "COLUMNS": 64}
    constants = {
        "_moments": {"SIZE": 3, "OTHERS": 1, "SUMS": 9} | shared,
        "_weighted": {"PARTS": 3, "MOVED": 2, "SUMS": 4} | shared,
    }
    for name, given in constants.items():
        kernel = getattr(kernels, name)
        signature = {
            each: "constexpr" if each in given else types.get(each, "i32")
            for each in kernel.arg_names
        }
        made = triton.compile(
            ASTSource(kernel, signature, given),
            target=GPUTarget("cuda", architecture, 32),
            options={"enable_fp_fusion": False},
        )
        assert len(made.asm["cubin"]) > 0
        assert not fused(made.asm["ptx"])


@interpreted
def test_a_step_asks_for_them_on_a_gpu_alone(monkeypatch, kernels):
    """What a device would get: blocks in the order of memory, numbers of the host in one copy."""
    from vidcfg.guidance import planes as module

    monkeypatch.setenv("VIDCFG_KERNELS", "triton")
    assert module.kernels().moments.__module__ == "vidcfg.guidance.kernels"
    base, cond, part = blocks(torch.float32, 3)
    strength, off = np.full((2, 4), 3.0), np.zeros((2, 4), bool)
    off[1, 2] = True
    out = torch.empty_like(base)
    sums = module.weighted([out, base, cond, part], 1, [None, None, off, strength], True)
    wanted = base + 3 * (part - base)
    wanted[1, :, 2] = cond[1, :, 2]
    assert torch.equal(out, wanted)
    torch.testing.assert_close(sums[..., 3], (wanted.double() ** 2).sum((1, 3)), rtol=1e-9, atol=0)
    device_numbers = [None, torch.ones(2, 4, dtype=torch.float64), torch.from_numpy(off), strength]
    module.weighted([out.zero_(), base, cond, part], 1, device_numbers, False)
    assert torch.equal(out, wanted)
    monkeypatch.delenv("VIDCFG_KERNELS")
    assert module.kernels() is None
