#!/usr/bin/env bash
# Keys, a genesis and node.toml files for the four validators of compose.yml, in deploy/homes.
# Needs `assay` on PATH. Keep homes/*/keys/mnemonic somewhere safe, then delete it from here.
set -euo pipefail
cd "${1:-$(dirname "$0")}"
mkdir -p homes
declarations=()
for index in 0 1 2 3; do
  home=homes/validator-$index
  mkdir -p "$home/keys"
  (umask 077 && python3 -c 'import secrets; print(secrets.token_hex(16))' > "$home/keys/passphrase")
  assay genesis declare --home "$home" --index "$index" --address "validator-$index:7100" --stake 1000 \
    --output "homes/declaration-$index.json" --passphrase-file "$home/keys/passphrase"
  declarations+=(--declaration "homes/declaration-$index.json")
done
account() { python3 -c 'import json,sys; print(json.load(open(sys.argv[1]))["account"])' "$1"; }
balances=()
for index in 0 1 2 3; do
  balances+=(--account "$(account "homes/declaration-$index.json")=100000000000000")
done
assay genesis create --name compose "${declarations[@]}" "${balances[@]}" \
  --treasury "$(account homes/declaration-0.json)" --output homes/genesis.json
for index in 0 1 2 3; do
  home=homes/validator-$index
  cp homes/genesis.json "$home/genesis.json"
  assay node init --home "$home" --validator "$index" --public-listen 0.0.0.0:7000 \
    --peer-listen 0.0.0.0:7100 --http-listen 0.0.0.0:9464 --runtime runtime:9500
done
