"""Mistyped options, choices and keys of every command are told with what was meant; settings may stand anywhere."""

import importlib
import re

import pytest

from cellseg_d2.cli import infer, train_net
from cellseg_d2.cli.commands import ALIASES, COMMANDS
from cellseg_d2.cli.parser import CommandParser, is_key
from cellseg_d2.config import load_config
from cellseg_d2.errors import CellSegError
from tests.cli.test_hostile_yaml import SUBCOMMANDS

CALLS = [[name, *filter(None, [sub])] for name in COMMANDS for sub in SUBCOMMANDS.get(name, ("",))]
PLAIN = ["--input", "a.png", "--output", "out"]
SETTINGS = ["TEST.POSTPROCESS.VOTE", "False", "SEED", "-1"]


def call(words, capsys):
    """Of a command: its exit code, and what it says on stdout and stderr."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(f"cellseg_d2.cli.{words[0].replace('-', '_')}").main(words[1:])
    return ended.value.code, *capsys.readouterr()


@pytest.mark.parametrize("words", CALLS, ids=" ".join)
def test_each_option_of_each_command_is_recognised_when_two_letters_change_places(words, capsys):
    options = set(re.findall(r"^  (--[a-z0-9-]{6,})", call([*words, "--help"], capsys)[1], re.MULTILINE))
    for option in options:
        mistyped = f"{option[:4]}{option[5]}{option[4]}{option[6:]}"
        if mistyped == option:
            continue
        code, printed, said = call([*words, mistyped, "1"], capsys)
        assert (code, printed) == (2, "")
        assert said.startswith(f"error: there is no option {mistyped}; did you mean --")
        assert len(said.splitlines()) == 1
        assert f"did you mean {option}?" in said


def test_choices_and_what_is_too_much(capsys):
    assert "did you mean comparison?" in call(["visualize", "comparisn"], capsys)[2]
    assert "did you mean geojson?" in call(["convert", "x", "--to", "geo-json", "--output", "y"], capsys)[2]
    assert "did you mean" not in call(["convert", "x", "--to", "qqq", "--output", "y"], capsys)[2]
    assert "not understood: b.csv" in call(["evaluate", "b.csv", "--predictions=a", "--ground-truth=b"], capsys)[2]


@pytest.mark.parametrize("place", range(len(PLAIN) // 2 + 1))
@pytest.mark.parametrize("written", [SETTINGS, ["TEST.POSTPROCESS.VOTE=False", "SEED=-1"]])
def test_settings_may_stand_anywhere(place, written):
    words = [*PLAIN[: 2 * place], *written, *PLAIN[2 * place :]]
    assert infer.parse_args([*words, "--save", "labels"]).opts == SETTINGS
    args = infer.parse_args(["--save", "labels", "csv", *words, "--score-threshold", "0.3", "0.5", "MODEL.WEIGHTS", ""])
    assert args.opts == [*SETTINGS, "MODEL.WEIGHTS", ""]
    assert (args.save, args.score_threshold) == (["labels", "csv"], [0.3, 0.5])


def test_options_behind_settings_are_options():
    args = train_net.parse_args(["SOLVER.MAX_ITER", "3", "--config-file", "f", "OUTPUT_DIR=a=b", "--resume"])
    assert args.opts == ["SOLVER.MAX_ITER", "3", "OUTPUT_DIR", "a=b"]
    assert (args.config_file, args.resume) == ("f", True)


@pytest.mark.parametrize("words", [["SEED"], ["SEED", "--resume"], ["SOLVER.MAX_ITER", "SEED", "3"]])
def test_a_key_without_a_value_is_named(words, capsys):
    code, _, said = call(["train-net", "--config-file", "f", *words], capsys)
    assert code == 2
    assert f"error: the key {words[0]} has no value" in said


def test_names_of_files_are_no_keys(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "TEST.TIF").touch()
    assert [is_key(word) for word in ("TEST.TIF", "A5.TIF", "IMAGES", "seed", "TEST", "a.TEST.B")] == [False] * 6
    assert [is_key(word) for word in ("TEST.TILE", "SOVLER.MAX_ITER", "SEED", "INPUT.X_Y.Z2")] == [True] * 4


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("TEST.POSTPROCES.VOTE", "TEST.POSTPROCESS.VOTE"),
        ("SOVLER.MAX_ITER", "SOLVER.MAX_ITER"),
        ("solver.max_iter", "SOLVER.MAX_ITER"),
    ],
)
def test_a_mistyped_key_is_told_with_what_was_meant(repository, tmp_path, key, meant):
    config = repository / "configs/quickstart/instant_test.yaml"
    with pytest.raises(CellSegError, match=rf"there is no key {key}; did you mean {meant}\?"):
        load_config(config, [key, "1"])
    first, *others = key.split(".")
    (tmp_path / "own.yaml").write_text(
        f"_BASE_: {config}\n{first}: {''.join(f'{{{name}: ' for name in others)}1{'}' * len(others)}\n"
    )
    with pytest.raises(CellSegError, match=rf"there is no key .*did you mean {meant.partition('.')[0]}"):
        load_config(tmp_path / "own.yaml")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("TEST.POSTPROCESS.DOUBTFUL_AREAS", "5", r"takes a list, such as \[0\], not 5"),
        ("SOLVER.MAX_ITER", "abc", r"takes a whole number, such as \d+, not abc"),
        ("SOLVER.BASE_LR", "[1]", r"takes a number, such as [\d.]+, not \[1\]"),
        ("SOLVER.EMA.ENABLED", "5", "takes True or False, such as False, not 5"),
        ("MODEL.WEIGHTS", "5", "takes a text, such as .*, not 5"),
        ("SOLVER.EMA", "5", "is a group of keys: name one of them, such as SOLVER.EMA.[A-Z]+"),
        ("TEST.SCALES", "None", r"takes a list, such as \[1.0\], not None"),
        ("SOLVER.MAX_ITER", "None", r"takes a whole number, such as \d+, not None"),
    ],
)
def test_a_value_of_a_wrong_type_is_told_in_plain_words(repository, tmp_path, key, value, said):
    config = repository / "configs/quickstart/instant_test.yaml"
    with pytest.raises(CellSegError, match=f"{key} {said}$"):
        load_config(config, [key, value])
    *groups, name = key.split(".")
    head = "".join(f"{'  ' * depth}{group}:\n" for depth, group in enumerate(groups))
    own = f"{'  ' * len(groups)}{name}: {value.replace('None', 'null')}\n"
    (tmp_path / "own.yaml").write_text(f"_BASE_: {config}\n{head}{own}")
    with pytest.raises(CellSegError, match=f"{key} {said}$"):
        load_config(tmp_path / "own.yaml")


@pytest.mark.parametrize(
    "words",
    [
        ["tune-postprocess", "--detections", "d", "--ground-truth", "g", "--output", "o"],
        ["train", "--images", "i", "--project", "p"],
        ["fit-anchors", "--json", "j"],
        ["visualize", "augmentations", "--config-file", "c", "--output", "o"],
        ["make-simulated", "--output", "o"],
        ["convert-to-coco", "--csv", "c", "--images", "i", "--output", "o"],
        ["shape-space", "train", "--json", "j", "--output", "o.safetensors"],
        ["benchmark", "mosaic"],
    ],
)
@pytest.mark.parametrize("seed", [-1, 2**31, 2**70])
def test_a_seed_that_not_all_generators_take_is_refused(words, seed, capsys):
    code, _, said = call([*words, "--seed", str(seed)], capsys)
    assert code == 2
    assert f"argument --seed: must be from 0 to 2147483647, not {seed}" in said


def test_without_settings_there_are_none():
    parser = CommandParser()
    parser.add_argument("words", nargs="*")
    args = parser.parse_args(["SEED", "3"])
    assert args.words == ["SEED", "3"]
    assert not hasattr(args, "opts")


def test_other_names_are_of_commands():
    assert set(ALIASES.values()) <= COMMANDS.keys()
    assert not ALIASES.keys() & COMMANDS.keys()
