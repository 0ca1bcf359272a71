"""The verb `help`, which shows topics that are longer than the help text of a verb."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from paretofit.cli.options import app

CODE_MARGIN = 2  # number of columns that rich leaves empty beside code, on both sides together
TopicArgument = Annotated[
    str | None, typer.Argument(metavar="[TOPIC]", help="Topic, or verb; without it, the topics are listed.")
]


@app.command("help", epilog="Examples:  paretofit help   |   paretofit help labelling   |   paretofit help run")
def help_(context: typer.Context, topic: TopicArgument = None) -> None:
    """Show a help topic, or list the topics."""
    from rich.console import Console
    from rich.markdown import Markdown

    from paretofit.commands import list_topics, read_topic

    if topic is None:
        width = max(len(name) for name, _ in list_topics())
        typer.echo("\n".join(f"{name:<{width}}  {title}" for name, title in list_topics()))
        typer.echo("\nparetofit help TOPIC shows a topic, paretofit VERB --help the options of a verb")
        return
    verbs = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    if topic in verbs:
        typer.echo(verbs[topic].get_help(typer.Context(verbs[topic], info_name=topic, parent=context.parent)))
        return
    console = Console()
    console.print(Markdown(move_comments(read_topic(topic), console.width)))


def move_comments(markdown: str, width: int) -> str:
    """Move comments from the ends of long commands to lines above them, so that the commands can be pasted.

    A line of code, ``command  # comment``, is long if it does not fit into a terminal of `width` columns.
    """
    lines: list[str] = []
    is_code = False
    for line in markdown.splitlines():
        is_code ^= line.startswith("```")  # begins or ends a block of code
        match = re.fullmatch(r"(\S.*?) {2,}(# .*)", line)
        if match and is_code and len(line) > width - CODE_MARGIN:
            command, comment = match.groups()
            lines += [comment, command]
        else:
            lines.append(line)
    return "\n".join(lines)
