"""This machine and cluster: `doctor` and `bench`."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

from hpc import options
from hpc.verbs import given
from leukotree.progress import step


def define_doctor(verbs: options.Verbs) -> None:
    verb = options.verb(
        verbs,
        "doctor",
        "check whether this cluster is ready for a study: SLURM, GPUs, disks, clocks, weights, versions",
        "leukotree doctor sweeps/deepapl.yaml --site a100",
        run_doctor,
    )
    verb.add_argument(
        "study",
        metavar="STUDY|SPEC",
        nargs="?",
        help="also check its data, its weights and the disk space for its runs",
    )
    verb.add_argument(
        "overrides", metavar="key=value", nargs="*", help="change a field, as in base.data.shards=data/other"
    )
    verb.add_argument(
        "--site",
        metavar="NAME",
        help=f"{options.SITE}; the jobs will run there",
    )
    verb.add_argument(
        "--queue",
        action="store_true",
        help="only check what every submission checks, in about a second; exit code 2 if it is refused",
    )
    verb.add_argument(
        "--ranks",
        type=options.positive,
        help="processes of the all-reduce that tests the links (default: GPUs, at least 2)",
    )
    verb.add_argument(
        "--node",
        action="store_true",
        help="only check what a job checks before a run: devices, disk space, clock, links; srun -N4 "
        "leukotree doctor --node",
    )
    verb.add_argument("--json", action="store_true", help="print JSON")


def run_doctor(arguments: Namespace) -> int:
    step("looking at this machine and SLURM")
    from hpc.doctor import doctor
    from hpc.slurm.site import load as load_site
    from leukotree.runtime import Runtime

    if arguments.queue:
        doctor.before_queue(
            arguments.study, arguments.overrides, site=load_site(arguments.site), ranks=arguments.ranks or 1
        )
        print("ready: sbatch takes the jobs")
        return 0
    if arguments.node:
        diagnosis = doctor.examine_node(arguments.ranks, Runtime())
    else:
        diagnosis = doctor.examine(
            arguments.study,
            arguments.overrides,
            site=load_site(arguments.site),
            on_slurm=arguments.site is not None,
            ranks=arguments.ranks,
            runtime=Runtime(),
        )
    print(json.dumps(diagnosis.as_dict()) if arguments.json else "\n".join(diagnosis.lines()))
    return 0 if diagnosis.ready else 1


def define_bench(verbs: options.Verbs) -> None:
    verb = options.verb(
        verbs,
        "bench",
        "measure loader, step, all-reduce, checkpoint and trial, compare them with their limits, and say "
        "what to change",
        "leukotree bench run.yaml optim.batch_size=256 --ranks 4",
        run_bench,
    )
    verb.add_argument(
        "spec", metavar="SPEC", nargs="?", help="as for train (default: a small model on phantom images)"
    )
    verb.add_argument(
        "overrides",
        metavar="key=value",
        nargs="*",
        help="change a field, as in backbone.name=vit_small_patch16_384",
    )
    verb.add_argument(
        "--only",
        metavar="PART,...",
        help="some of: loader, step, all-reduce, checkpoint, trial (default: all)",
    )
    verb.add_argument(
        "--seconds",
        type=options.amount,
        default=3.0,
        metavar="S",
        help="approximate length of each measurement in seconds (default %(default)g)",
    )
    verb.add_argument(
        "--size",
        type=options.positive,
        default=96,
        help="width and height of the phantom images in pixels (default %(default)s)",
    )
    verb.add_argument(
        "--ranks", type=options.positive, default=1, help="processes, one per GPU (default %(default)s)"
    )
    verb.add_argument("--json", action="store_true", help="print JSON")
    options.runtime(verb)


def run_bench(arguments: Namespace) -> int:
    from hpc.bench import bench
    from hpc.launching import ranks

    only = bench.parts(arguments.only)
    ranks.prepare_ranks(arguments.ranks)
    spec, overrides = arguments.spec, arguments.overrides
    if spec and "=" in spec and not Path(spec).exists():  # no spec is named
        spec, overrides = None, [spec, *overrides]
    measured = bench.bench(
        spec,
        overrides,
        only=only,
        ranks=arguments.ranks,
        runtime=given.runtime(arguments, follow=False),
        seconds=arguments.seconds,
        size=arguments.size,
    )
    print(json.dumps(measured.as_dict()) if arguments.json else "\n".join(measured.lines()))
    return 0
