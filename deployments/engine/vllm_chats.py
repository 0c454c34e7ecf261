"""How vLLM writes this model's chats: what others need to write them in the same way."""

import hashlib
import json
from argparse import Namespace
from pathlib import Path
from typing import Any

from vllm.entrypoints.launchers.cli_args import resolve_default_chat_template_kwargs
from vllm.renderers.hf import resolve_chat_template, resolve_chat_template_content_format

from deployments.types import TokenizerSource


def chat_templates(engine: Any, args: Namespace) -> dict[str, str]:
    """Return the Jinja texts that chats with and without tools are rendered with; none without a template."""
    tokenizer, model_config = engine.renderer.tokenizer, engine.model_config
    if not hasattr(tokenizer, "get_chat_template"):  # no tokenizer, or one that formats chats by itself
        return {}
    # A model may have one template for requests with tools and another for those without.
    without_tools = resolve_chat_template(tokenizer, args.chat_template, None, model_config=model_config)
    with_tools = resolve_chat_template(tokenizer, args.chat_template, [], model_config=model_config)
    found = {"without tools": without_tools, "with tools": with_tools}
    return {when: text for when, text in found.items() if text}


def tokenizer_source(engine: Any, args: Namespace, chat_template: str | None) -> TokenizerSource | None:
    """Say where the tokenizer is; None when there is none, or none that says which characters a token stands for."""
    tokenizer, config = engine.renderer.tokenizer, engine.model_config
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or config.tokenizer_mode not in ("auto", "hf"):
        return None
    # Others have another working directory.
    path = str(Path(config.tokenizer).resolve()) if Path(config.tokenizer).is_dir() else config.tokenizer
    return TokenizerSource(
        path=path,
        revision=config.tokenizer_revision,
        trust_remote_code=config.trust_remote_code,
        chat_template=chat_template,
        content_format=resolve_chat_template_content_format(
            chat_template, None, args.chat_template_content_format, tokenizer, model_config=config
        ),
        template_arguments=json.dumps(resolve_default_chat_template_kwargs(args)),
        digest=hashlib.sha256(backend.to_str().encode()).hexdigest(),
    )
