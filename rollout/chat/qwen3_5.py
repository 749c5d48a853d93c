"""The conversation format of Qwen3.5 and Ornith: ChatML, <think> blocks, tools in <tools>, answers in <tool_response>.

Source: the chat template published with Qwen3.5 (4B and larger). One difference, on purpose: it drops the thinking of
earlier turns when a new user message comes. Here nothing is dropped, as in Ornith's own template, so that a prompt
always begins with every id before it. Text from outside is trimmed, as the template does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from rollout.chat import qwen_calls
from rollout.chat.pieces import Mark, Pieces, split
from rollout.chat.types import Observation, Reply

START, END, TEXT_END = Mark("<|im_start|>"), Mark("<|im_end|>"), Mark("<|endoftext|>")
THINK, THOUGHT = Mark("<think>"), Mark("</think>")
RESPONSE, RESPONSE_END = Mark("<tool_response>"), Mark("</tool_response>")
MARKS = (START, END, TEXT_END, qwen_calls.OPEN, qwen_calls.CLOSE, RESPONSE, RESPONSE_END, THINK, THOUGHT)
STOPS = (END, TEXT_END)

_TOOLS_HEAD = "# Tools\n\nYou have access to the following functions:\n\n<tools>"
_TOOLS_FOOT = """
</tools>

If you choose to call a function ONLY reply in the following format with NO suffix:

<tool_call>
<function=example_function_name>
<parameter=example_parameter_1>
value_1
</parameter>
<parameter=example_parameter_2>
This is the value for the second parameter
that can span
multiple lines
</parameter>
</function>
</tool_call>

<IMPORTANT>
Reminder:
- Function calls MUST follow the specified format: an inner <function=...></function> block must be nested within \
<tool_call></tool_call> XML tags
- Required parameters MUST be specified
- You may provide optional reasoning for your function call in natural language BEFORE the function call, but NOT after
- If there is no function call available, answer the question like normal with your current knowledge and do not tell \
the user about function calls
</IMPORTANT>"""  # the wire format: every word of it is what the published models were trained on


def opening(system: str, user: str, tools: Sequence[Mapping], thinking: bool) -> Pieces:
    """System turn, user turn, generation prompt."""
    system = system.strip()
    pieces: Pieces = []
    if tools:
        listed = [f"\n{json.dumps(tool, ensure_ascii=False)}" for tool in tools]
        pieces += [START, "system\n" + _TOOLS_HEAD, *listed, *split(_TOOLS_FOOT, MARKS)]
        pieces += [f"\n\n{system}" if system else "", END, "\n"]
    elif system:
        pieces += [START, f"system\n{system}", END, "\n"]
    return pieces + _user(user) + _generation(thinking)


def completion(reply: Reply, prompt: Sequence[str]) -> Pieces:
    """What the policy writes to say `reply` after a prompt with these marks."""
    text = reply.text.strip()
    thought = [f"{reply.thinking.strip()}\n", THOUGHT, "\n\n"] if _is_thinking(prompt) else []
    gap = "\n\n" if text and reply.calls else ""
    return [*thought, text + gap, *qwen_calls.encode(reply.calls), END]


def continuation(
    prompt: Sequence[str], written: Sequence[str], last: str, observations: Sequence[Observation]
) -> Pieces:
    """What follows a completion: its end if it was cut, the observations, the generation prompt.

    `prompt` and `written` are the marks of the prompt and of the completion, `last` is the completion's last token if
    that is a mark.
    """
    pieces: Pieces = []
    if last != END:
        if _is_thinking(prompt) and THOUGHT not in written:
            pieces += ["\n", THOUGHT, "\n\n"]
        pieces.append(END)
    pieces.append("\n")
    answers = [o.text for o in observations if o.role == "tool"]
    if answers:
        pieces += [START, "user"]
        for text in answers:
            pieces += ["\n", RESPONSE, f"\n{text.strip()}\n", RESPONSE_END]
        pieces += [END, "\n"]
    for observation in observations[len(answers) :]:
        pieces += _user(observation.text)
    return pieces + _generation(_is_thinking(prompt))


def parse(text: str) -> Reply:
    """A completion without its stop token. A call inside thinking that never ended counts: models leak them there."""
    thinking, ended, body = text.partition(THOUGHT)
    if not ended or qwen_calls.ends_inside(thinking):  # an argument may hold </think>
        thinking, body = "", text
    outside, calls, error = qwen_calls.decode(body)
    return Reply(outside.strip(), thinking.removeprefix(THINK).strip(), calls, error)


def _user(text: str) -> Pieces:
    return [START, f"user\n{text.strip()}", END, "\n"]


def _generation(thinking: bool) -> Pieces:
    open_or_empty = [THINK, "\n"] if thinking else [THINK, "\n\n", THOUGHT, "\n\n"]
    return [START, "assistant\n", *open_or_empty]


def _is_thinking(prompt: Sequence[str]) -> bool:
    """The generation prompt left <think> open."""
    return prompt[-1] == THINK
