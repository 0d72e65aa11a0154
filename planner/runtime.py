"""ONNX Runtime as we use it: its options, its providers, and whether CUDA can be had here."""

from __future__ import annotations

import ctypes
import sys
from contextlib import redirect_stdout
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import onnxruntime as ort

from infra.log import Log
from planner.manifest import BundleError

Provider = Literal["auto", "cpu", "cuda"]
_log = Log("session")


def session_options(threads: int) -> ort.SessionOptions:
    """Options under which the same inputs give the same bits on the same kind of machine.

    Threads do not spin between calls: on few cores, a spinning pool takes time from the rest of
    the loop, and with one thread there is no pool at all.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.use_deterministic_compute = True
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # What was looked at is ONNX; the runtime would take a format of its own as well.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    return options


def providers(device: str) -> list[Any]:
    """ONNX Runtime's providers for `cpu` or `cuda`, best first.

    TF32, which ONNX Runtime uses where it may, keeps 10 bits of a product's mantissa; believed
    innovations and the parity of bundles need all 23.
    """
    exact = {"cudnn_conv_algo_search": "DEFAULT", "use_tf32": "0"}
    cuda = ("CUDAExecutionProvider", exact)
    return [cuda, "CPUExecutionProvider"] if device == "cuda" else ["CPUExecutionProvider"]


def open_session(graph: bytes, provider: str, threads: int, name: str) -> ort.InferenceSession:
    """A session on `cpu` or `cuda`. Raises `BundleError` when the graph cannot be loaded."""
    try:
        return ort.InferenceSession(graph, session_options(threads), providers=providers(provider))
    except Exception as error:  # ONNX Runtime raises its own kinds, without a common base
        raise BundleError(f"{name}: not a usable ONNX graph: {error}; export it again") from error


@lru_cache(maxsize=1)
def cuda_devices() -> int:
    """CUDA devices that the driver shows; 0 where there is no driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


@lru_cache(maxsize=1)
def cuda_usable() -> bool:
    """Whether a session really gets CUDA; the package offers it on machines without a GPU too."""
    offered = "CUDAExecutionProvider" in ort.get_available_providers()
    if not offered or cuda_devices() == 0:
        return False
    if hasattr(ort, "preload_dlls"):
        with redirect_stdout(sys.stderr):  # it prints what it does not find
            ort.preload_dlls()  # CUDA and cuDNN from their wheels, where these are installed
    probe = Path(__file__).with_name("product.onnx")
    session = ort.InferenceSession(probe.read_bytes(), providers=["CUDAExecutionProvider"])
    return "CUDAExecutionProvider" in session.get_providers()


@lru_cache(maxsize=8)
def choose(provider: Provider) -> str:
    """`cpu` or `cuda`, as asked for where that can be had; cached, so that it is said once."""
    chosen = "cpu" if provider == "cpu" or not cuda_usable() else "cuda"
    if provider == "cuda" and chosen == "cpu":
        _log.warning(
            "no usable CUDA device here: models run on the CPU",
            remedy="rehearse doctor says what is missing",
        )
    _log.info("provider", asked=provider, chosen=chosen, onnxruntime=ort.__version__)
    return chosen
