"""Flags of the command as settings of a platform, made from the command's own parser: there is no second list.

A platform hands a setting over as a variable of the environment, VISCERA_PLAN for --plan. It may be empty, which is as
if it were not there, and is "true" or "false" for flags without a value, in capitals or not.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from dataclasses import dataclass

from ..command import cli

PREFIX = "VISCERA_"
# The platform has cases, folders and networks in its own hands, and keeps no outputs from run to run.
PLATFORMS_OWN = {
    "--help",
    "--version",
    "--weights",
    "--case",
    "--scans",
    "--part",
    "--resume",
    "--scheduler",
    "--progress",
    "--json",
    "--layout",
}
# What Kubernetes tells every container of its services, one of which may be called viscera:
# kubernetes.io/docs/concepts/services-networking/service, "Environment variables".
ELSEWHERE = re.compile(rf"{PREFIX}(.+_)?(SERVICE_(HOST|PORT.*)|PORT(_[0-9]+_(TCP|UDP|SCTP).*)?)")
# A series has one name on every platform, that of its UID: folders of a container say nothing.
NAMED = {"--name-by": "SeriesInstanceUID"}
YES, NO = "true", "false"


@dataclass(frozen=True)
class Setting:
    """A flag that a platform may offer.

    flag       such as --name-by
    help       what it is for, one line
    choices    all values that it may have; none: any
    default    "" where the command decides
    is_switch  it has no value
    """

    flag: str
    help: str
    choices: tuple[str, ...]
    default: str
    is_switch: bool

    @property
    def variable(self) -> str:
        return PREFIX + self.name.upper()

    @property
    def name(self) -> str:
        """Such as name_by."""
        return self.flag.removeprefix("--").replace("-", "_")


def settings(defaults: Mapping[str, str]) -> list[Setting]:
    """All that may be offered; `defaults` of a platform by flag."""
    found = []
    for action in cli.parser()._actions:
        flag = next(iter(action.option_strings), "")
        if flag.startswith("--") and flag not in PLATFORMS_OWN:
            is_switch = action.nargs == 0
            own = NO if is_switch else str(action.default) if action.choices and action.default is not None else ""
            choices = (NO, YES) if is_switch else tuple(map(str, action.choices or ()))
            default = defaults.get(flag, own)
            if choices and default not in choices:
                choices = (default, *choices)
            found.append(Setting(flag, _one_line(action), choices, default, is_switch))
    return found


def flags(environment: Mapping[str, str], defaults: Mapping[str, str]) -> list[str]:
    """The command's flags that the environment asks for. Raises ValueError: a sentence."""
    known = settings(defaults)
    unknown = {one for one in environment if one.startswith(PREFIX)} - {one.variable for one in known}
    unknown = {one for one in unknown if not ELSEWHERE.fullmatch(one)}
    if unknown:
        raise ValueError(f"there is no setting {min(unknown)}: {', '.join(one.variable for one in known)}")
    found = []
    for one in known:
        value = environment.get(one.variable, "").strip() or one.default
        if not one.is_switch:
            found += [f"{one.flag}={value}"] if value else []
        elif value.lower() == YES:
            found.append(one.flag)
        elif value.lower() != NO:
            raise ValueError(f"{one.variable} is {value!r}, neither {YES} nor {NO}")
    return found


def _one_line(action: argparse.Action) -> str:
    return " ".join((action.help or "").split())
