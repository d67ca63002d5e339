"""`textdiffusion evaluate RUN`"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from ..core.errors import UserError
from .measuring import Bounding
from .output import note, print_json, status
from .parsing import RunName


@dataclass(frozen=True, kw_only=True)
class Command(Bounding):
    """Measure a run by all that applies: bits per character beside an n-gram, metrics of its texts beside reference
    rows, and solved questions where its data is a task.

    What was measured before is read from the folder `measured` of the run.
    """

    run: RunName
    """The run's folder, or its repository id on the hub."""
    calibrate: int = 0
    """Fit a temperature for each of so many ranges of noise levels on the training text (0: none)."""

    def execute(self) -> None:
        self.check()
        if self.calibrate < 0:
            raise UserError(f"--calibrate is {self.calibrate}; it must be a number of ranges, or 0 for none.")
        from ..data.prepare import default_cache
        from ..evaluation.bench import RunEvaluator
        from ..evaluation.frontier import judge_texts
        from ..inference.api import TextDiffusion

        model = TextDiffusion.from_pretrained(self.run, weights=self.weights, device=self.device, dtype=self.dtype)
        with status("Measuring ...") as say:
            evaluator = RunEvaluator(model, self.plan(), default_cache(), say)
            if evaluator.heldout.trained_on:
                note(f"{self.data} is what this run was trained on: these are no figures of unseen text.")
            found, ngram = evaluator.likelihood(), evaluator.ngram_baseline()
            answers = evaluator.task_score()
            if ngram is None:
                note("The training text is not at hand, so there is no n-gram beside the run.")
            report, how = None, ""
            if texts := evaluator.texts():
                say("Judging the texts ...")
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
                how = f"{len(texts[0].texts)} texts of {texts[0].setting}, features in {texts[0].dtype}"
        if self.json:
            print_json(
                {
                    "run": self.run,
                    "recipe": model.config.recipe,
                    **asdict(found),
                    "digest": found.digest,
                    "ngram": asdict(ngram) if ngram else None,
                    "answers": asdict(answers) if answers else None,
                    "texts": {"how": how, **asdict(report)} if report else None,
                }
            )
            return
        averaged = "averaged" if self.weights == "ema" else "raw"
        print(
            f"{model.config.recipe}, {averaged} weights, on {evaluator.heldout.name}: {found.characters:,} characters"
        )
        sign = "=" if found.exact else "<="
        print(f"{sign:>3} {found.bits:.4f} bits per character" + ("" if found.exact else " (an upper bound)"))
        if not found.exact:
            print(f" +- {found.monte_carlo_error:.4f} from the draws ({found.draws} per window), this text fixed")
        if found.window_error is not None:
            print(f" +- {found.window_error:.4f} between the {found.windows} windows, for more text of this kind")
        print(f"    protocol {found.digest}: figures beside each other must share it")
        if ngram:
            counted = f"{ngram.train_tokens:,} tokens of the training text"
            print(f"    {ngram.bits:.4f} a Kneser-Ney {ngram.order}-gram of {counted}")
        if answers:
            print(f"    {answers.accuracy:.1%} +- {answers.error:.1%} of {answers.questions:,} questions solved")
        if report:
            print(f"\n{how}:\n\n{report}")
