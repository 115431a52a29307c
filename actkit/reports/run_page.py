"""The page of a single run: a verdict, what was trained and how it was measured in words, numbers with intervals, adversarial images, curves."""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from actkit.config.spec import Spec
from actkit.display import duration
from actkit.evaluation.summary import Summary
from actkit.probes.pictures import Picture
from actkit.reports import curves, tables, words
from actkit.reports.grids import Grid
from actkit.reports.html_page import Page, PageTable, Remark, Section, Tile
from actkit.reports.rows import UNVERIFIED
from actkit.reports.tables import Finished, table


def of_run(run: Finished) -> Page:
    """The page of one run."""
    summary = run.summary
    sections = [
        Section("Numbers", tables=[_numbers(summary)], folded=[_calls(run)]),
        *_seen(run),
        Section("What was trained", facts=_trained(run)),
        *_all_checks(summary),
        _again(run),
    ]
    data = {"table": tables.table_json(table([run])), "runs": {str(run.folder): summary.to_json()}}
    return Page(
        Path(run.facts.recipe).stem,
        _lead(run),
        [*_verdict(summary), *checks_of(run)],
        sections,
        data,
        tiles=_tiles(summary),
    )


# -- the verdict ---------------------------------------------------------------------------------------------------------


def _lead(run: Finished) -> str:
    """What was trained, on what, how long, against what."""
    objective, summary = run.spec.kwargs["objective"], run.summary
    roles = list(run.spec.kwargs.get("roles", {}))
    trained = f"the model{'s' if len(roles) > 1 else ''} {words.listed(roles)}"
    images = f"{summary.sizes['train']:,} images of {summary.data}" if "train" in summary.sizes else summary.data
    said = f"{words.method(objective)}: {trained}, trained on {images} for {_length(run)}"
    said += f", against {against}" if (against := _attacks(objective)) else ""
    times = _times(run)
    if "training" in times:
        said += f". The training took {times['training']}"
        said += f", the examination {times['examination']}" if "examination" in times else ""
        said += f" on {_machine(run)}"
    return f"{said}."


def _attacks(spec: Spec) -> str:
    return words.listed([f"{words.attack_name(a)} ({words.attack_words(a)})" for a in words.attacks_in(spec)])


def _length(run: Finished) -> str:
    facts, size = run.facts, run.spec.kwargs.get("batch_size")
    batches = f"{facts.steps:,} batches" + (f" of {size}" if size else "")
    chosen = f", the best of {facts.trained_epochs} by {facts.best}" if facts.best else ""
    return f"{facts.epochs} epoch{'s' if facts.epochs != 1 else ''} ({batches}{chosen})"


def _verdict(summary: Summary) -> Iterator[Remark]:
    if summary.headline is not None and (said := words.verdict(summary, summary.headline)):
        yield Remark("verdict", said)


def _tiles(summary: Summary) -> list[Tile]:
    """The headline model's numbers, large."""
    shown = words.numbers_of(summary, summary.headline) if summary.headline else []
    return [
        Tile(
            one.title,
            f"{100 * one.value:.1f} %" if one.in_percent else one.text,
            f"95 %: {one.share.interval_shown}" if one.share else "",
            one.allowed or ("no attack" if one.found.verified is None else ""),
            UNVERIFIED if one.found.unverified else "",
        )
        for one in shown[:6]
    ]


def checks_of(run: Finished, where: str = "") -> Iterator[Remark]:
    """What the checks of a run found: every red and yellow flag, the green ones counted with what they are worth; or that nothing was checked."""
    flags = run.summary.flags
    for model, own in flags.items():
        for level in ("red", "yellow"):
            texts = [f"{flag.check}: {flag.said}" for flag in own if flag.level == level]
            yield from (Remark(level, text, f"{where}{model}") for text in texts)
        if green := sum(flag.level == "green" for flag in own):
            text = f"{green} of {len(own)} checks for gradient masking found nothing"
            thin = words.thin_evidence(run.summary, model)
            said = f"{text}. That says little: {thin}." if thin else text
            yield Remark("yellow" if thin else "green", said, f"{where}{model}")
    shown = {f"{model}, {flag.check}: {flag.said}" for model, own in flags.items() for flag in own}
    for because in run.summary.because:
        if because not in shown:
            yield Remark("red", because, f"{where}{UNVERIFIED.lower()}")
    if not flags:
        command = shlex.join(["actkit", "probe", "--ckpt", str(run.folder), "--probe", "audit"])
        yield Remark("yellow", f"Nothing was checked for gradient masking: {command}", where.rstrip(", "))
    if run.summary.stopped_early:
        yield Remark("red", "training was stopped early: accuracy under attack collapsed", where.rstrip(", "))


# -- numbers and pictures ------------------------------------------------------------------------------------------------


def _numbers(summary: Summary) -> PageTable:
    """A row a model, a column a number; under each title its threat model, under each share its 95 % interval."""
    by_model = {model: words.numbers_of(summary, model) for model in summary.model_names}
    heads: dict[tuple[str, str], str] = {}
    for shown in by_model.values():
        for one in shown:
            images = f"{one.found.images:,} images" if one.found.images else ""
            under = [part for part in (one.allowed, images) if part]
            heads.setdefault((one.title, one.allowed), "\n".join([one.title, *under]))
    body = []
    for model, shown in by_model.items():
        cells = {(one.title, one.allowed): _cell(one) for one in shown}
        if cells:
            body.append([model, *(cells.get(key, "-") for key in heads)])
    notes = [words.protocol(spec, summary) for spec in summary.evaluation]
    if any(one.share for shown in by_model.values() for one in shown):
        notes.append("Under a number: its 95 % interval (Wilson), the test images being a sample of all such images.")
    return PageTable("Numbers", Grid(["model", *heads.values()], body, notes, left=1), stacked=True)


