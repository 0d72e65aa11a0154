"""A group of commands whose modules are imported only once one of them is named."""

from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, ClassVar, NamedTuple

from typer import Typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command, get_group


class Entry(NamedTuple):
    """A command that is not imported yet: what the list of commands says of it."""

    target: str  # "module:attribute" of its function, or of the Typer application of a group
    line: str  # the first line of its help, which a test holds it to
    panel: str | None = None


class LazyGroup(TyperGroup):
    """Lists `table` without importing anything; `resolve_command` imports the one that is named.

    Every process of the loop is a command, and each would pay for the libraries of all others.
    """

    table: ClassVar[dict[str, Entry]] = {}
    extensions: ClassVar[str] = ""  # entry points of other packages' Typer applications

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self._mounted = not self.extensions
        for name, (_, line, panel) in self.table.items():
            self.add_command(TyperCommand(name, help=line, rich_help_panel=panel))

    def list_commands(self, ctx: Any) -> list[str]:
        """Names in the order of the table, then those of the extensions."""
        self._mount()
        return super().list_commands(ctx)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """What the list shows: of a command in the table its name and line alone."""
        if cmd_name not in self.commands:
            self._mount()
        return super().get_command(ctx, cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """The command that `args` begins with, imported."""
        name, shown, rest = super().resolve_command(ctx, args)
        return name, self.load(name) if name in self.table else shown, rest

    def load(self, name: str) -> Any:
        """A command with its options, imported."""
        target, _, panel = self.table[name]
        module, _, attribute = target.partition(":")
        found = getattr(import_module(module), attribute)
        if isinstance(found, Typer):
            group = get_group(found)
            group.name, group.rich_help_panel = name, panel
            return group
        holder = Typer(add_completion=False, rich_markup_mode="rich")
        holder.command(name, rich_help_panel=panel)(found)
        return get_command(holder)

    def _mount(self) -> None:
        """Adds what other packages offer: found by entry point, so that none is imported here."""
        if self._mounted:
            return
        self._mounted = True
        for entry in entry_points(group=self.extensions):
            for name, command in get_group(entry.load()).commands.items():
                self.add_command(command, name)
