"""Which modules of a base an adapter is for: the patterns of its config, resolved to names within a time limit.

A short pattern can take longer than anybody lives, and Python's `re` cannot be interrupted. So all patterns of an
adapter are matched in a process of their own, which is ended when its time is up.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from lmtasks.errors import AdapterError

SECONDS = 5
"""Time limit for all patterns of an adapter. Ordinary ones take milliseconds; the rest is for a busy machine."""
ALL_LINEAR = "all-linear"
"""The value of `target_modules` that stands for all linear layers but the head."""
MATCHER = """
import json, re, sys
asked = json.load(sys.stdin)
found = []
for field, pattern, how in asked["patterns"]:
    try:
        match = getattr(re.compile(pattern), how)
    except (re.error, OverflowError, RecursionError) as error:
        json.dump({"field": field, "error": str(error)}, sys.stdout)
        sys.exit()
    matches = map(match, asked["names"])
    found.append([match and (match.groupdict().get("idx") or "") for match in matches])
json.dump({"found": found}, sys.stdout)
"""
"""Prints for each pattern and name null, or the text of the group "idx" ("" where there is none)."""
LAYER = re.compile(r".*?\.[^.]*\.(?P<idx>\d+)\.")
"""Where the number of a layer stands, as peft has it."""
Value = TypeVar("Value", int, float)


@dataclass(frozen=True, slots=True)
class Targets:
    """The layers that an adapter is on, for peft, without a pattern."""

    modules: str | list[str]
    """Names, or ends of names; or "all-linear"."""
    exclude: list[str] | None = None
    layers: int | list[int] | None = None
    """Numbers of the layers that count, where `modules` are ends of names."""
    ranks: dict[str, int] = field(default_factory=dict)
    """Rank by name of a module, where it differs from the adapter's."""
    alphas: dict[str, float] = field(default_factory=dict)
    """Alpha by name of a module, where it differs from the adapter's."""

    def ranks_in_use(self, rank: int) -> set[int]:
        """Return the ranks of all targets, given the adapter's own."""
        if isinstance(self.modules, str) or not self.ranks:
            return {rank, *self.ranks.values()}
        return {self.ranks.get(name, rank) for name in self.modules}


def resolve(config: Mapping[str, Any], names: Sequence[str], *, where: str) -> Targets:
    """Return the layers that an adapter is on, with every regular expression replaced by what it matches.

    Args:
        config: the adapter's config, checked.
        names: the names of all modules of the base.
        where: the config's file, for messages.

    Raises:
        AdapterError: a pattern is no regular expression, takes too long, or matches no module.
    """
    target, exclude = config["target_modules"], config.get("exclude_modules") or []
    layers, layer_patterns = config.get("layers_to_transform"), config.get("layers_pattern") or []
    ranks, alphas = config.get("rank_pattern") or {}, config.get("alpha_pattern") or {}
    all_linear = isinstance(target, str) and target.lower() == ALL_LINEAR
    if isinstance(target, str) and layers is not None:
        raise AdapterError(
            f'{where}: "layers_to_transform" goes with a list of target_modules, not with "{target:.60}"'
        )
    if isinstance(layer_patterns, str):
        layer_patterns = [layer_patterns]
    # How peft matches them: see its `check_target_module_exists` and `get_pattern_key`.
    asked = [("target_modules", target, "fullmatch")] if isinstance(target, str) and not all_linear else []
    asked += [("exclude_modules", exclude, "fullmatch")] if isinstance(exclude, str) else []
    asked += [("layers_pattern", rf"(?:^|.*?\.){each}\.(?P<idx>\d+)\.", "match") for each in layer_patterns]
    asked += [("rank_pattern", rf"(.*\.)?({each})$", "match") for each in ranks]
    asked += [("alpha_pattern", rf"(.*\.)?({each})$", "match") for each in alphas]
    if not asked:
        return Targets(ALL_LINEAR if all_linear else target, exclude or None, layers)
    answers = iter(_match(asked, names, where))
    wanted = set(next(answers)) if isinstance(target, str) and not all_linear else None
    excluded = list(next(answers)) if isinstance(exclude, str) else exclude
    numbers = [next(answers) for _ in layer_patterns]
    by_rank, by_alpha = _first(ranks, answers), _first(alphas, answers)
    if all_linear:
        return Targets(ALL_LINEAR, excluded or None, None, by_rank, by_alpha)

    def is_target(name: str) -> bool:
        if is_named(name, exclude) if isinstance(exclude, list) else name in excluded:
            return False
        if wanted is not None:
            return name in wanted
        if name in target or layers in (None, []):
            return is_named(name, target)
        matched = LAYER.match(name)
        number = (
            next((table[name] for table in numbers if name in table), None) if numbers else matched and matched["idx"]
        )
        return (
            is_named(name, target)
            and number is not None
            and int(number) in ([layers] if isinstance(layers, int) else layers)
        )

    modules = [name for name in names if is_target(name)]
    if not modules:
        raise AdapterError(f'{where}: "target_modules" names no module of the model: {json.dumps(target):.100}')
    return Targets(modules, None, None, by_rank, by_alpha)


def pattern(table: Mapping[str, Value]) -> dict[str, Value]:
    """Return values by names of modules as peft takes them: by patterns, each of exactly these names."""
    grouped: dict[Value, list[str]] = {}
    for name, value in table.items():
        grouped.setdefault(value, []).append(re.escape(name))
    return {rf"\A(?:{'|'.join(names)})": value for value, names in grouped.items()}


def is_named(name: str, ends: Sequence[str]) -> bool:
    """Return whether a module has one of these names, or a name that ends with one of them."""
    return any(name == end or name.endswith(f".{end}") for end in ends)


def _first(values: Mapping[str, Value], answers: Iterator[Mapping[str, str]]) -> dict[str, Value]:
    """Return for each name the value of the first pattern that matches it."""
    table: dict[str, Value] = {}
    for value in values.values():
        for name in next(answers):
            table.setdefault(name, value)
    return table


def _match(asked: Sequence[tuple[str, str, str]], names: Sequence[str], where: str) -> list[dict[str, str]]:
    """Match patterns with names, in a process that is ended after a while.

    Args:
        asked: for each pattern the field that it stands in, itself, and how it is matched: "match" or "fullmatch".
        names: the names of modules.
        where: the config's file, for messages.

    Returns:
        For each pattern the names that it matches, each with what its group "idx" holds.

    Raises:
        AdapterError: a pattern is no regular expression, or takes too long.
    """
    fields = ", ".join(dict.fromkeys(f'"{name}"' for name, _, _ in asked))
    try:
        done = subprocess.run(  # noqa: S603 - the program is ours; the patterns are its data
            [sys.executable, "-I", "-S", "-c", MATCHER],
            input=json.dumps({"patterns": asked, "names": list(names)}),
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise AdapterError(
            f"{where}: the patterns in {fields} take longer than {SECONDS} s to match the modules of the model; write"
            " the names of the modules instead"
        ) from error
    if done.returncode != 0:
        raise AdapterError(
            f"{where}: the patterns in {fields} cannot be matched; write the names of the modules instead"
        )
    reply = json.loads(done.stdout)
    if "error" in reply:
        raise AdapterError(f'{where}: "{reply["field"]}" holds no valid regular expression ({reply["error"]:.200})')
    return [
        {name: match for name, match in zip(names, matches, strict=True) if match is not None}
        for matches in reply["found"]
    ]
