from profiles.fuse import fuse
from profiles.graph import Graph, Kind, Op, Weight, edge


def graph(*ops: Op, inputs: tuple[str, ...] = ("x",), outputs: tuple[str, ...] = ("y",)) -> Graph:
    """A graph whose edges all have 100 floats."""
    names = {name for op in ops for name in (*op.inputs, *op.outputs)} | set(inputs)
    return Graph(ops, {name: edge(name, (1, 4, 25), "float32") for name in names}, inputs, outputs, 1)


def op(operator: str, kind: Kind, inputs: str, output: str, *weights: Weight, macs: int = 0) -> Op:
    return Op(f"{operator}_{output}", operator, kind, tuple(inputs.split()), (output,), macs, weights, 9, 1, 4)


def fused(built: Graph, family: str = "nvidia-gpu") -> list[tuple[str, ...]]:
    return [kernel.operators for kernel in fuse(built, family).kernels]


CONV = op("Conv", "conv", "x", "a", Weight("w", 36, "float32"), macs=900)


def test_activation_runs_at_the_end_of_its_convolution() -> None:
    assert fused(graph(CONV, op("Relu", "pointwise", "a", "y"))) == [("Conv", "Relu")]


def test_what_somebody_else_reads_is_not_fused_away() -> None:
    built = graph(
        CONV, op("Relu", "pointwise", "a", "b"), op("Conv", "conv", "b", "c"), op("Add", "pointwise", "a c", "y")
    )
    assert fused(built) == [("Conv",), ("Relu",), ("Conv", "Add")]


def test_an_output_of_the_network_is_written() -> None:
    built = graph(CONV, op("Relu", "pointwise", "a", "y"), outputs=("a", "y"))
    assert fused(built) == [("Conv",), ("Relu",)]


def test_an_addition_joins_the_later_of_its_makers() -> None:
    built = graph(CONV, op("Conv", "conv", "x", "b"), op("Add", "pointwise", "a b", "y"))
    plan = fuse(built, "nvidia-gpu")
    assert [kernel.operators for kernel in plan.kernels] == [("Conv",), ("Conv", "Add")]
    assert plan.kernels[1].reads == ("x", "a")
    assert fused(built, "cortex-m") == [("Conv",), ("Conv",), ("Add",)]


def test_batch_normalisation_becomes_a_bias() -> None:
    norm = op("BatchNormalization", "batchnorm", "a", "y", *(Weight(name, 4, "float32") for name in "gbmv"))
    (kernel,) = fuse(graph(CONV, norm), "nvidia-gpu").kernels
    assert sum(item.elements for item in kernel.weights) == 36 + 4
    biased = op("Conv", "conv", "x", "a", Weight("w", 36, "float32"), Weight("b", 4, "float32", bias=True), macs=900)
    (kernel,) = fuse(graph(biased, norm), "nvidia-gpu").kernels
    assert sum(item.elements for item in kernel.weights) == 36 + 4


def test_attention_is_one_kernel_on_a_gpu_only() -> None:
    built = graph(
        op("MatMul", "matmul", "x k", "s", macs=7),
        op("Softmax", "softmax", "s", "p"),
        op("MatMul", "matmul", "p v", "y", macs=5),
        inputs=("x", "k", "v"),
    )
    (kernel,) = fuse(built, "nvidia-gpu").kernels
    assert kernel.macs == 12
    assert set(kernel.reads) == {"x", "k", "v"}
    assert len(fused(built, "x86-cpu")) == 3


def test_scores_that_are_read_twice_are_kept() -> None:
    built = graph(
        op("MatMul", "matmul", "x k", "s", macs=7),
        op("Softmax", "softmax", "s", "p"),
        op("MatMul", "matmul", "p v", "y", macs=5),
        inputs=("x", "k", "v"),
        outputs=("y", "p"),
    )
    assert len(fused(built)) == 3


def test_a_spectral_front_end_stays_in_floats() -> None:
    built = graph(
        op("STFT", "fft", "x", "s", macs=50),
        op("MatMul", "gemm", "s", "m", Weight("mel", 20, "float32"), macs=40),
        op("Log", "pointwise", "m", "l"),
        op("Conv", "conv", "l", "y", Weight("w", 36, "float32"), macs=900),
    )
    kernels = fuse(built, "cortex-m", "int8").kernels
    assert [(kernel.operators, kernel.precision) for kernel in kernels] == [
        (("STFT",), "fp32"),
        (("MatMul", "Log"), "fp32"),
        (("Conv",), "int8"),
    ]
    assert [kernel.weight_bytes for kernel in kernels] == [0, 80, 36]
    assert [(kernel.read_bytes, kernel.written_bytes) for kernel in kernels] == [(400, 400), (400, 100), (100, 100)]


def test_the_logarithm_of_a_result_is_no_front_end() -> None:
    built = graph(CONV, op("Softmax", "softmax", "a", "p"), op("Log", "pointwise", "p", "y"))
    assert fuse(built, "cortex-m", "int8").kernels[0].precision == "int8"


def test_a_view_is_the_same_buffer() -> None:
    built = graph(CONV, op("Reshape", "view", "a", "r"), op("Relu", "pointwise", "r", "y"))
    assert fused(built) == [("Conv", "Relu")]
