"""Which of a foreign file's entries are a network's: by name and shape, under whatever prefixes their wrappers gave them, never by their order."""

from __future__ import annotations

import fnmatch
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from actkit.config import registry
from actkit.errors import InputError, nearest
from actkit.networks.shapes import Shapes

# From the words in which ACT, TRADES, RobustBench and their kin write their networks, to timm's.
Rules = list[tuple[str, Any]]

_RESNET: Rules = [(r"\bshortcut\.", "downsample."), (r"^linear\.", "fc.")]

# Pre-activation ResNets and WideResNets: timm's ResNetV2.
_PREACT: Rules = [
    (r"^conv1\.", "stem.conv."),
    (r"^(?:bn|bn1)\.", "norm."),
    (r"^(?:fc|linear)\.", "head.fc."),
    (r"^(?:block|layer)(\d)\.(?:layer\.)?(\d+)\.", lambda m: f"stages.{int(m[1]) - 1}.blocks.{m[2]}."),
    (r"(blocks\.\d+\.)bn(\d)\.", r"\1norm\2."),
    (r"(blocks\.\d+\.)(?:convShortcut|shortcut\.0)\.", r"\1downsample.conv."),
]

# What tools leave in a state dict that is no part of the network: a pattern of the name, and what it is.
_LEFTOVERS = [
    (r"(?:^|\.)attacker\.", "attacker.*", "which repeat the model's"),
    (r"(?:^|\.)sub_block1\.", "sub_block1.*", "which TRADES' first WideResNet declares and never uses"),
    (r"(?:^|\.)n_averaged$", "n_averaged", "which counts what a model is the average of"),
    (r"(?:^|\.)total_(?:ops|params)$", "total_ops and total_params", "which a profiler wrote"),
    (
        r"(?:^|\.)(?:criterion|crit|loss|loss_fn|loss_func|loss_function)\.|(?:^|\.)(?:class|loss)_weights?$",
        "criterion.*",
        "which belong to a loss",
    ),
    (r"(?:^|\.)(?:n|num)_classes$", "n_classes", "which counts the classes"),
    (
        r"^(?:.*\.)?(?:initted|global_step|step|epoch|num_updates|ema_decay)$",
        "counters",
        "which count steps of a training",
    ),
]


@dataclass(frozen=True)
class Choice:
    """What a user says of a file's entries: the prefix of the network's, what to leave out, and what to rename."""

    prefix: str | None = None
    ignore: Sequence[str] = ()
    rename: Sequence[tuple[str, str]] = ()


@dataclass
class Matched:
    """Their weights under our names, what is left of their entries, and notes of what was left out."""

    weights: dict[str, Tensor]
    rest: dict[str, Tensor]
    prefix: str
    notes: list[str] = field(default_factory=list)
    # Their name of each of ours.
    theirs: dict[str, str] = field(default_factory=dict)


def match(found: Mapping[str, Tensor], shapes: Shapes, choice: Choice, *, network: str, where: str) -> Matched:
    """Find the network's entries in a state dict. Raises `InputError` where some are missing, or where more than one set of them could be meant."""
    entries, notes = _kept(_renamed(found, choice.rename, where), choice.ignore, where)
    entries, more = _without_leftovers(entries, shapes)
    under = _by_prefix(entries, shapes)
    prefix, names, rest_of_copies = _chosen(under, entries, shapes, choice.prefix, network, where)
    notes += more
    used = {*names.values(), *(name for copy in rest_of_copies.values() for name in copy)}
    for other, copy in rest_of_copies.items():
        notes.append(f"left out {len(copy)} entries of {other}*, where there is the same network again")
    if prefix:
        notes.append(f"taken from under the prefix {prefix!r}")
    weights = {ours: entries[theirs] for ours, theirs in names.items()}
    rest = {name: value for name, value in entries.items() if name not in used}
    return Matched(weights, rest, prefix, notes, names)


def assert_nothing_left(rest: Mapping[str, Tensor], shapes: Shapes, where: str) -> None:
    """Raise `InputError`, naming them, for entries that are neither the network's nor known leftovers."""
    if not rest:
        return
    first = next(iter(rest))
    top = first.partition(".")[0]
    pattern = f"{top}.*" if "." in first else first
    raise InputError(
        f"{len(rest)} of its entries are unknown: {_some(rest, 8)}",
        where=where,
        help=f"--ignore '{pattern}' leaves out what is no part of the network; --rename OLD=NEW gives another name to what is",
    )


def _some(names: Mapping[str, Any] | Sequence[str], most: int) -> str:
    shown = ", ".join(itertools.islice(names, most))
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")


