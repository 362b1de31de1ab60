"""`gateway serve`."""

from typing import Annotated

import typer

from gateway.cli.command import run, say, settings
from gateway.kit.log import configure
from gateway.processes import serve as serve_command

app = typer.Typer()


@app.command()
def serve(
    workers: Annotated[int | None, typer.Option(min=1, help="Proxy processes (GATEWAY_WORKERS).")] = None,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for PostgreSQL and Redis.")] = 120,
    take_over: Annotated[
        bool, typer.Option(help="From a gateway that serves from the same data folder, which finishes its calls.")
    ] = False,
    background: Annotated[bool, typer.Option(help="Run a background worker here too.")] = True,
) -> None:
    """The proxy on real services, with the keeper of its journal and a background worker."""
    configure("serve")
    loaded = settings()
    count = loaded.gateway_workers if workers is None else workers
    serving = serve_command.serve(
        loaded, read_again=settings, workers=count, background=background, wait_s=wait, take_over=take_over, say=say
    )
    raise typer.Exit(run(serving))
