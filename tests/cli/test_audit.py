"""`textdiffusion audit`."""

import json
from collections import Counter


def test_audit_says_where_a_loss_is_below_the_entropy(textdiffusion):
    result = textdiffusion("audit", "masked_elbo:max_weight=3", "--rows", 50, "--json")
    assert result.code == 0
    found = json.loads(result.out)
    assert set(found["verdicts"]) == {"loss", "bound"}
    assert found["verdicts"]["loss"].startswith("The loss of masked_elbo:max_weight=3 is not a bound: it says ")
    assert found["verdicts"]["bound"] == "The bound of masked_elbo:max_weight=3 is nowhere below the entropy."
    assert {each["process"] for each in found["comparisons"]} == {"masked", "blocks", "dual training"}


def test_audit_prints_a_line_for_every_process_and_language(textdiffusion):
    result = textdiffusion("audit", "next_token_likelihood", "--rows", 2)
    head, *rows, unit, verdict = result.out.splitlines()
    assert head.split("\t")[:3] == ["QUANTITY", "PROCESS", "LANGUAGE"]
    assert Counter(row.split("\t")[2] for row in rows) == {"two equal bits": 2, "even": 2, "correlated": 2}
    assert {row.split("\t")[-1] for row in rows} == {"holds"}
    assert unit == "Bits per text."
    assert verdict == "next_token_likelihood is nowhere below the entropy."


def test_audit_refuses_in_a_sentence_what_it_does_not_know(textdiffusion):
    result = textdiffusion("audit", "masked_elb")
    assert result.code == 2
    assert "There is no objective or likelihood 'masked_elb'; did you mean masked_elbo?" in result.err
    assert (
        textdiffusion("audit", "masked_elbo", "--rows", 1).err == "textdiffusion: --rows is 1; it must be at least 2.\n"
    )