def _renamed(found: Mapping[str, Tensor], rename: Sequence[tuple[str, str]], where: str) -> dict[str, Tensor]:
    """The entries with the parts OLD of their dotted names called NEW."""
    entries = dict(found)
    for old, new in rename:
        part = re.compile(rf"(^|\.){re.escape(old.rstrip('.'))}(\.|$)")
        if not any(part.search(name) for name in entries):
            raise InputError(
                f"--rename {old}={new}: no entry has that part in its name", where=where, help=_near(old, entries)
            )
        inserted = new.rstrip(".")
        after = {name: part.sub(rf"\g<1>{inserted}\g<2>" if inserted else r"\g<1>", name) for name in entries}
        twice = [name for name, count in _counts(after.values()).items() if count > 1]
        if twice:
            raise InputError(f"--rename {old}={new} would call two entries {twice[0]!r}", where=where)
        entries = {after[name]: value for name, value in entries.items()}
    return entries


def _counts(names: Any) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return counts


def _near(word: str, names: Mapping[str, Any]) -> str | None:
    parts = {".".join(name.split(".")[:i]) for name in names for i in range(1, name.count(".") + 2)}
    return nearest(word.rstrip(".*"), parts, listing=False) or f"they are called {_some(names, 4)}"


def _kept(entries: dict[str, Tensor], ignore: Sequence[str], where: str) -> tuple[dict[str, Tensor], list[str]]:
    """The entries without those that the user leaves out."""
    notes = []
    for pattern in ignore:
        out = fnmatch.filter(entries, pattern)
        if not out:
            raise InputError(f"--ignore {pattern!r} matches no entry", where=where, help=_near(pattern, entries))
        entries = {name: value for name, value in entries.items() if name not in set(out)}
        notes.append(f"left out {len(out)} entries by --ignore {pattern!r}: {_some(out, 4)}")
    return entries, notes


def _without_leftovers(entries: dict[str, Tensor], shapes: Shapes) -> tuple[dict[str, Tensor], list[str]]:
    notes = []
    for pattern, called, what in _LEFTOVERS:
        matches = re.compile(pattern).search
        # A network may have such a name itself.
        if any(matches(name) for name in shapes.own):
            continue
        out = [name for name in entries if matches(name)]
        if out:
            entries = {name: value for name, value in entries.items() if not matches(name)}
            named = "" if "*" in called or len(out) > 4 else f" ({', '.join(out)})"
            notes.append(f"left out {len(out)} entries of {called}, {what}{named}")
    return entries, notes


def translated(name: str, shapes: Shapes, shape: Sequence[int]) -> tuple[str | None, bool]:
    """Our name for theirs (None: there is none), and whether a tensor of this shape can be it."""
    known: str | None = None
    for rules in ([], _RESNET, _PREACT):
        ours = name
        for pattern, replacement in rules:
            ours = re.sub(pattern, replacement, ours)
        if ours in shapes.own:
            if shapes.fits(ours, shape):
                return ours, True
            known = known or ours
    return known, False


@dataclass
class _Under:
    """What is found under a prefix: their names by ours, those that fit and those whose shape is another; and ours that two of theirs mean."""

    fitting: dict[str, str] = field(default_factory=dict)
    misshapen: dict[str, str] = field(default_factory=dict)
    twice: list[str] = field(default_factory=list)

    def lacks(self, shapes: Shapes) -> list[str]:
        return [name for name in shapes.needed() if name not in self.fitting]


def _by_prefix(entries: Mapping[str, Tensor], shapes: Shapes) -> dict[str, _Under]:
    found: dict[str, _Under] = {}
    for name, value in entries.items():
        parts = name.split(".")
        for cut in range(len(parts)):
            prefix = "".join(f"{part}." for part in parts[:cut])
            ours, fits = translated(".".join(parts[cut:]), shapes, value.shape)
            if ours is None:
                continue
            under = found.setdefault(prefix, _Under())
            if ours in under.fitting or ours in under.misshapen:
                under.twice.append(ours)
            (under.fitting if fits else under.misshapen)[ours] = name
    return dict(sorted(found.items(), key=lambda item: (item[0].count("."), item[0])))


def _chosen(
    under: dict[str, _Under],
    entries: Mapping[str, Tensor],
    shapes: Shapes,
    wanted: str | None,
    network: str,
    where: str,
) -> tuple[str, dict[str, str], dict[str, list[str]]]:
    """The prefix, their names by ours, and what other prefixes hold the same network, by prefix."""
    whole = {prefix: one for prefix, one in under.items() if not one.lacks(shapes)}
    if wanted is not None:
        inside = _of_prefix(wanted, under, entries, where)
        others = [prefix for prefix in whole if prefix not in inside]
        chosen = [prefix for prefix in whole if prefix in inside]
    else:
        inside, others, chosen = under, [], list(whole)
    if len(chosen) > 1:
        first, *more = chosen
        if not all(_same(whole[first], whole[other], entries) for other in more):
            raise InputError(
                f"the network's weights are in it under {len(chosen)} prefixes: {', '.join(map(repr, chosen))}",
                where=where,
                help=f"choose one with --prefix, such as --prefix {chosen[-1].rstrip('.') or first!r}",
            )
        chosen, others = [first], [*others, *more]
    if not chosen:
        prefix, names = _pieced(inside, under, entries, shapes, network, where)
        return prefix, names, {}
    (prefix,) = chosen
    _assert_once(whole[prefix], where)
    names = whole[prefix].fitting
    copies = {other: [n for n in whole[other].fitting.values() if n not in names.values()] for other in others}
    return prefix, names, {other: copy for other, copy in copies.items() if copy}


