"""`tcmoa export`: the checkpoints that it takes, and the lines about files that are none."""

import json

import pytest
import torch

from micro_model import scrambled
from tcmoa import Sizes
from tcmoa.weights import to_published

SMALL = Sizes(32, 2, 1, 32, 2, 1)


@pytest.fixture
def single(tmp_path):
    """A checkpoint of one task as its training saves it: a router for one task, and no source embeddings."""
    state = {
        name: value for name, value in to_published(scrambled(SMALL)).items() if "modal_shifts" not in name
    }
    state |= {
        name: value[:1].clone() for name, value in state.items() if name.endswith(("w_gate", "w_noise"))
    }
    torch.save({"model": state, "epoch": 20}, tmp_path / "single.pth")
    return tmp_path / "single.pth"


@pytest.mark.filterwarnings("ignore:.*no source embeddings")
def test_a_checkpoint_of_one_task_is_exported_for_the_task_that_is_named(tcmoa, single, tmp_path):
    outcome = tcmoa(
        "export", "--weights", single, "--task", "mff", "--size", "112x112", "--out", tmp_path / "b"
    )
    assert outcome.code == 0
    manifest = json.loads((tmp_path / "b" / "bundle.json").read_text())
    assert (manifest["task"], manifest["routers"]) == ("mff", ["mff", "mff"])


@pytest.mark.filterwarnings("ignore:.*no source embeddings")
def test_a_checkpoint_of_one_task_has_no_other_routers(tcmoa, single, tmp_path):
    arguments = ("--task", "mff", "--routers", "vif,mff", "--size", "112x112", "--out", tmp_path / "b")
    outcome = tcmoa("export", "--weights", single, *arguments)
    assert outcome.code == 2
    assert outcome.err.splitlines()[-1] == "tcmoa: error: --routers: unknown task 'vif'; expected one of mff"
    assert not (tmp_path / "b").exists()


def test_an_html_page_is_refused_in_one_line(tcmoa, tmp_path):
    page = tmp_path / "base.pth"
    page.write_text("<!DOCTYPE html><html><body>Sign in</body></html>")
    outcome = tcmoa(
        "export", "--weights", page, "--task", "vif", "--size", "112x112", "--out", tmp_path / "b"
    )
    assert outcome.code == 2
    assert outcome.err.splitlines()[-1] == (
        f"tcmoa: error: {page}: an HTML page; expected a checkpoint (.pth, .safetensors). "
        "Download the file itself, e.g. with the link that the page shows."
    )
    assert not (tmp_path / "b").exists()
