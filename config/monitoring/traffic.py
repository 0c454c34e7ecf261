"""What the dashboards show of requests: how many, how they ended, how long they took, and what the engines did."""

from config.monitoring.panels import Panel, Query, Row, quantiles
from config.monitoring.queries import mean, quantile, rate, rate_or_zero, share, value, value_or_zero

SUCCESS = "ray_vllm_request_success_total"
FRONT, BACK = 'proxy="http_frontend"', 'proxy="http-gateway"'


def of_vllm(title: str, meaning: str, name: str) -> Panel:
    return Panel(title, meaning, "s", quantiles(f"ray_vllm_{name}_seconds", "model_name"))


def of_layer(title: str, meaning: str, layer: str) -> Panel:
    # vLLM's own histograms of these begin at 0.3 s: of what is shorter they show nothing.
    return Panel(title, meaning, "s", quantiles("ray_vllm_graph_request_layer_seconds", "model", f'layer="{layer}"'))


REQUESTS = Row(
    "Requests and errors",
    (
        Panel(
            "Answers by status, at HAProxy",
            "Those included that no Python has seen. Errors within a stream have status 200.",
            "reqps",
            (Query(rate("haproxy_frontend_http_responses_total", "code", FRONT), "{{code}}"),),
            is_stacked=True,
        ),
        Panel(
            "Answers by status, at the ingress",
            "429 is a limit or overload, 503 a model that cannot be called, 504 a deadline; 0: the client left before.",
            "reqps",
            (Query(rate("ray_vllm_graph_requests_total", "status"), "{{status}}"),),
            is_stacked=True,
        ),
        Panel(
            "Requests by route and model",
            "Without a model: it was not looked for, or is not known.",
            "reqps",
            (Query(rate("ray_vllm_graph_requests_total", "route, model"), "{{route}} {{model}}"),),
            is_stacked=True,
        ),
        Panel(
            "Errors by kind",
            "Those included that came when a stream had begun; client_left: nobody waited any more.",
            "reqps",
            (Query(rate("ray_vllm_graph_requests_total", "error, model", 'error!=""'), "{{error}} {{model}}"),),
            is_stacked=True,
        ),
        Panel(
            "How requests ended, in the engines",
            "length: max_tokens or the window was reached. abort: the client left, or a deadline passed.",
            "reqps",
            (Query(rate(SUCCESS, "model_name, finished_reason"), "{{model_name}} {{finished_reason}}"),),
            is_stacked=True,
        ),
        Panel(
            "Connections, and requests that wait for an ingress replica",
            "At HAProxy. Waiting requests mean that the ingress replicas are full.",
            "short",
            (
                Query(value("haproxy_frontend_current_sessions", "proxy", FRONT), "connections"),
                Query(value("haproxy_backend_current_queue", "proxy", BACK), "waiting"),
            ),
        ),
    ),
)

LATENCY = Row(
    "Latency",
    (
        Panel(
            "Whole requests, at the ingress",
            "From the first byte to the last, of requests that a model answered to the end.",
            "s",
            quantiles("ray_vllm_graph_request_seconds", "model"),
        ),
        of_vllm("Time to first token", "In the engine, its queue included.", "time_to_first_token"),
        of_vllm("Time between tokens", "In the engine; several tokens may come at once.", "inter_token_latency"),
        of_vllm(
            "Whole requests, in the engine",
            "From acceptance to the last token. The first bucket ends at 0.3 s.",
            "e2e_request_latency",
        ),
    ),
)

BUDGET = Row(
    "Where the time of a request goes",
    (
        Panel(
            "Seconds of a request, by layer",
            "The mean over all requests; the parts add up to the whole. `x-latency-budget: 1` has the figures of one "
            "request.",
            "s",
            (
                Query(
                    mean("ray_vllm_graph_request_layer_seconds", "layer", over="ray_vllm_graph_request_seconds"),
                    "{{layer}}",
                ),
            ),
            is_stacked=True,
        ),
        Panel(
            "Layers, 95th percentile",
            "Of requests that used the layer at all.",
            "s",
            (Query(quantile("ray_vllm_graph_request_layer_seconds", 0.95, "layer"), "{{layer}}"),),
        ),
        of_layer("Waiting in the engine", "For room in its steps.", "engine_queue"),
        of_layer("Prefill", "From the first step to the first token.", "prefill"),
        of_layer("Decode", "From the first token to the last.", "decode"),
    ),
)

ENGINES = Row(
    "Engines",
    (
        Panel(
            "Requests in the engines",
            "Running: they take part in the steps. Waiting: there is no room for them.",
            "short",
            (
                Query(value_or_zero("ray_vllm_num_requests_running", "model_name", SUCCESS), "{{model_name}} running"),
                Query(value_or_zero("ray_vllm_num_requests_waiting", "model_name", SUCCESS), "{{model_name}} waiting"),
            ),
        ),
        Panel(
            "KV cache in use",
            "The fullest engine of each model. Near 100 % requests wait, and some are put back.",
            "percentunit",
            (
                Query(
                    value("ray_vllm_kv_cache_usage_perc", "model_name", merge="max")
                    + " or 0 * "
                    + value(SUCCESS, "model_name"),
                    "{{model_name}}",
                ),
            ),
        ),
        Panel(
            "Requests put back",
            "Preemptions: the KV cache was full, and what they had computed is computed again.",
            "ops",
            (Query(rate_or_zero("ray_vllm_num_preemptions_total", "model_name", SUCCESS), "{{model_name}}"),),
        ),
        Panel(
            "Prompt tokens found in the prefix cache",
            "The share that needed no computing.",
            "percentunit",
            (
                Query(
                    share("ray_vllm_prefix_cache_hits_total", "ray_vllm_prefix_cache_queries_total", "model_name"),
                    "{{model_name}}",
                ),
            ),
        ),
        Panel(
            "Tokens per second",
            "Prompt tokens include cached ones.",
            "short",
            (
                Query(rate("ray_vllm_prompt_tokens_total", "model_name"), "{{model_name}} prompt"),
                Query(rate("ray_vllm_generation_tokens_total", "model_name"), "{{model_name}} generated"),
            ),
        ),
        Panel(
            "Tokens of a step",
            "Prefill and decode together; the more, the better a GPU is used, and the longer a step takes.",
            "short",
            quantiles("ray_vllm_iteration_tokens_total", "model_name"),
        ),
    ),
)
