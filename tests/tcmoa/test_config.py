"""Reading a run's configuration, and the one-line message about each error in it."""

import os
import re
from pathlib import Path

import pytest

import tcmoa
from tcmoa.config import Phase, read_config
from tcmoa.losses import PUBLISHED
from tcmoa_calibration.baselines import TEACHERS
from tcmoa_runtime.errors import InputError

PAIRS = '\n[pairs]\nvif = "vif"\n'


def written(folder, text):
    path = folder / "run.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_every_key_is_read_and_paths_start_at_the_files_folder(tmp_path):
    config = read_config(
        written(
            tmp_path,
            """
            preset = "tiny"
            start = "old.pth"
            freeze_backbone = true
            out = "here"
            seed = 3
            rounds = 40
            phases = [{ until = 0.5, crop = 112, batch = 4 }, { until = 1.0, crop = 224, batch = 1 }]
            lr = 1
            betas = [0.8, 0]
            [pairs]
            vif = "vif"
            mff = "/data/mff"
            [samples]
            mef = "shown"
            """,
        )
    )
    assert config.start == str(tmp_path / "old.pth")
    assert config.freeze_backbone is True
    assert config.out == tmp_path / "here"
    assert (config.seed, config.rounds, config.lr, config.betas) == (3, 40, 1.0, (0.8, 0.0))
    assert config.phases == (Phase(0.5, 112, 4), Phase(1.0, 224, 1))
    assert config.pairs == {"vif": tmp_path / "vif", "mff": Path("/data/mff")}
    assert config.samples == {"mef": tmp_path / "shown"}


@pytest.mark.parametrize("start", ["fusion", "fusion-held", "random"])
def test_named_starts_are_not_paths(tmp_path, start):
    assert read_config(written(tmp_path, f'start = "{start}"{PAIRS}')).start == start


