"""The live display of a training: progress, speed, the last validation and two captions beside their references."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Group
from rich.live import Live
from rich.panel import Panel
from rich.progress import Progress
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult

    from capxai.types import TrainingStatus

REFRESHES_PER_SECOND = 2
"""A picture of the terminal costs milliseconds, which training would have to wait for."""
WIDEST = 120
"""Characters; on a wider terminal the display is no easier to read."""
CAPTION_LINES = 2
CAPTIONS = 2
GAP = "   "


class Dashboard:
    """What a terminal shows of a training. `show` keeps the newest status; a thread of rich draws it when it is due.

    Args:
        title: What is trained.
        progress: Bars of what happens inside the training (encoding, validating), drawn below it.
    """

    def __init__(self, title: str, progress: Progress) -> None:
        self._title = plain(title)
        self._progress = progress
        self._status: TrainingStatus | None = None
        self._begun = time.monotonic()

    def show(self, status: TrainingStatus) -> None:
        """Take the newest status over."""
        self._status = status

    def live(self, console: Console) -> Live:
        """Return the display, to be entered; it vanishes at its end, and what is printed meanwhile stands above it."""
        return Live(
            console=console,
            get_renderable=self.render,
            refresh_per_second=REFRESHES_PER_SECOND,
            transient=True,
        )

    def render(self) -> RenderableType:
        """Draw the newest status."""
        parts: list[RenderableType] = []
        if self._status is None:
            parts.append(Text("Getting ready ..."))
        else:
            parts += [_progress(self._status), _figures(self._status)]
            parts += [part for part in (_validation(self._status), _captions(self._status)) if part is not None]
        if self._progress.tasks:
            parts.append(self._progress.get_renderable())
        return _AtMost(
            Panel(
                Group(*parts),
                title=Text(self._title, style="bold", overflow="ellipsis"),
                title_align="left",
                subtitle=Text(f"running for {clock(time.monotonic() - self._begun)}"),
                subtitle_align="right",
            )
        )


def plain(text: str) -> str:
    """Replace what a terminal would obey instead of show: captions and names come from files."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def clock(seconds: float) -> str:
    """Return a span of time as 1:02:03, with days in front where there are any."""
    whole = max(0, round(seconds))
    days, rest = divmod(whole, 86400)
    text = f"{rest // 3600}:{rest // 60 % 60:02}:{rest % 60:02}"
    return f"{days} d {text}" if days else text


def _progress(status: TrainingStatus) -> RenderableType:
    """Stage, epoch, steps and the time left, above a bar."""
    share = [f"{100 * status.step / status.steps:.0f} %"] if status.steps else []
    left = [] if status.eta_seconds is None else [f"{clock(status.eta_seconds)} left"]
    words = (f"epoch {status.epoch}/{status.epochs}", f"step {status.step:,}/{status.steps:,}", *share, *left)
    stage = Text(plain(status.stage), "bold cyan")
    bar = Table.grid(expand=True)  # alone, a bar does not end its line
    bar.add_row(ProgressBar(total=max(1, status.steps), completed=status.step))
    return Group(_Packed([stage, *map(Text, words)]), bar)


def _figures(status: TrainingStatus) -> RenderableType:
    """Name and value of what is measured all the time."""
    figures = {
        "loss": _number(status.loss, "{:.4f}"),
        "learning rate": _number(status.learning_rate, "{:.2e}"),
        "tokens/s": _number(status.tokens_per_second, "{:,.0f}"),
        "waiting for data": f"{100 * status.waiting_share:.1f} %",
    }
    return _Packed(_named(figures))


def _validation(status: TrainingStatus) -> RenderableType | None:
    if not status.validation:
        return None
    figures = {name.replace("_", " "): f"{value:.4g}" for name, value in status.validation.items()}
    return _Packed([Text("last validation", "green"), *_named(figures)])


def _captions(status: TrainingStatus) -> RenderableType | None:
    """Show captions below the references of their pictures."""
    if not status.samples:
        return None
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(no_wrap=True, style="dim")
    table.add_column(ratio=1)
    for reference, caption in status.samples[:CAPTIONS]:
        table.add_row("reference", _Shortened(reference))
        table.add_row("caption", _Shortened(caption or "(empty)", "bold"))
    return table


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _named(figures: Mapping[str, str]) -> list[Text]:
    return [Text.assemble((f"{plain(name)} ", "dim"), value) for name, value in figures.items()]


class _Packed:
    """Pieces of text on as few lines as they need; none is broken as long as it fits a line."""

    def __init__(self, pieces: Sequence[Text]) -> None:
        self._pieces = pieces

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        line = Text()
        for piece in self._pieces:
            if line and line.cell_len + len(GAP) + piece.cell_len > options.max_width:
                yield line
                line = Text()
            line = Text.assemble(line, GAP, piece) if line else piece
        yield line


class _Shortened:
    """A caption on at most two lines, whatever its length: the display must not jump."""

    def __init__(self, caption: str, style: str = "") -> None:
        self._text = Text(plain(caption), style=style)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = list(self._text.wrap(console, options.max_width))
        shown = lines[:CAPTION_LINES]
        if len(lines) > CAPTION_LINES:
            last = shown[-1]
            last.rstrip()
            if last.cell_len > options.max_width - 2:
                last.truncate(options.max_width - 2)
                last.right_crop(len(last.plain) - max(last.plain.rfind(" "), 0))  # back to the end of a word
            last.append(" …")
        yield from shown


class _AtMost:
    """Something no wider than is good to read."""

    def __init__(self, renderable: RenderableType) -> None:
        self._renderable = renderable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = min(WIDEST, options.max_width)
        yield from console.render(self._renderable, options.update(width=width))
