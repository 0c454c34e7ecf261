"""What the dashboards show of the graph's parts: guided decoding, writing tools, instances, replicas, processes."""

from config.monitoring.panels import Panel, Query, Row, quantiles
from config.monitoring.queries import num_per_second, quantile, quantile_so_far, rate, value

GUIDED = Row(
    "Guided decoding",
    (
        Panel(
            "Requests for a constraint",
            "compiler: waited for a compilation, cache: was there, quarantine: refused without another try. The few "
            "constraints that engines compile themselves are not among them.",
            "reqps",
            (Query(rate("ray_vllm_graph_guided_answers_total", "source"), "{{source}}"),),
            is_stacked=True,
        ),
        Panel(
            "Compilations",
            "costly: it crashed or took too long. left: nobody waited any more.",
            "reqps",
            (Query(rate("ray_vllm_graph_guided_compilations_total", "outcome, compiler"), "{{outcome}} {{compiler}}"),),
            is_stacked=True,
        ),
        Panel(
            "Time of a compilation",
            "Waiting for an actor included.",
            "s",
            quantiles("ray_vllm_graph_guided_compilation_seconds"),
        ),
        Panel(
            "Waiting for an actor",
            "Above the time of a compilation, there are too few of them (`num_actors`).",
            "s",
            quantiles("ray_vllm_graph_guided_waiting_seconds"),
        ),
        Panel(
            "Constraints at hand",
            "Under way, in the cache, in quarantine.",
            "short",
            (
                Query(value("ray_vllm_graph_guided_under_way", "application"), "under way"),
                Query(value("ray_vllm_graph_guided_cached_verdicts", "application"), "cached"),
                Query(value("ray_vllm_graph_guided_quarantined", "application"), "in quarantine"),
            ),
        ),
        Panel(
            "Memory of the cache",
            "About.",
            "bytes",
            (Query(value("ray_vllm_graph_guided_cache_bytes", "application"), "cache"),),
        ),
    ),
)

WRITING = Row(
    "Writing tools",
    (
        Panel(
            "Questions",
            "By how they ended; left: nobody waited any more.",
            "reqps",
            (Query(num_per_second("ray_vllm_graph_writing_seconds", "question, outcome"), "{{question}} {{outcome}}"),),
            is_stacked=True,
        ),
        Panel(
            "Time of a question, 95th percentile",
            "In the Tokenizer, calls of the engine included.",
            "s",
            (
                Query(
                    quantile("ray_vllm_graph_writing_seconds", 0.95, "question", 'outcome="answered"'), "{{question}}"
                ),
            ),
        ),
        Panel(
            "Prompt tokens for questions",
            "Per second, cached ones included.",
            "short",
            (Query(rate("ray_vllm_graph_writing_prompt_tokens_total", "model, question"), "{{model}} {{question}}"),),
            is_stacked=True,
        ),
    ),
)

INSTANCES = Row(
    "Instances",
    (
        Panel(
            "Instances by state",
            "Of those made over the API.",
            "short",
            (Query(value("ray_vllm_graph_instances", "state"), "{{state}}"),),
            is_stacked=True,
        ),
        Panel(
            "Starts",
            "How they ended; all since Ray started.",
            "short",
            (Query(value("ray_vllm_graph_instance_starts_total", "model, outcome"), "{{model}} {{outcome}}"),),
        ),
        Panel(
            "Time until an instance is ready",
            "A request that names a stopped one waits so long. Over all starts since Ray started.",
            "s",
            (
                Query(quantile_so_far("ray_vllm_graph_instance_start_seconds", 0.5), "median"),
                Query(quantile_so_far("ray_vllm_graph_instance_start_seconds", 0.95), "p95"),
            ),
        ),
        Panel(
            "Why instances had to go",
            "All since Ray started. When evicted ones grow with the starts, there is room for fewer models than are "
            "in use.",
            "short",
            (Query(value("ray_vllm_graph_instance_ends_total", "model, why"), "{{model}} {{why}}"),),
        ),
    ),
)

