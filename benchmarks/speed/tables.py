"""Each section's table, from its stored result."""

import statistics
from collections.abc import Callable

from benchmarks.readme import markdown
from benchmarks.speed.checks import MEAN_TARGETS, TARGET_AGAINST_SBX, target_against_sb3, update_share
from benchmarks.speed.kernel_rates import dense_rate, rate, typical
from benchmarks.speed.mkl import AS_ON_INTEL
from benchmarks.speed.results import (
    Row,
    Section,
    Sections,
    faster_way,
    geometric_mean,
    line_fit,
    median,
    ratio,
    shown_ratio,
    shown_time,
)
from benchmarks.speed.sections import NNZ_MULTIPLES, PRODUCTS, WIDTHS

DENSE_AS_ON_INTEL = "dense" + AS_ON_INTEL
NOT_THERE = "-"


ENVIRONMENT_STEPS = ("dense", DENSE_AS_ON_INTEL, "sbx", "rlx2")
SPEEDS = ["", "SB3, steps/s", "SB3 (MKL as on Intel)", "SBX", "RLx2"]
ABOUT_MKL = (
    "MKL, with which torch multiplies matrices, does not use its AVX code on processors of other makers; *MKL as on Intel* is "
    "SB3 with an MKL that was made to ([how](mkl.py))."
)


def end_to_end(sections: Sections) -> str:
    rows = sections["end_to_end"].rows
    header = [*SPEEDS, "against SB3", "target", "against SB3 (MKL as on Intel)", "against SBX", "target"]
    shown = [
        [
            *_speeds(row),
            _against(row, "dense"),
            _verdict([row], "dense", target_against_sb3(row["algorithm"], row["env"])),
            _against(row, DENSE_AS_ON_INTEL),
            _against(row, "sbx"),
            _verdict([row], "sbx", TARGET_AGAINST_SBX),
        ]
        for row in rows
    ]
    means = [
        _mean_against(rows, "dense"),
        _verdict(rows, "dense", MEAN_TARGETS["dense"]),
        _mean_against(rows, DENSE_AS_ON_INTEL),
        _mean_against(rows, "sbx"),
        _verdict(rows, "sbx", MEAN_TARGETS["sbx"]),
    ]
    return f"{ABOUT_MKL}\n\n{markdown(header, [*shown, ['geometric mean', '', '', '', '', *means]])}"


def _speeds(row: Row) -> list[str]:
    speeds = [f"{1 / median(row, kind):,.0f}" if kind in row["seconds"] else "-" for kind in ENVIRONMENT_STEPS]
    return [f"{row['algorithm']} {row['env']}", *speeds]


def _against(row: Row, opponent: str) -> str:
    return shown_ratio(row, opponent, "rlx2") if opponent in row["seconds"] else NOT_THERE


def _mean_ratio(rows: list[Row], opponent: str) -> float | None:
    ratios = [ratio(row, opponent, "rlx2") for row in rows if opponent in row["seconds"]]
    return geometric_mean(ratios) if ratios else None


def _mean_against(rows: list[Row], opponent: str) -> str:
    mean = _mean_ratio(rows, opponent)
    return NOT_THERE if mean is None else f"{mean:.2f}x"


def _verdict(rows: list[Row], opponent: str, target: float) -> str:
    mean = _mean_ratio(rows, opponent)
    return f"{target:g}x" + ("" if mean is None else " met" if mean >= target else " **not met**")


def vec_normalize(sections: Sections) -> str:
    rows = [
        [
            f"{row['algorithm']} {row['env']}",
            *(f"{1 / median(row, name):,.0f}" for name in ("plain", "normalized")),
            shown_ratio(row, "plain", "normalized"),
        ]
        for row in sections["vec_normalize"].rows
    ]
    return markdown(["RLx2", "without, steps/s", "with VecNormalize", "with against without"], rows)


def gradient_step(sections: Sections) -> str:
    header = [
        "",
        "dense SB3",
        "the same, MKL as on Intel",
        "parts in SB3",
        "RLx2",
        "parts against dense",
        "RLx2 against dense",
    ]
    header += ["parts against dense, MKL as on Intel", "RLx2 against that"]
    rows = [
        [
            f"{row['algorithm']} {row['env']}",
            *(_time(row, kind) for kind in ("dense", DENSE_AS_ON_INTEL, "parts", "rlx2")),
            *(
                shown_ratio(row, opponent, kind) if opponent in row["seconds"] else NOT_THERE
                for opponent in ("dense", DENSE_AS_ON_INTEL)
                for kind in ("parts", "rlx2")
            ),
        ]
        for row in sections["gradient_step"].rows
    ]
    return markdown(header, rows)


def _time(row: Row, name: str) -> str:
    return shown_time(median(row, name)) if name in row["seconds"] else NOT_THERE


