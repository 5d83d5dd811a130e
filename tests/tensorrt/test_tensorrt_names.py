"""What the code uses of TensorRT exists in the real bindings and takes the call; so does the hand-written fake.

The real bindings are those of TensorRT for RTX and those of TensorRT 11. The latter are only read, in a process where
stubs stand in for NVIDIA's libraries: this says that names and arguments fit, not that a call does what it should.
"""

from __future__ import annotations

import importlib.metadata
import inspect
import shutil
from pathlib import Path
from types import SimpleNamespace

import fake_tensorrt
import pytest
from binding_names import names_of, read_without_libraries
from binding_uses import Signature, Use, module_path, uses_of

import engines.tensorrt_library
from engines.tensorrt_library import LIBRARIES, TENSORRT_RTX, load_tensorrt

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
PLAIN_BINDINGS = "tensorrt-cu12-bindings"
FAKE_CLASSES = ("Runtime", "ICudaEngine", "IExecutionContext", "IRuntimeConfig", "ILogger")
FAKE_ENUMS = ("ExecutionContextAllocationStrategy", "DynamicShapesKernelSpecializationStrategy", "TensorIOMode")


@pytest.fixture(scope="module")
def rtx_names():
    """What the bindings of TensorRT for RTX have."""
    return names_of(load_tensorrt(TENSORRT_RTX).module)


@pytest.fixture(scope="module")
def plain_names(tmp_path_factory):
    """What the bindings of TensorRT have; skips where they cannot be read."""
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("the stubs of TensorRT's libraries need gcc")
    try:
        version = importlib.metadata.version(PLAIN_BINDINGS)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"the bindings of TensorRT are not installed: pip install '{PLAIN_BINDINGS}>=11.4'")
    return read_without_libraries(int(version.partition(".")[0]), compiler, tmp_path_factory.mktemp("stubs"))


@pytest.fixture(scope="module", params=LIBRARIES)
def library(request):
    """Each library: `names` that its bindings have, the `fake` module that stands for it."""
    is_rtx = request.param == TENSORRT_RTX
    names = request.getfixturevalue("rtx_names" if is_rtx else "plain_names")
    return SimpleNamespace(is_rtx=is_rtx, names=names, fake=fake_tensorrt.bindings(is_rtx=is_rtx))


def refused(uses, library) -> list[Use]:
    """Uses of the module that a library would refuse, of those that the source makes with it."""
    wrong = []
    for use in uses:
        path = module_path(use)
        if path is None or path == ["__version__"] or not use.runs_with(is_rtx=library.is_rtx):
            continue
        owner = library.names.find(path[:-1])
        is_enum_itself = owner is not None and path[-1] in {"__members__", "__init__"}
        if not is_enum_itself and not use.may_be_missing and (owner is None or not owner.accepts(use)):
            wrong.append(use)
    return wrong


@pytest.mark.parametrize("file", FILES)
def test_every_name_of_the_module_exists_and_takes_the_call(library, file):
    """Classes, enumerations and their members, constructors by their arguments."""
    assert refused(uses_of(ENGINES / file), library) == []


@pytest.mark.parametrize("file", sorted(RECEIVERS))
def test_every_method_exists_and_takes_the_call(library, file):
    """Methods by number and names of their arguments, properties by whether they can be set."""
    uses = [use for use in uses_of(ENGINES / file) if use.receiver in RECEIVERS[file]]
    assert {use.receiver for use in uses} == set(RECEIVERS[file])
    owners = {receiver: library.names.members[class_name] for receiver, class_name in RECEIVERS[file].items()}
    assert [
        use
        for use in uses
        if use.runs_with(is_rtx=library.is_rtx) and not use.may_be_missing and not owners[use.receiver].accepts(use)
    ] == []


