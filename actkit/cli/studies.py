"""What `actkit run` and `actkit reproduce` share: a study's seeds, where its runs go, and what is printed of them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from actkit.errors import InputError

if TYPE_CHECKING:
    from actkit.display import Display
    from actkit.training.executors import Executor
    from actkit.training.study import Cell
    from actkit.training.tasks import TaskResult


def jobs_option(text: str) -> Any:
    return click.option("-j", "--jobs", type=click.IntRange(min=1), default=1, show_default=True, help=text)


def executor_option(text: str) -> Any:
    return click.option(
        "--executor", type=click.Choice(["local", "ray"]), default="local", show_default=True, help=text
    )


def seeds_in(text: str) -> list[int]:
    """The seeds of `--seeds N,N,...`. Raises `InputError` for what is no number, or there twice."""
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(
            f"--seeds {text or repr(text)}: whole numbers are wanted", help="such as --seeds 0,1,2"
        ) from None
    if len(set(found)) < len(found):
        once = ",".join(map(str, dict.fromkeys(found)))
        raise InputError(f"--seeds {text}: a seed is there twice", help=f"--seeds {once}")
    return found


def executor_named(name: str, jobs: int, device: str) -> Executor:
    """Ray, or this machine with a GPU to each of several jobs where there are some."""
    from actkit.training.executors import Local, ray_executor

    if name == "ray":
        return ray_executor()
    gpus: list[str] = []
    if jobs > 1 and device == "auto":
        import torch

        count = torch.cuda.device_count()
        given = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        gpus = (given if len(given) == count else list(map(str, range(count)))) if count > 1 else []
    return Local(jobs, gpus=gpus)


def as_json(cells: Iterable[Cell]) -> list[dict[str, str]]:
    return [{"title": cell.title, "state": cell.state, "folder": str(cell.folder)} for cell in cells]


def say_failures(failed: Iterable[TaskResult], display: Display) -> None:
    for one in failed:
        display.say(f"failed     {one.task.title}: {one.error} ({one.task.folder}.log)", style="red")
