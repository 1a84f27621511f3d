"""Choosing: what is asked for is given or refused. Running: every engine gives the same logits."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from dataclasses import replace
from hashlib import sha256
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from inference.engines import choose as engines
from inference.errors import DeviceError, EngineError, one_line
from inference.options import ENGINES
from tests.conftest import ROOT
from tests.inference.cards import make_card

HAS_CUDA = engines._missing_for_cuda("auto") is None


def test_auto_says_what_it_took_and_why() -> None:
    choice = engines.choose("auto", "auto", "auto")
    assert len(choice.why) == 3
    for part, reason in zip((choice.device, choice.engine, choice.precision), choice.why, strict=True):
        assert part in reason


def test_what_is_asked_for_is_given_without_a_word() -> None:
    assert engines.choose("cpu", "onnxruntime", "f32") == engines.Choice("cpu", "onnxruntime", "f32", ())


@pytest.mark.skipif(HAS_CUDA, reason="this machine has a GPU")
def test_cuda_asked_for_and_absent() -> None:
    with pytest.raises(DeviceError, match="cuda was asked for, but"):
        engines.choose("cuda", "auto", "auto")


def test_combinations_that_do_not_exist() -> None:
    with pytest.raises(DeviceError, match="f16 is not one of engine onnxruntime on cpu"):
        engines.choose("cpu", "onnxruntime", "f16")
    if HAS_CUDA:
        with pytest.raises(DeviceError, match="openvino does not run on device cuda"):
            engines.choose("cuda", "openvino", "auto")


def test_a_package_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "find_spec", lambda name: None if name == "openvino" else find_spec(name))
    with pytest.raises(DeviceError, match="openvino is not installed"):
        engines.choose("cpu", "openvino", "f32")
    assert engines.choose("cpu", "auto", "f32").engine == "onnxruntime"


@pytest.mark.parametrize(("machine", "engine"), [
    ("x86_64", "openvino"), ("AMD64", "openvino"), ("aarch64", "onnxruntime"), ("arm64", "onnxruntime"),
])  # fmt: skip
def test_on_arm_openvino_is_the_last_choice(machine: str, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(engines, "find_spec", lambda name: name != "torch" or None)
    assert engines.choose("cpu", "auto", "f32").engine == engine
    assert engines.choose("cpu", "openvino", "f32").engine == "openvino"
    monkeypatch.setattr(engines, "find_spec", lambda name: name == "openvino" or None)
    assert engines.choose("cpu", "auto", "f32").engine == "openvino"


def test_int8_is_taken_where_all_networks_were_tuned_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = replace(make_card(), forms={"f32": ("model.onnx",), "int8": ("model_int8.xml", "model_int8.bin")})
    tuned = replace(plain, precision="int8")
    monkeypatch.setattr(engines, "computes", lambda precision: True)
    choice = engines.choose("cpu", "openvino", "auto", [tuned, tuned])
    assert (choice.precision, choice.why) == ("int8", ("precision int8: as the networks were tuned",))
    assert engines.choose("cpu", "openvino", "f32", [tuned]).precision == "f32"  # asked for by name
    assert engines.choose("cpu", "openvino", "auto", [tuned, plain]).precision == "bf16"
    assert engines.choose("cpu", "onnxruntime", "auto", [tuned]).precision == "f32"  # which has no int8
    monkeypatch.setattr(engines, "computes", lambda precision: precision == "f32")
    assert engines.choose("cpu", "openvino", "auto", [tuned]).precision == "f32"


def test_a_cpu_without_the_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "computes", lambda precision: precision == "f32")
    assert engines.choose("cpu", "openvino", "auto").precision == "f32"
    with pytest.raises(DeviceError, match="this CPU has none of"):
        engines.choose("cpu", "openvino", "bf16")


def test_instructions_that_a_limit_forbids(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processor may have them: whoever looks there must read of the limit."""
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    with pytest.raises(DeviceError, match="none of amx_bf16, avx512_bf16 within ONEDNN_MAX_CPU_ISA=AVX2"):
        engines.choose("cpu", "openvino", "bf16")


