"""A GPU's facts through the real `pynvml`, on a stand-in of NVML's C library: simulated, no GPU has been asked.

Everything that loads the stand-in runs in a process of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("stand_ins_nvml") / "libnvidia-ml.c"
pytestmark = [
    pytest.mark.tensorrt,
    pytest.mark.skipif(shutil.which("gcc") is None, reason="the stand-in of NVML is compiled by gcc"),
]

GIB = 2**30
H100 = {
    "name": "NVIDIA H100 80GB HBM3", "uuid": "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6", "major": 9, "minor": 0,
    "total": 80 * GIB, "free": 60 * GIB, "used": 20 * GIB, "utilisation": 42, "celsius": 61, "reasons": 0, "ecc": 3,
}  # fmt: skip
L4 = H100 | {"name": "NVIDIA L4", "uuid": "GPU-8932ab00-0000-0000-0000-00000000000b", "minor": 9, "major": 8}
SLICE = {
    "name": "NVIDIA H100 80GB HBM3 MIG 1g.10gb", "uuid": "MIG-41b35014-542d-5448-8d12-0e3aa4bd1a9b",
    "total": 10 * GIB, "free": 9 * GIB, "used": GIB,
}  # fmt: skip
FACTS = {
    "name": H100["name"], "index": 0, "uuid": H100["uuid"], "compute_capability": {"major": 9, "minor": 0},
    "total_bytes": 80 * GIB, "used_bytes": 20 * GIB, "free_bytes": 60 * GIB, "utilisation_fraction": 0.42,
    "temperature_c": 61.0, "throttle_reasons": [], "ecc_uncorrected": 3,
}  # fmt: skip

GPU_IS_LOST, RESET_REQUIRED, NO_PERMISSION, NOT_SUPPORTED, DRIVER_NOT_LOADED, MISMATCH = 15, 16, 4, 3, 9, 18
PREAMBLE = """
import ctypes, json, os
from dataclasses import asdict
from engines.device_facts import open_device

def num_starts():
    return ctypes.CDLL("libnvidia-ml.so.1").stand_in_num_starts()

def add_line(line):
    with open(os.environ["STAND_IN_NVML"], "a") as figures:
        figures.write(line + "\\n")

def told(act):
    try:
        return act()
    except Exception as err:
        return [type(err).__name__, str(err)]

def looked(gpu=0):
    device = open_device(gpu)
    try:
        return asdict(device.facts())
    finally:
        device.close()
"""


def lines_of(*gpus, **more):
    """The figures of these GPUs, as the stand-in reads them; a slice of a GPU stands under its key `mig`."""
    lines = [f"count={len(gpus)}"]
    for index, gpu in enumerate(gpus):
        lines += [f"{index}.{key}={value}" for key, value in gpu.items() if key != "mig"]
        lines += [f"{index}.mig.{key}={value}" for key, value in gpu.get("mig", {}).items()]
    return [*lines, *(f"{key.replace('__', '.')}={value}" for key, value in more.items())]


@pytest.fixture(scope="session")
def library_folder(tmp_path_factory):
    """Compiles the stand-in, of today's driver and of one before 535, once."""

    def compiled(*options):
        folder = tmp_path_factory.mktemp("nvml")
        target = str(folder / "libnvidia-ml.so.1")
        subprocess.run(["gcc", "-Wall", "-Werror", "-shared", "-fPIC", *options, "-o", target, str(SOURCE)], check=True)
        return folder

    folders = {"new": compiled(), "old": compiled("-DOLD_DRIVER")}
    return folders.__getitem__


@pytest.fixture
def answer(library_folder, tmp_path):
    """Runs code in a process whose NVML is the stand-in; its `answer`."""

    def run(code, figures, *, driver="new", **environ):
        path = tmp_path / "figures"
        path.write_text("\n".join(figures) + "\n")
        folder = library_folder(driver) if driver else tmp_path
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("CUDA_")}
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", f"{PREAMBLE}\n{code}\n{REPORT}"],
            env=inherited | {"LD_LIBRARY_PATH": str(folder), "STAND_IN_NVML": str(path)} | environ,
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


REPORT = "print(json.dumps(answer, default=lambda reason: reason.value))"


def test_all_facts_of_a_gpu_are_read(answer):
    """Each figure stands in its field, in its unit."""
    assert answer("answer = looked()", lines_of(H100)) == FACTS


def test_an_old_driver_answers_under_the_older_names(answer):
    """Before driver 535 the throttle reasons, and before 555 the temperature, have other names."""
    assert answer("answer = looked()", lines_of(H100 | {"reasons": 4}), driver="old") == FACTS | {
        "throttle_reasons": ["power_cap"]
    }


