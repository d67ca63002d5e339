"""The short form of benchmarks/corrupt.py: damaged files end in a sentence, or change nothing."""

from collections.abc import Iterator

import pytest

from benchmarks.corrupt import FAULTS, MUTATIONS, Bench, applies


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("corrupt")
        patch.setenv("TEXTDIFFUSION_CACHE", str(folder / "cache"))
        yield Bench(folder, "mdlm")


@pytest.mark.parametrize("number", range(0, 60, 2))
def test_a_damaged_file_ends_in_a_sentence_or_changes_nothing(number: int, bench: Bench):
    case = bench.cases(60, seed=7)[number]
    assert not [outcome for outcome in bench.outcomes(case) if outcome.kind in FAULTS], case


def test_every_file_and_every_mutation_is_among_all_cases(bench: Bench):
    pairs = {(file, name) for file in bench.files for name in MUTATIONS if applies(name, file)}
    assert {(case.file, case.mutation) for case in bench.cases(len(pairs), seed=0)} == pairs
    assert {file.split("/")[0] for file in bench.files} >= {"classifier", "checkpoints", "measured", "config.json"}
