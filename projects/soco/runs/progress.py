"""A training command with a progress bar."""
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from .follow import run_training


def run_with_bar(console: Console, command: Sequence[str], log: Path, what: str, total: int,
                 environment: Mapping[str, str] | None = None) -> None:
    """Run a training command with a progress bar, and write its output to a file.

    Args:
        console (Console): Where the bar is drawn; without a terminal, five lines are printed instead.
        command (Sequence[str]): Script and arguments.
        log (Path): The file.
        what (str): Name of the run, for messages.
        total (int): Number of iterations.
        environment (Mapping[str, str], optional): Additional environment variables. Defaults to None.

    Raises:
        Stopped: If a signal stopped it, see `follow.asked_to_stop`. It can be resumed.
        ValueError: If the command failed. The message contains the end of its output.
    """
    console.print(f'$ {" ".join(command)}', style='dim', soft_wrap=True)
    shown = 0
    columns = (TextColumn('{task.description}', markup=False), BarColumn(), MofNCompleteColumn(),
               TimeElapsedColumn(), TextColumn('{task.fields[state]}', markup=False))
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(what, total=total, state='starting (imports take some seconds)')

        def report(done: int, state: str) -> None:
            nonlocal shown
            progress.update(task, completed=done, state=state)
            if not console.is_terminal and done - shown >= total // 5:
                shown = done
                console.print(f'{what}: {done}/{total}  {state}')

        run_training(command, log, what, report, environment=environment)
        progress.update(task, completed=total)
