"""Checks of the processor, the GPU, and the libraries that compute."""

import json
import sys

from engine.errors import printable
from lotr_tui.doctor.environment import Environment
from lotr_tui.doctor.finding import Finding

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
NO_ANSWER = "an NVIDIA driver that does not answer"
NUMPY_PROBE = """
import json, numpy
print(json.dumps(numpy.show_config(mode="dicts")["Build Dependencies"]["blas"]))
"""
TORCH_PROBE = """
import json, time
started = time.perf_counter()
import torch
mps = getattr(torch.backends, "mps", None)
print(json.dumps({
    "version": torch.__version__,
    "seconds": time.perf_counter() - started,
    "built_for_cuda": torch.version.cuda,
    "cuda": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        if torch.cuda.is_available() else [],
    "mps": bool(mps and mps.is_available()),
    "threads": torch.get_num_threads(),
    "mkl": torch.backends.mkl.is_available(),
    "sum": float(torch.ones(2, 2).matmul(torch.ones(2, 2)).sum()),
}))
"""
"""Programs for a process of their own: a broken library can end the process that imports it."""


def check_processor(environment: Environment) -> list[Finding]:
    """Report the cores, and the variables that limit the threads."""
    total, usable = environment.cores
    parts = [f"{total} core{'s' if total > 1 else ''}" + ("" if usable == total else f", {usable} usable here")]
    parts += [f"{name}={environment.variables[name]}" for name in THREAD_VARIABLES if name in environment.variables]
    return [Finding("processor", "ok", ", ".join(parts))]


def check_numpy(environment: Environment) -> list[Finding]:
    """Report the library of matrix products with which numpy plays the models."""
    answer = environment.run([sys.executable, "-c", NUMPY_PROBE])
    if answer is None or answer.exit_code:
        reason = printable(answer.errors)[-120:] if answer else "Python cannot be started"
        return [
            Finding("numpy", "problem", f"not usable: {reason}", "reinstall it: `pip install --force-reinstall numpy`")
        ]
    blas = _read_json(answer.output)
    name = f"{blas.get('name', 'unknown')} {blas.get('version', '')}".strip()
    is_fast = any(word in name.lower() for word in ("openblas", "mkl", "accelerate", "blis"))
    advice = "" if is_fast else "generation is slow; install numpy from PyPI, with OpenBLAS"
    return [
        Finding(
            "numpy",
            "ok" if is_fast else "warning",
            f"{environment.find_version('numpy')}, matrix products by {name}",
            advice,
        )
    ]


def check_torch_and_gpu(environment: Environment) -> list[Finding]:
    """Report whether torch can be imported, in which time, and which GPU it can train on."""
    gpu = _nvidia_gpu(environment)
    if environment.find_version("torch") is None:
        torch = Finding("torch", "warning", "not installed: playing works, training does not", "`pip install torch`")
        return [torch, _describe_gpu(gpu)]
    answer = environment.run([sys.executable, "-c", TORCH_PROBE])
    if answer is None or answer.exit_code:
        reason = printable(answer.errors)[-120:] if answer else "Python cannot be started"
        advice = "training does not work; reinstall it: `pip install --force-reinstall torch`"
        return [Finding("torch", "problem", f"not usable: {reason}", advice), _describe_gpu(gpu)]
    found = _read_json(answer.output)
    products = "MKL" if found.get("mkl") else "Accelerate" if environment.system == "darwin" else "its own library"
    threads = f"{found.get('threads')} thread{'' if found.get('threads') == 1 else 's'}"
    summary = (
        f"{found.get('version')}, imported in {found.get('seconds', 0):.1f} s, matrix products by {products}, {threads}"
    )
    return [Finding("torch", "ok", summary), _check_gpu(gpu, found)]


def _describe_gpu(gpu: str) -> Finding:
    """Return the finding on a GPU of which torch says nothing."""
    return Finding("GPU", "warning" if gpu == NO_ANSWER else "ok", gpu or "none found")


def _check_gpu(gpu: str, torch: dict[str, object]) -> Finding:
    cuda = torch.get("cuda")
    if isinstance(cuda, list) and cuda:
        return Finding(
            "GPU", "ok", f"{gpu or ', '.join(map(str, cuda))}; torch uses CUDA {torch.get('built_for_cuda')}"
        )
    if torch.get("mps"):
        return Finding("GPU", "ok", "Apple GPU; torch uses MPS (train --device mps)")
    if not gpu:
        return Finding("GPU", "ok", "none found; training uses the processor")
    if torch.get("built_for_cuda"):
        advice = "training uses the processor; update the NVIDIA driver, or install torch for an older CUDA"
        return Finding("GPU", "warning", f"{gpu}; torch for CUDA {torch['built_for_cuda']} cannot use it", advice)
    advice = "training uses the processor; install torch with CUDA (pytorch.org/get-started)"
    return Finding("GPU", "warning", f"{gpu}; this torch is built without CUDA", advice)


def _nvidia_gpu(environment: Environment) -> str:
    """Return the names of the NVIDIA GPUs and the version of the driver, or "" without any."""
    if environment.find_program("nvidia-smi") is None:
        return ""
    fields = "--query-gpu=name,memory.total,driver_version"
    answer = environment.run(["nvidia-smi", fields, "--format=csv,noheader"])
    if answer is None or answer.exit_code:
        return NO_ANSWER
    rows = [row.split(", ") for row in printable(answer.output.replace("\n", "; ")).split("; ") if row.strip()]
    rows = [row for row in rows if len(row) == 3]
    return (
        f"{'; '.join(f'{name} ({memory})' for name, memory, _ in rows)}, driver {rows[0][2].strip(';')}" if rows else ""
    )


def _read_json(text: str) -> dict[str, object]:
    """Return the object on the last line of a program's output, or {} if there is none."""
    try:
        content = json.loads(text.strip().splitlines()[-1])
    except (ValueError, IndexError):
        return {}
    return content if isinstance(content, dict) else {}
