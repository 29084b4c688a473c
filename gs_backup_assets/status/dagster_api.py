"""Starts the daily job through the GraphQL API of Dagster's webserver, as a button in its UI would."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from gs_backup_assets.errors import BackupError

_LOG = logging.getLogger(__name__)
_LONGEST_ANSWER = 8 << 20
# A run in one of these has not ended (`RunStatus` of the API).
_UNDER_WAY = ["QUEUED", "NOT_STARTED", "MANAGED", "STARTING", "STARTED", "CANCELING"]

_JOBS = """
query Jobs { repositoriesOrError { __typename
  ... on RepositoryConnection { nodes { name location { name } pipelines { name } } }
  ... on PythonError { message } } }
"""
_RUNS = """
query Runs($filter: RunsFilter!) { runsOrError(filter: $filter, limit: 1) { __typename
  ... on Runs { results { runId } }
  ... on InvalidPipelineRunsFilterError { message }
  ... on PythonError { message } } }
"""
_LAUNCH = """
mutation Launch($params: ExecutionParams!) { launchRun(executionParams: $params) { __typename
  ... on LaunchRunSuccess { run { runId } }
  ... on RunConfigValidationInvalid { errors { message } }
  ... on PipelineNotFoundError { message }
  ... on RunConflict { message }
  ... on UnauthorizedError { message }
  ... on PythonError { message } } }
"""


class DagsterFailed(BackupError):
    """Dagster did not do what it was asked for: `DAGSTER_UNREACHABLE`, `DAGSTER_REFUSED`, `JOB_UNKNOWN`."""


@dataclass(frozen=True)
class UnderWay:
    """A run of the job that has not ended."""

    run_id: str


@dataclass(frozen=True)
class Started:
    """The run that was started."""

    run_id: str


class DagsterApi:
    """The API behind a webserver's address, such as `http://webserver:3000`. Its errors name no address."""

    def __init__(self, url: str, *, timeout_seconds: float = 20.0) -> None:
        self._url = f"{url.rstrip('/')}/graphql"
        self._timeout_seconds = timeout_seconds

    def start(self, job: str, partition: str) -> Started | UnderWay:
        """Start a run of the job for a partition, unless one is under way. Raises DagsterFailed."""
        runs = self._ask(_RUNS, {"filter": {"pipelineName": job, "statuses": _UNDER_WAY}}, "runsOrError", "Runs")
        if runs["results"]:
            return UnderWay(runs["results"][0]["runId"])
        tags = {"dagster/partition": partition, "gs_backup/started_by": "api"}
        params = {
            "selector": self._selector(job),
            "runConfigData": {},
            "mode": "default",
            "executionMetadata": {"tags": [{"key": key, "value": value} for key, value in tags.items()]},
        }
        launched = self._ask(_LAUNCH, {"params": params}, "launchRun", "LaunchRunSuccess")
        return Started(launched["run"]["runId"])

    def _selector(self, job: str) -> dict[str, str]:
        found = self._ask(_JOBS, {}, "repositoriesOrError", "RepositoryConnection")
        for node in found["nodes"]:
            if any(pipeline["name"] == job for pipeline in node["pipelines"]):
                return {
                    "repositoryLocationName": node["location"]["name"],
                    "repositoryName": node["name"],
                    "jobName": job,
                }
        raise DagsterFailed(
            "JOB_UNKNOWN",
            f"No code location of Dagster has the job {job}.",
            "See on its page Deployment whether gs_backup_assets is loaded, with the same backup.yaml.",
        )

    def _ask(self, query: str, variables: dict[str, Any], field: str, wanted: str) -> dict[str, Any]:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = Request(self._url, data=body, headers={"Content-Type": "application/json"})
        try:
            with urlopen(request, timeout=self._timeout_seconds) as answer:
                document = json.loads(answer.read(_LONGEST_ANSWER))
        except HTTPError as error:
            raise _unreachable(f"It answered with status {error.code}.") from None
        except (OSError, HTTPException, ValueError) as error:
            _LOG.warning("Dagster's API: %s", type(error).__name__)
            raise _unreachable("It does not answer, or is no webserver of Dagster.") from None
        told = document.get("data") if isinstance(document, dict) else None
        result = told.get(field) if isinstance(told, dict) else None
        if not isinstance(result, dict):
            raise _unreachable("It does not answer as a webserver of Dagster.")
        if result["__typename"] != wanted:
            # Its words may hold paths of that machine: they are for this server's log alone.
            _LOG.warning("Dagster refused: %s", json.dumps(result)[:2000])
            raise DagsterFailed(
                "DAGSTER_REFUSED",
                f"Dagster answered {result['__typename']}.",
                "The log of `gs-backup serve`, and that of the webserver, say why.",
            )
        return result


def _unreachable(words: str) -> DagsterFailed:
    return DagsterFailed(
        "DAGSTER_UNREACHABLE",
        f"Dagster's webserver cannot be asked. {words}",
        "See that it runs, and that --dagster-url or GS_BACKUP_UI_URL is its address.",
    )
