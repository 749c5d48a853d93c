"""The conformance suite as a real SGLang server in deterministic mode can take it."""

from typing import Any

import pytest

from tests.rollout.conformance import Conformance, Service


class RealServer(Conformance):
    """Everything but min_p, which kills a server that takes seeds (test_real_life.py has one that takes none)."""

    @pytest.mark.parametrize(
        "cut", [{"top_p": 0.7}, {"top_k": 5}, {"top_p": 0.9, "top_k": 40}], ids=["top_p", "top_k", "two"]
    )
    def test_truncated_logprobs_are_renormalised_over_what_is_left(self, service: Service, cut: dict[str, Any]):
        super().test_truncated_logprobs_are_renormalised_over_what_is_left(service, cut)