def earlier(sections: Sections) -> str:
    section = sections["earlier"]
    rows = [
        [
            f"{row['algorithm']} {row['env']}",
            *(f"{1 / median(row, name):,.0f}" for name in ("earlier", "now")),
            shown_ratio(row, "earlier", "now"),
        ]
        for row in section.rows
    ]
    mean = geometric_mean([ratio(row, "earlier", "now") for row in section.rows])
    header = ["", f"{section.rows[0]['commit']}, steps/s", "now, steps/s", "now against that"]
    return markdown(header, [*rows, ["geometric mean", "", "", f"{mean:.2f}x"]])


def algorithms(sections: Sections) -> str:
    header = ["", "dense", "the same, MKL as on Intel", "dense, as many parameters", "the same, MKL as on Intel", "RLx2"]
    header += ["against dense", "against dense, as many parameters"]
    opponents = ("dense", "small dense")
    rows = [
        [
            f"{row['algorithm']} {row['env']}",
            *(_time(row, kind) for name in opponents for kind in (name, name + AS_ON_INTEL)),
            _time(row, "rlx2"),
            *(shown_ratio(row, faster_way(row, name), "rlx2") if name in row["seconds"] else NOT_THERE for name in opponents),
        ]
        for row in sections["algorithms"].rows
    ]
    note = (
        "RLx2 at sparsities of 90 % (actors, QR-DQN, and CrossQ, whose hidden layers are of 1024), 85 % (critics) and "
        "91 % (DQN, one hidden layer of 1024), against the host with the MKL that is faster. Bits-v0 has MinAtar's "
        "sizes, 400 bits and six actions."
    )
    return f"{note}\n\n{markdown(header, rows)}"


def threads(sections: Sections) -> str:
    rows = [
        [
            f"{row['algorithm']} {row['env']}",
            row["task"].replace("_", " "),
            *(shown_time(median(row, count)) for count in ("1", "2")),
            shown_ratio(row, "1", "2"),
            _shown_worth(row["seconds"]),
            _shown_nanoseconds(row["seconds"]["line"]),
        ]
        for row in sections["threads"].rows
    ]
    if not rows:
        return "Needs two cores."
    note = (
        "The last two columns are the machine's: how many times faster two threads that have nothing to do with each other "
        "get through arithmetic in the L1 cache than one (2 for two cores; less if they are one core's two threads, or the "
        "host takes time for others), and what a cache line takes to the other core and back."
    )
    header = ["", "", "one thread", "two threads", "speed-up", "arithmetic alone", "a cache line there and back, ns"]
    return f"{note}\n\n{markdown(header, rows)}"


def _shown_worth(seconds: dict[str, list[float]]) -> str:
    worth = [2 * one / two for one, two in zip(seconds["arithmetic, 1"], seconds["arithmetic, 2"], strict=True)]
    return f"{statistics.median(worth):.2f}x ({min(worth):.2f}-{max(worth):.2f})"


def _shown_nanoseconds(seconds: list[float]) -> str:
    middle, least, most = (f"{each(seconds) * 1e9:.0f}" for each in (statistics.median, min, max))
    return f"{middle} ({least}-{most})"


def predict(sections: Sections) -> str:
    rows = [
        [
            f"{row['algorithm']} {row['env']}",
            "`predict`" if row["task"] == "predict" else "bare forward",
            *(shown_time(median(row, kind)) for kind in ("dense", "rlx2")),
            shown_ratio(row, "dense", "rlx2"),
        ]
        for row in sections["predict"].rows
    ]
    return markdown(["", "one observation", "dense SB3", "RLx2", "speed-up"], rows)


def kernels(sections: Sections) -> str:
    section = sections["kernels"]
    header = ["batch", "density", "dense product, GFLOP/s", "the same, MKL as on Intel"]
    header += [f"{product}, GFLOP/s (share of the first)" for product in PRODUCTS]
    note = (
        "A 256 x 256 layer. First the call for a network of one layer, with its Python, bias and change of layout; behind the "
        "semicolon a further layer inside a network (and ReLU), from networks of five layers and of one."
    )
    return f"{note}\n\n{markdown(header, [_kernel_row(section, row) for row in section.rows])}"


def _kernel_row(section: Section, row: Row) -> list[str]:
    dense, shown = dense_rate(section, row["batch"]), []
    fast = dense_rate(section, row["batch"], DENSE_AS_ON_INTEL) if DENSE_AS_ON_INTEL in row["seconds"] else None
    for product in PRODUCTS:
        of = rate(row, product)
        shown.append(f"{of.single:.1f} ({of.single / dense:.0%}); {of.inside:.1f} ({of.inside / dense:.0%})")
    return [str(row["batch"]), f"{row['density']:.0%}", f"{dense:.1f}", NOT_THERE if fast is None else f"{fast:.1f}", *shown]


def crossover(sections: Sections) -> str:
    rows = sections["crossover"].rows
    names = list(rows[0]["seconds"])
    lines = [[str(row["width"]), f"{row['density']:.0%}", *(shown_time(median(row, name)) for name in names)] for row in rows]
    note = (
        "Gradient step of TD3 on HalfCheetah-v4, all networks of one density. `masked` is dense arithmetic, which RLx2's own "
        'gradient steps cannot use; `backend="auto"` takes it for networks denser than `backends.MASKED_FROM` '
        "that have more than `backends.MASKED_FROM_WEIGHTS` live weights."
    )
    return f"{note}\n\n{markdown(['width', 'density', *names], lines)}"


