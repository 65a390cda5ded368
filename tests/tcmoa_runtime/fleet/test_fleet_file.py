"""fleet.toml: what it holds, and one line for each mistake in it."""

import math
import re
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path

import pytest

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.fleet.file import KEYS, FleetFile
from tcmoa_runtime.options.source import SourceOptions

ROOT = Path(__file__).parents[3]
PAIR = '[pairs.gate]\nbundle = "nano-vif"\nx = "rtsp://admin:secret@10.0.0.1/v"\ny = "rtsp://10.0.0.1/t"\n'


@pytest.fixture
def read(tmp_path):
    """Function that reads a text as fleet.toml."""

    def read_text(text):
        path = tmp_path / "fleet.toml"
        path.write_text(text)
        return FleetFile.read(path)

    return read_text


@pytest.fixture
def refusal(read, tmp_path):
    """Function that returns the one line with which a text is refused, without the folder."""

    def refuse(text):
        with pytest.raises(InputError) as caught:
            read(text)
        return str(caught.value).replace(f"{tmp_path}/", "")

    return refuse


def test_a_pair_takes_the_defaults_and_the_options_of_a_stream(read, tmp_path):
    fleet = read(
        'name = "yard"\n[defaults]\nbundle = "night"\nx = "rtsp://cam-{pair}/v"\nout = "/video/{pair}-{time}.mkv"\n'
        'deflicker = 0.5\nreconnect = inf\nrate = "30000/1001"\nbackend = "onnxruntime"\nprompt_shift = "mask.png"\n'
        '[pairs.gate]\ny = "rtsp://10.0.0.1/t"\noffset = "auto"\ndeflicker = 1\nstretch = [2, 98]\ngpus = 0.5\n'
        'option_x = {rtsp_transport = "tcp"}\nlabels = {zone = "north"}\nout = ["a-{time}.mp4", "srt://10.0.0.9:9000"]\n'
        'log = "log/{pair}-{time}.jsonl"\ncpus = 2.5\n'
        '[pairs.roof]\ny = "/dev/video0"\nthreads = 3\npage = "off"\nrestart = "always"\n'
    )
    assert (fleet.name, list(fleet.pairs)) == ("yard", ["gate", "roof"])
    gate, roof = fleet.pairs.values()
    assert gate.setup.bundle == tmp_path / "night"
    assert (gate.setup.x, roof.setup.x) == ("rtsp://cam-gate/v", "rtsp://cam-roof/v")
    assert (gate.setup.stream.deflicker, roof.setup.stream.deflicker) == (1.0, 0.5)
    assert gate.setup.stream.offset == "auto"
    assert gate.setup.sources.reconnect == math.inf
    assert gate.setup.sources.rate == Fraction(30000, 1001)
    assert gate.setup.stream_options.source_x.ffmpeg == {"rtsp_transport": "tcp"}
    assert gate.setup.stream_options.source_x.stretch == (2, 98)
    assert gate.setup.fuser.backend == "onnxruntime"
    assert gate.setup.fuser.prompt_shift == tmp_path / "mask.png"
    assert (gate.setup.fuser.threads, roof.setup.fuser.threads) == (2, 3)
    assert (gate.options.gpus, gate.options.labels) == (0.5, {"zone": "north"})
    assert (roof.options.page, roof.options.restart) == ("off", "always")
    assert gate.setup.outs == (f"{tmp_path}/a-{{time}}.mp4", "srt://10.0.0.9:9000")
    started = gate.setup.started_at(datetime(2026, 1, 31, 14, 25, 1, tzinfo=UTC))
    assert started.outs == (f"{tmp_path}/a-20260131T142501Z.mp4", "srt://10.0.0.9:9000")
    assert started.log == tmp_path / "log/gate-20260131T142501Z.jsonl"
    assert roof.setup.outs == ("/video/roof-{time}.mkv",)


def test_the_name_of_a_fleet_is_that_of_its_file(read):
    fleet = read(PAIR)
    assert fleet.name == "fleet"
    assert str(fleet.pairs["gate"].setup.bundle) == "nano-vif"


def test_a_digest_changes_with_what_runs_and_not_with_how_it_is_written(read):
    digest = read(PAIR).pairs["gate"].digest
    assert read(f"{PAIR}hold = 2\n").pairs["gate"].digest == digest  # the default
    assert read(f'[defaults]\nbundle = "nano-mef"\n{PAIR}').pairs["gate"].digest == digest
    for line in ("hold = 3", "cpus = 2", 'page = "off"', 'labels = {zone = "a"}', 'out = "/v/{time}.mkv"'):
        assert read(f"{PAIR}{line}\n").pairs["gate"].digest != digest, line


def test_every_option_of_a_source_that_is_documented_is_a_key():
    assert {"live", "realtime", "rate", "reconnect"} <= set(KEYS)
    assert len(KEYS) == len(set(KEYS))
    assert SourceOptions().raw is None  # stdin: not a key
    assert not {"raw", "raw_x", "raw_y"} & set(KEYS)


def test_the_example_is_read():
    fleet = FleetFile.read(ROOT / "examples" / "fleet.toml")
    assert fleet.name == "yard"
    assert len(fleet.pairs) >= 2


