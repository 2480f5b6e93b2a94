"""The native client: no gateway, tokens from the node, the receipt checked against genesis.

python examples/native_client.py 127.0.0.1:7000,127.0.0.1:7001 account.json passphrase \
    genesis.json "What is gold?" receipt.json
"""

import sys
from pathlib import Path

import assay
from chain import receipt_files


def main(
    nodes: str, key: Path, passphrase: Path, genesis: Path, question: str, receipt: Path
) -> None:
    """Ask, print the tokens as they come, write the receipt."""
    with assay.Client.open(nodes.split(","), key, passphrase, genesis) as client:
        for event in client.infer(question, max_tokens=32, temperature=0.8):
            match event:
                case assay.Tokens():
                    sys.stdout.write(event.text)
                    sys.stdout.flush()
                case assay.Restarted():
                    sys.stdout.write("\n(the answer starts again)\n")
                case assay.Settled():
                    receipt.write_bytes(receipt_files.dump_json(event.receipt))
                    sys.stdout.write(f"\n{event.status.name} for {event.paid} grain: {receipt}\n")


if __name__ == "__main__":
    addresses, *files, asked, target = sys.argv[1:]
    account, secret, trusted = map(Path, files)
    main(addresses, account, secret, trusted, asked, Path(target))
