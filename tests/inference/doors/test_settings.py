"""Flags as settings: what the parser has is what platforms offer, and what they hand over is what the parser gets."""

from __future__ import annotations

import pytest

from inference.command import cli
from inference.doors import kaapana, monai_deploy
from inference.doors.settings import NAMED, PLATFORMS_OWN, Setting, flags, settings

SEG = {**NAMED, "--format": "seg"}


def test_every_flag_is_offered_or_the_platforms_own() -> None:
    offered = {one.flag for one in settings({})}
    named = {name for action in cli.parser()._actions for name in action.option_strings if name.startswith("--")}
    assert offered | PLATFORMS_OWN == named and not offered & PLATFORMS_OWN
    for defaults in (monai_deploy.DEFAULTS, kaapana.DEFAULTS):
        assert defaults.keys() <= offered
        assert {one.flag: one.default for one in settings(defaults)}.items() >= defaults.items()


def test_nothing_asked_for_is_the_command_without_flags() -> None:
    empty = {one.variable: " " for one in settings({})}
    assert flags(empty, {}) == flags({}, {}) == own_defaults()
    assert cli.parse(["in", "out", *own_defaults()]) == cli.parse(["in", "out"])
    assert set(flags({"VISCERA_FORMAT": ""}, SEG)) == {*own_defaults(), "--format=seg", "--name-by=SeriesInstanceUID"}


def own_defaults() -> list[str]:
    return [f"{one.flag}={one.default}" for one in settings({}) if one.default and not one.is_switch]


@pytest.mark.parametrize("one", settings({}), ids=lambda one: one.name)
def test_every_choice_is_understood_by_the_command(one: Setting) -> None:
    for value in one.choices:
        asked = flags({one.variable: value}, {})
        own = [] if value in ("", "false") else [one.flag if value == "true" else f"{one.flag}={value}"]
        assert cli.parse(["in", "out", *asked]) == cli.parse(["in", "out", *own])


def test_values_reach_the_command() -> None:
    asked = flags({"VISCERA_FIX_ORIENTATION": "true", "VISCERA_STEP": "0.3", "VISCERA_NETWORKS": "organ,tumor"}, SEG)
    request = cli.parse(["in", "out", *asked])
    assert request.options.fix_orientation and request.options.step == 0.3
    assert request.options.networks == ("organ", "tumor")
    as_python = flags({"VISCERA_TTA": "True", "VISCERA_ANONYMOUS": "False"}, SEG)
    assert "--tta" in as_python and "--anonymous" not in as_python
    assert request.formats == ("seg.dcm",) and request.name_by == "SeriesInstanceUID"


@pytest.mark.parametrize(
    ("variables", "cause"),
    [
        ({"VISCERA_PRECISON": "f32"}, "there is no setting VISCERA_PRECISON: VISCERA_DEVICE, "),
        ({"VISCERA_WEIGHTS": "/x"}, "there is no setting VISCERA_WEIGHTS"),
        ({"VISCERA_TTA": "maybe"}, "VISCERA_TTA is 'maybe', neither true nor false"),
    ],
)
def test_what_is_not_understood_is_refused(variables: dict[str, str], cause: str) -> None:
    with pytest.raises(ValueError, match=cause):
        flags(variables, {})


def test_a_value_is_never_another_flag() -> None:
    """Whoever sets a variable sets that flag only."""
    (asked,) = [one for one in flags({"VISCERA_NETWORKS": "--weights=/x"}, {}) if "weights" in one]
    assert asked == "--networks=--weights=/x"
    assert cli.parse(["in", "out", asked]).options.weights == cli.parse(["in", "out"]).options.weights


def test_variables_of_others_are_left_alone() -> None:
    services = {
        "VISCERA_SERVICE_HOST": "10.0.0.1", "VISCERA_SERVICE_PORT": "80", "VISCERA_SERVICE_PORT_HTTP": "80",
        "VISCERA_PORT": "tcp://10.0.0.1:80", "VISCERA_PORT_80_TCP": "tcp://10.0.0.1:80",
        "VISCERA_PORT_80_TCP_ADDR": "10.0.0.1", "VISCERA_WEB_UI_SERVICE_HOST": "10.0.0.2",
    }  # fmt: skip
    assert flags({"PATH": "/bin", **services}, {}) == own_defaults()
    for name in ("VISCERA_PORTS", "VISCERA_SERVICE"):
        with pytest.raises(ValueError, match=f"there is no setting {name}"):
            flags({name: "1"}, {})
