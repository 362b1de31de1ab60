"""`gateway worker`."""

from typing import Annotated

import typer

from gateway.cli.command import run, say, settings
from gateway.kit.log import configure
from gateway.processes import worker_command

app = typer.Typer()


@app.command()
def worker(
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for PostgreSQL and Redis.")] = 120,
    admin_port: Annotated[int, typer.Option(min=0, max=65535, help="Port of /metrics; 0 takes a free one.")] = 0,
) -> None:
    """The background work: usage to PostgreSQL, reports to Stripe, meetings. Any number may run, on any host."""
    configure("worker")
    run(worker_command.worker(settings(), read_again=settings, admin_port=admin_port, wait_s=wait, say=say))
