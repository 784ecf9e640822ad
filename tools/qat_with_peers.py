"""Fine-tune and time the peers' fake quantisation, in an environment of theirs. `tools/bench_qat.py` calls it.

    PEERS/bin/python tools/qat_with_peers.py quality FOLDER --seed 0 --epochs 3 --rate 1e-3
    PEERS/bin/python tools/qat_with_peers.py step --rounds 20 --batch 32

Prints one JSON object: {peer: {"ptq": accuracy, "qat": accuracy} or {"absent": why}}, or step times by name.
Each peer is set up as its documentation says: nvidia-modelopt with INT8_DEFAULT_CFG and its max calibration, after
which ranges stay; torchao's pt2e flow with the symmetric per-channel configuration of its XNNPACK quantiser.
"""

import argparse
import copy
import json
import logging
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)

import torch  # noqa: E402  (importing it already warns)
from torch import Tensor, nn  # noqa: E402

sys.path.insert(0, str(Path(__file__).parent))
import qat_protocol as protocol  # noqa: E402


def with_modelopt(network: nn.Module, calibration: list[Tensor]) -> nn.Module:
    """Quantised and calibrated in place; a plain module, so train() and eval() work."""
    import modelopt.torch.quantization as mtq

    def forward(model: nn.Module) -> None:
        with torch.no_grad():
            for batch in calibration:
                model(batch)

    return mtq.quantize(network.eval(), mtq.INT8_DEFAULT_CFG, forward)  # type: ignore[no-any-return]


def modelopt(float_network: nn.Module, data: protocol.Data, epochs: int, rate: float, seed: int) -> dict[str, float]:
    """After calibration, and after fine-tuning."""
    network = with_modelopt(copy.deepcopy(float_network), data.calibration())
    ptq = protocol.accuracy(network.eval(), data)
    frozen = False

    def follow(progress: float) -> None:
        nonlocal frozen
        if progress >= protocol.BATCHNORM_FREEZES and not frozen:
            frozen = True
            for module in network.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()

    protocol.train(network.train(), data, epochs=epochs, rate=rate, seed=seed, before_step=follow)
    return {"ptq": ptq, "qat": protocol.accuracy(network.eval(), data)}


def exported(network: nn.Module, example: Tensor) -> Any:
    """The network as torchao takes it, in training mode."""
    shapes = ({0: torch.export.Dim("batch", min=1)},)
    return torch.export.export(network.train(), (example,), dynamic_shapes=shapes, strict=False).module(
        check_guards=False
    )


def xnnpack(qat: bool) -> Any:
    """The quantiser of torchao's own examples."""
    from torchao.testing.pt2e import _xnnpack_quantizer as found

    config = found.get_symmetric_quantization_config(is_per_channel=True, is_qat=qat)
    return found.XNNPACKQuantizer().set_global(config)


def with_torchao(network: nn.Module, calibration: list[Tensor]) -> Any:
    """Prepared for fine-tuning, ranges seen once."""
    from torchao.quantization.pt2e import move_exported_model_to_eval, move_exported_model_to_train
    from torchao.quantization.pt2e.quantize_pt2e import prepare_qat_pt2e

    prepared = prepare_qat_pt2e(exported(network, calibration[0]), xnnpack(True))
    move_exported_model_to_eval(prepared)
    with torch.no_grad():
        for batch in calibration:
            prepared(batch)
    move_exported_model_to_train(prepared)
    return prepared


def torchao(float_network: nn.Module, data: protocol.Data, epochs: int, rate: float, seed: int) -> dict[str, float]:
    """Its post-training flow, and its quantisation-aware one, both converted before they are scored."""
    from torchao.quantization.pt2e import disable_observer, move_exported_model_to_eval
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    calibration = data.calibration()
    shapes = ({0: torch.export.Dim("batch", min=1)},)
    plain = torch.export.export(
        copy.deepcopy(float_network).eval(), (calibration[0],), dynamic_shapes=shapes, strict=False
    ).module(check_guards=False)
    observed = prepare_pt2e(plain, xnnpack(False))
    with torch.no_grad():
        for batch in calibration:
            observed(batch)
    ptq = protocol.accuracy(convert_pt2e(observed), data)
    prepared = with_torchao(copy.deepcopy(float_network), calibration)
    done: set[str] = set()

    def once(name: str, action: Callable[[], Any]) -> None:
        if name not in done:
            done.add(name)
            action()

    def follow(progress: float) -> None:
        if progress >= protocol.BATCHNORM_FREEZES:
            once("norm", lambda: freeze_batchnorm(prepared))
        if progress >= protocol.RANGES_FREEZE:
            once("ranges", lambda: prepared.apply(disable_observer))

    protocol.train(prepared, data, epochs=epochs, rate=rate, seed=seed, before_step=follow)
    move_exported_model_to_eval(prepared)
    return {"ptq": ptq, "qat": protocol.accuracy(convert_pt2e(prepared), data)}


def freeze_batchnorm(graph: Any) -> None:
    """As torchao's tutorial does: the operator's own training argument."""
    for node in graph.graph.nodes:
        if node.target is torch.ops.aten.batch_norm.default:
            node.args = (*node.args[:5], False, *node.args[6:])
    graph.recompile()


PEERS: dict[str, Callable[..., dict[str, float]]] = {"nvidia-modelopt": modelopt, "torchao": torchao}


def quality(folder: Path, seed: int, epochs: int, rate: float) -> dict[str, Any]:
    """Every peer from the same float network."""
    from safetensors.torch import load_file

    data = protocol.Data.load(folder / "data.npz")
    network = protocol.student()
    network.load_state_dict(load_file(folder / f"float-{seed}.safetensors"))
    found: dict[str, Any] = {}
    for name, run in PEERS.items():
        torch.manual_seed(seed)
        try:
            found[name] = run(network, data, epochs, rate, seed)
        except ImportError as error:
            found[name] = {"absent": str(error)}
    return found


def step(rounds: int, batch: int) -> dict[str, list[float]]:
    """Times of a plain step and of each peer's, interleaved."""
    torch.manual_seed(0)
    x = torch.randn(batch, 3, 32, 32)
    networks: dict[str, nn.Module] = {"plain": protocol.resnet20().train()}
    makers: dict[str, Callable[[nn.Module, list[Tensor]], nn.Module]] = {
        "nvidia-modelopt": with_modelopt,
        "torchao": with_torchao,
    }
    for name, make in makers.items():
        try:
            network = make(protocol.resnet20(), [x])
        except ImportError:
            continue
        networks[name] = network if name == "torchao" else network.train()
    return protocol.interleaved(networks, x, rounds)


def main() -> None:
    """Print what was asked for as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    one = parts.add_parser("quality")
    one.add_argument("folder", type=Path)
    one.add_argument("--seed", type=int, default=0)
    one.add_argument("--epochs", type=int, default=3)
    one.add_argument("--rate", type=float, default=1e-3)
    other = parts.add_parser("step")
    other.add_argument("--rounds", type=int, default=20)
    other.add_argument("--batch", type=int, default=32)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.part == "quality":
        found: Any = quality(given.folder, given.seed, given.epochs, given.rate)
    else:
        found = step(given.rounds, given.batch)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
