"""The market of jobs, played by agents on the real ledger: who gains by what.

`assay sim market` asks of each strategy of a provider, a verifier, or a group of both: what does it
earn a job, and what would the same agents have earned in the same market if they were honest?

What is real: `chain.execution.Ledger`, block by block. Requests, answers, commits and reveals are
the operations and attestations that a node would send; escrow, payments, fees, committees, rulings
and slashes are the ledger's own.

What is assumed (`assumptions`, each with its source): what generating and verifying cost, what a
fraud saves, how likely its evidence shows, how often honest work fails, what a chosen output is
worth. Nothing else is a model.

Words: an *agent* is a provider or a verifier; a *strategy* is a row of a table (`strategies`); a
*group* is the agents under study; its *part* is a job it was assigned, or a seat it was drawn for;
its *profit* is what its accounts gained, with stake, less the cost of its work. A *comparison*
plays the group's strategy and honesty with the same beacons, and gives the difference a part.

Way of data: `assumptions` and `scenarios` -> `market` (agents and blocks) -> `comparison` (means,
spread) -> `report` (JSON, text) and `plots`. The same seed gives the same grains: draws are hashes,
amounts integers; floats only describe the results.

Never imports the node, the store, gRPC, or a runtime.
"""
