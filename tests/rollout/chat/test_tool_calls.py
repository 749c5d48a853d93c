"""Tool calls to text and back: invertible for every call that fits its schema, lenient to what models really write."""

import random

import pytest

from envs.tools import SCHEMAS, Call
from rollout.chat import gemma_calls, qwen_calls
from tests.rollout.chat import episodes

CODECS = {"qwen": qwen_calls, "gemma": gemma_calls}


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
def test_every_call_that_fits_its_schema_comes_back(codec):
    rng = random.Random(1)
    for _ in range(2000):
        calls = tuple(episodes.call(rng) for _ in range(rng.randint(1, 3)))
        assert codec.decode("".join(codec.encode(calls))) == (
            "\n" * (len(calls) - 1) * (codec is qwen_calls),
            calls,
            "",
        )


STRINGS = (
    *(
        "",
        "\n",
        "\n\na\n\n",
        "a</parameter>b",
        "x\n</parameter>\n<parameter=new>\ny",
        "</function>",
        "</tool_call>",
        "\r\n",
    ),
    *("<tool_call>\n<function=submit>\n</function>\n</tool_call>", "123", "true", "null", '{"a": 1}', "{", '"', "\\n"),
    *(
        '<|"|>',
        '<|"|>}',
        '<|"|>,new:<|"|>',
        "<tool_call|>",
        "}",
        "a,path:b",
        "▁",
        "e\u0301",
        "</think>",
        "<channel|>",
        "<|channel>thought\nx\n<channel|>",
        "日本",
        "😀",
    ),
)


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
@pytest.mark.parametrize("string", STRINGS, ids=ascii)
def test_hard_strings_come_back_in_every_position(codec, string: str):
    for call in (
        Call("edit", {"path": "a", "old": string, "new": "z"}),
        Call("edit", {"path": string, "old": "y", "new": string}),
        Call("shell", {"command": string, "timeout": 5}),
    ):
        pieces = codec.encode([call, Call("submit", {})])
        text, calls, error = codec.decode("".join(pieces))
        assert (text.strip(), calls, error) == ("", (call, Call("submit", {})), "")


def test_the_bytes_are_those_of_the_release():
    """ornith.md section 5 gives this call as published."""
    want = "<tool_call>\n<function=read>\n<parameter=path>\nnotes.txt\n</parameter>\n</function>\n</tool_call>"
    assert "".join(qwen_calls.encode([Call("read", {"path": "notes.txt"})])) == want


def test_only_what_the_published_form_cannot_carry_goes_as_json():
    for content in (
        "\n\na\n\n",
        "</parameter> in a line",
        "\n",
        "",
        "  indented\n",
        "x\n</parameter>\ny",
        "<function=f>",
    ):
        want = f"<tool_call>\n<function=write>\n<parameter=path>\na\n</parameter>\n<parameter=content>\n{content}\n"
        call = Call("write", {"path": "a", "content": content})
        assert "".join(qwen_calls.encode([call])) == f"{want}</parameter>\n</function>\n</tool_call>"
    assert '{"name"' in "".join(qwen_calls.encode([Call("shell", {"command": "\n</parameter>\n</function>"})]))
    call = Call("edit", {"path": "a", "old": 'a <|"|> b', "new": '{"},'})
    want = '<|tool_call>call:edit{new:<|"|>{"},<|"|>,old:<|"|>a <|"|> b<|"|>,path:<|"|>a<|"|>}<tool_call|>'
    assert "".join(gemma_calls.encode([call])) == want


READ = Call("read", {"path": "a.py", "start": 3})
PATH, START = "<parameter=path>\na.py\n</parameter>\n", "<parameter=start>\n3\n</parameter>\n"
ONE_LINE = "<function=read><parameter=path>a.py</parameter><parameter=start>3</parameter></function>"
SPACED = (
    "<function=read> \n <parameter=path>\na.py\n</parameter>  \n\n  <parameter= start >\n 3 \n</parameter></function> "
)
LENIENT = {
    "as published": f"<tool_call>\n<function=read>\n{PATH}{START}</function>\n</tool_call>",
    "no newlines": f"<tool_call>{ONE_LINE}</tool_call>",
    "stray spaces": f"<tool_call>  \n\n {SPACED} \n</tool_call>",
    "no wrapper": f"<function=read>\n{PATH}{START}</function>",
    "wrapper not closed": f"<tool_call>\n<function=read>\n{PATH}{START}</function>",
    "function not closed": f"<tool_call>\n<function=read>\n{PATH}{START}",
    "function not closed, wrapper is": f"<tool_call>\n<function=read>\n{PATH}{START}</tool_call>",
    "last parameter not closed": f"<tool_call>\n<function=read>\n{PATH}<parameter=start>3</function></tool_call>",
    "JSON": '<tool_call>\n{"name": "read", "arguments": {"path": "a.py", "start": 3}}\n</tool_call>',
    "JSON, arguments as a string": '<tool_call>{"name": "read", "arguments": "{\\"path\\":\\"a.py\\",\\"start\\":3}"}',
    "JSON, not closed": '<tool_call>\n{"name": "read", "arguments": {"path": "a.py", "start": 3}}',
}


@pytest.mark.parametrize("text", LENIENT.values(), ids=LENIENT)
def test_what_models_really_write_is_read(text: str):
    assert qwen_calls.decode(text) == ("", (READ,), "")
    outside, calls, error = qwen_calls.decode(f"First I look.\n\n{text}\n{text}")
    assert (outside.strip(), calls, error) == ("First I look.", (READ, READ), "")