def test_every_look_is_a_fresh_one(answer):
    """A device that is open answers with what is, not with what was."""
    code = """
device = open_device(0)
before = device.facts().used_bytes
add_line("")
text = open(os.environ["STAND_IN_NVML"]).read().replace("0.used=", "0.used=1")
open(os.environ["STAND_IN_NVML"], "w").write(text)
answer = [before, device.facts().used_bytes]
"""
    assert answer(code, lines_of(H100)) == [20 * GIB, int(f"1{20 * GIB}")]


@pytest.mark.parametrize(
    ("bits", "reasons"),
    [
        pytest.param(0x1 | 0x2 | 0x100, [], id="idle-and-set-clocks"),
        pytest.param(0x200 | 0x400, [], id="end-of-boost"),
        pytest.param(0x4, ["power_cap"], id="power-cap"),
        pytest.param(0x8 | 0x40, ["hw_thermal", "hw_slowdown"], id="hot"),
        pytest.param(0x8 | 0x80 | 0x1, ["power_brake", "hw_slowdown"], id="brake"),
        pytest.param(0x20 | 0x10, ["sw_thermal", "sync_boost"], id="warm-in-a-group"),
    ],
)
def test_only_what_slows_down_is_a_throttle_reason(answer, bits, reasons):
    """A GPU with nothing to do is not throttled."""
    assert answer("answer = looked()['throttle_reasons']", lines_of(H100 | {"reasons": bits})) == reasons


@pytest.mark.parametrize(
    ("key", "fields"),
    [
        pytest.param("total", ["total_bytes", "used_bytes", "free_bytes"], id="memory"),
        pytest.param("utilisation", ["utilisation_fraction"], id="utilisation"),
        pytest.param("celsius", ["temperature_c"], id="temperature"),
        pytest.param("reasons", ["throttle_reasons"], id="reasons"),
        pytest.param("ecc", ["ecc_uncorrected"], id="ecc"),
    ],
)
def test_a_field_that_the_gpu_does_not_support_is_none(answer, key, fields):
    """A GeForce has no ECC: that is no error, and the other fields are there."""
    figures = lines_of({name: value for name, value in H100.items() if name != key})
    assert answer("answer = looked()", figures) == FACTS | dict.fromkeys(fields)


@pytest.mark.parametrize("code", [GPU_IS_LOST, RESET_REQUIRED], ids=["lost", "reset"])
@pytest.mark.parametrize(
    "call", ["nvmlDeviceGetMemoryInfo", "nvmlDeviceGetTemperatureV", "nvmlDeviceGetTotalEccErrors"]
)
def test_a_gpu_that_gets_lost_is_an_error_of_its_own_at_every_call(answer, code, call):
    """What answers no more must be replaced, not counted as a field that is not supported; closing it still works."""
    lost = f"""
device = open_device(0)
device.facts()
add_line("0.error.{call}={code}")
answer = [told(device.facts), device.close(), num_starts()]
"""
    (kind, message), _, starts = answer(lost, lines_of(H100))
    assert (kind, starts) == ("DeviceLostError", 0)
    assert f"({code})" in message
    assert call in message


def test_a_gpu_that_is_lost_before_it_is_opened_says_so_and_stops_nvml(answer):
    """An opening that fails leaves nothing behind."""
    figures = [*lines_of(H100, L4), f"1.error.nvmlDeviceGetHandleByIndex_v2={GPU_IS_LOST}"]
    (kind, _), starts = answer(
        "answer = [told(lambda: open_device(1)), num_starts()]", figures, CUDA_DEVICE_ORDER="PCI_BUS_ID"
    )
    assert (kind, starts) == ("DeviceLostError", 0)


def test_a_lost_neighbour_hinders_nobody(answer):
    """It keeps its number in NVML's list, and the GPU beside it is asked as ever."""
    figures = [*lines_of(L4, H100), f"0.error.nvmlDeviceGetHandleByIndex_v2={GPU_IS_LOST}"]
    assert answer("answer = looked()", figures, CUDA_VISIBLE_DEVICES="1") == FACTS | {"index": 1}


