"""`python -m chain.market_simulation`: the verb `assay sim market` alone."""

import typer

from chain.cli.sim_market import market

if __name__ == "__main__":
    typer.run(market)