def scaling(sections: Sections) -> str:
    section = sections["scaling"]
    return f"![scaling](results/scaling.png)\n\n{_widths(section)}\n\n{_links(section)}\n\n{_memory(section)}"


def _widths(section: Section) -> str:
    sparse, dense, updates = (section.one(what=what) for what in ("sparse", "dense", "topology update"))
    header = [
        "width",
        "sparse",
        "of width 256",
        "dense",
        "of width 256",
        "step with a topology update",
        "updates' share of training",
    ]
    rows = [
        [
            width,
            *(
                part
                for row in (sparse, dense)
                for part in (shown_time(median(row, width)), f"{ratio(row, width, '256'):.2f}x")
            ),
            shown_time(median(updates, width)),
            f"{update_share(section, width):.3%}",
        ]
        for width in map(str, WIDTHS)
    ]
    return f"Gradient step of TD3 on HalfCheetah-v4, all widths with the links of width 256.\n\n{markdown(header, rows)}"


def _links(section: Section) -> str:
    row = section.one(what="links")
    names = [str(multiple) for multiple in NNZ_MULTIPLES]
    nnz, times = [row["bytes"][name]["nnz"] for name in names], [median(row, name) for name in names]
    constant, off = line_fit(nnz, times)
    table = markdown(["links", "gradient step"], [[f"{n:,}", shown_time(t)] for n, t in zip(nnz, times, strict=True)])
    fit = f"A line through them begins at {shown_time(constant)} and is at most {off:.1%} off."
    return f"The same at width {row['width']}, with more links.\n\n{table}\n\n{fit}"


def _memory(section: Section) -> str:
    parts = ("parameters", "gradients", "moments", "targets")
    named = [(f"width {width}", section.one(what="sparse")["bytes"][str(width)]) for width in WIDTHS]
    named += [(f"width {section.one(what='links')['width']}", size) for size in section.one(what="links")["bytes"].values()]
    named += [(f"width {width}, dense", section.one(what="dense")["bytes"][str(width)]) for width in WIDTHS]
    rows = [
        [name, f"{size['nnz']:,}" if size["nnz"] else "all", *(f"{size[part] / 1e3:,.0f}" for part in parts)]
        for name, size in named
    ]
    return f"kB of float32 (biases are dense).\n\n{markdown(['', 'links', *parts], rows)}"


def startup(sections: Sections) -> str:
    rows = [
        [f"{row['what']}, {name}", shown_time(median(row, name)), f"{shown_time(min(times))} - {shown_time(max(times))}"]
        for row in sections["startup"].rows
        for name, times in row["seconds"].items()
    ]
    return markdown(["", "median", "spread"], rows)


def stages(sections: Sections) -> str:
    rows = sections["stages"].rows
    names = [name for name in rows[-1]["seconds"] if name != "addition"]
    cells = [f"{row['algorithm']} {row['env']}" for row in rows]
    lines = [[name, *(_stage(sections, row, name) for row in rows)] for name in names]
    total = [f"**{shown_time(sum(median(row, name) for name in row['seconds'] if name != 'addition'))}**" for row in rows]
    note = (
        "Time per environment step; in brackets the floor, which is the FLOPs over the rate of the section `kernels` (density "
        "10 %, batch 256, inside a network), or the bytes over the bandwidth of adding two arrays of the parameters' size."
    )
    return f"{note}\n\n{markdown(['', *cells], [*lines, ['**sum**', *total]])}"


def _stage(sections: Sections, row: Row, name: str) -> str:
    floor = _floor(sections, row, name)
    return shown_time(median(row, name)) + (f" ({shown_time(floor)})" if floor else "")


def _floor(sections: Sections, row: Row, stage: str) -> float | None:
    if stage in ("optimizer", "Polyak"):
        return row["work"][stage] * median(row, "addition") / row["addition_bytes"]
    if stage not in row["work"] or "kernels" not in sections:
        return None
    products = ("forward",) if stage == "entropy on the way" else PRODUCTS
    seconds_per_flop = sum(1 / typical(sections["kernels"], product) / 1e9 for product in products) / len(products)
    return row["work"][stage] * seconds_per_flop


TABLES: dict[str, tuple[str, Callable[[Sections], str]]] = {
    "end_to_end": ("End to end, one thread", end_to_end),
    "earlier": ("Against an earlier commit, end to end, one thread", earlier),
    "vec_normalize": ("With VecNormalize, one thread", vec_normalize),
    "gradient_step": ("Gradient step, one thread", gradient_step),
    "algorithms": ("Gradient step of the other algorithms, one thread", algorithms),
    "threads": ("Two threads", threads),
    "predict": ("One observation", predict),
    "kernels": ("Kernels", kernels),
    "crossover": ("Where `masked` begins to win", crossover),
    "scaling": ("Scaling", scaling),
    "startup": ("Start-up", startup),
    "stages": ("Where a step's time goes", stages),
}