@pytest.mark.parametrize(
    ("line", "kind", "cure"),
    [
        pytest.param(
            f"error.nvmlInitWithFlags={DRIVER_NOT_LOADED}", "EngineLibraryError", "kernel module", id="driver"
        ),
        pytest.param(f"error.nvmlInitWithFlags={MISMATCH}", "EngineLibraryError", "reboot", id="mismatch"),
        pytest.param(f"error.nvmlInitWithFlags={NO_PERMISSION}", "DeviceError", "/dev/nvidiactl", id="permission"),
        pytest.param(f"error.nvmlDeviceGetMemoryInfo={NO_PERMISSION}", "DeviceError", "/dev/nvidiactl", id="field"),
        pytest.param("error.nvmlDeviceGetMemoryInfo=999", "DeviceError", "(999)", id="unknown"),
        pytest.param("error.nvmlDeviceGetMemoryInfo=4242", "DeviceError", "(4242)", id="from-a-later-version"),
    ],
)
def test_every_refusal_has_a_name_and_a_cure(answer, line, kind, cure):
    """The message names the call, NVML's answer and what to do."""
    told_kind, message = answer("answer = told(looked)", [*lines_of(H100), line])
    assert told_kind == kind
    assert cure in message
    assert message.startswith("nvml")


def test_a_machine_without_a_driver_is_a_missing_library(answer):
    """`libnvidia-ml.so.1` comes with the driver; without it there is no silent CPU instead."""
    if any(Path(folder, "libnvidia-ml.so.1").exists() for folder in ("/usr/lib64", "/usr/lib/x86_64-linux-gnu")):
        pytest.skip("this machine has NVIDIA's driver")
    kind, message = answer("answer = told(looked)", [], driver=None)
    assert kind == "EngineLibraryError"
    assert "install NVIDIA's driver" in message


def test_two_devices_of_one_process_are_independent(answer):
    """NVML is stopped as often as it was started, and closing one leaves the other at work."""
    code = """
first, second = open_device(0), open_device(1)
opened = num_starts()
first.close()
first.close()
answer = [opened, num_starts(), second.facts().index, told(first.facts), second.close(), num_starts()]
"""
    opened, left, index, (kind, message), _, at_end = answer(code, lines_of(H100, H100 | {"uuid": "GPU-two"}))
    assert (opened, left, index, at_end) == (2, 1, 1, 0)
    assert kind == "DeviceError"
    assert "closed" in message


def test_closing_never_raises(answer):
    """An error on the way out must not hide the one that led there: it is logged."""
    code = "device = open_device(0); add_line('error.nvmlShutdown=999'); answer = told(device.close)"
    assert answer(code, lines_of(H100)) is None


