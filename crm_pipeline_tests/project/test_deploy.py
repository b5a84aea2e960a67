"""What is shipped for containers and a cluster: the same processes, no secret, no open door, real options."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from crm_pipeline.api.routes import ROUTES
from crm_pipeline.cli.up import OURS, programs
from crm_pipeline_tests.project.pages import ROOT
from crm_pipeline_tests.project.test_docs import assert_can_be_typed

DEPLOY = ROOT / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
VALUES: dict[str, Any] = yaml.safe_load((DEPLOY / "kubernetes" / "values.yaml").read_text())
API: list[dict[str, Any]] = list(yaml.safe_load_all((DEPLOY / "kubernetes" / "api.yaml").read_text()))
DOCKERFILE = (ROOT / "Dockerfile").read_text()
PLACES = {"--host", "--port", "--code-host", "--code-port"}
OF_UP = {program.name: list(program.command) for program in programs(3000, 8080, 4000, 2)}


def without_places(words: list[str]) -> list[str]:
    """A command without the addresses, which differ between one host and containers."""
    kept = [
        word for at, word in enumerate(words) if word not in PLACES and words[max(at - 1, 0)] not in PLACES
    ]
    return kept[len(OURS) :] if kept[: len(OURS)] == list(OURS) else kept


@pytest.mark.parametrize("name", OF_UP)
def test_containers_run_what_the_script_runs(name: str) -> None:
    """`up` is what the tests kill and heal; compose starts the very same processes."""
    command = COMPOSE["services"][name]["command"]
    assert_can_be_typed(command)
    assert without_places(command) == without_places(OF_UP[name])


def test_every_container_can_be_told_well_from_ill() -> None:
    """Each has a healthcheck, is started again, and waits for what it needs."""
    services = COMPOSE["services"]
    assert set(services) == {*OF_UP, "db", "upgrade"}
    for name, service in services.items():
        if name != "upgrade":
            assert service["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}, name
            assert service["restart"] == "unless-stopped", name
        for needed in service.get("depends_on", {}):
            assert needed in services


def test_nothing_is_published_beyond_this_machine() -> None:
    """Neither the UI, which has no login, nor the database, nor the code server."""
    ports = {name: service["ports"] for name, service in COMPOSE["services"].items() if "ports" in service}
    assert ports == {"web": ["127.0.0.1:3000:3000"], "api": ["127.0.0.1:8080:8080"]}


@pytest.mark.parametrize("path", [*DEPLOY.rglob("*.yaml"), ROOT / "Dockerfile"], ids=lambda path: path.name)
def test_no_secret_is_written_down(path: Path) -> None:
    """Secrets are referred to; whoever copies a file copies no password."""
    for line in path.read_text().splitlines():
        said = re.match(r"\s*-?\s*(\w*(?:PASSWORD|SECRET|API_KEY|TOKEN_KEY))\s*[:=]\s*(\S.*)$", line)
        assert said is None or said[2].startswith("${"), line
        assert not re.search(r"://[^\s@/]+:[^\s@/]+@", line), line


def test_the_image_does_not_run_as_root_and_holds_only_what_it_needs() -> None:
    """Its last user is a number that is not 0; every file it copies exists and is let through."""
    users = re.findall(r"^USER (\S+)$", DOCKERFILE, re.MULTILINE)
    assert users == ["10001:10001"]
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE):
        for source in sources.split():
            assert (ROOT / source).exists(), source
            assert any(fnmatch(source.removeprefix("./"), pattern) for pattern in allowed), source
    assert all(":" in image for image in re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE))


def test_the_cluster_runs_our_code_under_its_fixed_name() -> None:
    """The chart's code server gets our module; the workspace finds it under the name that state hangs on."""
    (deployed,) = VALUES["dagster-user-deployments"]["deployments"]
    (server,) = VALUES["dagsterWebserver"]["workspace"]["servers"]
    assert deployed["dagsterApiGrpcArgs"] == [
        *("--module-name", "crm_pipeline.definitions"),
        *("--location-name", "crm_pipeline"),
    ]
    assert server == {"host": deployed["name"], "port": deployed["port"], "name": "crm_pipeline"}
    assert VALUES["runLauncher"]["type"] == "K8sRunLauncher"
    assert VALUES["postgresql"]["postgresqlScheme"] == "postgresql+psycopg2"
    assert deployed["envSecrets"] == [{"name": "crm-pipeline"}]


def test_the_clusters_instance_says_what_ours_says(tmp_path: Path) -> None:
    """In Dagster's own words, it loads; pools, retries and monitoring are those of one machine."""
    embedded = yaml.safe_load((ROOT / "dagster.yaml").read_text())
    said = VALUES["additionalInstanceConfig"]
    for key in ("run_queue", "run_retries", "nux"):
        assert said[key] == embedded[key]
    assert said["concurrency"]["pools"] == embedded["concurrency"]["pools"]
    daemon = VALUES["dagsterDaemon"]
    assert (
        daemon["runMonitoring"]["freeSlotsAfterRunEndSeconds"]
        == (embedded["run_monitoring"]["free_slots_after_run_end_seconds"])
    )
    assert not daemon["runCoordinator"]["enabled"]
    assert not daemon["runRetries"]["enabled"]
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(said))
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert instance.run_retries_enabled
        assert instance.get_concurrency_config().run_queue_config is not None


def test_the_clusters_api_is_probed_where_it_answers() -> None:
    """Its commands are real, its secrets are referred to, it is confined."""
    deployment = next(each for each in API if each["kind"] == "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    public = {route.path for route in ROUTES if route.public}
    for container in [*pod["initContainers"], *pod["containers"]]:
        assert_can_be_typed(container["args"])
        assert container["envFrom"] == [{"secretRef": {"name": "crm-pipeline"}}]
        assert container["securityContext"]["readOnlyRootFilesystem"]
    (answering,) = pod["containers"]
    for probe in ("startupProbe", "livenessProbe"):
        assert answering[probe]["httpGet"]["path"] in public
    assert "127.0.0.1:8080/readyz" in answering["readinessProbe"]["exec"]["command"][-1]
    assert pod["securityContext"]["runAsNonRoot"]


def test_the_workspace_of_processes_names_the_same_location() -> None:
    """Two workspace files, one name."""
    (own,) = yaml.safe_load((ROOT / "workspace.yaml").read_text())["load_from"]
    (served,) = yaml.safe_load((DEPLOY / "workspace.yaml").read_text())["load_from"]
    assert served["grpc_server"]["location_name"] == own["python_module"]["location_name"]