def test_loss_weights_are_read_for_the_tasks_that_have_them(tmp_path):
    text = f"{PAIRS}[losses.vif]\nssim = 4\nedges = 0.5\nprompts = 0.1\n[losses.mff]\npixel_sharper = 1.0\n"
    config = read_config(written(tmp_path, text))
    losses = config.losses
    assert losses == {"vif": {"ssim": 4.0, "edges": 0.5, "prompts": 0.1}, "mff": {"pixel_sharper": 1.0}}
    assert config.image_losses("vif") == {"ssim": 4.0, "edges": 0.5}
    assert config.image_losses("mef") == PUBLISHED["mef"]
    assert [config.regularizer_weight(task) for task in ("vif", "mef", "mff")] == [0.1, 1.8, 1.0]
    alone = read_config(written(tmp_path, f"{PAIRS}[losses.vif]\nprompts = 0\n"))
    assert (alone.image_losses("vif"), alone.regularizer_weight("vif")) == (PUBLISHED["vif"], 0.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[losses.vif]\nsharpness = 1.0\n",
            r"unknown key 'sharpness' in \[losses.vif\]; expected one of chroma_x, edges",
        ),
        ("[losses.vif]\nssim = -1.0\n", "'losses.vif.ssim' is -1.0; expected 0 or more"),
        ("[losses.vif]\nssim = 'much'\n", "'losses.vif.ssim' is 'much'; expected a value of type float"),
        ("[losses.medical]\nssim = 1.0\n", "expected a table of weights for vif, mef, mff"),
        ("[losses]\nvif = 1.0\n", "expected a table of weights for vif, mef, mff"),
    ],
)
def test_wrong_loss_weights_are_named(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read_config(written(tmp_path, PAIRS + text))


def test_a_configuration_converts_to_json(tmp_path):
    plain = read_config(written(tmp_path, f'out = "o"{PAIRS}')).to_dict()
    assert plain["out"] == str(tmp_path / "o")
    assert plain["phases"] == [{"until": 1.0, "crop": 112, "batch": 5}]
    assert plain["betas"] == [0.9, 0.95]


@pytest.mark.parametrize(("preset", "start"), [("nano", "fusion"), ("tiny", "fusion-held")])
def test_the_shipped_recipes_imitate_a_teacher_in_each_task(preset, start):
    config = read_config(Path(tcmoa.__file__).parent / "configs" / f"{preset}.toml")
    assert (config.preset, config.start, config.amp) == (preset, start, "bf16")
    assert config.teachers == {"vif": "activity", "mef": "exposure-local", "mff": "focus"}
    assert set(config.teachers.values()) <= TEACHERS.keys()
    assert list(config.pairs) == ["vif", "mef", "mff"]
    for task in config.pairs:
        assert config.image_losses(task) == {}
        assert config.teacher_losses(task) == {"teacher": 10.0, "teacher_prediction": 3.0}
        assert config.regularizer_weight(task) == 0.3
    assert config.phases == (Phase(1.0, 320, 2),)


def test_a_task_with_a_teacher_has_other_losses_than_published_ones(tmp_path):
    text = f'{PAIRS}mef = "mef"\n[teachers]\nvif = "activity"\n[losses.vif]\nteacher = 2\nssim = 0.5\n'
    config = read_config(written(tmp_path, text))
    assert config.teachers == {"vif": "activity"}
    assert config.image_losses("vif") == {"ssim": 0.5}
    assert config.teacher_losses("vif") == {"teacher": 2.0, "teacher_prediction": 3.0}
    assert (config.image_losses("mef"), config.teacher_losses("mef")) == (PUBLISHED["mef"], {})
    child = tmp_path / "child.toml"
    child.write_text('extends = "run.toml"\n[teachers]\nmef = "exposure"\n')
    assert read_config(child).teachers == {"vif": "activity", "mef": "exposure"}


@pytest.mark.parametrize(
    ("text", "key", "expected"),
    [
        (
            "leraning_rate = 1",
            "'leraning_rate'",
            "expected one of adaptation, amp, averaging_rounds, balance, ",
        ),
        ('rounds = "many"', "'rounds'", "type int"),
        ("rounds = 3.5", "'rounds'", "type int"),
        ("rounds = true", "'rounds'", "type int"),
        ("rounds = 0", "'rounds'", "a positive number"),
        ("lr = -1.0", "'lr'", "a positive number"),
        ("lr = nan", "'lr'", "a positive number"),
        ("freeze_backbone = 1", "'freeze_backbone'", "type bool"),
        ("preset = 7", "'preset'", "type str"),
        ('preset = "huge"', "'preset'", "one of base, large, tiny"),
        ("out = 7", "'out'", "type str"),
        ("seed = -1", "'seed'", "0 or more"),
        ("threads = -1", "'threads'", "0 or more"),
        ("weight_decay = -0.1", "'weight_decay'", "0 or more"),
        ("moa_lr_factor = -1.0", "'moa_lr_factor'", "0 or more"),
        ("prompt_lr_factor = -1.0", "'prompt_lr_factor'", "0 or more"),
        ('train_for = "int8"', "'train_for'", "one of fp32, fp16, bf16"),
        ("ema = 1.0", "'ema'", "0 to below 1"),
        ("synthetic = 1.5", "'synthetic'", "0 to 1"),
        ("tones = -0.5", "'tones'", "0 to 1"),
        ("exchanges = 2", "'exchanges'", "0 to 1"),
        ("twins = 1.5", "'twins'", "0 to 1"),
        ("steering = -1", "'steering'", "0 to 1"),
        ("teachers = 3", "[teachers]", "names for vif, mef, mff"),
        ("teachers = { irv = 'activity' }", "[teachers]", "names for vif, mef, mff"),
        ("teachers = { vif = 1 }", "'teachers.vif'", "type str"),
        (
            "losses = { mef = { teacher = 1.0 } }",
            "'losses.mef.teacher' without a teacher",
            "mef in the table [teachers]",
        ),
        ("checkpoint_every = 0", "'checkpoint_every'", "a positive number"),
        ("sample_every = -2", "'sample_every'", "a positive number"),
        ("betas = 0.9", "'betas'", "two numbers"),
        ("betas = [0.9]", "'betas'", "two numbers"),
        ('betas = [0.9, "b"]', "'betas'", "type float"),
        ("betas = [0.9, [1]]", "'betas'", "type float"),
        ("betas = [0.9, 1.0]", "'betas'", "two numbers from 0 to below 1"),
        ("seed = 99999999999999999999", "'seed'", "is 99999999999999999999; expected a number up to 1e+12"),
        (
            f"rounds = {'9' * 400}",
            "'rounds'",
            "is 99999999999999999999... (400 characters); expected a number up to",
        ),
        ("lr = 1e999", "'lr'", "is inf; expected a number up to 1e+12"),
        ("phases = [{ until = 1.0, crop = 1000000000, batch = 1 }]", "'phases'", "at most 8192 and 65536"),
        ("phases = [{ until = 1.0, crop = inf, batch = 1 }]", "'phases'", "until, crop, batch"),
        ("phases = 5", "'phases'", "until, crop, batch"),
        ("phases = [{ until = 1.0, crop = 112 }]", "'phases'", "until, crop, batch"),
        ('phases = [{ until = 1.0, crop = "x", batch = 1 }]', "'phases'", "until, crop, batch"),
        ("phases = []", "'phases'", "rising 'until' that end with 1.0"),
        ("phases = [{ until = 0.5, crop = 112, batch = 1 }]", "'phases'", "end with 1.0"),
        ("phases = [{ until = 1.0, crop = 112, batch = 0 }]", "'phases'", "a batch of at least 1"),
        (
            "phases = [{ until = 1.0, crop = 112, batch = 1 }, { until = 0.5, crop = 112, batch = 1 }]",
            "'phases'",
            "rising 'until'",
        ),
        ("steps = 4", "[steps]", "numbers for vif, mef, mff"),
        ("steps = { irv = 4 }", "[steps]", "numbers for vif, mef, mff"),
        ("steps = { vif = 0 }", "'steps.vif'", "1 or more"),
        ("steps = { vif = 1.5 }", "'steps.vif'", "type int"),
        ("samples = 3", "[samples]", "folders for vif, mef, mff"),
        ('samples = { irv = "x" }', "[samples]", "folders for vif, mef, mff"),
        ("samples = { vif = 3 }", "[samples]", "folders for vif, mef, mff"),
        ('"two\\nlines" = 1', "'two\\nlines'", "expected one of"),
    ],
)
def test_a_wrong_key_is_named_in_one_line(tmp_path, text, key, expected):
    path = written(tmp_path, text + PAIRS)
    message = refusal(path)
    assert key in message
    assert expected in message


def refusal(path):
    """The one line with which `path` is refused."""
    with pytest.raises(InputError) as caught:
        read_config(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    return message


@pytest.mark.parametrize("text", ["rounds = 3", "[pairs]", "pairs = {}"])
def test_pairs_must_be_given(tmp_path, text):
    assert "[pairs] is missing; expected a folder for each of vif, mef, mff" in refusal(
        written(tmp_path, text)
    )


@pytest.mark.parametrize("text", ["pairs = 3", '[pairs]\nirv = "x"', "[pairs]\nvif = 3"])
def test_pairs_must_be_folders_of_known_tasks(tmp_path, text):
    assert re.search(r"\[pairs\] (is|of vif: 3 is)", refusal(written(tmp_path, text)))


def test_files_that_are_not_toml_are_refused(tmp_path):
    assert "cannot be read: No such file" in refusal(tmp_path / "absent.toml")
    assert "cannot be read: a folder; expected a regular file" in refusal(tmp_path)
    assert "not valid TOML" in refusal(written(tmp_path, "rounds = = 3"))
    (tmp_path / "run.toml").write_bytes(b"rounds = 3 # \xff")
    assert "not valid TOML" in refusal(tmp_path / "run.toml")


def test_a_file_that_is_nested_too_deeply_is_refused(tmp_path):
    (tmp_path / "deep.toml").write_text(f"x = {'[' * 100_000}")
    with pytest.raises(InputError) as caught:
        read_config(tmp_path / "deep.toml")
    assert str(caught.value) == f"{tmp_path}/deep.toml: nested too deeply; expected a configuration"


def test_a_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.toml")
    with pytest.raises(InputError) as caught:
        read_config(tmp_path / "pipe.toml")
    assert str(caught.value) == (
        f"{tmp_path}/pipe.toml: cannot be read: a named pipe; expected a regular file"
    )
