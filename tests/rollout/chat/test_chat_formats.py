"""The two conversation formats against the published templates, and what must never become a control token."""

import json
import random
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from envs.tools import SCHEMAS, Call
from rollout.chat.chat import load_chat
from rollout.chat.messages import assistant_message, observation_message
from rollout.chat.types import Observation, Reply
from rollout.errors import RolloutError
from tests.rollout.chat import episodes, official
from tests.rollout.chat.test_tool_calls import STRINGS
from tests.rollout.tokenizers import FAMILIES, chat, folder

TEMPLATES = {"qwen3_5": "qwen3_5_think", "gemma4": "gemma4_v5"}
TOOLS = list(SCHEMAS.values())
READ = Reply("", "First I look.", (Call("read", {"path": "a.py", "start": 3}), Call("run_tests", {})), "")
DONE = Reply("It is done.", "All tests pass.", (), "")
ANSWERS = [Observation("tool", "x = 1", "read"), Observation("tool", "1 passed\n[exit 0]", "run_tests")]
ROUND = [assistant_message(READ, 0), *(observation_message(seen, 0, i) for i, seen in enumerate(ANSWERS))]


def conversation(*rest: dict, system: str = "You fix bugs.") -> list[dict]:
    return [{"role": "system", "content": system}, {"role": "user", "content": "Fix a.py."}, *rest]


CONVERSATIONS = {
    "opening": conversation(),
    "no system message": conversation()[1:],
    "calls": conversation(*ROUND),
    "calls, then the answer": conversation(*ROUND, assistant_message(DONE, 1)),
    "two rounds": conversation(*ROUND, *ROUND),
    "empty answer": conversation(
        assistant_message(Reply("", "Run.", (Call("shell", {"command": "true"}),), ""), 0),
        observation_message(Observation("tool", "", "shell")),
    ),
}


