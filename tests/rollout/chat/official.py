"""The published templates, rendered by transformers as a server would."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

from transformers import PreTrainedTokenizerFast

TEMPLATES = Path(__file__).parent / "templates"


@functools.cache
def _renderer(template: str, tokenizer_dir: Path) -> PreTrainedTokenizerFast:
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(tokenizer_dir / "tokenizer.json"), bos_token="<bos>")
    tokenizer.chat_template = (TEMPLATES / f"{template}.jinja").read_text()
    return tokenizer


def render(
    template: str, tokenizer_dir: Path, messages: Sequence[Mapping], tools: Sequence[Mapping], **options: object
) -> str:
    """The text of the whole conversation, with a generation prompt unless the policy spoke last."""
    return _renderer(template, tokenizer_dir).apply_chat_template(
        list(messages),
        tools=list(tools) or None,
        tokenize=False,
        add_generation_prompt=messages[-1]["role"] != "assistant",
        **options,
    )
