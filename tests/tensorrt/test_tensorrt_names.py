"""What the code uses of TensorRT exists in the real bindings and takes the call; so does the hand-written fake.

The real bindings are those of TensorRT for RTX, which install without NVIDIA's index. Those of TensorRT 11 cannot be
imported without its libraries: their names were compared once by hand.
"""

from __future__ import annotations

import inspect
from pathlib import Path

import fake_tensorrt
import pytest
from binding_uses import Signature, Use, module_path, signatures_of, uses_of

import engines.tensorrt_library
from engines.tensorrt_library import load_tensorrt

pytestmark = pytest.mark.tensorrt

ENGINES = Path(engines.tensorrt_library.__file__).parent
# Which names of which file hold which of TensorRT's objects: the source cannot tell, its types are `Any`.
RECEIVERS = {
    "pinned_context.py": {"self._context": "IExecutionContext"},
    "tensorrt_load.py": {
        "engine": "ICudaEngine",
        "self._engine": "ICudaEngine",
        "self._runtime": "Runtime",
        "config": "IRuntimeConfig",
    },
    "tensorrt_build.py": {
        "builder": "Builder",
        "network": "INetworkDefinition",
        "network.get_input(0)": "ITensor",
        "network.get_input(index)": "ITensor",
        "parser": "OnnxParser",
        "error": "ParserError",
        "config": "IBuilderConfig",
        "profile": "IOptimizationProfile",
        "levels": "ProfilingVerbosity",
        "engine": "ICudaEngine",
        "library.module.Runtime(logger)": "Runtime",
    },
    "tensorrt_library.py": {"config": "IBuilderConfig"},
    "timing_cache.py": {"config": "IBuilderConfig", "measured": "ITimingCache"},
}
FILES = sorted(
    path.name
    for path in ENGINES.glob("*.py")
    if "module." in path.read_text() or "tensorrt_library" in path.read_text() or path.name in RECEIVERS
)
FAKE_CLASSES = ("Runtime", "ICudaEngine", "IExecutionContext", "IRuntimeConfig", "ILogger")
FAKE_ENUMS = ("ExecutionContextAllocationStrategy", "DynamicShapesKernelSpecializationStrategy", "TensorIOMode")


@pytest.fixture(scope="module")
def trt():
    """The real bindings."""
    return load_tensorrt("tensorrt_rtx").module


def is_accepted(owner, use: Use) -> bool:
    """Whether something has this attribute, takes this call, and may be set if it is."""
    if not hasattr(owner, use.attribute):
        return False
    member = getattr(owner, use.attribute)
    if inspect.isclass(member):
        signatures = signatures_of(member, "__init__")
    elif isinstance(member, property):
        return use.num_args is None and (not use.is_set or member.fset is not None)
    else:
        signatures = signatures_of(owner, use.attribute)
    return use.num_args is None or any(signature.accepts(use) for signature in signatures)


@pytest.mark.parametrize("file", FILES)
def test_every_name_of_the_module_exists_and_takes_the_call(trt, file):
    """Classes, enumerations and their members, constructors by their arguments."""
    wrong = []
    for use in uses_of(ENGINES / file):
        path = module_path(use)
        if path is None or path == ["__version__"]:
            continue
        owner = trt
        for name in path[:-1]:
            owner = getattr(owner, name, None)
        is_enum_itself = path[-1] in {"__members__", "__init__"}
        if not is_enum_itself and not is_accepted(owner, use):
            wrong.append(use)
    assert wrong == []


@pytest.mark.parametrize("file", sorted(RECEIVERS))
def test_every_method_exists_and_takes_the_call(trt, file):
    """Methods by number and names of their arguments, properties by whether they can be set."""
    uses = [use for use in uses_of(ENGINES / file) if use.receiver in RECEIVERS[file]]
    assert {use.receiver for use in uses} == set(RECEIVERS[file])
    owners = {name: getattr(trt, class_name) for name, class_name in RECEIVERS[file].items()}
    assert [use for use in uses if not is_accepted(owners[use.receiver], use)] == []