@pytest.mark.parametrize(
    ("environ", "gpu", "index"),
    [
        pytest.param({"CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, 0, 1, id="one-index"),
        pytest.param({"CUDA_VISIBLE_DEVICES": "1,0", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, 1, 0, id="swapped"),
        pytest.param({"CUDA_VISIBLE_DEVICES": L4["uuid"]}, 0, 1, id="uuid"),
        pytest.param({"CUDA_VISIBLE_DEVICES": "GPU-8932a,GPU-8932f"}, 1, 0, id="uuids-cut-short"),
        pytest.param({"CUDA_VISIBLE_DEVICES": "0"}, L4["uuid"], 1, id="asked-by-uuid"),
        pytest.param({"CUDA_VISIBLE_DEVICES": "0"}, L4["uuid"].removeprefix("GPU-"), 1, id="asked-by-bare-uuid"),
    ],
)
def test_the_gpu_is_the_one_that_cuda_would_take(answer, environ, gpu, index):
    """NVML's index is not CUDA's: the environment of the process decides."""
    assert answer(f"answer = looked({gpu!r})['index']", lines_of(H100, L4), **environ) == index


def test_a_slice_is_asked_for_its_own_memory_and_its_gpu_for_the_rest(answer):
    """A MIG slice knows neither heat nor load; its name tells it from the whole GPU and from other sizes."""
    figures = lines_of(H100 | {"mig_mode": 1, "mig": SLICE})
    assert answer("answer = looked()", figures, CUDA_VISIBLE_DEVICES=SLICE["uuid"]) == FACTS | {
        "name": SLICE["name"], "uuid": SLICE["uuid"], "total_bytes": 10 * GIB, "used_bytes": GIB, "free_bytes": 9 * GIB,
        "utilisation_fraction": None,
    }  # fmt: skip


def test_a_tenant_of_a_slice_may_be_refused_the_gpus_own_figures(answer):
    """What a tenant may not see is None, while a lost GPU is still lost."""
    figures = [*lines_of(H100 | {"mig_mode": 1, "mig": SLICE}), f"0.error.nvmlDeviceGetTotalEccErrors={NO_PERMISSION}"]
    code = f"""
facts = looked()
add_line("0.error.nvmlDeviceGetTemperatureV={GPU_IS_LOST}")
answer = [facts["ecc_uncorrected"], facts["temperature_c"], told(looked)[0]]
"""
    assert answer(code, figures, CUDA_VISIBLE_DEVICES=SLICE["uuid"]) == [None, 61.0, "DeviceLostError"]


def test_a_gpu_in_slices_is_not_taken_whole(answer):
    """CUDA would take its first slice; which one that is, only a UUID says."""
    kind, message = answer("answer = told(looked)", lines_of(H100 | {"mig_mode": 1, "mig": SLICE}))
    assert kind == "DeviceError"
    assert "CUDA_VISIBLE_DEVICES=MIG-" in message


def test_a_slice_can_be_asked_for_by_cudas_bytes_alone(answer):
    """CUDA gives a UUID without its prefix."""
    figures = lines_of(H100 | {"mig_mode": 1, "mig": SLICE})
    assert answer(f"answer = looked({SLICE['uuid'].removeprefix('MIG-')!r})['name']", figures) == SLICE["name"]


LEVELS = """
import asyncio, warnings
from types import SimpleNamespace
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import ray.serve
from engines.fake import FakeEngine
from engines.spec import CanvasShape
from serve_app import direct_calls, engine_replica
from serve_app.memory_gauge import MemoryGauge
from serve_app.memory_level import MemoryMarks
from serve_app.plan import Bucket, Plan, Pool, Runtime
from serve_app.pool_engines import PoolEngines

context = SimpleNamespace(
    get_node_id=lambda: "node", get_actor_id=lambda: f"actor{len(replicas)}", current_actor=None
)
for module in (engine_replica, direct_calls):
    module.ray = SimpleNamespace(get_runtime_context=lambda: context)
pool = Pool("gpu", num_replicas=2, num_gpus=0.5, runtime=Runtime.TENSORRT)
plan = Plan({"m": "m.onnx"}, (pool,), (Bucket("vga", "m", "gpu", (CanvasShape(480, 640),), (1,)),))

def made_on(gpu):
    engines = {"vga": FakeEngine({}, lambda _: None)}
    return lambda *_: PoolEngines(engines, open_device(gpu), lambda: None)

replicas = []
for gpu in GPUS:
    replicas.append(engine_replica.EngineReplica(plan, "gpu", made_on(gpu)))
gauge = MemoryGauge(MemoryMarks(calm_s=2.0))
figures = open(os.environ["STAND_IN_NVML"]).read()

def fill(*percents):
    text = figures
    for index, percent in enumerate(percents):
        text += f"{index}.used={percent * 2**30}\\n{index}.free={(100 - percent) * 2**30}\\n"
    open(os.environ["STAND_IN_NVML"], "w").write(text)

answer = []
for second, percents in enumerate(LOADS):
    fill(*percents)
    reports = [asyncio.run(replica.report())[0] for replica in replicas]
    level = gauge.reported("gpu", reports, float(second))
    answer.append([level.name, list(gauge.limits("gpu").values())])
"""


def gpu_without_load(uuid):
    """A GPU of 100 GiB that does not yet say how much of it is used."""
    return {key: value for key, value in H100.items() if key not in ("used", "free")} | {
        "uuid": uuid, "total": 100 * GIB
    }  # fmt: skip


def test_levels_of_gpus_climb_and_come_back(answer):
    """Real `pynvml`, device, replica, report and gauge; only NVML's library is a stand-in. No replica is made anew."""
    loads = [(10,), (86,), (93,), (98,), (98,), *[(40,)] * 8]
    code = f"GPUS, LOADS = [0, 0], {loads}\n" + LEVELS

    told = answer(code, lines_of(gpu_without_load("GPU-1")))
    assert [level for level, _ in told] == [
        "NORMAL", "HIGH", "CRITICAL", *["SHED"] * 4, *["CRITICAL"] * 2, *["HIGH"] * 2, *["NORMAL"] * 2
    ]  # fmt: skip
    assert {tuple(limits) for _, limits in told} == {(6, 6)}


def test_one_full_gpu_of_two_takes_critical_frames_only(answer):
    """Its pool stays as it is; the GPU comes back when it is emptied."""
    loads = [(10, 10), (98, 10), (88, 10), *[(88, 10)] * 4, *[(40, 10)] * 3]
    code = f"GPUS, LOADS = [0, 1], {loads}\n" + LEVELS
    environ = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}

    told = answer(code, lines_of(gpu_without_load("GPU-1"), gpu_without_load("GPU-2")), **environ)
    assert {level for level, _ in told} == {"NORMAL"}
    assert [limits for _, limits in told] == [[6, 6], *[[0, 6]] * 5, *[[1, 6]] * 3, [6, 6]]
