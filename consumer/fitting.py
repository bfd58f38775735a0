"""How training is followed: a bar with both losses in a terminal, a line an epoch elsewhere."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from rich.progress import TaskID

    from model.fit import Progress as Step


class Fitting(ExitStack):
    """A context; `line` takes text, `show` takes the steps of training.

    Losses are shown as shares of what they are when nothing is learnt: 1.000 is nothing, lower is better."""

    def __init__(self, console: Console | None = None) -> None:
        super().__init__()
        self._console = console or Console(soft_wrap=True, highlight=False, markup=False)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[losses]}"),
            TimeRemainingColumn(compact=True),
        )
        self._bar = Progress(*columns, console=self._console, transient=True, disable=not self._console.is_terminal)
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        self.enter_context(self._bar)
        return super().__enter__()

    def line(self, text: str) -> None:
        """One line of text, above the bar."""
        self._console.print(text)

    def show(self, step: Step) -> None:
        """Where training stands."""
        losses = f"flag {step.flag_loss:.3f} · change {step.change_loss:.3f}"
        description = f"epoch {step.epoch}"
        if self._task is None or (step.done <= 1 and step.epoch == 1):
            self._task = self._bar.add_task(description, total=step.batches, losses=losses)
        self._bar.update(self._task, description=description, completed=step.done, total=step.batches, losses=losses)
        if step.best is None:
            return
        held = "" if step.held_out is None else f", log loss on held-out time {step.held_out:.4f}"
        mark = " (best so far)" if step.held_out is not None and step.best == step.epoch else ""
        if step.held_out is not None or step.epoch % 20 == 0 or step.epoch == step.epochs:
            self.line(
                f"epoch {step.epoch}: losses {step.flag_loss:.3f} flag, {step.change_loss:.3f} change{held}{mark}"
            )
