"""Several processes: each a part of every batch, averaged gradients, equal weights, one that writes, exact resuming."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from distributed_rounds import two_rounds
from free_ports import free_port
from tcmoa.config import TrainConfig, read_config
from tcmoa.data import Batch, PairSampler
from tcmoa.processes import Processes, choose_device, started_processes
from tcmoa.trainer import Trainer
from tcmoa_runtime.errors import InputError, MissingError
from training_runs import CONFIG, assert_same, configured, read_checkpoint, train

pytestmark = pytest.mark.usefixtures("small_presets")

TESTS = Path(__file__).parents[1]
TWO = CONFIG.replace("batch = 1", "batch = 2")


def torchrun(*arguments, count=2):
    """Run a script or module in two gloo processes of one thread; its result."""
    return subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nnodes", "1", "--nproc-per-node", str(count)),
            *("--master-addr", "127.0.0.1", "--master-port", str(free_port()), *map(str, arguments)),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def two_processes(pairs, tmp_path_factory):
    """Configuration and folder of what two processes did: two rounds of one task, and a whole and a halved run."""
    out = tmp_path_factory.mktemp("processes")
    one_task = configured(pairs, "two", f'tasks = ["vif"]\nbalance = 0.0\n{TWO}')
    config = configured(pairs, "command", TWO)
    runs = (
        ("two-rounds", one_task, out),
        ("train", config, "--out", out / "whole"),
        ("train", config, "--out", out / "halves", "--rounds", "3"),
        ("train", config, "--out", out / "halves", "--resume"),
    )
    words = (argument for run in runs for argument in (free_port(), shlex.join(map(str, run))))
    result = torchrun(TESTS / "distributed_command.py", *words)
    assert result.returncode == 0, result.stderr
    return one_task, out


@pytest.fixture(scope="module")
def rounds(two_processes):
    """What each of two processes saw in two rounds of one task."""
    config, out = two_processes
    return config, [torch.load(out / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.slow
def test_gradients_equal_those_of_one_process_with_both_parts_of_the_batch(rounds, monkeypatch):
    config, both = rounds
    batch = PairSampler.batch

    def whole(self, step, size, count, part=0):
        parts = [batch(self, step, size, count // 2, part) for part in (0, 1)]
        return Batch(*(torch.cat(source) for source in zip(*((b.x, b.y) for b in parts), strict=True)))

    monkeypatch.setattr(PairSampler, "batch", whole)
    alone = two_rounds(config, Processes())
    for name, gradient in alone["gradients"].items():
        torch.testing.assert_close(both[0]["gradients"][name], gradient, rtol=1e-3, atol=1e-6)
    expected = alone["losses"][0]["vif"]
    assert both[0]["losses"][0]["vif"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
def test_processes_keep_equal_weights_with_different_noise(rounds):
    _, both = rounds
    assert_same(both[0]["gradients"], both[1]["gradients"])
    assert_same(dict(both[0]["model"]), dict(both[1]["model"]))
    assert both[0]["losses"] == both[1]["losses"]


@pytest.mark.slow
def test_a_run_of_two_processes_resumes_exactly_and_with_two_only(two_processes, pairs):
    _, out = two_processes
    assert_same(read_checkpoint(out / "halves"), read_checkpoint(out / "whole"))
    assert {path.name for path in (out / "whole").iterdir()} == {
        "checkpoint.pt",
        "weights.safetensors",
        "log.jsonl",
    }
    log = (out / "halves" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["round"] for line in log] == [1, 2, 3, 4, 5, 6]
    with pytest.raises(
        InputError, match=r"made by 2 processes; expected 1, .* torchrun and 2 processes"
    ) as caught:
        train(pairs, out / "whole", TWO, resume=True)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_wrong_batch_ends_the_module_with_one_line_and_exit_code_2(pairs, tmp_path):
    text = CONFIG.replace('start = "random"', 'start = "random"\npreset = "tiny"').replace(
        "crop = 112", "crop = 160"
    )
    config = configured(pairs, "odd", text)
    result = torchrun("-m", "tcmoa.train", config, "--out", tmp_path / "out")
    assert result.returncode != 0
    assert "error: 'phases': batch is 1; expected a multiple of 2, the number of processes" in result.stderr
    assert "exitcode  : 2" in result.stderr
    assert not (tmp_path / "out").exists()


def test_without_torchrun_there_is_one_process(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    with started_processes("cpu") as own:
        assert own == Processes()
        model = torch.nn.Linear(1, 1)
        assert own.wrap(model) is model
        assert own.any(True)
        assert not own.any(False)
        assert own.mean(torch.tensor(3.0)) == 3


def test_the_device_of_a_process_depends_on_what_is_available(monkeypatch):
    assert choose_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == torch.device("cpu")
    with pytest.raises(MissingError, match="device is 'cuda'; PyTorch finds no CUDA device"):
        choose_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto", 1) == choose_device("cuda", 1) == torch.device("cuda", 1)
    assert choose_device("cpu", 1) == torch.device("cpu")


def test_each_process_has_its_crops_and_its_noise(pairs):
    config = read_config(configured(pairs, "noise", TWO))
    both = [Trainer(config) for _ in range(2)]
    both[1].processes = Processes(1, 2)
    seeds = set()
    for trainer in both:
        for trainer.round in range(3):
            seeds |= {trainer._noise_seed(trainer.round, stream) for stream in range(3)}
    assert len(seeds) == 2 * 3 * 3
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize("adaptation", ["tc-moa", "adaptformer", "frozen"])
def test_every_trainable_parameter_gets_a_gradient_in_every_step(pairs, adaptation):
    """So processes need not search for unused ones."""
    config = TrainConfig(
        pairs={task: pairs / task for task in ("vif", "mef", "mff")},
        start="random",
        phases=TrainConfig(pairs={}).phases,
        freeze_backbone=adaptation != "tc-moa",
        adaptation=adaptation,
    )
    training = Trainer(config)
    for task, sampler in training.samplers.items():
        training.optimizer.zero_grad(set_to_none=True)
        training._step(task, *sampler.batch(0, 112, 1))
        missing = [n for n, p in training.model.named_parameters() if p.requires_grad and p.grad is None]
        assert missing == [], task