def test_a_name_that_may_be_missing_is_in_one_of_the_libraries(rtx_names, plain_names):
    """Else it is a slip of the pen, and what depends on it is never done."""
    nowhere, num_seen = [], 0
    for path in sorted(ENGINES.glob("*.py")):
        for use in uses_of(path):
            class_name = RECEIVERS.get(path.name, {}).get(use.receiver)
            name = [class_name, use.attribute] if class_name else module_path(use)
            if use.may_be_missing and name is not None and name != ["__version__"]:
                num_seen += 1
                nowhere += [] if rtx_names.has(name) or plain_names.has(name) else [use]
    assert num_seen > 0
    assert nowhere == []


def test_no_call_of_tensorrt_goes_unchecked(library):
    """A name that only TensorRT's classes have must stand on a receiver that this test knows."""
    classes = {name for receivers in RECEIVERS.values() for name in receivers.values()}
    members = {member for name in classes for member in library.names.members[name].members if "_" in member.strip("_")}
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


GUARDED = """
def before(library, trt):
    trt.MadeUp
    if not library.is_rtx:
        trt.Plain
        return
    trt.Rtx
    if library.is_rtx:
        trt.RtxInside
    else:
        trt.NeverRun
    getattr(trt, "Optional", None)
    getattr(trt, "Required")
"""


def test_a_guard_in_the_source_says_which_library_gets_there(tmp_path):
    """Names behind it are asked of that library alone; one outside is asked of both."""
    (tmp_path / "guarded.py").write_text(GUARDED)
    seen = {use.attribute: use for use in uses_of(tmp_path / "guarded.py") if use.receiver == "trt"}
    assert {name: use.with_rtx for name, use in seen.items()} == {
        "MadeUp": None,
        "Plain": False,
        "Rtx": True,
        "RtxInside": True,
        "NeverRun": False,
        "Optional": True,
        "Required": True,
    }
    assert [name for name, use in seen.items() if use.may_be_missing] == ["Optional"]


def test_a_name_of_rtx_without_its_guard_is_found(plain_names, tmp_path):
    """The exemption comes from the guard, not from the name."""
    source = (ENGINES / "tensorrt_load.py").read_text()
    assert source.count("self._library.is_rtx") == 1
    (tmp_path / "unguarded.py").write_text(source.replace("self._library.is_rtx", "self._library.name"))
    plain = SimpleNamespace(is_rtx=False, names=plain_names)
    found = {use.attribute for use in refused(uses_of(tmp_path / "unguarded.py"), plain)}
    assert found == {"DynamicShapesKernelSpecializationStrategy", "EAGER"}


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
def test_a_call_that_the_bindings_would_refuse_is_found(library, use):
    """So that the tests above can fail."""
    assert not library.names.members["IExecutionContext"].accepts(use)


@pytest.mark.parametrize("class_name", FAKE_CLASSES)
def test_the_fake_has_the_real_signatures(library, class_name):
    """Each method of the fake is one overload of the real one, parameter for parameter."""
    fake, real = getattr(library.fake, class_name), library.names.members[class_name]
    wrong = []
    for name, method in inspect.getmembers(fake, inspect.isfunction):
        if name.startswith("_"):
            continue
        parameters = list(inspect.signature(method).parameters.values())[1:]
        num_required = sum(parameter.default is inspect.Parameter.empty for parameter in parameters)
        mine = Signature(tuple(parameter.name for parameter in parameters), num_required)
        if name not in real.members or mine not in real.members[name].signatures:
            wrong.append((name, mine))
    assert wrong == []


def test_the_fake_can_be_asked_about_capture_where_the_real_one_can(library):
    """Plain TensorRT cannot be asked whether a stream can be captured."""
    real = library.names.members["IExecutionContext"]
    assert hasattr(library.fake.IExecutionContext, "is_stream_capturable") == ("is_stream_capturable" in real.members)


@pytest.mark.parametrize("enum_name", FAKE_ENUMS)
def test_the_fake_enumerates_what_the_real_one_does(library, enum_name):
    """Names and values, in the library that has the enumeration at all."""
    mine = {member.name: int(member) for member in getattr(library.fake, enum_name, ())}
    real = library.names.find([enum_name])
    assert mine == (real.values if real is not None else {})


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
