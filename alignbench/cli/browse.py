"""``alignbench browse [DIR]``: serve the runs below a folder on loopback."""

from __future__ import annotations

from pathlib import Path

import click

EPILOG = """\b
Examples:
  alignbench browse
  alignbench browse reports --open
  alignbench browse runs --port 8080
  alignbench browse reports --json | jq '.runs[] | [.path, .preferred.value]'
On another machine: ssh -L 8765:localhost:8765 HOST alignbench browse reports
"""


@click.command("browse", epilog=EPILOG)
@click.argument("folder", metavar="[DIR]", type=click.Path(path_type=Path), default=Path("reports"))
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help="The port to serve on; 0: any free one.  [default: 8765, or the next free one]",
)
@click.option("--open", "opened", is_flag=True, help="Open the page in your browser.")
@click.option("--json", "as_json", is_flag=True, help="Print the index as JSON and exit; nothing is served.")
def command(folder: Path, port: int | None, opened: bool, as_json: bool) -> None:
    """Serve the runs below DIR (default: reports) on 127.0.0.1, to be read in a browser.

    An index of runs with their verdicts and key numbers (search, sort), their reports, every sample in pages
    (side by side, filtered), and training runs with their curves. It only reads; Ctrl-C stops it.
    """
    import json
    import threading

    from alignbench.report.browse import PORT, listing, open_catalogue, open_server

    if as_json:
        click.echo(json.dumps(listing(open_catalogue(folder)), indent=1, ensure_ascii=False))
        return
    with open_server(folder, port) as server:
        if port is None and server.server_port != PORT:
            click.echo(f"port {PORT} is taken, so this is {server.server_port}", err=True)
        click.echo(server.address)
        click.echo("serving on this machine alone; Ctrl-C stops", err=True)
        # read ahead, so that the first page of a large folder does not have to wait for all of it
        threading.Thread(target=server.catalogue.scan, daemon=True).start()
        if opened:
            threading.Thread(target=_open, args=(server.address,), daemon=True).start()
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            click.echo("stopped", err=True)


def _open(address: str) -> None:
    """In a thread: a browser that runs in the terminal keeps this call until it is left."""
    import webbrowser

    if not webbrowser.open(address):
        click.echo("no browser could be opened; open the address yourself", err=True)