REPLICAS = Row(
    "Replicas",
    (
        Panel(
            "Healthy replicas",
            "Beside how many there should be.",
            "short",
            (
                Query(
                    value("ray_serve_deployment_replica_healthy", "application, deployment"),
                    "{{application}} {{deployment}}",
                ),
                Query(
                    value("ray_serve_autoscaling_target_replicas", "application, deployment", merge="max"),
                    "{{application}} {{deployment}} wanted",
                ),
            ),
        ),
        Panel(
            "State of the applications",
            "6 running, 5 deploying, 4 deleting, 3 not started, 2 unhealthy, 1 deploy failed.",
            "short",
            (Query(value("ray_serve_application_status", "application", merge="min"), "{{application}}"),),
        ),
        Panel(
            "Calls under way",
            "In the replicas of each deployment.",
            "short",
            (
                Query(
                    value("ray_serve_replica_processing_queries", "application, deployment"),
                    "{{application}} {{deployment}}",
                ),
            ),
        ),
        Panel(
            "Calls that wait for a replica",
            "At those who call.",
            "short",
            (
                Query(
                    value("ray_serve_deployment_queued_queries", "application, deployment"),
                    "{{application}} {{deployment}}",
                ),
            ),
        ),
        Panel(
            "Start of a replica, median",
            "Until it is ready. Over all starts since Ray started.",
            "ms",
            (
                Query(
                    quantile_so_far("ray_serve_replica_startup_latency_ms", 0.5, "application, deployment"),
                    "{{application}} {{deployment}}",
                ),
            ),
        ),
    ),
)

LOOPS = Row(
    "Event loops",
    (
        Panel(
            "Event-loop lag, at worst",
            "How late a replica came to what was due. Everything in that process waits so long.",
            "s",
            (
                Query(
                    value("ray_vllm_graph_event_loop_lag_seconds", "application, deployment, replica", merge="max"),
                    "{{application}} {{deployment}} {{replica}}",
                ),
            ),
        ),
        Panel(
            "Event-loop lag, as Serve sees it, 99th percentile",
            "Of every replica, and of Serve's own processes.",
            "ms",
            (
                Query(
                    quantile("ray_serve_event_loop_scheduling_latency_ms", 0.99, "component, application, deployment"),
                    "{{component}} {{application}} {{deployment}}",
                ),
            ),
        ),
        Panel(
            "Round of Serve's controller",
            "Above some seconds, nothing is scaled or replaced in time.",
            "s",
            (Query(value("ray_serve_controller_control_loop_duration_s", "NodeAddress", merge="max"), "controller"),),
        ),
    ),
)

OF_RAY = 'Component!="ray::DashboardAgent"'
"""Without what is counted a second time, as `agent`."""

PROCESSES = Row(
    "CPU and memory",
    (
        Panel(
            "CPU by process",
            "100 % is one core. Replicas of a deployment are added up; what they start (engine cores, HAProxy) is not "
            "among them: it is in the next panel.",
            "percent",
            (Query(value("ray_component_cpu_percentage", "Component", OF_RAY), "{{Component}}"),),
            is_stacked=True,
        ),
        Panel(
            "CPU of the machines",
            "100 % is one core. Others: engine cores, HAProxy, and what else runs there.",
            "percent",
            (
                Query(value("ray_component_cpu_percentage", "ip", OF_RAY), "{{ip}} Ray and replicas"),
                Query(
                    "clamp_min(sum by (ip) (ray_node_cpu_utilization * ray_node_cpu_count) - "
                    + value("ray_component_cpu_percentage", "ip", OF_RAY)
                    + ", 0)",
                    "{{ip}} others",
                ),
            ),
            is_stacked=True,
        ),
        Panel(
            "Memory by process",
            "What a process shares with nobody; engine cores and HAProxy are not among them.",
            "bytes",
            (Query(value("ray_component_uss_bytes", "Component", OF_RAY), "{{Component}}"),),
            is_stacked=True,
        ),
        Panel(
            "Memory of the machines",
            "In use, and all there is.",
            "bytes",
            (
                Query(value("ray_node_mem_used", "ip"), "{{ip}} used"),
                Query(value("ray_node_mem_total", "ip"), "{{ip}} total"),
            ),
        ),
        Panel(
            "What Ray has given away",
            "Of what replicas reserve: CPU, GPU.",
            "percentunit",
            (
                Query(
                    value("ray_resources", "Name", 'Name=~"CPU|GPU",State="USED"')
                    + " / "
                    + value("ray_resources", "Name", 'Name=~"CPU|GPU"'),
                    "{{Name}}",
                ),
            ),
        ),
        Panel(
            "Bytes to clients",
            "Per second, at HAProxy.",
            "Bps",
            (Query(rate("haproxy_frontend_bytes_out_total", "proxy", 'proxy="http_frontend"'), "sent"),),
        ),
    ),
)
