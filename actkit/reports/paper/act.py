"""The paper of ACT (Arani et al. 2020), as any paper is registered: what its tables and figures print, which trainings stand behind each, what it claims.

Two scales: `full`, the paper's own settings, and `small`, the same study on scikit-learn's digits in minutes. Data alone; `paper.study` makes trainings and examinations of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from actkit.config.registry import register
from actkit.reports.paper.terms import (
    Claim,
    Item,
    ItemExamination,
    ItemTraining,
    Paper,
    PaperScale,
    Published,
    PublishedColumn,
    PublishedRow,
)


@dataclass(frozen=True)
class _Block:
    """One network on one data set: what a group of rows has in common. Its recipes are gin/<method>_<recipes>.gin."""

    title: str
    recipes: str
    settings: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Scale(PaperScale):
    """A scale and what all of ACT's items have in common there.

    Args:
        blocks: by the paper's name of the block.
        examined: settings of every examination.
        limit: the setting of how many images the costly attacks look at.
    """

    seeds: tuple[int, ...] = (0, 1, 2)
    blocks: Mapping[str, _Block] = field(default_factory=dict)
    examined: tuple[str, ...] = ()
    limit: str = ""


_C10, _C100, _WRN10, _WRN100, _IMAGENET = (
    "ResNet-18, CIFAR-10", "ResNet-18, CIFAR-100", "WRN-28-10, CIFAR-10", "WRN-28-10, CIFAR-100", "ResNet-50, ImageNet",
)  # fmt: skip


_FULL = _Scale(
    "full", "full scale", "full scale: the paper's settings",
    blocks={
        _C10: _Block(_C10, "cifar10"), _C100: _Block(_C100, "cifar100"), _WRN10: _Block(_WRN10, "cifar10_wrn_28_10"),
        _WRN100: _Block(_WRN100, "cifar100_wrn_28_10"), _IMAGENET: _Block(_IMAGENET, "imagenet"),
    },
)  # fmt: skip


# Looking less often and auditing fewer images saves a third of the time; nothing is trained otherwise.
_LESS = ("run.monitor_every=5", "probe.audit.limit=100")


_SHORT = ("run.epochs=20", "schedule.MultiStepLR.milestones=[10, 15]", *_LESS)


_DIGITS = _Block("small ResNet, digits", "digits", _SHORT)


_SMALL = _Scale(
    "small",
    "small scale, on digits",
    "small scale: 8x8 digits, small networks, 20 epochs (Free 5 of 4 updates each, Fast 10), eps 0.15; the costly attacks look at 100 images. It shows "
    "that the study runs and how the methods compare on digits; it says nothing about the paper's numbers",
    whose="digits",
    unlike="digits are not CIFAR-10",
    blocks={
        _C10: _DIGITS,
        _WRN10: _Block(
            "WRN-10-1, digits", "digits", (*_SHORT, "role.backbone=@backbone.wrn()", "backbone.wrn.depth=10", "backbone.wrn.width=1")
        ),
        _IMAGENET: _DIGITS,
    },
    examined=("EPS=0.15", "STEP_SIZE=0.015"),
    limit="LIMIT=100",
)  # fmt: skip


_NAMES = {"natural": "Natural", "madry": "Madry", "trades": "TRADES", "free": "Free (m=4)", "fast": "Fast-FGSM", "act": "ACT"}  # fmt: skip


_DEFENCES = ("madry", "trades", "act")


def _training(scale: _Scale, block: str, method: str) -> ItemTraining:
    own = scale.blocks[block]
    settings = own.settings
    if scale.name == "small" and method in (
        "free",
        "fast",
    ):  # a length and a schedule of their own, shortened in proportion
        settings = {
            "free": ("run.epochs=5", "schedule.MultiStepLR.milestones=[3, 4]", *_LESS), "fast": ("run.epochs=10", *_LESS)
        }[method]  # fmt: skip
    return ItemTraining(f"gin/{method}_{own.recipes}.gin", settings)


def _examination(scale: _Scale, file: str, *settings: str, limit: bool = True, **how: object) -> ItemExamination:
    given = (*scale.examined, *settings, *((scale.limit,) if scale.limit and limit else ()))
    return ItemExamination(file, given, **how)  # type: ignore[arg-type]


_TABLE1 = {  # clean and PGD-20 accuracy of F, then of G; three cells of F cannot be read in the copy at hand
    "0.1": "95.29±.10 - 85.94±.11 48.93±.28",
    "0.3": "95.31±.10 - 86.13±.14 49.40±.59",
    "0.5": "94.88±.13 2.90±.26 86.33±.22 50.62±.86",
    "0.7": "94.42±.10 - 86.24±.18 51.37±.41",
    "0.9": "90.12±.63 10.85±2.04 84.87±.91 55.12±1.07",
    "1.0": "10.00 0.00 10.00 0.00",
}


def _table1(scale: _Scale) -> Item:
    rows = []
    for alpha, printed in _TABLE1.items():
        training = _training(scale, _C10, "act")
        if not scale.comparable:
            training = ItemTraining(training.recipe, (*training.settings, f"objective.act.alpha={alpha}"))
        elif alpha != "0.9":
            training = ItemTraining(f"gin/act_cifar10_alpha_{alpha}.gin")
        numbers = Published.line(printed)
        group, at = f"alpha = {alpha}", ("alpha", float(alpha))
        rows.append(PublishedRow(group, "F, natural model", training, numbers[:2], role="natural", at=at))
        rows.append(PublishedRow(group, "G, robust model", training, numbers[2:], at=at))
    return Item(
        "table1", f"Table 1: ACT's alpha ({scale.blocks[_C10].title})", scale, scale.seeds,
        (_CLEAN, _pgd(20)), tuple(rows), None,
        (
            Claim("the robustness of G generally increases with alpha", "PGD-20", ("alpha = 0.9", "G, robust model"), "higher", (("alpha = 0.1", "G, robust model"),)),
            Claim("more robustness is transferred to F at higher alpha", "PGD-20", ("alpha = 0.9", "F, natural model"), "higher", (("alpha = 0.1", "F, natural model"),)),
        ),
        ("At alpha 1.0 neither model sees a label and both collapse to chance; the paper prints 10.00 and 0.00.",),
        swept="Both models of ACT",
    )  # fmt: skip


_CLEAN = PublishedColumn("clean", "accuracy", "clean", "accuracy on clean test images", fixed=True)


def _pgd(
    steps: int, protocol: str = "worst of 5 whole-set runs, each from a random start, last iterate"
) -> PublishedColumn:
    return PublishedColumn(
        f"PGD-{steps}", f"pgd{steps}", "worst_run", f"accuracy under {steps} steps of PGD, {protocol}"
    )


_TABLE2 = {
    _C10: {
        "madry": "85.11±.19 50.53±.01 47.67±.18 47.51±.16 .03782±.00024", "trades": "83.49±.38 53.79±.29 52.15±.26 52.12±.26 .04279±.00066",
        "act": "84.33±.27 55.83±.18 53.73±.19 53.62±.19 .04454±.00069",
    },
    _C100: {
        "madry": "58.36±.10 24.48±.16 23.10±.20 23.02±.23 .01961±.00010", "trades": "56.91±.46 28.88±.16 27.98±.17 27.96±.19 .02353±.00014",
        "act": "61.56±.46 31.14±.16 29.74±.15 29.71±.14 .02462±.00017",
    },
    _WRN10: {
        "madry": "87.26±.20 49.76±.06 46.91±.10 46.77±.06 .04412±.00083", "trades": "86.36±.26 53.52±.17 50.73±.18 50.63±.17 .04714±.00018",
        "act": "87.58±.16 54.94±.14 50.66±.11 50.44±.13 .05601±.00031",
    },
    _WRN100: {
        "madry": "60.77±.16 24.92±.23 23.56±.26 23.46±.24 .02084±.00011", "trades": "58.10±.17 28.49±.08 27.50±.23 27.44±.23 .02395±.00011",
        "act": "60.72±.18 28.74±.14 27.32±.00 27.26±.01 .02595±.00016",
    },
}  # fmt: skip


def _table2(scale: _Scale) -> Item:
    rows = [
        # The smallest perturbation stands twice: the paper does not say which of the two means it printed.
        PublishedRow(scale.blocks[block].title, _NAMES[m], _training(scale, block, m), (*Published.line(printed), Published.line(printed)[-1]))
        for block, methods in _TABLE2.items() if block in scale.blocks for m, printed in methods.items()
    ]  # fmt: skip
    far = "mean linf distance of the nearest adversarial example that FGSM^k finds,"
    return Item(
        "table2", "Table 2: white-box attacks", scale, scale.seeds,
        (
            _CLEAN, _pgd(20), _pgd(100), _pgd(1000),
            PublishedColumn("smallest", "fgsm_k", "mean_correct", f"{far} over the images classified rightly for which it finds one", percent=False, digits=5),
            PublishedColumn("smallest, all", "fgsm_k", "mean_all", f"{far} a misclassified image counting as 0", percent=False, digits=5),
        ),
        tuple(rows), _examination(scale, "gin/evaluation_table2.gin"),
        (
            Claim("ACT is more robust than Madry and TRADES", "PGD-20", "ACT", "higher", ("Madry", "TRADES")),
            Claim("ACT needs a larger perturbation", "smallest", "ACT", "higher", ("Madry", "TRADES")),
        ),
        (
            "In the paper's own numbers ACT is below TRADES at PGD-100 and PGD-1000 on both WRN-28-10 rows.",
            "The paper prints one smallest perturbation and does not say which of the two means it is, so it stands beside both; a mean leaves out what no attack reached, so masked gradients make it smaller.",
        )
        + (() if scale.comparable else ("The rows of CIFAR-100 have no counterpart among the offline data sets.",)),
    )  # fmt: skip


_TABLE3 = {
    _C10: {"madry": "15.93 49.50 35.88 35.34", "trades": "18.23 35.84 46.49 37.11", "act": "16.93 33.65 35.14 44.04"},
    _C100: {"madry": "43.13 75.71 61.50 60.29", "trades": "44.25 60.80 71.20 59.97", "act": "40.80 57.17 57.32 68.61"},
}


def _table3(scale: _Scale) -> Item:
    rows = []
    for block, methods in _TABLE3.items():
        if block in scale.blocks:
            title = scale.blocks[block].title
            rows += [
                PublishedRow(title, _NAMES[m], _training(scale, block, m), Published.line(line))
                for m, line in methods.items()
            ]
            rows.append(PublishedRow(title, "Natural", _training(scale, block, "natural")))
    return Item(
        "table3", "Table 3: black-box attacks, success rates (%)", scale, scale.seeds,
        tuple(
            PublishedColumn(f"from {_NAMES[m]}", "transfer", m, f"share of all test images that PGD-20 examples made on the {_NAMES[m]} model fool, from one random start")
            for m in ("natural", *_DEFENCES)
        ),
        tuple(rows), _examination(scale, "gin/evaluation_table3.gin", limit=False, together=True),
        (
            Claim("examples from Madry transfer worse to ACT than to TRADES", "from Madry", "ACT", "lower", ("TRADES",)),
            Claim("examples from TRADES transfer worse to ACT than to Madry", "from TRADES", "ACT", "lower", ("Madry",)),
        ),
        ("Lower is more robust. Images that are misclassified unattacked count as successes, as the paper's diagonal shows. It has no row for the natural model.",),
    )  # fmt: skip


_FAST_NOTE = "the source (Wong et al. 2020) has this number for PGD-50, 10 restarts, per-example worst case, step 1/255"


_FREE_NOTE = "quoted from its own paper (Shafahi et al. 2019), whose code attacks with a step of 1/255"


_TABLE4 = {
    "madry": Published.line("65.70 42.13 42.29 42.36"), "free": (Published(64.45), *(Published(v, note=_FREE_NOTE) for v in (43.52, 43.39, 43.40))),
    "fast": (Published(60.90), Published(43.46, note=_FAST_NOTE), None, None, Published(43.46)), "act": Published.line("68.20 44.06 44.24 44.29"),
}  # fmt: skip


def _table4(scale: _Scale) -> Item:
    title = scale.blocks[_IMAGENET].title
    small = "1/255" if scale.comparable else "0.075"
    readings = {
        "": "attack step 1.0, as printed: every step lands on a corner",
        "small": f"attack step {small}, half of eps",
    }
    rows = [
        PublishedRow(f"{title}; {said}", _NAMES[m], _training(scale, _IMAGENET, m), printed, reading=reading)
        for reading, said in readings.items()
        for m, printed in _TABLE4.items()
    ]
    one = "one run from a random start, last iterate"
    return Item(
        "table4", "Table 4: ImageNet, eps 2/255" if scale.comparable else "Table 4: the study of ImageNet", scale,
        (0,) if scale.comparable else scale.seeds,
        (
            _CLEAN, _pgd(10, one), _pgd(50, one), _pgd(100, one),
            PublishedColumn(
                "PGD-50-10", "pgd50_restarts", "worst_case",
                f"accuracy under PGD-50 from 10 starts, per-example worst case over any iterate, step {small}: the protocol of Fast's paper", only="small",
            ),
        ),
        tuple(rows),
        None if scale.comparable else ItemExamination("gin/evaluation_table4.gin", ("EPS=0.15", "STEP_SIZE=0.075", scale.limit)),
        (
            Claim("ACT generalises better than the others", "clean", "ACT", "higher", ("Madry", "Free (m=4)", "Fast-FGSM")),
            Claim("ACT is more robust than the others", "PGD-10", "ACT", "higher", ("Madry", "Free (m=4)", "Fast-FGSM")),
        ),
        (
            f"Fast-FGSM's 43.46 under PGD-10: {_FAST_NOTE}; no difference is given there.",
            f"Free's numbers are {_FREE_NOTE}; no difference is given.",
            "The paper gives no deviation here and does not say how many starts the attack had; one, as in its released evaluation of ImageNet.",
        )
        + (() if scale.comparable else ("Madry and ACT are trained with PGD-10 of step eps/4 here, not with a step of 1.0.",)),
    )  # fmt: skip


_TABLE5 = {
    "madry": "81.90 63.53 36.69 16.61 7.01 3.31 .22 0", "trades": "80.23 65.27 42.51 23.35 11.17 5.40 .29 0",
    "act": "81.47 67.15 42.98 22.45 11.18 5.74 .42 0",
}  # fmt: skip


def _table5(scale: _Scale) -> Item:
    title = scale.blocks[_C10].title
    step = "0.003" if scale.comparable else "0.015"
    readings = {"": f"step {step}", "scaled": "step grows with eps"}
    rows = [
        PublishedRow(f"{title}; {said}", _NAMES[m], _training(scale, _C10, m), Published.line(printed), reading=reading)
        for reading, said in readings.items()
        for m, printed in _TABLE5.items()
    ]
    columns = tuple(
        PublishedColumn(f"{n}/255", "sweep", f"eps {n}/255", f"accuracy under PGD-100 with eps {n}/255, one run from a random start, last iterate")
        for n in (1, 5, 10, 15, 20, 25, 50, 100)
    )  # fmt: skip
    return Item(
        "table5", f"Table 5: accuracy under PGD-100 as eps grows ({title})", scale, scale.seeds, columns, tuple(rows),
        _examination(scale, "gin/evaluation_table5.gin"),
        notes=(
            "The paper prints no step size for this table; a hundred steps of 0.003 cannot cross an eps of 100/255, so both readings are given.",
            "Nor does it print a deviation or how many starts the attack had; one is ours.",
        ),
        pictures=("sweep-sweep-eps", "sweepscaled-sweep-eps"),
    )  # fmt: skip


def _figure2(scale: _Scale) -> Item:
    block = scale.blocks[_C10]
    return Item(
        "figure2", f"Figure 2: smallest perturbations that fool each defence ({block.title})", scale, scale.seeds[:1],
        (PublishedColumn("smallest", "gallery", "mean_shown", "mean linf distance of the adversarial examples shown, by FGSM^k", percent=False),),
        tuple(PublishedRow(block.title, _NAMES[m], _training(scale, _C10, m)) for m in _DEFENCES),
        ItemExamination("gin/evaluation_figure2.gin"), pictures=("gallery",),
        notes=("Four images of the first seed are drawn; a number is the mean over those of the four that are not misclassified anyway. The mean over all images is in Table 2.",),
    )  # fmt: skip


_METHODS3 = (*(("natural", ""), ("madry", ""), ("trades", ""), ("act", "")), ("act", "natural"))


def _analysed(scale: _Scale, *blocks: str) -> tuple[PublishedRow, ...]:
    return tuple(
        PublishedRow(scale.blocks[b].title, _NAMES[m] + (", natural model" if role else ""), _training(scale, b, m), role=role)
        for b in blocks if b in scale.blocks for m, role in _METHODS3
    )  # fmt: skip


def _analyses() -> ItemExamination:
    return ItemExamination("gin/evaluation_analyses.gin", roles=())


def _figure3(scale: _Scale) -> Item:
    said = "accuracy with which an MLP (400, 200) fits random binary labels from the frozen representation, after 100 epochs of Adam, on the training images of two classes, the mean over 5 draws of labels"
    return Item(
        "figure3", f"Figure 3: weight norms and information compression ({scale.blocks[_C10].title})", scale, scale.seeds,
        (
            PublishedColumn("norm, all", "norms", "total", "Frobenius norm of all weight matrices together", percent=False),
            PublishedColumn("norm, mean", "norms", "mean", "mean over layers of the Frobenius norm", percent=False),
            PublishedColumn("random labels", "compression", "accuracy", said, deviation="std"),
        ),
        _analysed(scale, _C10), _analyses(),
        (
            Claim("the weights of ACT are smaller", "norm, mean", "ACT", "lower", ("Madry",)),
            Claim("ACT's robust model compresses more than standard training", "random labels", "ACT", "lower", ("Natural",)),
            Claim("so does its natural model", "random labels", "ACT, natural model", "lower", ("Natural",)),
            Claim("standard adversarial training compresses less than standard training (Lamb et al. 2019)", "random labels", "Natural", "lower", ("Madry",)),
        ),
        ("Lower accuracy on random labels is stronger compression. The paper prints no numbers for this figure, and not which images, optimizer and epochs it fitted, or how many draws of labels.",),
        ("norms", "compression"),
    )  # fmt: skip


def _figure4(scale: _Scale) -> Item:
    return Item(
        "figure4", "Figure 4: posterior entropy over the training images", scale, scale.seeds,
        (PublishedColumn("entropy", "entropy", "mean", "mean entropy of the posterior over all training images without augmentation, in nats", percent=False),),
        _analysed(scale, _C10, _C100), _analyses(),
        (Claim("ACT converges to higher posterior entropy", "entropy", "ACT", "higher", ("Natural", "Madry", "TRADES")),),
        ("The paper prints no numbers for this figure.",), ("entropy",),
    )  # fmt: skip


_ITEMS = (_table1, _table2, _table3, _table4, _table5, _figure2, _figure3, _figure4)


@register("paper")
def act() -> Paper:
    """Adversarial Concurrent Training (Arani et al. 2020)."""
    return Paper(
        "Adversarial Concurrent Training", "Arani et al. 2020", [made(scale) for scale in (_FULL, _SMALL) for made in _ITEMS],
        elsewhere={"figure1": ("is a drawing; its two-class picture is made by docs/moons.py", "actkit run gin/act_moons.gin")},
    )  # fmt: skip
