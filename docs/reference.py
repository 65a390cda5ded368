"""Write the generated pages of the documentation: command line, C header, HTTP APIs of live page, service, fleet.

python docs/reference.py        # writes docs/reference/{command-line,c,http,service,fleet-api}.md
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer.main

from tcmoa_runtime.cli import make_app
from tcmoa_runtime.fleet.page.routes import API as FLEET_API
from tcmoa_runtime.serving.routes import API as SERVICE_API
from tcmoa_runtime.streams.page.routes import API as PAGE_API

ROOT = Path(__file__).parents[1]
OUT = ROOT / "docs" / "reference"
HEADER = ROOT / "runtime" / "cpp" / "include" / "tcmoa.h"


def escape(text: str) -> str:
    """Escape what Markdown would read as markup in a cell of a table."""
    return re.sub(r"([|<>\[\]*_])", r"\\\1", " ".join(text.split()))


def split_help(text: str) -> tuple[str, list[str]]:
    """Split a command's help into prose and the commands of its examples."""
    prose, _, examples = inspect.cleandoc(text or "").partition("Examples:")
    lines = (line.strip() for line in examples.splitlines())
    return prose.strip(), [line for line in lines if line and not line.startswith("```")]


def describe_values(parameter: Any) -> str:
    """Describe the values that an option takes: its choices, or its placeholder."""
    if getattr(parameter, "is_flag", False):
        return ""
    annotation = parameter.type_descriptor.annotation
    literals = [part for part in (annotation, *get_args(annotation)) if get_origin(part) is Literal]
    if literals and parameter.metavar is None:
        return ", ".join(f"`{choice}`" for choice in get_args(literals[0]))
    kind = next((part for part in (*get_args(annotation), annotation) if isinstance(part, type)), str)
    placeholder = parameter.metavar or {int: "NUMBER", Path: "PATH"}.get(kind, "TEXT")
    return f"`{placeholder}`".replace("|", "\\|")


def describe_default(parameter: Any) -> str:
    """Describe the default of an option, empty where there is none."""
    if parameter.required:
        return "required"
    if not parameter.show_default or parameter.default in (None, False, (), []):
        return ""
    if parameter.default is True:
        return f"`{parameter.opts[0]}`"
    return f"`{parameter.default}`"


def option_rows(parameters: Iterable[Any]) -> Iterator[str]:
    """Yield the rows of a table of options."""
    yield "| option | values | default | |"
    yield "|---|---|---|---|"
    for parameter in parameters:
        names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
        cells = (names, describe_values(parameter), describe_default(parameter), escape(parameter.help or ""))
        yield f"| {' | '.join(cells)} |"


def describe_command(name: str, command: Any) -> Iterator[str]:
    """Yield the lines of a command's section."""
    prose, examples = split_help(command.help)
    arguments = [
        p for p in command.params if not hasattr(p, "secondary_opts") or not p.opts[0].startswith("-")
    ]
    options = [p for p in command.params if p not in arguments and p.name != "help"]
    yield f"## tcmoa {name}\n"
    yield f"{prose}\n"
    if examples:
        yield "```sh"
        yield from examples
        yield "```\n"
    if arguments:
        yield "| argument | |"
        yield "|---|---|"
        for argument in arguments:
            yield f"| `{argument.name.upper()}` | {escape(argument.help or '')} |"
        yield ""
    panels: dict[str, list[Any]] = {}
    for option in options:
        panels.setdefault(option.rich_help_panel or "Options", []).append(option)
    for panel, members in panels.items():
        if len(panels) > 1:
            yield f"**{panel}**\n"
        yield from option_rows(members)
        yield ""


