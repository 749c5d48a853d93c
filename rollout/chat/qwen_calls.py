"""Tool calls of Qwen3.5 and Ornith: XML tags, string values raw, other values as JSON.

    <tool_call>
    <function=read>
    <parameter=path>
    src/a.py
    </parameter>
    </function>
    </tool_call>

Source: the chat template published with Qwen3.5. Raw values make some calls ambiguous (a value that itself ends in
</parameter> and </function>); those are written as the JSON object of the older Qwen models, which `decode` reads too.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Sequence

from envs.tools import Call
from rollout.chat.codec import NAME, Malformed, ascii_json, decode_calls, put, same, typed
from rollout.chat.pieces import Mark, Pieces

OPEN, CLOSE = Mark("<tool_call>"), Mark("</tool_call>")
FORM = """<tool_call>
<function=NAME>
<parameter=ARGUMENT>
VALUE
</parameter>
</function>
</tool_call>"""

_START = re.compile(r"<tool_call>\s*|^(?=<function=)", re.MULTILINE)  # the wrapper is sometimes forgotten
_HEAD = re.compile(rf"<tool_call>\s*<function=\s*{NAME}\s*>")
_FUNCTION = re.compile(rf"<function=\s*({NAME})\s*>")
# A value ends at the first </parameter> that another tag follows, so that </parameter> within a line of text is text.
# Where </parameter> was forgotten, </function> at the end of the call ends it.
_PARAMETER = re.compile(
    rf"\s*<parameter=\s*({NAME})\s*>(.*?)"
    r"(?:</parameter>(?=\s*(?:<parameter=|</function>|</?tool_call>|\Z))|(?=</function>\s*(?:</tool_call>|\Z)))",
    re.DOTALL,
)
_END = re.compile(r"\s*(?:</function>\s*)?(?:</tool_call>|(?=<tool_call>)|\Z)|\s*</function>")
_CLOSE = re.compile(r"\s*</tool_call>")


def encode(calls: Sequence[Call]) -> Pieces:
    """The calls as the template writes them, one after the other."""
    pieces: Pieces = []
    for call in calls:
        if pieces:
            pieces.append("\n")
        xml = [OPEN, "\n" + _xml(call), CLOSE]
        pieces += xml if _survives(call, xml) else [OPEN, "\n" + _json(call), CLOSE]
    return pieces


def decode(text: str) -> tuple[str, tuple[Call, ...], str]:
    """See `codec.decode_calls`."""
    return decode_calls(text, _START, _one, FORM)


def ends_inside(text: str) -> bool:
    """Is the end of the text inside of a call: in an argument, say?"""
    return bool(_HEAD.search(text, text.rfind(CLOSE) + 1))


def _xml(call: Call) -> str:
    lines = [f"<function={call.name}>\n"]
    for key, value in call.arguments.items():
        lines.append(f"<parameter={key}>\n{value if isinstance(value, str) else json.dumps(value)}\n</parameter>\n")
    return "".join(lines) + "</function>\n"


def _json(call: Call) -> str:
    return ascii_json({"name": call.name, "arguments": dict(call.arguments)}) + "\n"


def _survives(call: Call, pieces: Pieces) -> bool:
    """Does it come back from text, and from ids? The tokenizer normalises to NFC."""
    text = "".join(pieces)
    return unicodedata.normalize("NFC", text) == text and same(call, decode(text))


def _one(text: str, at: int) -> tuple[Call, int]:
    """The call that begins at `at`, and where it ends."""
    if text.startswith("{", at):
        return _from_json(text, at)
    function = _FUNCTION.match(text, at)
    if not function:
        raise Malformed("after <tool_call> comes <function=NAME>")
    name, at = function[1], function.end()
    arguments: dict[str, object] = {}
    while parameter := _PARAMETER.match(text, at):
        key, value = parameter[1], parameter[2].removeprefix("\n").removesuffix("\n")
        put(arguments, key, typed(name, key, value))
        at = parameter.end()
    end = _END.match(text, at)
    if not end:
        rest = text[at:].lstrip()
        if rest.startswith("<parameter="):
            raise Malformed(f"{rest.split('>')[0][:60]}> is not closed with </parameter>")
        raise Malformed(f"only <parameter=...> and </function> may stand in <function={name}>, not {rest[:40]!r}")
    at = end.end()
    close = _CLOSE.match(text, at)
    return Call(name, arguments), close.end() if close else at


def _from_json(text: str, at: int) -> tuple[Call, int]:
    """The older form: {"name": ..., "arguments": {...}}; the arguments are sometimes a string of JSON."""
    try:
        body, at = json.JSONDecoder(strict=False).raw_decode(text, at)
        arguments = body.get("arguments", {})
        if isinstance(arguments, str):
            arguments = json.loads(arguments, strict=False)
        name = body["name"]
    except (ValueError, KeyError, AttributeError, RecursionError):
        raise Malformed("its JSON cannot be read") from None
    if not isinstance(arguments, dict) or not isinstance(name, str) or not re.fullmatch(NAME, name):
        raise Malformed('its JSON is not {"name": "...", "arguments": {...}}')
    checked: dict[str, object] = {}
    for key, value in arguments.items():
        put(checked, key, value)
    close = _CLOSE.match(text, at)
    return Call(name, checked), close.end() if close else at
