"""`hqc report`: the page of a compiled directory."""

from __future__ import annotations

import webbrowser
from argparse import Namespace

from hqc.artifact import Artifact
from hqc.artifact.page.page import write_page
from hqc.cli.console import Console
from hqc.cli.result import Result
from hqc.diagnostics import Exit, reject


def report_command(options: Namespace, console: Console) -> Result:
    """`hqc report`."""
    artifact = Artifact.open(options.directory)
    page = write_page(artifact.path, artifact.manifest)
    if options.open and not webbrowser.open(page.resolve().as_uri()):
        raise reject(
            "HQC404",
            "no browser is here to show the page",
            notes=(f"the page is {page}",),
            helps=("open the file in a browser, also on another machine: it needs no other file",),
            exit_=Exit.TOOL,
        )
    return Result(str(page), {"page": str(page)})
