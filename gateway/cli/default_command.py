"""A group of commands that does something by itself too: `gateway close 2026-10` beside `gateway close verify PACK`."""

from typing import Any, Final

from typer.core import TyperGroup

HELP: Final = ("-h", "--help")


class DefaultCommandGroup(TyperGroup):
    """Where the first word is none of the group's commands, it belongs to the one that is named `default`."""

    default = "default"

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Puts the default command first where no command is named and nobody asks for help."""
        if args and args[0] not in self.commands and not any(word in HELP for word in args):
            args = [self.default, *args]
        return super().parse_args(ctx, args)