def test_the_fleet_without_cameras_is_read():
    fleet = FleetFile.read(ROOT / "examples" / "fleet_simulated.toml")
    assert all(pair.setup.x == "simulated://x" and not pair.setup.outs for pair in fleet.pairs.values())


def test_the_fleet_of_the_guide_is_read(read):
    guide = (ROOT / "docs" / "guides" / "fleet.md").read_text()
    (block,) = re.findall(r"```toml\n(.*?)```", guide, flags=re.DOTALL)
    assert list(read(block).pairs) == ["gate", "roof"]
    table = guide.partition("| key |")[2].partition("\n\n")[0]
    keys = {key for row in table.splitlines() for key in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert {"bundle", "x", "y", "out", "log", "cpus", "token"} <= keys <= set(KEYS)


LINES = {
    "x = 1": "fleet.toml: 'x' is no key of a fleet; expected name, defaults or pairs.",
    "": "fleet.toml: no pairs; expected a table for each pair of cameras, e.g. [pairs.gate].",
    "[pairs]": "fleet.toml: no pairs; expected a table for each pair of cameras, e.g. [pairs.gate].",
    "pairs = 1": "fleet.toml: pairs: 1; expected a table.",
    "[pair.gate]": "fleet.toml: 'pair' is no key of a fleet; expected name, defaults or pairs.",
    "[cameras]": "fleet.toml: 'cameras' is no key of a fleet; expected name, defaults or pairs.",
    'name = "a b"\n': "fleet.toml: name: 'a b'; expected a name of letters, digits, - _ and .",
    "name = 3\n": "fleet.toml: name: 3; expected a name of letters, digits, - _ and .",
    '[pairs."a/b"]': "fleet.toml: pairs: 'a/b'; expected a name of letters, digits, - _ and .",
    "[pairs.gate]": "fleet.toml: pairs.gate: no bundle; expected it in this table or in [defaults].",
    "[defaults]\ndeflickr = 1\n": "fleet.toml: defaults: 'deflickr' is no option; expected e.g. 'deflicker'.",
    f"{PAIR}prompt-scale = 1": "fleet.toml: pairs.gate: 'prompt-scale' is no option; expected e.g. 'prompt_scale'.",
    f'{PAIR}log = ""': "fleet.toml: pairs.gate: log: ''; expected a path, a name or a URL.",
    f"{PAIR}prompt_shift = 17": "fleet.toml: pairs.gate: prompt_shift: 17; expected -16 to 16.",
    '[defaults]\nx = ""\n': "fleet.toml: defaults: x: ''; expected a path, a name or a URL.",
    f"{PAIR}zzz = 1": "fleet.toml: pairs.gate: 'zzz' is no option; expected the name of an option.",
    f'{PAIR}raw_x = "640x480:gray"': "fleet.toml: pairs.gate: 'raw_x' is for stdin, which a stream of a fleet cannot "
    "read.",
    f'{PAIR}deflicker = "1"': "fleet.toml: pairs.gate: deflicker: '1'; expected a number.",
    f"{PAIR}deflicker = true": "fleet.toml: pairs.gate: deflicker: True; expected a number.",
    f"{PAIR}deflicker = -1": "fleet.toml: pairs.gate: deflicker: -1.0; expected seconds, 0.01 or more.",
    f"{PAIR}offset = nan": "fleet.toml: pairs.gate: offset: nan; expected a number or one of auto, timestamps.",
    f'{PAIR}offset = "now"': "fleet.toml: pairs.gate: offset: 'now'; expected seconds, auto or timestamps.",
    f'{PAIR}lead = "z"': "fleet.toml: pairs.gate: lead: 'z'; expected one of x, y.",
    f'{PAIR}backend = "cuda"': "fleet.toml: pairs.gate: backend: 'cuda'; expected one of auto, ",
    f'{PAIR}rate = "fast"': "fleet.toml: pairs.gate: rate: 'fast'; expected frames per second, e.g. 25 or "
    "'30000/1001'.",
    f"{PAIR}rate = 0": "fleet.toml: pairs.gate: rate: 0; expected more than 0 frames per second.",
    f"{PAIR}stretch = [1]": "fleet.toml: pairs.gate: stretch: [1]; expected two numbers, e.g. [1, 99].",
    f"{PAIR}frames = 1.5": "fleet.toml: pairs.gate: frames: 1.5; expected a whole number.",
    f"{PAIR}realtime = 1": "fleet.toml: pairs.gate: realtime: 1; expected true or false.",
    f"{PAIR}copy_x = 1": "fleet.toml: pairs.gate: copy_x: 1; expected true or false.",
    f"{PAIR}option_x = [1]": "fleet.toml: pairs.gate: option_x: [1]; expected a string, or a list of strings.",
    f'{PAIR}option_x = "tcp"': "fleet.toml: pairs.gate: option_x: 'tcp'; expected NAME=VALUE.",
    f'{PAIR}prompt_shift = "more"': "fleet.toml: pairs.gate: prompt_shift: 'more'; expected a number or the path of a "
    "mask, e.g. mask.png.",
    f'{PAIR}codec = "h264"\nencoder = "libx264"': "fleet.toml: pairs.gate: encoder: codec h264 and encoder libx264; "
    "expected one of the two. Leave codec out.",
    f"{PAIR}cpus = -1": "fleet.toml: pairs.gate: cpus: -1; expected 0 to 1024.",
    f"{PAIR}cpus = nan": "fleet.toml: pairs.gate: cpus: nan; expected a number.",
    f"{PAIR}gpus = 1.5": "fleet.toml: pairs.gate: gpus: 1.5; expected a whole number, or less than 1 to share a GPU.",
    f"{PAIR}labels = {{zone = 1}}": "fleet.toml: pairs.gate: labels: {'zone': 1}; expected a table of strings, e.g. "
    "{zone = 'gate'}.",
    f'{PAIR}labels = {{"a b" = "c"}}': "fleet.toml: pairs.gate: labels: 'a b' = 'c'; expected names and values of "
    "letters, digits, - _ and .",
    f'{PAIR}restart = "on"': "fleet.toml: pairs.gate: restart: 'on'; expected one of failure, always, never.",
    f'{PAIR}page = "a:b:c:d/"': "fleet.toml: pairs.gate: page: 'a:b:c:d/'; expected HOST:PORT with a port of 0 to "
    "65535, e.g. 127.0.0.1:0, or off.",
    f'{PAIR}page = ""': "fleet.toml: pairs.gate: page: ''; expected HOST:PORT with a port of 0 to 65535, e.g. "
    "127.0.0.1:0, or off.",
    f'{PAIR}page = "OFF"': "fleet.toml: pairs.gate: page: 'OFF'; expected HOST:PORT, or off.",
    f'{PAIR}token = "abc"': "fleet.toml: pairs.gate: token: 3 characters; expected 8 or more, of letters, digits, "
    "- . _ and ~.",
    f'{PAIR}out = "-"': "fleet.toml: pairs.gate: out: '-'; expected files or URLs, because a stream of a fleet has "
    "neither stdout nor a screen.",
    f'{PAIR}out = "window"': "fleet.toml: pairs.gate: out: 'window'; expected files or URLs",
    f'{PAIR}out = "/v/a.mkv"': "fleet.toml: pairs.gate: out: '/v/a.mkv' would be overwritten by each restart; expected "
    "a name with {time}, e.g. '/v/a-{time}.mkv'.",
    f'{PAIR}out = "frames/"': "fleet.toml: pairs.gate: out: 'frames/' would be overwritten by each restart; expected a "
    "name with {time}, e.g. 'frames/{time}/'.",
    f'{PAIR}out = "f/%06d.png"': "fleet.toml: pairs.gate: out: 'f/%06d.png' would be overwritten by each restart; "
    "expected a name with {time}, e.g. 'f/{time}/%06d.png'.",
    f'{PAIR}log = "a.jsonl"': "fleet.toml: pairs.gate: log: 'a.jsonl' would be overwritten by each restart; expected "
    "a name with {time}, e.g. 'a-{time}.jsonl'.",
    f'{PAIR}out = "/v/{{pear}}.mkv"': "fleet.toml: pairs.gate: out: {pear} in '/v/{pear}.mkv'; expected {pair} or "
    "{time}.",
    PAIR.replace(
        "rtsp://10.0.0.1/t", "-"
    ): "fleet.toml: pairs.gate: y: stdin (-), which a stream of a fleet cannot read.",
    PAIR.replace(
        "/t", "/{time}"
    ): "fleet.toml: pairs.gate: y: {time} in 'rtsp://10.0.0.1/{time}'; expected {pair}.",
    f'[defaults]\nout = "/v/{{time}}.mkv"\n{PAIR}{PAIR.replace("gate", "roof")}': "fleet.toml: pairs.roof: "
    "/v/{time}.mkv is an output of pairs.gate, too; expected another one for each, e.g. with {pair}.",
}


@pytest.mark.parametrize("text", LINES, ids=range(len(LINES)))
def test_a_mistake_is_one_line(text, refusal):
    line = refusal(text)
    assert line.startswith(LINES[text].rstrip(".")), line
    assert "\n" not in line


def test_what_is_not_toml_is_one_line(refusal, tmp_path):
    line = refusal("[pairs.gate\n")
    assert line.startswith("fleet.toml: not TOML (")
    assert line.endswith("expected lines such as [pairs.gate]")
    with pytest.raises(InputError, match=r"none\.toml: cannot be read: No such file or directory"):
        FleetFile.read(tmp_path / "none.toml")


@pytest.mark.parametrize(
    "text",
    [
        PAIR.replace('x = "rtsp', 'x = ["rtsp').replace('/v"', '/v"]'),
        PAIR.replace("/v", "/{when}"),
        f'{PAIR}out = ["rtsp://u:secret@h/o", "rtsp://u:secret@h/o"]',
        PAIR.replace("[pairs.gate]", "pairs.gate ="),
    ],
)
def test_no_message_shows_a_password(text, refusal):
    line = refusal(text)
    assert "secret" not in line
