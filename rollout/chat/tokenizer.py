"""A Hugging Face `tokenizer.json`, with plain text kept plain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import AddedToken
from tokenizers import Tokenizer as HfTokenizer

from rollout.chat.pieces import Mark, Pieces
from rollout.errors import RolloutError


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """Pieces to ids, ids to text. `mark_ids` and `names` hold the control tokens both ways."""

    hf: HfTokenizer  # encodes every control token as plain text
    mark_ids: Mapping[str, int]
    names: Mapping[int, str]

    def ids(self, pieces: Pieces) -> tuple[int, ...]:
        """Plain pieces that touch are one text: that is how the published tokenizers see a rendered template."""
        ids: list[int] = []
        plain: list[str] = []
        for piece in [*pieces, None]:
            if piece is not None and not isinstance(piece, Mark):
                plain.append(piece)
                continue
            if text := "".join(plain):
                # A lone surrogate (from a JSON escape) is no text; the library would refuse it.
                clean = text.encode("utf-8", "replace").decode()
                ids += self.hf.encode(clean, add_special_tokens=False).ids
            plain = []
            if piece is not None:
                ids.append(self.mark_ids[piece])
        return tuple(ids)

    def text(self, ids: Sequence[int]) -> str:
        return self.hf.decode(list(ids), skip_special_tokens=False)

    def marks(self, ids: Sequence[int]) -> list[str]:
        """The control tokens among the ids, in order."""
        return [self.names[i] for i in filter(self.names.__contains__, ids)]


def load_tokenizer(folder: Path, marks: Sequence[str]) -> Tokenizer:
    """Reads `folder/tokenizer.json`. Raises `RolloutError`: missing, unreadable, without one of the `marks`, or with
    a vocabulary in which plain text reaches one of them.

    Control tokens are the `marks` of the chat format and every token that the file calls special.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise RolloutError(f"{path} does not exist; the chat needs the Hugging Face tokenizer.json of the model")
    try:
        hf = HfTokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise RolloutError(f"{path}: not a Hugging Face tokenizer.json: {error}") from None
    added = {token.content: (i, token) for i, token in hf.get_added_tokens_decoder().items()}
    if missing := [mark for mark in marks if mark not in added]:
        raise RolloutError(f"{path}: no token {', '.join(missing)}; this tokenizer belongs to another model family")
    mark_ids = {content: i for content, (i, token) in added.items() if token.special or content in marks}
    # Qwen calls <tool_call> an ordinary added token; here it is control.
    hf.add_special_tokens([AddedToken(content, special=True, normalized=False) for content in mark_ids])
    hf.encode_special_tokens = True  # as text
    hf.no_truncation()
    hf.no_padding()
    _check_plain(path, hf, mark_ids)
    return Tokenizer(hf=hf, mark_ids=mark_ids, names={i: content for content, i in mark_ids.items()})


def _check_plain(path: Path, hf: HfTokenizer, mark_ids: Mapping[str, int]) -> None:
    """The guarantee that everything else stands on: the text of a control token is not the control token."""
    control = set(mark_ids.values())
    for content in mark_ids:
        if control & set(hf.encode(content, add_special_tokens=False).ids):
            raise RolloutError(f"{path}: plain text {content!r} becomes a control token; its merges must not reach it")
