"""`concord completion`: a script that completes commands and options in a shell."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

DESCRIPTION = """Prints a completion script.

  concord completion bash > ~/.local/share/bash-completion/completions/concord
  concord completion zsh  > ~/.zfunc/_concord"""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    raw = argparse.RawDescriptionHelpFormatter
    command = commands.add_parser("completion", description=DESCRIPTION, formatter_class=raw)
    command.add_argument("shell", choices=("bash", "zsh", "tcsh"))
    command.set_defaults(remote=run)


def run(arguments: argparse.Namespace, _: Mapping[str, str]) -> int:
    """Print the script."""
    import shtab

    from agents.__main__ import whole_parser

    print(shtab.complete(whole_parser(), shell=arguments.shell))
    return 0