def _cell(one: words.Shown) -> str:
    doubt = f" {UNVERIFIED}" if one.found.unverified else ""
    return f"{one.text}{doubt}" + (f"\n{one.share.interval_shown}" if one.share else "")


def _calls(run: Finished) -> tuple[str, str]:
    calls = [f"objective = {run.spec.kwargs['objective']!r}"]
    calls += [f"{name}: {role.kwargs.get('backbone')!r}" for name, role in run.spec.kwargs.get("roles", {}).items()]
    calls += [f"{spec.label}: {spec!r}" if spec.label else repr(spec) for spec in run.summary.evaluation]
    return "the exact settings", "\n".join(calls)


def _seen(run: Finished) -> Iterator[Section]:
    """Adversarial images, the curves of the training, and what else the probes showed."""
    found = curves.pictures_of_run(run.folder)
    images = [picture for picture in found if picture.kind == "images"]
    training = [picture for picture in found if picture.name.startswith("training-")]
    others = [picture for picture in found if picture not in images and picture not in training]
    losses = curves.losses(run.folder)
    named: list[tuple[str, list[Picture]]] = [
        ("Adversarial images", images),
        ("Training", [*training, *([losses] if losses else [])]),
        ("More pictures", others),
    ]
    yield from (Section(title, pictures=pictures) for title, pictures in named if pictures)


# -- facts ---------------------------------------------------------------------------------------------------------------


def _environment(folder: Path) -> dict[str, Any]:
    """What the run noted of where it ran; of older runs less."""
    with contextlib.suppress(OSError, ValueError):
        found = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    return {}


def _times(run: Finished) -> dict[str, str]:
    """How long the training (the looks at it aside) and the examination took, as far as that is known."""
    images, times = run.summary.sizes.get("train"), {}
    rates = [line.images_per_second for line in curves.lines_of(run.folder)]
    if images and rates and all(rates):
        times["training"] = duration(sum(images / rate for rate in rates))
    seconds = _environment(run.folder).get("examination_seconds")
    if isinstance(seconds, (int, float)):
        times["examination"] = duration(seconds)
    return times


def _machine(run: Finished) -> str:
    made, device = run.summary.versions, str(_environment(run.folder).get("device", ""))
    gpu = None if device.startswith("cpu") else made.get("gpu")
    return str(gpu or made.get("processor") or made.get("machine", "?"))


def _trained(run: Finished) -> dict[str, str]:
    summary, spec = run.summary, run.spec.kwargs
    counted = _environment(run.folder).get("parameters")
    parameters = counted if isinstance(counted, dict) else {}
    facts = {"method": words.method(spec["objective"])}
    for name, role in spec.get("roles", {}).items():
        backbone = role.kwargs.get("backbone")
        network = words.component(backbone) if isinstance(backbone, Spec) else str(backbone)
        facts[name] = network + (f", {parameters[name]:,} parameters" if isinstance(parameters.get(name), int) else "")
        if isinstance(optimizer := role.kwargs.get("optimizer"), Spec):
            facts[name] += f"; {words.component(optimizer)}"
    sizes = words.listed([f"{size:,} {split}" for split, size in summary.sizes.items()])
    facts["data"] = f"{summary.data}" + (f": {sizes} images" if sizes else "")
    facts["length"] = f"{_length(run)}, seed {run.facts.seed}"
    if against := _attacks(spec["objective"]):
        facts["trained against"] = against
    facts |= {f"time of the {what}": time for what, time in _times(run).items()}
    return {**facts, "machine": _machine(run)}


def _all_checks(summary: Summary) -> Iterator[Section]:
    """Each check with what it said, folded."""
    folded = [
        (f"{len(flags)} checks of {model}", "\n".join(f"{flag.level:<6}  {flag.check}: {flag.said}" for flag in flags))
        for model, flags in summary.flags.items()
    ]
    if folded:
        yield Section("Checks for gradient masking", folded=folded)


def _again(run: Finished) -> Section:
    summary, made = run.summary, run.summary.versions
    prints = ", ".join(f"{split} {print_}" for split, print_ in summary.data_fingerprint.items())
    facts = {
        "recipe": str(run.facts.recipe),
        "fingerprint of the data": prints,
        "actkit": f"{made.get('actkit', '?')}" + (f" at {made['commit']}" if made.get("commit") else ""),
        "torch, python": f"{made.get('torch', '?')}, {made.get('python', '?')}",
    }
    again = f"actkit probe --ckpt {shlex.quote(str(run.folder))}"
    commands = [summary.command, f"{again}   # the numbers again, from the models alone"]
    file = run.folder / "config.gin"
    folded = [("the whole recipe", file.read_text(encoding="utf-8"))] if file.is_file() else []
    return Section("How to reproduce it", facts=facts, commands=commands, folded=folded)
