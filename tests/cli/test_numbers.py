"""Options that are numbers within bounds refuse all others, and say which."""

import pytest

from cellseg_d2.cli import analyze_errors, cross_validate, evaluate, infer, train_net, visualize

FILES = ("--predictions", "p.csv", "--ground-truth", "train.csv")
COMPARISON = ("comparison", *FILES, "--images", "images", "--output", "out")
ODD = ("-0.1", "nan", "inf")


@pytest.mark.parametrize(
    ("command", "given", "option", "value"),
    [
        *[(evaluate, FILES, "--score-threshold", value) for value in ODD],
        (evaluate, FILES, "--worst", "-1"),
        *[(analyze_errors, (*FILES, "--output", "out"), "--neighbour-distance", value) for value in ODD],
        *[(analyze_errors, (*FILES, "--output", "out"), "--score-threshold", value) for value in ODD],
        *[(analyze_errors, (*FILES, "--output", "out"), option, "-1") for option in ("--pictures", "--worst")],
        *[(visualize, COMPARISON, "--score-threshold", value) for value in ODD],
    ],
)
def test_numbers_out_of_their_bounds_are_refused(command, given, option, value, capsys):
    assert command.parse_args([*given, option, "0"])
    with pytest.raises(SystemExit) as stopped:
        command.parse_args([*given, option, value])
    assert stopped.value.code == 2
    bound = "at least 0" if value == "-1" else "at least 0 and finite"
    assert f"argument {option}: must be {bound}, not {value}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "given"),
    [
        (infer, ("--input", "i.png", "--output", "o")),
        (train_net, ("--config-file", "c.yaml")),
        (cross_validate, ("--config-file", "c.yaml", "--dataset", "d", "--folds", "2")),
    ],
)
@pytest.mark.parametrize("value", ["0", "-1"])
def test_there_is_no_work_without_a_process(command, given, value, capsys):
    assert command.parse_args([*given, "--num-gpus", "1"]).num_gpus == 1
    with pytest.raises(SystemExit) as stopped:
        command.parse_args([*given, "--num-gpus", value])
    assert stopped.value.code == 2
    assert f"argument --num-gpus: must be at least 1, not {value}" in capsys.readouterr().err
