"""`token`: keys and tokens of a client, as an EHR makes them."""

from pathlib import Path

import click


@click.group()
def token() -> None:
    """Make a client's keys and tokens, as an EHR does: for tests and for a first day."""


def _algorithm(_: click.Context, __: click.Parameter, given: str) -> str:
    from cds_service.jwks import ALGORITHMS  # it takes a while to load

    if given not in ALGORITHMS:
        raise click.BadParameter(f"{given} is none of {', '.join(ALGORITHMS)}")
    return given


@token.command("keys")
@click.option("--algorithm", default="ES384", show_default=True, callback=_algorithm)
@click.option("--out", "folder", required=True, type=click.Path(file_okay=False, path_type=Path))
def make_keys(algorithm: str, folder: Path) -> None:
    """Make a key pair: a private key, and its public half added to jwks.json beside it."""
    from cds_service.minting import KEY_SET, NoKey, write_key

    try:
        file, kid = write_key(algorithm, folder)
    except (NoKey, OSError) as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"kid {kid}\nprivate key {file}\npublic keys {folder / KEY_SET}")


@token.command()
@click.option(
    "--key",
    "key_file",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The private key file of token keys.",
)
@click.option("--issuer", required=True, help="Who the client says it is.")
@click.option("--audience", required=True, help="The URL that is called.")
@click.option("--tenant", help="The organisation within the client.")
@click.option("--subject", help="A further claim that some EHRs send.")
@click.option("--jku", default="", help="Where the client's public keys are.")
@click.option("--expires", default=300, show_default=True, type=int, help="In how many seconds.")
def mint(
    key_file: Path,
    issuer: str,
    audience: str,
    tenant: str | None,
    subject: str | None,
    jku: str,
    expires: int,
) -> None:
    """Print a token for one call of one URL."""
    from cds_service.minting import NoKey
    from cds_service.minting import mint as minted

    named = {"iss": issuer, "aud": audience, "tenant": tenant, "sub": subject}
    claims = {name: value for name, value in named.items() if value is not None}
    try:
        click.echo(minted(key_file, claims, expires, jku))
    except (NoKey, OSError) as error:
        raise click.ClickException(str(error)) from None