@pytest.mark.parametrize("thinking", [True, False])
@pytest.mark.parametrize("tools", [TOOLS, []], ids=["tools", "no tools"])
@pytest.mark.parametrize("messages", CONVERSATIONS.values(), ids=CONVERSATIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_render_is_the_published_template(family: str, messages: list[dict], tools: list[dict], thinking: bool):
    if not thinking:
        messages = [{k: v for k, v in m.items() if k != "reasoning_content"} for m in messages]
    want = official.render(TEMPLATES[family], folder(family), messages, tools, enable_thinking=thinking)
    ours = chat(family).render(messages, tools, thinking=thinking)
    assert ours + "\n" * (messages[-1]["role"] == "assistant") == want


@pytest.mark.parametrize("thinking", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_first_prompt_has_the_ids_a_server_would_make(family: str, thinking: bool):
    ids = chat(family).open("You fix bugs.", "Fix a.py.", TOOLS, thinking=thinking)
    text = official.render(TEMPLATES[family], folder(family), conversation(), TOOLS, enable_thinking=thinking)
    tokenizer = Tokenizer.from_file(str(folder(family) / "tokenizer.json"))
    assert ids == tuple(tokenizer.encode(text, add_special_tokens=False).ids)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_new_user_message_makes_the_template_forget_thinking_and_us_not(family: str):
    """Why we do not fork: Ornith's own template keeps it too (ornith.md section 5), so do Qwen3.6's with
    `preserve_thinking` and nobody's training prompts should depend on what a later turn throws away."""
    messages = conversation(assistant_message(DONE, 1), {"role": "user", "content": "And b.py?"})
    ours = chat(family).render(messages, TOOLS)
    theirs = official.render(TEMPLATES[family], folder(family), messages, TOOLS, enable_thinking=True)
    assert DONE.thinking in ours
    assert DONE.thinking not in theirs
    kept = official.render("qwen3_6", folder("qwen3_5"), messages, TOOLS, preserve_thinking=True)
    assert family != "qwen3_5" or ours == kept


@pytest.mark.parametrize("family", FAMILIES)
def test_text_from_outside_never_becomes_a_control_token(family: str):
    """Prompts, answers and a call's own strings full of control tokens make as many control tokens as harmless ones."""
    tokenizer = chat(family).tokenizer
    evil = "".join(tokenizer.mark_ids) + "".join(episodes.NASTY)

    def marks(text: str) -> list[list[str]]:
        opened = chat(family).open(text, text, TOOLS)
        call = Call("write", {"path": "a", "content": text})
        written = chat(family).write(opened, Reply("", "", (call,), ""))
        found = [Observation("tool", text, "write"), Observation("user", text)]
        extended = chat(family).extend(opened, written, found).ids
        assert chat(family).parse(written).calls == (call,)
        if text == evil:
            assert chat(family).decode(extended).count("<eos>") > 1, "the text must be there, as text"
        return [tokenizer.marks(opened), tokenizer.marks(extended[len(opened) + len(written) :])]

    assert marks(evil) == marks("harmless")


@pytest.mark.parametrize("thinking", ["Hm.", ""])
@pytest.mark.parametrize("string", STRINGS, ids=ascii)
@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_written_is_parsed_again_from_ids(family: str, string: str, thinking: str):
    reply = Reply("I edit.", thinking, (Call("edit", {"path": "a", "old": string, "new": f"{string}!"}),), "")
    prompt = chat(family).open("", "Fix it.", TOOLS, thinking=bool(thinking))
    assert chat(family).parse(chat(family).write(prompt, reply)) == reply


@pytest.mark.parametrize("family", FAMILIES)
def test_parsing_any_ids_never_raises(family: str):
    rng = random.Random(3)
    names = list(chat(family).tokenizer.names)
    for _ in range(500):
        ids = [rng.choice(names) if rng.random() < 0.3 else rng.randrange(900) for _ in range(rng.randrange(40))]
        reply = chat(family).parse(ids)
        assert not (reply.calls and reply.error)


CUT = {  # what the policy wrote before it was cut -> what must follow at once
    ("qwen3_5", "I wond"): "\n</think>\n\n<|im_end|>\n<|im_start|>user\nGo on.",
    ("qwen3_5", "Hm.\n</think>\n\nI wond"): "<|im_end|>\n<|im_start|>user\nGo on.",
    ("qwen3_5", "Hm.\n</think>\n\nDone.<|im_end|>"): "\n<|im_start|>user\nGo on.",
    ("qwen3_5", "Hm.\n</think>\n\nDone.<|endoftext|>"): "<|im_end|>\n<|im_start|>user\nGo on.",
    ("gemma4", "<|channel>thought\nI wond"): "\n<channel|><turn|>\n<|turn>user\nGo on.",
    ("gemma4", "<|channel>thought\nHm.\n<channel|>I wond"): "<turn|>\n<|turn>user\nGo on.",
    ("gemma4", "I wond"): "<turn|>\n<|turn>user\nGo on.",
    ("gemma4", "Done.<turn|>"): "\n<|turn>user\nGo on.",
    ("gemma4", "Done.<eos>"): "<turn|>\n<|turn>user\nGo on.",
    ("gemma4", "<|tool_call>rubbish<|tool_response>"): 'response:unknown{value:<|"|>Go on.<|"|>}<tool_response|>',
}


@pytest.mark.parametrize(("family", "written"), CUT, ids=ascii)
def test_a_completion_that_was_cut_gets_its_end_and_keeps_its_ids(family: str, written: str):
    prompt = chat(family).open("", "Fix it.", TOOLS)
    ids = chat(family).encode(written)
    extension = chat(family).extend(prompt, ids, [Observation("user", "Go on.")])
    assert extension.ids[: len(prompt) + len(ids)] == prompt + ids
    assert not extension.forked
    assert chat(family).decode(extension.ids[len(prompt) + len(ids) :]).startswith(CUT[family, written])


def test_without_thinking_none_is_closed_or_opened():
    for family, written, follows in (
        (
            "qwen3_5",
            "I wond",
            "<|im_end|>\n<|im_start|>user\n<tool_response>\nok\n</tool_response><|im_end|>\n"
            "<|im_start|>assistant\n<think>\n\n</think>\n\n",
        ),
        ("gemma4", "<|think|>I wond", '<|tool_response>response:submit{value:<|"|>ok<|"|>}<tool_response|>'),
    ):  # the policy's own <|think|> switches nothing on
        prompt = chat(family).open("", "Fix it.", thinking=False)
        ids = chat(family).encode(written)
        extension = chat(family).extend(prompt, ids, [Observation("tool", "ok", "submit")])
        assert chat(family).decode(extension.ids[len(prompt) + len(ids) :]) == follows
        again = chat(family).extend(extension.ids, ids, [Observation("tool", "ok", "submit")])
        assert chat(family).decode(again.ids[len(extension.ids) + len(ids) :]) == follows


def test_gemma_goes_on_in_its_own_turn_however_the_call_ended():
    prompt = chat("gemma4").open("", "Fix it.", TOOLS)
    answer = 'response:submit{value:<|"|>ok<|"|>}<tool_response|><|channel>thought\n'
    for ending, opened in {
        "<|tool_response>": "",
        "": "<|tool_response>",  # cut right after the call
        "<turn|>": "\n<|turn>model\n<|tool_response>",  # the policy ended its turn; its ids stay
        "<eos>": "<turn|>\n<|turn>model\n<|tool_response>",
    }.items():
        ids = chat("gemma4").encode(f"<|tool_call>call:submit{{}}<tool_call|>{ending}")
        extension = chat("gemma4").extend(prompt, ids, [Observation("tool", "ok", "submit")])
        assert chat("gemma4").decode(extension.ids[len(prompt) + len(ids) :]) == opened + answer


def test_thinking_is_told_apart_from_text():
    parse, encode = chat("qwen3_5").parse, chat("qwen3_5").encode
    assert parse(encode("Hm.\n</think>\n\nDone.<|im_end|>")) == Reply("Done.", "Hm.", (), "")
    assert parse(encode("Done.<|im_end|>")) == Reply("Done.", "", (), "")
    call = "<tool_call>\n<function=submit>\n</function>\n</tool_call>"
    assert parse(encode(f"Maybe {call}\n</think>\n\nNo.<|im_end|>")).calls == (), "a call in thinking is a thought"
    assert parse(encode(f"I submit. {call}<|im_end|>")).calls == (Call("submit", {}),), "unless it never ended"
    parse, encode = chat("gemma4").parse, chat("gemma4").encode
    assert parse(encode("<|channel>thought\nHm.\n<channel|>Done.<turn|>")) == Reply("Done.", "Hm.", (), "")
    assert parse(encode("Hm.\n<channel|>Done.<turn|>")) == Reply("Done.", "Hm.", (), ""), (
        "the prompt opened the channel"
    )
    assert parse(encode("<|channel>thought\nHm")) == Reply("", "Hm", (), "")
    call = "<|tool_call>call:submit{}<tool_call|>"
    assert parse(encode(f"<|channel>thought\nMaybe {call}\n<channel|>No.<turn|>")).calls == ()
    assert parse(encode(f"Go.<|channel>thought\nHm.\n<channel|>{call}")) == Reply(
        "Go.", "Hm.", (Call("submit", {}),), ""
    )


def test_bad_input_is_named(tmp_path: Path):
    with pytest.raises(RolloutError, match="no chat format for 'llama'; there are qwen3_5, gemma4"):
        load_chat(folder("qwen3_5"), "llama")
    with pytest.raises(RolloutError, match=r"no token .*<\|turn>.*belongs to another model family"):
        load_chat(folder("qwen3_5"), "gemma4")
    with pytest.raises(RolloutError, match=r"tokenizer\.json does not exist"):
        load_chat(tmp_path, "qwen3_5")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(RolloutError, match="not a Hugging Face tokenizer"):
        load_chat(tmp_path, "qwen3_5")
    with pytest.raises(RolloutError, match="first message after the system's must be the user's"):
        chat("qwen3_5").render([{"role": "system", "content": "x"}])
    with pytest.raises(RolloutError, match="message 1 has the role 'user'"):
        chat("qwen3_5").render(2 * [{"role": "user", "content": "x"}])


def test_a_tokenizer_whose_plain_text_reaches_a_control_token_is_refused(tmp_path: Path):
    document = json.loads((folder("gemma4") / "tokenizer.json").read_text())
    document["model"]["ignore_merges"] = True  # whole words are looked up in the vocabulary, control tokens too
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    with pytest.raises(RolloutError, match="becomes a control token"):
        load_chat(tmp_path, "gemma4")
