"""Checks what deploy/ ships, as far as it can be without a container engine; `./test deploy` runs it.

Prints one line per claim, as tests/steps.py counts them.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import yaml

DEPLOY = Path(__file__).resolve().parent
ROOT = DEPLOY.parent
UNIT = DEPLOY / "systemd" / "tidegate.service"


class Skipped(Exception):
    """Why a claim can't be checked here."""


def run(*command: str, **options) -> str:
    """Runs a command; its output, or an AssertionError with it."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **options)
    assert done.returncode == 0, f"{' '.join(command)} exited with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def seconds(text: str) -> int:
    found = re.fullmatch(r"(\d+)s?", text)
    assert found, f"{text!r} is no number of seconds"
    return int(found[1])


def compose() -> dict:
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())


def nodes() -> dict[str, dict]:
    return {name: service for name, service in compose()["services"].items() if name.startswith("node-")}


def prometheus_configuration():
    """promtool accepts prometheus.yml and the rules that it names"""
    run("promtool", "check", "config", str(DEPLOY / "prometheus" / "prometheus.yml"))


def alerts_fire():
    """every alert is raised when it has to be, and a healthy node raises none"""
    alerts = set(re.findall(r"alert: (\w+)", (DEPLOY / "prometheus" / "alerts.yml").read_text()))
    tests = yaml.safe_load((DEPLOY / "prometheus" / "alerts_test.yml").read_text())["tests"]
    for test in tests:
        untested = alerts - {row["alertname"] for row in test["alert_rule_test"]}
        assert not untested, f"not tested on {test['name']!r}: {untested}"
    run("promtool", "test", "rules", "alerts_test.yml", cwd=DEPLOY / "prometheus")


def alerts_are_documented():
    """every metric in an alert is in docs/metrics.md"""
    page = ROOT / "docs" / "metrics.md"
    text = page.read_text()
    used = set(re.findall(r"\b((?:tidegate|process)_\w+)", (DEPLOY / "prometheus" / "alerts.yml").read_text()))
    missing = {name for name in used if f"`{re.sub('_bucket$', '', name)}`" not in text}
    assert used and not missing, f"not in {page.relative_to(ROOT)}: {missing}"


def scraped_nodes_exist():
    """Prometheus scrapes the nodes of the compose file on their operators' port"""
    jobs = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    targets = {target for job in jobs for static in job["static_configs"] for target in static["targets"]}
    assert targets == {f"{name}:9000" for name in nodes()}, targets


def compose_is_loopback_only():
    """the compose file publishes ports on loopback only, and each once"""
    published = [port for service in compose()["services"].values() for port in service.get("ports", [])]
    assert published and all(port.startswith("127.0.0.1:") for port in published), published
    hosts = [port.rsplit(":", 1)[0] for port in published]
    assert len(set(hosts)) == len(hosts), hosts


def compose_files_exist():
    """what the compose file mounts and builds from is there"""
    for name, service in compose()["services"].items():
        for volume in service.get("volumes", []):
            assert (DEPLOY / volume.split(":")[0]).is_file(), f"{name}: {volume}"
        if "build" in service:
            context = (DEPLOY / service["build"]["context"]).resolve()
            assert (context / service["build"]["dockerfile"]).is_file(), f"{name}: {service['build']}"


def compose_by_docker():
    """docker compose accepts the compose file"""
    if shutil.which("docker") is None or subprocess.run(["docker", "compose", "version"], capture_output=True).returncode:
        raise Skipped("there is no docker compose here")
    run("docker", "compose", "-f", str(DEPLOY / "compose.yaml"), "config", "--quiet",
        env=os.environ | {"TIDEGATE_HTTP_API_KEY": "check"})  # fmt: skip


