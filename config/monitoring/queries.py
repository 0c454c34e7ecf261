"""PromQL, put together from the list of metrics: a name that is not in it is a KeyError.

`$__rate_interval` and the variables are Grafana's; `$model` is a regular expression.
"""

import re

from config.monitoring.exported import Exported, exported

METRICS = {metric.name: metric for metric in exported()}
INTERVAL = "$__rate_interval"
IDENTIFIER = re.compile(r"\b(?:ray|haproxy)_[a-zA-Z0-9_]+")


def series_in(expression: str) -> frozenset[str]:
    """Return the names of the series that a query reads."""
    return frozenset(IDENTIFIER.findall(re.sub(r"\{[^}]*\}", "", expression)))


def selector(metric: Exported, part: str = "", where: str = "") -> str:
    """Select a metric's series, of the chosen models where it says which model it is about."""
    tag = next((tag for tag in ("model", "model_name") if tag in metric.tags), None)
    conditions = ([f'{tag}=~"$model"'] if tag else []) + ([where] if where else [])
    return f"{metric.name}{part}{{{','.join(conditions)}}}" if conditions else f"{metric.name}{part}"


def rate(name: str, by: str, where: str = "") -> str:
    """Count per second."""
    return f"sum by ({by}) (rate({selector(METRICS[name], where=where)}[{INTERVAL}]))"


def value(name: str, by: str, where: str = "", merge: str = "sum") -> str:
    return f"{merge} by ({by}) ({selector(METRICS[name], where=where)})"


def value_or_zero(name: str, by: str, counter: str) -> str:
    """Read a gauge of vLLM's; 0 while it is not there: an engine that makes no steps sets none, and Ray drops it."""
    return f"{value(name, by)} or 0 * sum by ({by}) ({selector(METRICS[counter])})"


def rate_or_zero(name: str, by: str, counter: str) -> str:
    """Count per second what is not there before it has happened once; 0 until then."""
    return f"{rate(name, by)} or 0 * sum by ({by}) ({selector(METRICS[counter])})"


def quantile(name: str, share: float, by: str = "", where: str = "") -> str:
    labels = f"le, {by}" if by else "le"
    buckets = selector(METRICS[name], "_bucket", where)
    return f"histogram_quantile({share}, sum by ({labels}) (rate({buckets}[{INTERVAL}])))"


def quantile_so_far(name: str, share: float, by: str = "") -> str:
    """Over all values so far: a rate shows nothing of what happens once in a while, and never the first."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, sum by ({labels}) ({selector(METRICS[name], '_bucket')}))"


def mean(name: str, by: str, over: str = "", where: str = "") -> str:
    """Mean of a histogram; `over`: of another one, per each of whose values."""
    total = f"sum by ({by}) (rate({selector(METRICS[name], '_sum', where)}[{INTERVAL}]))"
    count = f"rate({selector(METRICS[over or name], '_count', where)}[{INTERVAL}])"
    return f"{total} / ignoring ({by}) group_left sum ({count})" if over else f"{total} / sum by ({by}) ({count})"


def num_per_second(name: str, by: str, where: str = "") -> str:
    """Count a histogram's values per second."""
    return f"sum by ({by}) (rate({selector(METRICS[name], '_count', where)}[{INTERVAL}]))"


def share(part: str, whole: str, by: str) -> str:
    return f"{rate(part, by)} / {rate(whole, by)}"
