"""Help text of the command line: verbs in the order of a user's work, each described by a whole sentence."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup

WORKFLOW = {
    "Data": ("import", "info", "export"),
    "Study": ("init", "run", "report", "plan", "pareto"),
    "Structures and labels": ("augment", "select", "properties", "label"),
    "Potentials": ("fit", "evaluate", "validate", "explore"),
    "Active learning": ("learn",),
    "Help": ("help",),
}


class WorkflowGroup(TyperGroup):
    """Group of verbs whose help text lists them as in `WORKFLOW`, and whose examples can be pasted into a shell."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for command in self.commands.values():
            command.epilog = format_examples(command.epilog or "")

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the verbs of each part of the workflow; their sentences are wrapped instead of cut."""
        for title, names in WORKFLOW.items():
            verbs = {name: self.get_command(ctx, name) for name in names}
            # The limit exceeds the length of every help text, so that click does not cut any.
            rows = [(name, verb.get_short_help_str(limit=10_000)) for name, verb in verbs.items() if verb is not None]
            with formatter.section(title):
                formatter.write_dl(rows)


def format_examples(epilog: str) -> str:
    """Return an epilog ``"Examples:  a   |   b"`` with each example on its own line, which click does not wrap.

    An epilog without examples is returned unchanged.
    """
    heading, _, examples = epilog.partition(":  ")
    lines = [f"  {example.strip()}" for example in examples.split("   |   ")]
    # click wraps no paragraph that begins with this character.
    return "\n".join([f"{heading}:", "", "\b", *lines]) if examples else epilog
