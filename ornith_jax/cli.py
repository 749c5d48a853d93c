"""`ornith`: every verb is one function elsewhere; this file only reads the command line.

What a verb needs is imported when it runs. Errors of the user are one line on stderr and exit code 2.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ornith_jax.errors import OrnithError

DTYPES = ("float32", "bfloat16", "float16")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    args = _parse(argv)
    try:
        return args.run(args) or 0
    except OrnithError as error:
        print(f"ornith: error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `ornith show RUN | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        print(f"ornith: error: {error.filename or ''}: {error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("ornith: interrupted; a conversion or a run goes on when the same command runs again", file=sys.stderr)
        return 130


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """`field=value` may stand anywhere: argparse itself takes no more of them once an option came in between."""
    parser = _parser()
    args, rest = parser.parse_known_args(argv)
    unknown = [word for word in rest if word.startswith("-") or "=" not in word]
    if rest and (unknown or not hasattr(args, "overrides")):
        parser.error(f"unrecognized arguments: {' '.join(unknown or rest)}")
    if rest:
        args.overrides = [*args.overrides, *rest]
    return args


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ornith", description="Open training of self-scaffolding coding models.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for add_parser in PARSERS:
        add_parser(verbs)
    return parser


def _add_convert(verbs: Any) -> None:
    convert = verbs.add_parser("convert", help="Hugging Face checkpoints into ours and back, bit for bit")
    verbs = convert.add_subparsers(dest="convert", required=True, metavar="VERB")

    verb = verbs.add_parser("import", help="a Hugging Face folder -> a new checkpoint (orbax)")
    verb.add_argument("hf_dir", type=Path)
    verb.add_argument("out", type=Path)
    verb.set_defaults(run=_import)

    verb = verbs.add_parser("export", help="a checkpoint -> a new Hugging Face folder")
    verb.add_argument("checkpoint", type=Path)
    verb.add_argument("out", type=Path, metavar="hf_dir")
    verb.add_argument("--experts", choices=("fused", "per-expert"), help="how to write experts (default: as imported)")
    verb.add_argument("--dtype", choices=("original", *DTYPES), default="original")
    verb.set_defaults(run=_export)

    verb = verbs.add_parser("check", help="is a Hugging Face folder complete and supported? Writes nothing")
    verb.add_argument("hf_dir", type=Path)
    verb.set_defaults(run=_check)

    verb = verbs.add_parser("inspect", help="sizes and parameter counts of a folder or a published size")
    verb.add_argument("what", help="a Hugging Face folder, a checkpoint, or a name such as qwen3.5-9b")
    verb.set_defaults(run=_inspect)


def _add_score(verbs: Any) -> None:
    verb = verbs.add_parser("score", help="log-probabilities of given tokens under a checkpoint")
    verb.add_argument("model", type=Path, help="a Hugging Face folder or a checkpoint")
    verb.add_argument("source", type=Path, metavar="IN.npz", help="token_ids [B, T]; segment_ids, positions if need be")
    verb.add_argument("out", type=Path, metavar="OUT.npz", help="logprobs [B, T]; 0 where nothing comes before")
    verb.add_argument("--logits", action="store_true", help="also logits [B, T, vocabulary]")
    verb.add_argument("--dtype", choices=DTYPES, help="of parameters and activations (default: the checkpoint's)")
    verb.set_defaults(run=_score)


def _add_sandbox(verbs: Any) -> None:
    from envs.sandbox.cli import add_parser

    add_parser(verbs)


def _add_tasks(verbs: Any) -> None:
    from envs.suites.cli import add_parser

    add_parser(verbs)


def _add_config(verbs: Any) -> None:
    from ornith_jax.verbs.config import add_parser

    add_parser(verbs)


def _add_serve(verbs: Any) -> None:
    from ornith_jax.verbs.serve import add_parser

    add_parser(verbs)


def _add_scaffold(verbs: Any) -> None:
    from ornith_jax.verbs.scaffold import add_parser

    add_parser(verbs)


def _add_train_sft(verbs: Any) -> None:
    from ornith_jax.verbs.train_sft import add_parser

    add_parser(verbs)


def _add_plan(verbs: Any) -> None:
    from ornith_jax.verbs.plan import add_parser

    add_parser(verbs)


def _add_rollout(verbs: Any) -> None:
    from ornith_jax.verbs.rollout import add_parser

    add_parser(verbs)


def _add_evaluate(verbs: Any) -> None:
    from ornith_jax.verbs.evaluate import add_parser

    add_parser(verbs)


def _add_slurm(verbs: Any) -> None:
    from ornith_jax.verbs.slurm import add_parser

    add_parser(verbs)


def _add_train(verbs: Any) -> None:
    from ornith_jax.verbs.train import add_parser

    add_parser(verbs)


def _add_judge(verbs: Any) -> None:
    from ornith_jax.verbs.judge import add_parser

    add_parser(verbs)


def _add_report(verbs: Any) -> None:
    from ornith_jax.verbs.report import add_parser

    add_parser(verbs)


PARSERS: tuple[Callable[[Any], None], ...] = (
    _add_convert,
    _add_score,
    _add_sandbox,
    _add_tasks,
    _add_config,
    _add_train_sft,
    _add_serve,
    _add_scaffold,
    _add_plan,
    _add_rollout,
    _add_report,
    _add_train,
    _add_slurm,
    _add_evaluate,
    _add_judge,
)


def _import(args: argparse.Namespace) -> None:
    from ornith_jax.convert.import_hf import import_hf

    import_hf(args.hf_dir, args.out)


def _export(args: argparse.Namespace) -> None:
    from ornith_jax.convert.export_hf import export_hf

    export_hf(args.checkpoint, args.out, experts=args.experts, dtype=None if args.dtype == "original" else args.dtype)


def _check(args: argparse.Namespace) -> None:
    from ornith_jax.convert.import_hf import check

    cfg, folder, found = check(args.hf_dir)
    passed = "".join(f", {len(tensors):,} {part}" for part, tensors in found.passed.items())
    print(f"{args.hf_dir}: a complete {cfg.family} checkpoint: {len(found.expected):,} text tensors{passed}, all known")
    for name in folder.skipped:
        print(f"{args.hf_dir / name}: weights in another format; they will not be copied")


def _inspect(args: argparse.Namespace) -> None:
    from ornith_jax.convert.inspect import render, summarize

    print(render(summarize(args.what)))


def _score(args: argparse.Namespace) -> None:
    from ornith_jax.score import score

    score(args.model, args.source, args.out, with_logits=args.logits, dtype=args.dtype)


if __name__ == "__main__":
    sys.exit(main())