def _of_prefix(wanted: str, under: dict[str, _Under], entries: Mapping[str, Tensor], where: str) -> dict[str, _Under]:
    """What is under the prefix that the user names: DataParallel and others may have put their own behind it."""
    start = f"{wanted.rstrip('.')}." if wanted.rstrip(".") else ""
    if not any(name.startswith(start) for name in entries):
        raise InputError(f"no entry begins with the prefix {start!r}", where=where, help=_near(wanted, entries))
    if not start:
        return {"": under.get("", _Under())}
    return {prefix: one for prefix, one in under.items() if prefix.startswith(start)}


def _same(a: _Under, b: _Under, entries: Mapping[str, Tensor]) -> bool:
    return a.fitting.keys() == b.fitting.keys() and all(
        entries[a.fitting[name]].equal(entries[b.fitting[name]]) for name in a.fitting
    )


def _assert_once(one: _Under, where: str) -> None:
    if one.twice:
        raise InputError(
            f"two of its weights mean our {one.twice[0]!r}", where=where, help="--ignore PATTERN leaves one of them out"
        )


def _pieced(
    inside: dict[str, _Under],
    under: dict[str, _Under],
    entries: Mapping[str, Tensor],
    shapes: Shapes,
    network: str,
    where: str,
) -> tuple[str, dict[str, str]]:
    """A network of two pieces, such as encoder.* and a head beside it: where no other reading is possible.

    Args:
        inside: where its larger piece may be; the other may be anywhere in `under`.
    """
    best = sorted(inside, key=lambda prefix: (-len(inside[prefix].fitting), prefix.count(".")))
    if best:
        first, size = best[0], len(inside[best[0]].fitting)
        lacking = inside[first].lacks(shapes)
        heads = [p for p, one in under.items() if p != first and all(ours in one.fitting for ours in lacking)]
        if 2 * len(lacking) < len(shapes.needed()) and len(heads) == 1:
            _assert_one_piece([p for p in best if len(inside[p].fitting) == size], where)
            _assert_once(inside[first], where)
            head = {ours: theirs for ours, theirs in under[heads[0]].fitting.items() if ours in lacking}
            return first, {**inside[first].fitting, **head}
    raise _not_those_of(inside, entries, shapes, network, where)


def _assert_one_piece(prefixes: list[str], where: str) -> None:
    if len(prefixes) > 1:
        raise InputError(
            f"the network's weights but for its head are in it under {len(prefixes)} prefixes: {', '.join(map(repr, prefixes))}",
            where=where,
            help=f"choose one with --prefix, such as --prefix {prefixes[0].rstrip('.')}; --ignore leaves the other out",
        )


def _other_stem(network: str, given: tuple[int, ...]) -> str | None:
    """What to add where the first convolution is ImageNet's 7x7 and the network has the 3x3 of small images, or the other way round."""
    selector = network.partition("(")[0]
    stem = "imagenet" if given[2:] == (7, 7) else "cifar"
    if len(given) != 4 or "stem" not in registry.get(selector).parameters or f"stem={stem!r}" in network:
        return None
    return f"it may have the other stem: add -s {selector}.stem={stem}"


def _not_those_of(
    under: dict[str, _Under], entries: Mapping[str, Tensor], shapes: Shapes, network: str, where: str
) -> InputError:
    """What is wrong, said of the prefix under which most names are ours."""
    named = {prefix: len(one.fitting) + len(one.misshapen) for prefix, one in under.items()}
    prefix = max(named, key=lambda p: (named[p], -p.count("."))) if named else ""
    one = under.get(prefix, _Under())
    for ours, theirs in one.misshapen.items():
        given = tuple(entries[theirs].shape)
        return InputError(
            f"{theirs} has the shape {given}, {network} needs {shapes.shown(ours)}",
            where=where,
            help=_other_stem(network, given) or ARCH,
        )
    missing = one.lacks(shapes)
    strange = [name for name in entries if name not in one.fitting.values()]
    wrong = [(missing, "of ours are missing"), (strange, "of theirs are unknown")]
    parts = [f"{len(names)} {what}, such as {names[0]!r}" for names, what in wrong if names]
    return InputError(f"the weights are not those of {network}: {'; '.join(parts)}", where=where, help=ARCH)


ARCH = "choose another --arch (`actkit list backbone` shows them, and any of timm's names will do), or give names with --rename OLD=NEW"
