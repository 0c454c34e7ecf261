"""The routes of models, and where HAProxy finds those that take requests themselves. Nothing else is imported: it is
read at every reload of HAProxy.
"""

GRAMMARS = "/v1/grammars"
FORWARDED = (
    "/v1/chat/completions",
    "/v1/chat/completions/render",
    "/v1/completions",
    "/v1/completions/render",
    "/v1/responses",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/v1/embeddings",
    "/v1/rerank",
    "/v1/score",
    "/pooling",
    "/classify",
    "/score",
    "/rerank",
    "/tokenize",
    "/detokenize",
    GRAMMARS,
)
"""An allow-list: vLLM's control and development routes are not on it and never will be."""
DIRECT_PREFIX = "/models/"
"""The route prefix of a model on the direct data plane is this and its name."""
