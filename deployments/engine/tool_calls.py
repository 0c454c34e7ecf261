"""Forced tool calls fit their tools' schemas, whether or not the tools say `strict`."""

import functools
from collections.abc import Callable
from typing import Any

from vllm.parser import abstract_parser
from vllm.tool_parsers import structural_tag_registry
from vllm.tool_parsers.tool_strict_level import ToolStrictLevel

from deployments.engine import constraints

NAME = "resolve_tool_strictness"


def constrain_forced_calls() -> None:
    """Have vLLM constrain the arguments of required and named calls; safe to call twice.

    By itself it does so only for tools that are `strict`; arguments of others are anything like JSON, `Infinity` too.
    Its setting for that, `tool_strict_level`, would hold for `tool_choice: auto` as well.
    """
    for module in (structural_tag_registry, abstract_parser):
        given = getattr(module, NAME)
        if not hasattr(given, "__wrapped__"):
            setattr(module, NAME, forced(given))


def forced(resolve: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(resolve)
    def resolve_forced(tools: Any, tool_choice: Any, strict_level: ToolStrictLevel) -> Any:
        if tool_choice in ("auto", "none", None):
            return resolve(tools, tool_choice, strict_level)
        request = constraints.current()
        if request is not None and not any(is_strict(tool) for tool in tools or ()):
            request.be_lenient()
        return resolve(tools, tool_choice, ToolStrictLevel.PARAMETER)

    return resolve_forced


def is_strict(tool: Any) -> bool:
    return bool(getattr(getattr(tool, "function", tool), "strict", False))
