"""PLACEHOLDER by lead: owner X overwrites."""


def failure_domain(e):
    return "infra" if isinstance(e, ConnectionError) else "code"