def supervisors_wait_for_the_drain():
    """compose and systemd wait longer for the end than the node takes (shutdown.timeout)"""
    timeout = 30  # the default of shutdown.timeout, which config/tidegate.toml leaves alone
    stop = re.search(r"^TimeoutStopSec=(\d+)$", UNIT.read_text(), re.M)
    graces = [seconds(node["stop_grace_period"]) for node in nodes().values()] + [int(stop[1])]
    assert all(grace >= timeout + 10 for grace in graces), graces
    assert "timeout" not in re.sub(r"#.*", "", (DEPLOY / "config" / "tidegate.toml").read_text())


def unit_is_valid():
    """systemd accepts the unit"""
    if shutil.which("systemd-analyze") is None:
        raise Skipped("there is no systemd-analyze here")
    with tempfile.TemporaryDirectory() as folder:
        # The check demands that the program exists.
        unit = Path(folder) / UNIT.name
        unit.write_text(UNIT.read_text().replace("/usr/local/bin/tidegate", shutil.which("true")))
        complaints = [line for line in run("systemd-analyze", "verify", str(unit)).splitlines() if UNIT.name in line]
    assert not complaints, "\n".join(complaints)


def sample_configuration():
    """the gateway accepts config/tidegate.toml"""
    binary = os.environ.get("TIDEGATE_BIN")
    if not binary:
        metadata = json.loads(subprocess.check_output(["cargo", "metadata", "--format-version=1", "--no-deps"], cwd=ROOT))
        binary = Path(metadata["target_directory"]) / "debug" / "tidegate"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TIDEGATE_")}
    environment["TIDEGATE_HTTP_API_KEY"] = "check"
    run(str(binary), "check-config", "--config", str(DEPLOY / "config" / "tidegate.toml"), env=environment)


def permitted(expression: str, allowed: set[str]) -> bool:
    """Whether an SPDX expression can be met with allowed licences: OR binds weaker than AND; the old `/` is OR."""
    tokens = re.findall(r"\(|\)|/|[^\s()/]+(?:\s+WITH\s+[^\s()/]+)?", expression)

    def either() -> bool:
        met = both()
        while tokens and tokens[0] in ("OR", "/"):
            tokens.pop(0)
            met = both() or met
        return met

    def both() -> bool:
        met = one()
        while tokens and tokens[0] == "AND":
            tokens.pop(0)
            met = one() and met
        return met

    def one() -> bool:
        token = tokens.pop(0)
        if token != "(":
            return token in allowed
        met = either()
        assert tokens.pop(0) == ")", expression
        return met

    met = either()
    assert not tokens, expression
    return met


def licences_are_permissive():
    """every crate has a licence that deny.toml allows, and comes from the one registry"""
    allowed = set(tomllib.loads((ROOT / "deny.toml").read_text())["licenses"]["allow"])
    assert permitted("(MIT OR GPL-3.0) AND Zlib", allowed) and not permitted("MIT AND GPL-3.0", allowed)
    command = ["cargo", "metadata", "--format-version=1", "--locked"]
    packages = json.loads(subprocess.check_output(command, cwd=ROOT))["packages"]
    refused = [f"{p['name']}: {p['license']}" for p in packages if not permitted(p["license"] or "none", allowed)]
    assert not refused, refused
    elsewhere = [p["name"] for p in packages if (p["source"] or "registry+").split("+")[0] != "registry"]
    assert not elsewhere, elsewhere


CLAIMS = (
    prometheus_configuration, alerts_fire, alerts_are_documented, scraped_nodes_exist, compose_is_loopback_only,
    compose_files_exist, compose_by_docker, supervisors_wait_for_the_drain, unit_is_valid, sample_configuration,
    licences_are_permissive,
)  # fmt: skip


def main() -> int:
    failed = 0
    for claim in CLAIMS:
        text = f"deploy: {claim.__doc__}"
        try:
            claim()
        except Skipped as reason:
            print(f"skip - {text} # {reason}")
        except (AssertionError, OSError, subprocess.SubprocessError, KeyError) as error:
            failed += 1
            print(f"not ok - {text}\n{type(error).__name__}: {error}")
        else:
            print(f"ok - {text}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
