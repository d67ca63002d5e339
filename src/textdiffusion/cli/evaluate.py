"""`textdiffusion evaluate RUN`"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from ..core.errors import UserError
from .measuring import Bounding
from .output import note, print_json, print_line, status
from .parsing import RunName


@dataclass(frozen=True, kw_only=True)
class Evaluate(Bounding):
    """Measure a run by every metric that applies: bits per character compared with an n-gram, metrics of its texts
    compared with reference rows, and solved questions where its data is a task.

    Earlier results are read from the run's folder `measured`.
    """

    run: RunName
    """The run's folder, a name from `textdiffusion models`, or a repository id on the hub."""
    calibrate: int = 0
    """Fit one temperature per range of noise levels on the training text, for this many ranges (0 = none)."""

    def execute(self) -> None:
        self.check()
        if self.calibrate < 0:
            raise UserError(f"--calibrate is {self.calibrate}; it must be at least 1, or 0 for no calibration.")
        from ..data.prepare import default_cache
        from ..evaluation.bench import RunEvaluator
        from ..evaluation.frontier import judge_texts
        from ..inference.api import TextDiffusion

        run = TextDiffusion.from_pretrained(self.run, weights=self.weights, device=self.device, dtype=self.dtype)
        with status("Measuring ...") as show:
            evaluator = RunEvaluator(run, self.plan(), default_cache(), show)
            if evaluator.heldout.trained_on:
                note(f"This run was trained on {self.data}: these figures are not for unseen text.")
            bound = evaluator.masked_bound()
            score = evaluator.in_order() or evaluator.likelihood()
            ngram, answers = evaluator.ngram_baseline(), evaluator.task_score()
            if ngram is None:
                note("The training text is not available, so there is no n-gram to compare with.")
            report, setting = None, ""
            if texts := evaluator.texts():
                show("Judging the texts ...")
                try:
                    report, _ = judge_texts(
                        {Path(self.run).name: texts},
                        evaluator.real_text,
                        default_cache(),
                        judge=self.judge,
                        seed=self.seed,
                    )
                except UserError as error:
                    note(f"The texts were not judged: {error}")
                setting = f"{len(texts[0].texts)} texts of {texts[0].setting}, features in {texts[0].dtype}"
        if self.json:
            print_json(
                {
                    "run": self.run,
                    "recipe": run.config.recipe,
                    **asdict(score),
                    "digest": score.digest,
                    "masked_bound": asdict(bound) if bound else None,
                    "ngram": asdict(ngram) if ngram else None,
                    "answers": asdict(answers) if answers else None,
                    "texts": {"how": setting, **asdict(report)} if report else None,
                }
            )
            return
        averaged = "averaged" if self.weights == "ema" else "raw"
        print_line(
            f"{run.config.recipe}, {averaged} weights, on {evaluator.heldout.name}: {score.characters:,} characters"
        )
        sign = "=" if score.exact else "<="
        how = "" if score.exact and not bound else " (exact, from left to right)" if bound else " (an upper bound)"
        print_line(f"{sign:>3} {score.bits:.4f} bits per character{how}")
        if bound:
            print_line(f" <= {bound.bits:.4f} +- {bound.monte_carlo_error:.4f} by masks (an upper bound)")
        if self.order:
            print_line(f"    exactly, revealed by {self.order}, {self.per_step} at a time")
        if score.lost_bits:
            print_line(f"    of which {score.lost_bits:.4f} spell characters that the tokenizer loses")
        if not score.exact:
            print_line(
                f" +- {score.monte_carlo_error:.4f} from the random draws ({score.draws} per window), for this text"
            )
        if score.window_error is not None:
            print_line(f" +- {score.window_error:.4f} between the {score.windows} windows, for other text of this kind")
        print_line(f"    protocol {score.digest} (compare only figures with the same protocol)")
        if ngram:
            counted = f"{ngram.train_tokens:,} tokens of the training text"
            print_line(f"    {ngram.bits:.4f} for a Kneser-Ney {ngram.order}-gram of {counted}")
        if answers:
            print_line(f"    {answers.accuracy:.1%} +- {answers.error:.1%} of {answers.questions:,} questions solved")
        if report:
            print_line(f"\n{setting}:\n\n{report}")