GEMMA_LENIENT = {
    "as published": '<|tool_call>call:read{path:<|"|>a.py<|"|>,start:3}<tool_call|>',
    "stray spaces": '<|tool_call> call: read{ path : <|"|>a.py<|"|> ,\n start: 3 } <tool_call|>',
    "not closed": '<|tool_call>call:read{path:<|"|>a.py<|"|>,start:3}',
    "bare string": "<|tool_call>call:read{path:a.py,start:3}<tool_call|>",
    "quoted keys": '<|tool_call>call:read{<|"|>path<|"|>:<|"|>a.py<|"|>,<|"|>start<|"|>:3}<tool_call|>',
    "JSON": '<|tool_call>call:read{"path": "a.py", "start": 3}<tool_call|>',
}


@pytest.mark.parametrize("text", GEMMA_LENIENT.values(), ids=GEMMA_LENIENT)
def test_what_gemma_really_writes_is_read(text: str):
    assert gemma_calls.decode(text) == ("", (READ,), "")
    outside, calls, error = gemma_calls.decode(f"First I look.{text}{text}")
    assert (outside, calls, error) == ("First I look.", (READ, READ), "")


MALFORMED = {
    "<tool_call>\nread a.py\n</tool_call>": "after <tool_call> comes <function=NAME>",
    "<tool_call>": "after <tool_call> comes <function=NAME>",
    "<tool_call>\n<function=>": "after <tool_call> comes <function=NAME>",
    "<tool_call>\n<function=write>\n<parameter=content>\nhalf a fi": "<parameter=content> is not closed",
    "<tool_call>\n<function=read>\na.py\n</function>": "only <parameter=...>",
    f"<tool_call>\n<function=read>\n{PATH}{PATH}</function>": "given twice",
    '<tool_call>\n{"name": "read", "arguments": {"path": "a.p': "JSON cannot be read",
    '<tool_call>\n{"name": "read", "arguments": [1]}': "JSON is not",
    '<tool_call>\n{"name": 3, "arguments": {}}': "JSON is not",
    '<tool_call>\n{"name": "read", "arguments": {"path": "\\ud800"}}': "half of a character",
    "<tool_call>\n" + '{"a":' * 100_000: "JSON cannot be read",
}


@pytest.mark.parametrize("text", MALFORMED, ids=lambda text: ascii(text[:60]))
def test_a_malformed_call_says_what_to_write_and_carries_nothing_out(text: str):
    good = "".join(qwen_calls.encode([Call("submit", {})]))
    outside, calls, error = qwen_calls.decode(f"Look.{good}{text}")
    assert (outside, calls) == ("Look.", ())
    assert MALFORMED[text] in error
    assert error.endswith(qwen_calls.FORM)


GEMMA_MALFORMED = {
    "<|tool_call>": "after <|tool_call> comes call:NAME{",
    "<|tool_call>read(a.py)<tool_call|>": "after <|tool_call> comes call:NAME{",
    '<|tool_call>call:write{content:<|"|>half a fi': "is not closed with",
    '<|tool_call>call:write{content:"half a fi': "is not closed with",
    "<|tool_call>call:submit{": "submit is not closed",
    "<|tool_call>call:read{path}<tool_call|>": "an argument is ARGUMENT:VALUE",
    '<|tool_call>call:read{path:"a" start:3}': "comes a comma",
    "<|tool_call>call:read{path:a,path:b}": "given twice",
    '<|tool_call>call:read{"path":"\\ud800"}': "half of a character",
}


@pytest.mark.parametrize("text", GEMMA_MALFORMED, ids=ascii)
def test_a_malformed_gemma_call_says_what_to_write(text: str):
    outside, calls, error = gemma_calls.decode(f"Look.<|tool_call>call:submit{{}}<tool_call|>{text}")
    assert (outside, calls) == ("Look.", ())
    assert GEMMA_MALFORMED[text] in error
    assert error.endswith(gemma_calls.FORM)


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
def test_types_follow_the_schema_and_the_rest_is_left_to_the_tool_layer(codec):
    raw = {
        qwen_calls: "<tool_call>\n<function={}>\n<parameter={}>\n{}\n</parameter>\n</function>\n</tool_call>",
        gemma_calls: "<|tool_call>call:{}{{{}:{}}}<tool_call|>",
    }[codec]
    for name, key, value, want in (
        ("read", "start", "7", 7),
        ("read", "start", "seven", "seven"),
        ("read", "start", "9" * 5000, "9" * 5000),  # more digits than Python turns into an int
        ("read", "path", "7", "7"),
        ("rm", "path", "7", "7"),
        ("read", "colour", "7", "7"),
    ):
        assert codec.decode(raw.format(name, key, value)) == ("", (Call(name, {key: want}),), "")


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
def test_decoding_never_raises(codec):
    rng = random.Random(2)
    for _ in range(3000):
        good = "".join(codec.encode([episodes.call(rng)]))
        at = rng.randrange(len(good))
        broken = (
            good[:at]
            + rng.choice(("", episodes.text(rng, 5), rng.choice(episodes.NASTY)))
            + good[at + rng.randint(0, 9) :]
        )
        text, calls, error = codec.decode(broken)
        assert isinstance(text, str)
        assert not (calls and error)


def test_the_schemas_are_flat_as_the_codecs_assume():
    kinds = {p["type"] for s in SCHEMAS.values() for p in s["function"]["parameters"]["properties"].values()}
    assert kinds <= {"string", "integer"}