def test_no_call_of_tensorrt_goes_unchecked(trt):
    """A name that only TensorRT's classes have must stand on a receiver that this test knows."""
    classes = {name for receivers in RECEIVERS.values() for name in receivers.values()}
    members = {member for name in classes for member in dir(getattr(trt, name)) if "_" in member.strip("_")}
    unknown = [
        use
        for path in sorted(ENGINES.glob("*.py"))
        for use in uses_of(path)
        if use.attribute in members
        and use.receiver not in RECEIVERS.get(path.name, {})
        and module_path(use) is None
        and not use.receiver.startswith("onnx.")
    ]
    assert unknown == []


@pytest.mark.parametrize(
    "use",
    [
        pytest.param(Use("", "", "set_input_shape", 1, (), is_set=False), id="too-few"),
        pytest.param(Use("", "", "set_input_shape", 3, (), is_set=False), id="too-many"),
        pytest.param(Use("", "", "set_input_shape", 1, ("dims",), is_set=False), id="wrong-keyword"),
        pytest.param(Use("", "", "set_binding_shape", 2, (), is_set=False), id="removed-name"),
        pytest.param(Use("", "", "engine", None, (), is_set=True), id="read-only-property"),
    ],
)
def test_a_call_that_the_bindings_would_refuse_is_found(trt, use):
    """So that the tests above can fail."""
    assert not is_accepted(trt.IExecutionContext, use)


@pytest.mark.parametrize("class_name", FAKE_CLASSES)
def test_the_fake_has_the_real_signatures(trt, class_name):
    """Each method of the fake is one overload of the real one, parameter for parameter."""
    fake, real = getattr(fake_tensorrt, class_name), getattr(trt, class_name)
    wrong = []
    for name, method in inspect.getmembers(fake, inspect.isfunction):
        if name.startswith("_"):
            continue
        parameters = list(inspect.signature(method).parameters.values())[1:]
        num_required = sum(parameter.default is inspect.Parameter.empty for parameter in parameters)
        mine = Signature(tuple(parameter.name for parameter in parameters), num_required)
        if not hasattr(real, name) or mine not in signatures_of(real, name):
            wrong.append((name, mine))
    assert wrong == []


def test_the_fake_asks_of_rtx_what_rtx_has(trt):
    """Plain TensorRT cannot be asked whether a stream can be captured."""
    (mine,) = signatures_of(trt.IExecutionContext, "is_stream_capturable")
    parameters = inspect.signature(fake_tensorrt.RtxExecutionContext.is_stream_capturable).parameters
    assert mine.names == tuple(parameters)[1:]
    assert not hasattr(fake_tensorrt.IExecutionContext, "is_stream_capturable")


@pytest.mark.parametrize("enum_name", FAKE_ENUMS)
def test_the_fake_enumerates_what_the_real_one_does(trt, enum_name):
    """Names and values."""
    real = getattr(trt, enum_name)
    mine = {member.name: int(member) for member in getattr(fake_tensorrt, enum_name)}
    assert mine == {name: int(member) for name, member in real.__members__.items()}


def test_the_runner_uses_nothing_that_the_fake_lacks():
    """What is not in the fake has not run at all."""
    for file in ("pinned_context.py", "tensorrt_load.py"):
        owners = {receiver: getattr(fake_tensorrt, name) for receiver, name in RECEIVERS[file].items()}
        if "self._context" in owners:
            owners["self._context"] = fake_tensorrt.RtxExecutionContext
        uses = [use for use in uses_of(ENGINES / file) if use.receiver in owners]
        sources = {receiver: inspect.getsource(owner) for receiver, owner in owners.items()}
        assert [
            use
            for use in uses
            if not hasattr(owners[use.receiver], use.attribute)
            and f"self.{use.attribute} =" not in sources[use.receiver]
        ] == []
