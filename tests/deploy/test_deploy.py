"""What is in deploy/ is of one piece: what can be checked without a container engine or systemd."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from chain.doctor import examine
from chain.genesis import split_address
from chain.keys import Role
from chain.keystore import load_key, read_passphrase
from chain.node.config import load_config
from tests.commands import check_command

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"


def compose() -> Any:
    return yaml.safe_load((DEPLOY / "compose.yml").read_text())


def test_the_homes_script_makes_homes_that_a_node_would_start_with(tmp_path: Path) -> None:
    tools = Path(sys.executable).parent
    subprocess.run(
        [str(DEPLOY / "make-homes.sh"), str(tmp_path)],
        check=True,
        capture_output=True,
        timeout=240,
        env={**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"},
    )
    home = tmp_path / "homes" / "validator-2"
    checks = {item.check: item for item in examine(home) if item.check in ("keys", "genesis")}
    assert {item.level.value for item in checks.values()} == {"fine"}
    config = load_config(home)
    services = compose()["services"]
    port = split_address(config.http.listen)[1]
    (job,) = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())[
        "scrape_configs"
    ]
    (targets,) = (item["targets"] for item in job["static_configs"])
    assert targets == [f"{name}:{port}" for name in services if name.startswith("validator-")]
    (runtime,) = config.runtimes
    assert runtime == f"runtime:{services['runtime']['command'][-2].rpartition(':')[2]}"
    check_restored(home, tmp_path / "restored")


def check_restored(home: Path, restored: Path) -> None:
    """docs/operators.md: the 24 words bring keys back. One of them here, for opening is dear."""
    words, secret = home / "keys" / "mnemonic", home / "keys" / "passphrase"
    arguments = ["keys", "new", "signing", "--home", restored, "--role", "signing"]
    arguments += ["--from-mnemonic", words, "--passphrase-file", secret]
    command = [str(Path(sys.executable).with_name("assay")), *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    name, passphrase = Path("keys") / "signing.json", read_passphrase(secret)
    again = load_key(restored / name, passphrase, Role.SIGNING)
    assert again.public_key == load_key(home / name, passphrase, Role.SIGNING).public_key


def test_what_compose_runs_are_commands_with_options_that_exist() -> None:
    commands = [item["command"] for item in compose()["services"].values() if "command" in item]
    assert len(commands) == 5
    for command in commands:
        check_command(command)


@pytest.mark.parametrize("name", ["assay-node.service", "assay-runtime.service"])
def test_what_a_unit_runs_is_a_command_with_options_that_exist(name: str) -> None:
    (line,) = re.findall(r"^ExecStart=(.*)$", (DEPLOY / name).read_text(), re.MULTILINE)
    program, *arguments = shlex.split(line)
    assert program.endswith("/bin/assay")
    check_command(arguments)


@pytest.mark.parametrize("name", ["assay-node.service", "assay-runtime.service"])
def test_a_unit_has_sections_and_settings_and_nothing_else(name: str) -> None:
    lines = (DEPLOY / name).read_text().splitlines()
    kept = [line for line in lines if line and not line.startswith("#")]
    assert [line for line in kept if line.startswith("[")] == ["[Unit]", "[Service]", "[Install]"]
    assert [line for line in kept if not re.fullmatch(r"\[\w+\]|[A-Z]\w+=.+", line)] == []


def test_the_image_copies_what_there_is_and_all_that_is_built_from() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    copied = {
        name
        for line in re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.MULTILINE)
        for name in line.split()
    }
    assert [name for name in copied if not (DEPLOY.parent / name).exists()] == []
    assert {"pyproject.toml", "setup.py", "chain", "consensus", "ext", "runtime"} <= copied


def test_the_image_runs_the_program_and_compose_gives_it_a_verb() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    (entry,) = re.findall(r"^ENTRYPOINT (.+)$", text, re.MULTILINE)
    (default,) = re.findall(r"^CMD (.+)$", text, re.MULTILINE)
    assert (json.loads(entry), json.loads(default)) == (["assay"], ["--help"])
    instructions = {line.split()[0] for line in re.findall(r"^[A-Z]+ .*$", text, re.MULTILINE)}
    assert instructions <= {"FROM", "RUN", "WORKDIR", "COPY", "ENV", "USER", "ENTRYPOINT", "CMD"}
    ours = [service for service in compose()["services"].values() if service["image"] == "assay"]
    for service in ours:
        build = service["build"]
        assert (DEPLOY / build["context"] / build["dockerfile"]).samefile(DEPLOY / "Dockerfile")
        assert service["command"][0] != "assay"


def test_what_compose_mounts_and_publishes_is_there() -> None:
    script = (DEPLOY / "make-homes.sh").read_text()
    listens = set(re.findall(r"-listen 0\.0\.0\.0:(\d+)", script))
    for name, service in compose()["services"].items():
        for volume in service.get("volumes", []):
            place = volume.split(":")[0].removeprefix("./")
            made = place == "models" or re.fullmatch(r"homes/validator-[0-3]", place)
            assert made or (DEPLOY / place).is_dir(), f"{name} mounts {place}"
        for published in service.get("ports", []):
            address, _, inside = published.split(":")
            assert address == "127.0.0.1"
            assert name == "grafana" or inside in listens
