"""The fake engine's OpenAPI document: the field names that vLLM 0.32 knows; a test holds them to the real engine's."""

import json

CHAT = """
    add_generation_prompt add_special_tokens allowed_token_ids bad_words cache_salt chat_template
    chat_template_kwargs continue_final_message documents ec_transfer_params echo frequency_penalty ignore_eos
    include_reasoning include_stop_str_in_output kv_transfer_params length_penalty logit_bias logprob_token_ids
    logprobs max_completion_tokens max_tokens media_io_kwargs messages min_p min_tokens mm_payload
    mm_processor_kwargs model n parallel_tool_calls presence_penalty priority prompt_logprobs reasoning_effort
    repetition_detection repetition_penalty request_id response_format return_mm_kwargs return_prompt_text
    return_token_ids return_token_offsets return_tokens_as_token_ids routed_experts_prompt_start seed session_id
    skip_special_tokens spaces_between_special_tokens stop stop_token_ids stream stream_interval stream_options
    structured_outputs temperature thinking_token_budget tool_choice tools top_k top_logprobs top_p
    truncate_prompt_tokens truncation_side use_beam_search user vllm_xargs watermarking
""".split()

COMPLETION = """
    add_special_tokens allowed_token_ids bad_words cache_salt ec_transfer_params echo frequency_penalty
    ignore_eos include_stop_str_in_output kv_transfer_params length_penalty logit_bias logprob_token_ids
    logprobs max_tokens min_p min_tokens mm_payload model n presence_penalty priority prompt prompt_embeds
    prompt_logprobs repetition_detection repetition_penalty request_id response_format return_mm_kwargs
    return_token_ids return_token_offsets return_tokens_as_token_ids routed_experts_prompt_start seed session_id
    skip_special_tokens spaces_between_special_tokens stop stop_token_ids stream stream_interval stream_options
    structured_outputs suffix temperature thinking_token_budget top_k top_p truncate_prompt_tokens
    truncation_side use_beam_search user vllm_xargs watermarking
""".split()

TOKENIZE = """
    add_generation_prompt add_special_tokens chat_template chat_template_kwargs continue_final_message
    media_io_kwargs messages mm_processor_kwargs model prompt return_token_strs tools
""".split()

DETOKENIZE = """
    model tokens
""".split()

FIELDS = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": COMPLETION,
    "/tokenize": TOKENIZE,
    "/detokenize": DETOKENIZE,
}


def fake_openapi() -> str:
    """Return the document as JSON."""
    return json.dumps({"paths": {path: {"post": operation(names)} for path, names in FIELDS.items()}})


def operation(names: list[str]) -> dict[str, object]:
    schema = {"type": "object", "properties": {name: {} for name in names}}
    return {"requestBody": {"content": {"application/json": {"schema": schema}}}}
