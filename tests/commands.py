"""A command of the command line as a child of a process that has imported all of them."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

MODULES = (
    *("cds_service.cli", "cds_service.serve_command", "cds_service.demo_command"),
    *("cds_service.content_commands", "cds_service.request_commands"),
    *("cds_service.store_commands", "cds_service.token_commands"),
)


def run(
    arguments: tuple[str, ...],
    environment: Mapping[str, str],
    folder: Path,
    stdout: Path,
    stderr: Path,
) -> None:
    """Ends this process as the command does; what it says goes into two files."""
    from cds_service.cli import main  # here, since the tests themselves import this module too

    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for descriptor, path in ((1, stdout), (2, stderr)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
    sys.argv = ["cds-service", *arguments]
    main()
