"""`simulate`: a CRM to rehearse with, on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from crm_pipeline.cli.options import Options

app = typer.Typer(help="Run a simulated CRM.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def generic(  # noqa: PLR0913, PLR0917 - one parameter for each option
    context: typer.Context,
    contacts: Annotated[
        int, typer.Option(min=0, max=10_000_000, help="How many contacts it starts with.")
    ] = 1000,
    seed: Annotated[int, typer.Option(help="The same seed makes the same contacts.")] = 1,
    days: Annotated[float, typer.Option(min=0.01, help="They were last changed within so many days.")] = 30.0,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")
    ] = 8808,
    api_key: Annotated[str, typer.Option(help="Bearer key its API asks for.")] = "sim-key",
    pagination: Annotated[
        str,
        typer.Option(help="page, offset, cursor, next_link, link_header, header_cursor or none."),
    ] = "cursor",
    envelope: Annotated[str, typer.Option(help="Key the records are wrapped in.")] = "records",
    page_size: Annotated[int, typer.Option(min=1, help="Contacts on a page.")] = 100,
    batch_limit: Annotated[int, typer.Option(min=1, help="Records a batch may hold.")] = 100,
    fault: Annotated[
        list[str] | None,
        typer.Option(help="What goes wrong, such as rate_limit=10; a wrong name lists them all. Repeatable."),
    ] = None,
    rewrite: Annotated[
        list[str] | None,
        typer.Option(
            help="How it rewrites: trim, lower, phones, drop_seconds, notes_max=N, all. Repeatable."
        ),
    ] = None,
) -> None:
    """Run a generic REST CRM with made-up contacts until Ctrl-C."""
    from crm_pipeline.simulators.serve import run_generic

    try:
        run_generic(
            contacts=contacts,
            seed=seed,
            days=days,
            host=host,
            port=port,
            api_key=api_key,
            pagination=pagination,
            envelope=envelope,
            page_size=page_size,
            batch_limit=batch_limit,
            faults=fault or (),
            rewrite=rewrite or (),
            on_ready=lambda url: _announce(Options.of(context), url, contacts),
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


Contacts = Annotated[int, typer.Option(min=0, max=10_000_000, help="How many contacts it starts with.")]
Seed = Annotated[int, typer.Option(help="The same seed makes the same contacts.")]
Days = Annotated[float, typer.Option(min=0.01, help="They were last changed within so many days.")]
Host = Annotated[str, typer.Option(help="Address to listen on.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")]
Key = Annotated[str, typer.Option(help="Access token that it always takes.")]
TokenLife = Annotated[float, typer.Option(min=0, help="Seconds until a token of its own ends.")]
SearchLag = Annotated[float, typer.Option(min=0, help="Seconds until a change shows in its searches.")]
Fault = Annotated[
    list[str] | None,
    typer.Option(help="What goes wrong, such as rate_limit=10; a wrong name lists them all. Repeatable."),
]


def _add_vendor(name: str, title: str) -> None:
    def command(  # noqa: PLR0913, PLR0917 - one parameter for each option
        context: typer.Context,
        contacts: Contacts = 1000,
        seed: Seed = 1,
        days: Days = 30.0,
        host: Host = "127.0.0.1",
        port: Port = 8808,
        api_key: Key = "sim-key",
        token_life: TokenLife = 3600.0,
        search_lag: SearchLag = 0.0,
        fault: Fault = None,
    ) -> None:
        from crm_pipeline.simulators.vendor import VendorOptions
        from crm_pipeline.simulators.vendors import run_vendor

        options = VendorOptions(api_key=api_key, token_life=token_life, search_lag=search_lag)
        try:
            run_vendor(
                name,
                contacts=contacts,
                seed=seed,
                days=days,
                host=host,
                port=port,
                options=options,
                faults=fault or (),
                on_ready=lambda url: _announce_vendor(Options.of(context), url, name, contacts),
            )
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None

    app.command(name, help=f"Run a simulated {title} account with made-up contacts until Ctrl-C.")(command)


for _name, _title in (("hubspot", "HubSpot"), ("salesforce", "Salesforce"), ("zoho", "Zoho CRM")):
    _add_vendor(_name, _title)


def _announce_vendor(options: Options, url: str, name: str, contacts: int) -> None:
    options.answer(
        {"api_url": url, "type": name, "contacts": contacts},
        f"An account with {contacts} contacts: "
        f"EXTERNAL_CRM_TYPE={name} EXTERNAL_CRM_API_URL={url} (Ctrl-C stops it)",
    )


def _announce(options: Options, url: str, contacts: int) -> None:
    from crm_pipeline.simulators.generic import CONTACTS_PATH

    api_url = f"{url}{CONTACTS_PATH}"
    options.answer(
        {"api_url": api_url, "contacts": contacts},
        f"A CRM with {contacts} contacts: EXTERNAL_CRM_API_URL={api_url} (Ctrl-C stops it)",
    )