@pytest.mark.parametrize(("engine", "file", "cpu", "gpu"), [
    ("onnxruntime", "capi/build_and_package_info.py", "", "cuda_version = '13.0'"),
    ("torch", "version.py", "cuda: Optional[str] = None\nhip: Optional[str] = '6'", "cuda: Optional[str] = '13.0'"),
    ("torch", "version.py", "cuda = None", "cuda = '12.1'"),
])  # fmt: skip
def test_a_build_for_the_cpu_is_not_taken_for_one_with_cuda(
    engine: str, file: str, cpu: str, gpu: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where another build, installed before it, has left its libraries."""
    spec = ModuleSpec(engine, None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(engines, "find_spec", lambda name: spec if name == engine else None)
    assert not engines._runs_on_cuda(engine)
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / "capi").mkdir(exist_ok=True)
    (tmp_path / "capi" / "libonnxruntime_providers_cuda.so").touch()
    for text, found in ((cpu, False), (gpu, True)):
        (tmp_path / file).write_text(f"package_name = 'x'\n__version__ = '1.31.1'\n{text}\n")
        assert engines._runs_on_cuda(engine) is found


@pytest.mark.parametrize("engine", list(engines.BUILDS))
def test_installed_packages_say_what_they_were_built_for(engine: str) -> None:
    package = find_spec(engine)
    if package is None or not package.submodule_search_locations:
        pytest.skip(f"{engine} is not installed")
    assert (Path(package.submodule_search_locations[0]) / engines.BUILDS[engine]).is_file()


def test_the_graph_of_f16_takes_and_gives_float32(tiny_weights: Path) -> None:
    """As ONNX Runtime runs it on a GPU, here with the CPU's provider."""
    onnxruntime = pytest.importorskip("onnxruntime")
    from inference.card_file import read_card
    from inference.engines.onnxruntime import run_by, session_of

    card = read_card(tiny_weights / "organ")
    patch = np.random.default_rng(3).normal(size=(1, 1, *card.patch)).astype(np.float32)
    of_cpu = [("CPUExecutionProvider", dict[str, str]())]
    half, single = (
        run_by(session_of(card, precision, onnxruntime.SessionOptions(), of_cpu))(patch) for precision in ("f16", "f32")
    )
    assert half.dtype == np.float32
    assert 0 < np.abs(half - single).max() < 5e-3 * np.abs(single).max()


def test_casts_of_float16_are_part_of_the_graph(tiny_weights: Path, tmp_path: Path) -> None:
    """So that a GPU does them; else it is the graph that was exported, also where its weights lie inside."""
    onnx = pytest.importorskip("onnx")
    from inference.engines.ends import with_float32_ends

    exported = onnx.load(tiny_weights / "organ" / "model_f16.onnx")
    onnx.save(exported, tmp_path / "inside.onnx")
    for path in (tiny_weights / "organ" / "model_f16.onnx", tmp_path / "inside.onnx"):
        given = onnx.load_model_from_string(with_float32_ends(path.read_bytes(), path.name))
        onnx.load_external_data_for_model(given, str(path.parent))
        onnx.checker.check_model(given, full_check=True)
        first, *nodes, last = given.graph.node
        assert nodes == list(exported.graph.node)
        assert [first.op_type, last.op_type] == ["Cast", "Cast"]
        types = [value.type.tensor_type for value in (*given.graph.input, *given.graph.output)]
        assert [one.elem_type for one in types] == [onnx.TensorProto.FLOAT] * 2
        shapes = [value.type.tensor_type.shape for value in (*exported.graph.input, *exported.graph.output)]
        assert [one.shape for one in types] == shapes
        assert [one.raw_data for one in given.graph.initializer] == [one.raw_data for one in exported.graph.initializer]


def test_float32_on_a_gpu_is_not_rounded_to_tensorfloat() -> None:
    """Which ONNX Runtime and PyTorch do by default; float16 keeps what computes it."""
    pytest.importorskip("onnxruntime")
    torch = pytest.importorskip("torch")
    from inference.engines.onnxruntime import _of_cuda
    from inference.engines.torch import exactly

    tf32 = [[options.get("use_tf32") for _, options in _of_cuda(precision)] for precision in ("f32", "f16")]
    assert tf32 == [["0"], [None]]
    before = torch.backends.cudnn.allow_tf32
    with exactly("cuda", "f32"):
        assert torch.backends.cudnn.allow_tf32 is False
    for device, precision in (("cuda", "f16"), ("cpu", "f32")):
        with exactly(device, precision):
            assert torch.backends.cudnn.allow_tf32 is before is True


def test_libraries_of_cuda_that_are_missing_are_not_told_on_stdout(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where --progress json promises JSON alone. The build for the CPU looks for none, and prints nothing."""
    onnxruntime = pytest.importorskip("onnxruntime")
    from inference.engines.onnxruntime import _of_cuda

    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda directory: print("Failed to load libcublas.so"))
    assert [name for name, _ in _of_cuda("f16")] == ["CUDAExecutionProvider"]
    assert capsys.readouterr() == ("", "Failed to load libcublas.so\n")


def test_a_provider_that_is_not_given_is_missed(tiny_weights: Path) -> None:
    """ONNX Runtime itself goes on with the CPU."""
    onnxruntime = pytest.importorskip("onnxruntime")
    from inference.card_file import read_card
    from inference.engines.onnxruntime import session_of

    if HAS_CUDA:
        pytest.skip("this machine has a GPU")
    with pytest.raises(DeviceError, match="did not give CUDAExecutionProvider"):
        session_of(
            read_card(tiny_weights / "organ"), "f16", onnxruntime.SessionOptions(), [("CUDAExecutionProvider", {})]
        )


@pytest.mark.skipif(HAS_CUDA, reason="this machine has a GPU")
def test_a_gpu_that_does_not_run_the_networks_is_done_without(
    tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a driver that is too old; here ONNX Runtime says no, since it is built for the CPU."""
    pytest.importorskip("onnxruntime")
    from inference.predictor import Predictor

    monkeypatch.setattr(engines, "_missing_for_cuda", lambda _: None)
    monkeypatch.setattr(engines, "_runs_on_cuda", lambda name: name == "onnxruntime")
    predictor = Predictor(tiny_weights)
    assert predictor.choice.device == "cpu"
    assert predictor.choice.why[0].startswith("device cpu: the GPU cannot be used: ")
    with pytest.raises(DeviceError, match="did not give CUDAExecutionProvider"):
        Predictor(tiny_weights, device="cuda")
    with pytest.raises(DeviceError, match="did not give CUDAExecutionProvider"):
        Predictor(tiny_weights, precision="f16", engine="onnxruntime")  # which the CPU cannot give


@pytest.mark.skipif(HAS_CUDA, reason="this machine has a GPU")
def test_a_gpu_whose_memory_others_hold_is_done_without(tiny_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the words of ONNX Runtime's allocator."""
    pytest.importorskip("onnxruntime")
    from inference.engines import onnxruntime as engine
    from inference.predictor import Predictor

    def full(*_: object) -> None:
        raise RuntimeError("bfc_arena.cc:378 Failed to allocate memory for requested buffer of size 864")

    monkeypatch.setattr(engines, "_missing_for_cuda", lambda _: None)
    monkeypatch.setattr(engines, "_runs_on_cuda", lambda name: name == "onnxruntime")
    monkeypatch.setattr(engine, "_of_cuda", full)
    predictor = Predictor(tiny_weights)
    assert predictor.choice.device == "cpu"
    assert predictor.choice.why[0].startswith("device cpu: the GPU cannot be used: ")
    assert "Failed to allocate memory" in predictor.choice.why[0]
    with pytest.raises(MemoryError):
        Predictor(tiny_weights, device="cuda")


def test_the_graph_for_onnx_runtime_leaves_weights_in_their_file(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    from inference.engines.norms import with_norms_by_rows

    weights = onnx.numpy_helper.from_array(np.ones(100_000, np.float32), "weights")
    shape = [onnx.helper.make_tensor_value_info(name, 1, [1, 100_000, 2, 2, 2]) for name in ("image", "logits")]
    node = onnx.helper.make_node("InstanceNormalization", ["image", "weights", "weights"], ["logits"])
    graph = onnx.helper.make_graph([node], "one", shape[:1], shape[1:], [weights])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "model.onnx")
    given = with_norms_by_rows((tmp_path / "model.onnx").read_bytes(), "model.onnx")
    assert given and len(given) < 10_000
    loaded = onnx.load_model_from_string(given)
    onnx.load_external_data_for_model(loaded, str(tmp_path))
    assert loaded.graph.initializer[0].raw_data == weights.raw_data


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["f32", "auto"])
def test_engines_agree(precision: str, tiny_weights: Path, tmp_path: Path) -> None:
    from inference.card_file import read_card

    card = read_card(tiny_weights / "organ")
    patch = np.random.default_rng(3).normal(size=(1, 1, *card.patch)).astype(np.float32)
    np.save(tmp_path / "patch.npy", patch)
    answers = []
    for engine in ENGINES:
        if find_spec(engine) is None:
            continue
        command: list[str | Path] = [
            sys.executable,
            "-m",
            "inference.export.check",
            tiny_weights / "organ",
            engine,
            precision,
        ]
        subprocess.run([*command, tmp_path / "patch.npy", tmp_path / "logits.npy"], check=True)
        answers.append(np.load(tmp_path / "logits.npy"))
    assert len(answers) >= 2
    for answer in answers[1:]:
        assert answer.shape == (1, len(card.labels), *card.patch)
        difference = np.abs(answer - answers[0]).max() / np.abs(answers[0]).max()
        assert difference < (1e-4 if precision == "f32" else 3e-2)  # bfloat16 keeps 8 bits


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("shape", [(1, 2, 64, 192, 192), (1, 2, 1, 1500, 1500)])
def test_norms_of_large_windows_are_exact(engine: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    """Left to themselves OpenVINO and ONNX Runtime add up millions of numbers one by one, and are wrong by 1e-4."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip(engine)
    from onnx import helper

    def values(name: str, of: list[int | None]) -> object:
        return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, of)

    any_size = [1, 2, *[None] * (len(shape) - 2)]
    ones = [onnx.numpy_helper.from_array(np.ones(2, np.float32), name) for name in "sb"]
    norm = helper.make_node("InstanceNormalization", ["x", "s", "b"], ["y"], epsilon=1e-3)
    graph = helper.make_graph([norm], "norm", [values("x", any_size)], [values("y", any_size)], ones)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()
    (tmp_path / "model.onnx").write_bytes(model)
    card = replace(make_card(), folder=tmp_path, files={"model.onnx": sha256(model).hexdigest()})
    card = replace(card, forms={"f32": ("model.onnx",)})
    given = np.random.default_rng(0).normal(1, 1, shape).astype(np.float32)
    space = tuple(range(2, len(shape)))
    mean, variance = (measure(given, space, np.float64, keepdims=True) for measure in (np.mean, np.var))
    network = engines.load(engines.Choice("cpu", engine, "f32", ()), card, 1)
    assert np.abs(network(given) - ((given - mean) / np.sqrt(variance + 1e-3) + 1)).max() < 1e-5


OUT_OF_MEMORY = """
import resource, sys
from pathlib import Path
import numpy as np
from inference.card_file import read_card
from inference.engines.choose import choose, load
network = load(choose("cpu", sys.argv[2], "f32"), read_card(Path(sys.argv[1])), 1)
small, large = (np.zeros((1, 1, *shape), np.float32) for shape in ((8, 16, 24), (128, 256, 256)))
network(small)
taken = int(next(line for line in open("/proc/self/status") if line.startswith(sys.argv[4])).split()[1]) * 1024
resource.setrlimit(getattr(resource, sys.argv[3]), (taken + 100 * 10**6, -1))
try:
    network(large)
except MemoryError as error:
    assert "\\n" not in str(error)
    print("MemoryError", network(small).shape[1])
"""


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("limit", "taken"), [("RLIMIT_AS", "VmSize:"), ("RLIMIT_DATA", "VmData:")])
def test_an_engine_without_memory_says_so_and_goes_on(engine: str, limit: str, taken: str, tiny_weights: Path) -> None:
    """32 MB of voxels, with at least 128 MB of activations, where 100 MB are left; then a window that fits. The C
    library may set 64 MB of addresses aside for a thread that compiles."""
    pytest.importorskip(engine)
    command: list[str | Path] = [sys.executable, "-c", OUT_OF_MEMORY, tiny_weights / "organ", engine, limit, taken]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.stdout == "MemoryError 5\n", done.stdout + done.stderr


PROCESSORS = """
import os, sys, threading
from pathlib import Path
import numpy as np
from inference.card_file import read_card
from inference.engines.choose import choose, load
card, before, seen = read_card(Path(sys.argv[1])), os.sched_getaffinity(0), set()
network = load(choose("cpu", sys.argv[2], "f32"), card, 1)
batch = np.zeros((1, 1, *(3 * n for n in card.patch)), np.float32)
network(batch)  # which compiles it, with threads of its own
running = threading.Thread(target=lambda: [network(batch) for _ in range(5)])
running.start()
while running.is_alive():
    for one in os.listdir("/proc/self/task"):
        try:
            seen.add(frozenset(os.sched_getaffinity(int(one))))
        except ProcessLookupError:
            pass
assert seen == {frozenset(before)}, seen
"""


@pytest.mark.slow
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="there is one processor, to which all is pinned")
@pytest.mark.parametrize("engine", ENGINES)
def test_no_thread_is_pinned_to_a_processor(engine: str, tiny_weights: Path) -> None:
    """Processes beside each other would pin theirs to the same one, and wait for it while others are idle."""
    pytest.importorskip(engine)
    command: list[str | Path] = [sys.executable, "-c", PROCESSORS, tiny_weights / "organ", engine]
    subprocess.run(command, check=True, cwd=ROOT)


def test_other_errors_of_an_engine_are_one_line(tiny_weights: Path) -> None:
    from inference.card_file import read_card

    network = engines.load(engines.choose("cpu", "openvino", "f32"), read_card(tiny_weights / "organ"), 1)
    with pytest.raises(EngineError, match=r"^engine openvino failed: [^\n]+$"):
        network(np.zeros((1, 2, 8, 16, 24), np.float32))  # two channels


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_logits_that_are_no_numbers_are_no_labels(engine: str, tiny_weights: Path) -> None:
    pytest.importorskip(engine)
    from inference.card_file import read_card

    card = read_card(tiny_weights / "organ")
    network = engines.load(engines.choose("cpu", engine, "f32"), card, 1)
    batch = np.zeros((1, 1, *card.patch), np.float32)
    assert np.isfinite(network(batch)).all()
    batch[0, 0, 3, 5, 7] = np.inf
    with pytest.raises(EngineError, match=r"^network organ gave no numbers \(NaN or infinity\) in f32 with engine"):
        network(batch)


OLD_DRIVER = "CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version"
NO_CODE = "CUDA error cudaErrorNoKernelImageForDevice:no kernel image is available for execution on the device"
WRONG = "CUDNN failure 3: CUDNN_STATUS_BAD_PARAM"


@pytest.mark.parametrize(("text", "cause"), [
    (
        "/onnxruntime_src/cuda_call.cc:154 std::conditional_t<THRW, void, Status> CudaCall(ERRTYPE) [with ERRTYPE = "
        f"cudaError; bool THRW = true] {OLD_DRIVER} ; "
        "GPU=-1 ; hostname=vm ; file=/onnxruntime_src/cuda_execution_provider.cc ; line=355 ; expr=cudaSetDevice(0);",
        OLD_DRIVER,
    ),
    (
        "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running LeakyRelu node. "
        f"Name:'node_leaky_relu' Status Message: {NO_CODE}",
        NO_CODE,
    ),
    (
        "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running ConvTranspose node. "
        f"Name:'node_convolution' Status Message: {WRONG} ; GPU=0 ; hostname=vm ; file=conv_transpose.cc ; line=318",
        WRONG,
    ),
])  # fmt: skip
def test_of_a_failure_of_cuda_its_cause_is_told(text: str, cause: str) -> None:
    """In the words of ONNX Runtime 1.31 where the driver is older than CUDA 13, and of issues 26181 and 21034 of its
    project: a GPU that it was not built for, and an error of cuDNN."""
    assert one_line(RuntimeError(text)) == cause


def test_an_engine_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch, tiny_weights: Path) -> None:
    from inference.card_file import read_card

    def refuse(name: str, package: str) -> None:
        raise ImportError(f"{name}.so: undefined symbol")

    monkeypatch.setattr(engines, "import_module", refuse)
    with pytest.raises(DeviceError, match="engine onnxruntime cannot be loaded: .*undefined symbol"):
        engines.load(engines.choose("cpu", "onnxruntime", "f32"), read_card(tiny_weights / "organ"), 1)


@pytest.mark.parametrize("batch", [1, 2])
def test_openvino_writes_all_outputs_beside_each_other(batch: int) -> None:
    """Into memory that lives as long as the request does: it holds no reference."""
    ov = pytest.importorskip("openvino")
    from openvino import opset13 as op

    from inference.engines.openvino import beside, outputs_of

    image = op.parameter([batch, 2, 4, 5, 6], np.float32)
    outputs = [op.result(op.multiply(image, np.float32(by))) for by in (2, 3)]
    request = ov.Core().compile_model(ov.Model(outputs, [image]), "CPU").create_infer_request()
    answers = outputs_of(request)
    for seed in range(2):
        given = np.random.default_rng(seed).normal(size=image.shape).astype(np.float32)
        request.infer({0: given}, share_inputs=True, share_outputs=True)
        assert np.array_equal(beside(answers), np.concatenate([2 * given, 3 * given], axis=1))
    assert np.shares_memory(beside(answers), answers) == (batch == 1)
