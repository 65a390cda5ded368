"""The TensorBoard log of a run, with a fake writer and, if tensorboard is installed, in its files."""

import re
import sys
import types
import warnings
from importlib.util import find_spec
from typing import ClassVar

import numpy as np
import pytest

from tcmoa_runtime.errors import MissingError
from tcmoa_runtime.install import install_command
from training_runs import CONFIG, read_checkpoint, train

pytestmark = pytest.mark.usefixtures("small_presets")

TENSORBOARD = f'tensorboard = true\n{CONFIG}\n[samples]\nvif = "vif"\n'


class Writer:
    """Records scalars and images."""

    made: ClassVar[list] = []

    def __init__(self, folder, purge_step):
        self.folder, self.purge_step, self.closed = folder, purge_step, False
        self.scalars, self.images = {}, {}
        Writer.made.append(self)

    def add_scalar(self, tag, value, step):
        self.scalars.setdefault(tag, {})[step] = float(value)

    def add_image(self, tag, image, step, dataformats):
        self.images[tag, step] = (image, dataformats)

    def close(self):
        self.closed = True


@pytest.fixture
def writers(monkeypatch):
    """The fake writers that runs open, in order."""
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", types.SimpleNamespace(SummaryWriter=Writer))
    monkeypatch.setattr(Writer, "made", [])
    return Writer.made


def test_losses_rates_prompts_adapters_and_images(pairs, tmp_path, writers):
    out = tmp_path / "run"
    train(pairs, out, TENSORBOARD)
    (writer,) = writers
    assert (writer.folder, writer.purge_step, writer.closed) == (str(out / "tensorboard"), 1, True)
    everywhere = list(range(1, 7))
    for task in ("vif", "mef", "mff"):
        assert list(writer.scalars[f"loss/{task}/total"]) == everywhere
        assert list(writer.scalars[f"prompts/{task}/x_mean"]) == everywhere
        assert all(0 < value < 1 for value in writer.scalars[f"prompts/{task}/y_mean"].values())
        assert all(value > 0 for value in writer.scalars[f"prompts/{task}/x_std"].values())
        for k in range(2):  # two TC-MoAs, four adapters, two of them for each token
            use = [writer.scalars[f"adapters/{task}/{k}.{n}"] for n in range(4)]
            assert [list(steps) for steps in use] == [[4]] * 4  # with the contact sheets
            assert sum(steps[4] for steps in use) == pytest.approx(2, abs=0.01)
    assert writer.scalars["lr"][1] == pytest.approx(5e-4)
    assert writer.scalars["lr"][2] == pytest.approx(1e-3)
    assert set(writer.images) == {("samples", 4), ("samples", 6)}
    image, order = writer.images["samples", 6]
    assert (image.shape, image.dtype, order) == ((112, 5 * 336, 3), np.uint8, "HWC")


def test_a_resumed_run_continues_where_it_stopped(pairs, tmp_path, writers):
    train(pairs, tmp_path / "run", TENSORBOARD, rounds=3)
    train(pairs, tmp_path / "run", TENSORBOARD, resume=True)
    assert [writer.purge_step for writer in writers] == [1, 4]
    assert [list(writer.scalars["lr"]) for writer in writers] == [[1, 2, 3], [4, 5, 6]]


def test_logging_changes_no_weight(pairs, tmp_path, writers):
    train(pairs, tmp_path / "with", TENSORBOARD, rounds=2)
    train(pairs, tmp_path / "without", CONFIG, rounds=2)
    with_log, without = (read_checkpoint(tmp_path / name)["model"] for name in ("with", "without"))
    assert all(value.equal(without[name]) for name, value in with_log.items())


def test_an_interrupted_run_closes_its_files(pairs, tmp_path, writers):
    def interrupt(line):
        if line.startswith("round     3/6"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(pairs, tmp_path / "run", TENSORBOARD, on_message=interrupt)
    assert writers[0].closed


def test_a_baseline_has_no_adapter_tags(pairs, tmp_path, writers):
    text = f'adaptation = "frozen"\nfreeze_backbone = true\n{TENSORBOARD}'
    train(pairs, tmp_path / "run", text, rounds=4)
    tags = writers[0].scalars
    assert tags["prompts/vif/x_mean"][4] == 0.5
    assert not any(tag.startswith("adapters") for tag in tags)


def test_without_the_package_no_run_starts(pairs, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(
        MissingError, match=rf"tensorboard is not installed; .* `{re.escape(install_command('train'))}`"
    ) as caught:
        train(pairs, tmp_path / "run", TENSORBOARD)
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(
    find_spec("tensorboard") is None,
    reason="tensorboard is not installed; `pip install tensorboard` runs this",
)
def test_tensorboard_reads_the_files(pairs, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package's own, about its dependencies
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        train(pairs, tmp_path / "run", TENSORBOARD, rounds=3)
        train(pairs, tmp_path / "run", TENSORBOARD, rounds=4, resume=True)
        events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
        events.Reload()
    assert [event.step for event in events.Scalars("loss/vif/total")] == [1, 2, 3, 4]
    assert [event.step for event in events.Images("samples")] == [3, 4, 4]
