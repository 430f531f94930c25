"""What ``bulkscope setup`` works with, from its options and the environment: servers, files, passwords."""

from __future__ import annotations

import argparse
import ssl
from collections.abc import Callable, Mapping

from bulkscope_studio.elastic import environment
from bulkscope_studio.elastic.client import Client, Trouble, basic
from bulkscope_studio.elastic.environment import BadEnvironment
from bulkscope_studio.setup import plan
from bulkscope_studio.setup.apply import Session

__all__ = ["BadEnvironment", "Trouble", "Usage", "made"]


class Usage(Exception):
    """The command line is wrong, or what it needs is not set (exit code 2)."""


def made(options: argparse.Namespace, variables: Mapping[str, str], say: Callable[[str], None]) -> Session:
    """Return what the steps need, from the options of ``bulkscope setup`` and the environment.

    Raises ``Usage``, ``BadEnvironment`` or ``plan.BadPlan``.
    """
    credentials = environment.credentials(variables)
    if credentials is None:
        raise Usage("set ELASTIC_PASSWORD or ELASTICSEARCH_API_KEY in the environment")
    tls = None
    if options.ca is not None:
        try:
            tls = ssl.create_default_context(cafile=str(options.ca))
        except (OSError, ssl.SSLError) as error:
            raise Usage(f"--ca {options.ca} cannot be used ({error})") from error
    servers = [
        Client(name, environment.address(variables, variable, default), credentials, variable, tls)
        for name, variable, default in (
            ("Elasticsearch", "ELASTICSEARCH_URL", environment.ELASTICSEARCH),
            ("Kibana", "KIBANA_URL", environment.KIBANA),
        )
    ]
    retention = {signal: getattr(options, f"{signal}_retention") for signal in plan.SIGNALS}
    retention = {signal: value for signal, value in retention.items() if value is not None}
    for value in retention.values():
        plan.seconds(value)
    if not 0 <= options.wait <= 3600:
        raise Usage("--wait takes 0 to 3600 seconds")
    try:
        kibana_sources = plan.folder("kibana", options.files)
    except plan.BadPlan:
        kibana_sources = None
    password = environment.secret(variables, "KIBANA_SYSTEM_PASSWORD")
    files = {
        "bulkscope_collector": options.collector_key_file,
        "bulkscope_reader": options.reader_key_file,
        "bulkscope_publisher": options.publisher_key_file,
    }
    found = Session(
        elasticsearch=servers[0],
        kibana=servers[1],
        sources=plan.folder("elasticsearch", options.files),
        kibana_sources=kibana_sources,
        retention=retention,
        exporter=options.exporter,
        dry_run=options.dry_run,
        wait_s=options.wait,
        kibana_password=basic("kibana_system", password, "KIBANA_SYSTEM_PASSWORD") if password else None,
        kibana_secret=password,
        key_files={role: path for role, path in files.items() if path is not None},
        rotate_keys=options.rotate_keys,
        print_keys=options.print_keys,
        shorten_retention=options.shorten_retention,
        rollover=options.rollover,
        force_dashboards=options.force_dashboards,
        ndjson=options.ndjson,
        say=say,
    )
    # All files are read before the first change: a mistake in the last must not be found half-way.
    plan.component_templates(found.sources, found.retention)
    plan.index_templates(found.sources)
    plan.roles(found.sources)
    if found.kibana_sources is not None:
        plan.dashboards(found.kibana_sources)
    return found
