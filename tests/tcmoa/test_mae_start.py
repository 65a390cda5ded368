"""Starting from an MAE backbone: loaded, added and trained parameters, and refused files."""

import pytest
import torch

from tcmoa import Sizes, TCMoA, load_weights, save_weights
from tcmoa.config import TrainConfig
from tcmoa.initial_model import build_model
from tcmoa.trainable import is_adapted
from tcmoa.weights import to_published
from tcmoa_runtime.errors import InputError
from training_runs import CONFIG, SMALL, read_checkpoint, train

pytestmark = pytest.mark.usefixtures("small_presets")

ADAPTED = ("_MoA.", "FusionLayer.", "relative_position.", "Alpha_")


@pytest.fixture(scope="module")
def mae(tmp_path_factory):
    """An MAE checkpoint of the preset's size: ordinary ViT names, no relative positions, a mask token."""
    torch.manual_seed(7)
    state = to_published(TCMoA(SMALL))
    state = {
        key: torch.randn_like(value) * 0.05
        for key, value in state.items()
        if not any(a in key for a in ADAPTED)
    }
    state["mask_token"] = torch.zeros(1, 1, SMALL.decoder_embed_dim)
    path = tmp_path_factory.mktemp("mae") / "mae.pth"
    torch.save({"model": state}, path)
    return path


def config(mae, **settings):
    return TrainConfig(pairs={}, **{"start": f"mae:{mae}", "freeze_backbone": True, **settings})


def test_the_backbone_and_its_position_tables_come_from_the_file(mae):
    model = build_model(config(mae))
    stored = torch.load(mae, weights_only=True)["model"]
    loaded = to_published(model)
    taken = stored.keys() & loaded.keys()
    assert taken == stored.keys() - {"mask_token"}
    assert {"pos_embed", "decoder_pos_embed", "cls_token"} < taken
    assert all(torch.equal(loaded[key], stored[key]) for key in taken)
    assert model.sizes == SMALL


def test_the_rest_is_fresh_and_depends_on_the_seed_only(mae):
    def adapted(seed):
        torch.rand(3)
        model = build_model(config(mae, seed=seed))
        return {name: value for name, value in model.named_parameters() if is_adapted(name)}

    one, again, other = adapted(1), adapted(1), adapted(2)
    assert all(torch.equal(one[name], again[name]) for name in one)
    gates = [name for name in one if name.endswith("routers.gate")]
    assert gates
    assert not any(torch.equal(one[name], other[name]) for name in gates)


def test_with_a_frozen_backbone_all_parameters_outside_the_file_are_trained(mae):
    model = build_model(config(mae))
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {name for name, _ in model.named_parameters() if is_adapted(name)}


def test_messages_count_the_loaded_and_the_added_parameters(mae):
    messages = []
    build_model(config(mae), messages.append)
    state = torch.load(mae, weights_only=True)["model"]
    taken = sum(value.numel() for key, value in state.items() if key != "mask_token")
    assert messages[0].startswith(f"{mae}: {taken:,} parameters of the backbone; ")
    assert messages[0].endswith(" added parameters are initialized from seed 0")
    assert "of them outside the backbone" in messages[1]


def test_sizes_of_a_variant_are_built_around_the_backbone(mae):
    model = build_model(config(mae, sizes={"experts": 3, "top_k": 1}))
    assert (model.sizes.experts, model.sizes.top_k) == (3, 1)
    assert len(model.encoder.moas[0].prompts.bank.adapters) == 3


def test_without_the_prefix_the_sizes_are_inferred_from_the_file(mae):
    model = build_model(config(mae, start=str(mae)))
    assert (model.sizes.embed_dim, model.sizes.depth) == (SMALL.embed_dim, SMALL.depth)
    assert (model.sizes.num_heads, model.sizes.decoder_num_heads) == (
        1,
        2,
    )  # ViT's 64 channels a head, MAE's 32


def refusal(settings):
    with pytest.raises(InputError) as caught:
        build_model(settings)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_file_that_is_not_an_mae_is_refused(mae, tmp_path):
    file = tmp_path / "tcmoa.safetensors"
    save_weights(TCMoA(SMALL), file)
    assert refusal(config(file)) == f"{file}: a TC-MoA; expected an MAE backbone. Write start without 'mae:'."
    assert "no such weights file" in refusal(config(tmp_path / "none.pth"))


def test_an_mae_of_another_size_is_refused(tmp_path):
    state = to_published(TCMoA(Sizes(128, 4, 2, 64, 2, 2)))
    file = tmp_path / "mae.pth"
    torch.save({key: value for key, value in state.items() if not any(a in key for a in ADAPTED)}, file)
    assert "does not fit a custom TC-MoA; unexpected: blocks.2." in (message := refusal(config(file)))
    assert "misshapen: 'cls_token' is (1, 1, 128), expected (1, 1, 64)" in message


def test_sizes_that_do_not_fit_are_refused(mae, tmp_path):
    assert "[sizes] does not fit: tau is 3; expected an even number" in refusal(config(mae, sizes={"tau": 3}))
    assert "[sizes]: does not fit preset 'tiny': tau is 3; expected an even number" in refusal(
        config(mae, start="random", sizes={"tau": 3})
    )
    file = tmp_path / "tcmoa.safetensors"
    save_weights(TCMoA(SMALL), file)
    message = refusal(config(file, start=str(file), sizes={"experts": 2}))
    assert "trained with experts = 4, but the configuration has 2" in message
    assert build_model(config(file, start=str(file), sizes={"experts": 4})).sizes == SMALL


def test_a_run_leaves_the_backbone_as_the_file_has_it(mae, pairs, tmp_path):
    out = tmp_path / "run"
    text = CONFIG.replace('start = "random"', f'start = "mae:{mae}"\nfreeze_backbone = true')
    _, weights = train(pairs, out, text, rounds=2)
    stored, written = torch.load(mae, weights_only=True)["model"], to_published(load_weights(weights))
    assert all(torch.equal(written[key], value) for key, value in stored.items() if key != "mask_token")
    fresh = build_model(config(mae)).state_dict()
    trained = read_checkpoint(out)["model"]
    changed = {name for name, value in fresh.items() if not torch.equal(value, trained[name])}
    assert changed
    assert all(is_adapted(name) for name in changed)