def command_line_page() -> str:
    """Return the page about the command line."""
    group = typer.main.get_command(make_app(()))
    lines = [
        "# Command line\n",
        "Generated from the program; `tcmoa COMMAND --help` shows the same. `-h` is short for `--help`,",
        "`tcmoa --version` prints the version, and `tcmoa --install-completion` installs completion for your shell.\n",
        "| exit code | |",
        "|---|---|",
        "| 0 | done |",
        "| 1 | an internal error |",
        "| 2 | the input is wrong: one line on stderr says what, what was expected and what to do |",
        "| 3 | a required package or device is missing |",
        "| 130, 143, 129 | interrupted by Ctrl-C, SIGTERM, SIGHUP: temporary files are removed |\n",
        "With `--json` a command prints one JSON object on stdout; messages and progress go to stderr.\n",
    ]
    for name, command in group.commands.items():  # type: ignore[attr-defined]  # the root is a group
        if hasattr(command, "commands"):
            for sub_name, sub_command in command.commands.items():
                lines += describe_command(f"{name} {sub_name}", sub_command)
        else:
            lines += describe_command(name, command)
    return "\n".join(lines) + "\n"


DECLARATION = re.compile(
    r"^(?P<comment>/\*\*(?:(?!\*/).)*\*/)\n(?P<code>typedef \w+ \w+ \{.*?^\} \w+;|(?!#)\w[^;{]*;)$",
    re.MULTILINE | re.DOTALL,
)
"""A comment directly before a type or a function."""


def comment_text(comment: str) -> str:
    """Return the text of a Doxygen comment as Markdown: parameters and results as lists."""
    text = re.sub(r"^/\*\*|\*/$", "", comment.strip())
    text = "\n".join(re.sub(r"^\s*\* ?", "", line) for line in text.splitlines()).strip()
    text = re.sub(r"^[@\\]param(?:\[[^]]*\])? (\w+)", r"- `\1`:", text, flags=re.MULTILINE)
    text = re.sub(r"^[@\\]returns? ", "- Returns: ", text, flags=re.MULTILINE)
    return re.sub(r"^[@\\](\w+) ?", "", text, flags=re.MULTILINE)


def c_page() -> str:
    """Return the page about the C header."""
    header = HEADER.read_text(encoding="utf-8")
    introduction = comment_text(header[: header.index("*/") + 2]).partition("\n")[2]
    lines = [
        "# C header\n",
        "Generated from `tcmoa.h`. [C and C++](../guides/cpp.md) shows how to build and link, and a whole program.\n",
        introduction.strip() + "\n",
    ]
    for match in DECLARATION.finditer(header):
        code = match["code"]
        found = re.search(r"\b(tcmoa_\w+)\(", code.partition("{")[0]) or re.search(r"(\w+);$", code)
        lines += [
            f"## {found[1] if found else code}\n",
            f"```c\n{code}\n```\n",
            comment_text(match["comment"]) + "\n",
        ]
    return "\n".join(lines)


def http_page() -> str:
    """Return the page about the HTTP API of the live page."""
    intro = "Generated from the server. [The live page](../guides/live-page.md) shows how to start it."
    return f"# HTTP API of the live page\n\n{intro}\n\n{PAGE_API.describe('##')}"


def service_page() -> str:
    """Return the page about the HTTP API of the service."""
    intro = "Generated from the server. [Serving](../guides/serving.md) shows how to start it, and clients."
    return f"# HTTP API of the service\n\n{intro}\n\n{SERVICE_API.describe('##')}"


def fleet_page() -> str:
    """Return the page about the HTTP API of a fleet."""
    intro = "Generated from the server. [Fleets of streams](../guides/fleet.md) shows how to start it."
    return f"# HTTP API of a fleet\n\n{intro}\n\n{FLEET_API.describe('##')}"


def main() -> None:
    """Write the pages."""
    OUT.mkdir(exist_ok=True)
    (OUT / "command-line.md").write_text(command_line_page(), encoding="utf-8")
    (OUT / "c.md").write_text(c_page(), encoding="utf-8")
    (OUT / "http.md").write_text(http_page(), encoding="utf-8")
    (OUT / "service.md").write_text(service_page(), encoding="utf-8")
    (OUT / "fleet-api.md").write_text(fleet_page(), encoding="utf-8")


if __name__ == "__main__":
    main()
