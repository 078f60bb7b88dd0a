"""From images to shards: `phantom`, `pack` and `audit`. `importing` has `import`."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

from hpc import options
from hpc.verbs.given import RESULTS
from leukotree.data.remote.address import Address, hidden, is_remote, parse, trust
from leukotree.errors import InputError
from leukotree.progress import step


def define_phantom(verbs: options.Verbs) -> None:
    verb = options.verb(
        verbs,
        "phantom",
        "draw a synthetic data set: images, masks, manifest.csv",
        "leukotree phantom data/phantom-images",
        run_phantom,
    )
    verb.add_argument("out", metavar="OUT", help="folder to write")
    verb.add_argument(
        "--patients",
        type=int,
        default=42,
        help="patients, the same number for each of the seven leaves (default %(default)s)",
    )
    verb.add_argument(
        "--per-patient", type=int, default=24, help="images of each patient (default %(default)s)"
    )
    verb.add_argument(
        "--size", type=int, default=384, help="width and height in pixels (default %(default)s)"
    )
    verb.add_argument(
        "--seed", type=int, default=0, help="the same seed draws the same images (default %(default)s)"
    )


def run_phantom(arguments: Namespace) -> int:
    from leukotree.data import phantom
    from leukotree.records import made

    manifest = phantom.write(
        Path(arguments.out),
        patients=arguments.patients,
        per_patient=arguments.per_patient,
        size=arguments.size,
        seed=arguments.seed,
    )
    drawn = made.Imported(arguments.patients * arguments.per_patient, {})
    made.note_manifest(manifest, arguments.words, drawn)
    print(f"{manifest}: {arguments.patients} patients, {arguments.patients * arguments.per_patient} images")
    return 0


def define_pack(verbs: options.Verbs) -> None:
    verb = options.verb(
        verbs,
        "pack",
        "resize the images of one or more manifests once, and write shards for each fold, with an index",
        "leukotree pack deepapl.csv data/deepapl --folds 5 --size 96 --drop-broken",
        run_pack,
    )
    verb.add_argument(
        "manifests",
        metavar="MANIFEST",
        nargs="*",
        help="the .csv or .parquet file that lists the images; several are joined; left out "
        "to add --repeats to packed shards",
    )
    verb.add_argument(
        "shards",
        metavar="SHARDS",
        help="folder to write; or an address: s3://BUCKET/FOLDER, gs:// or hf://",
    )
    verb.add_argument(
        "--folds",
        type=int,
        help="outer folds; each patient is in exactly one (default 5, or the sources with --folds-by source)",
    )
    verb.add_argument(
        "--folds-by",
        choices=("source",),
        help="each source is a fold, which is tested by models of the other sources (leave one source out)",
    )
    verb.add_argument(
        "--test-source",
        metavar="NAME",
        action="append",
        default=[],
        help="keep a source out of all folds, and pack it into the folder SHARDS-test, for the "
        "command evaluate; may be repeated",
    )
    verb.add_argument(
        "--match",
        choices=("leaf",),
        help="leave images out, so that every source has the same number of images of each leaf, and only "
        "leaves that all sources have",
    )
    verb.add_argument(
        "--size", type=int, default=384, help="width and height in pixels (default %(default)s)"
    )
    verb.add_argument(
        "--seed", type=int, default=0, help="for the random order of patients in folds (default %(default)s)"
    )
    verb.add_argument(
        "--taxonomy",
        metavar="YAML",
        help="a label tree other than the paper's; a run can have another one (key tree)",
    )
    verb.add_argument(
        "--drop-broken",
        action="store_true",
        help="leave out images that cannot be decoded, and list them in dataset.json",
    )
    verb.add_argument(
        "--similar-ids",
        choices=("join", "keep"),
        help="ids that look alike, such as 001 and 1, are one patient (join) or several (keep); default: "
        "keep and warn",
    )
    verb.add_argument(
        "--patients-across-sources",
        action="store_true",
        help="an id is the same patient in every source (default: another patient in each source)",
    )
    verb.add_argument(
        "--group-duplicates",
        action="store_true",
        help="put patients who share an exact copy of an image into one fold; without it such copies are "
        "refused",
    )
    verb.add_argument(
        "--group-near-duplicates",
        action="store_true",
        help="put images without a patient that look the same into one group (a perceptual hash, then the "
        "small pictures); `leukotree audit SHARDS --html FILE` shows them",
    )
    verb.add_argument(
        "--pseudonyms",
        metavar="TABLE.csv",
        help="write numbers instead of the names of patients, slides and images; TABLE.csv, which you "
        "keep, translates them; "
        "it is made if absent, and used again if present",
    )
    verb.add_argument(
        "--repeats",
        type=options.positive,
        metavar="R",
        default=1,
        help="also deal the patients to folds R - 1 more times, for a study with folds.repeats: R "
        "(default %(default)s)",
    )
    verb.add_argument(
        "--label-from",
        choices=("majority", "dawid-skene"),
        help="replace the column leaf by the consensus of the columns reader:<name>: the leaf with most "
        "readings, or the most probable one if each reader has error rates of its own (Dawid and Skene; at "
        "least three readers). Images without readings, or without a majority, keep their leaf",
    )
    verb.add_argument(
        "--box-margin",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="for a manifest with boxes: add this share of a box's width or height on each of its sides "
        "(default %(default)s)",
    )
    verb.add_argument(
        "--box-square",
        action="store_true",
        help="make each box as wide as high, inside of its image, so that a cell keeps its shape",
    )
    verb.add_argument("--workers", type=options.positive, help="threads (default: all cores)")
    verb.epilog = (
        f"{verb.epilog}. `leukotree pack delhi.csv tehran.csv data/joined --folds-by source` joins two "
        "manifests. `leukotree pack data/deepapl --repeats 3` adds the deals to shards that are packed."
    )


def run_pack(arguments: Namespace) -> int:
    if not arguments.manifests:
        return _deal_again(arguments)
    step("reading the manifest")
    from leukotree.data.pack import pack
    from leukotree.data.remote import upload
    from leukotree.log import logger
    from leukotree.records import made
    from leukotree.taxonomy import Taxonomy

    taxonomy = Taxonomy.load(arguments.taxonomy) if arguments.taxonomy else None
    address = upload.check(arguments.shards) if is_remote(arguments.shards) else None
    if address:
        upload.require_there(address)
    shards = upload.working_folder(address) if address else Path(arguments.shards)
    summary = pack(
        [Path(manifest) for manifest in arguments.manifests],
        shards,
        folds=arguments.folds,
        size=arguments.size,
        seed=arguments.seed,
        drop_broken=arguments.drop_broken,
        taxonomy=taxonomy,
        workers=arguments.workers,
        similar_ids=arguments.similar_ids,
        patients_across_sources=arguments.patients_across_sources,
        tell=lambda line: logger.warning(line.removeprefix("warning: ")),
        group_duplicates=arguments.group_duplicates,
        group_near_duplicates=arguments.group_near_duplicates,
        pseudonyms=_outside_results(arguments.pseudonyms),
        repeats=arguments.repeats,
        label_from=arguments.label_from,
        box_margin=arguments.box_margin,
        box_square=arguments.box_square,
        folds_by=arguments.folds_by,
        match=arguments.match,
        test_sources=arguments.test_source,
    )
    manifests = [Path(manifest) for manifest in arguments.manifests]
    for packed in (summary.dataset, summary.test):
        if packed is not None:
            # The words of an import may name patients, as in --skip.
            made.note_shards(packed.folder, manifests, arguments.words, bool(arguments.pseudonyms))
    if summary.dealt and not summary.written:
        made.note_deal(shards, arguments.words)
    print(*summary.lines(), sep="\n")
    if address:
        _upload(summary.dataset.folder, address, summary.test.folder if summary.test else None)
    return 0


def _upload(folder: Path, address: Address, test: Path | None) -> None:
    """Write a packed folder to its address, and its outer test beside it."""
    from leukotree.data.remote import upload
    from leukotree.records import made

    pairs = [(folder, address)] + ([(test, parse(f"{address.text}-test"))] if test else [])
    for packed, there in pairs:
        count = upload.upload(packed, there, (made.FILE,))
        print(f"{there.text}: {count} files written now; the packed folder stays in {packed}")


def _deal_again(arguments: Namespace) -> int:
    """`leukotree pack SHARDS --repeats R`: add deals to packed shards."""
    folder = Path(arguments.shards)
    if arguments.repeats < 2:
        raise InputError(f"{folder}: the folder SHARDS is missing; give `{folder} SHARDS`, or --repeats R")
    if not folder.is_dir():
        raise InputError(f"{folder}: no packed folder to deal again; give `MANIFEST SHARDS` to pack images")
    step("dealing the patients to folds")
    from leukotree.data.pack import deal_again
    from leukotree.records import made

    new, lines = deal_again(folder, arguments.repeats)
    if new:
        made.note_deal(folder, arguments.words)
    print(*lines, sep="\n")
    return 0


def define_stage(verbs: options.Verbs) -> None:
    verb = options.verb(
        verbs,
        "stage",
        "fetch the shards of an address to this machine, before a job needs them",
        "leukotree stage s3://bucket/deepapl --cache /scratch/me",
        run_stage,
    )
    verb.add_argument("shards", metavar="SHARDS", help="address of the packed data set, as in data.shards")
    verb.add_argument(
        "--cache",
        metavar="DIR",
        help="keep them in DIR, as for train (default: $LEUKOTREE_CACHE, else the site's scratch, else the "
        "temporary folder)",
    )
    verb.add_argument(
        "--cache-gb",
        type=options.amount,
        metavar="GB",
        help="largest size of all shards there (default: half of the disk)",
    )


def run_stage(arguments: Namespace) -> int:
    step(f"reading {hidden(arguments.shards)}", accepted=True)
    from leukotree.data.dataset import Dataset
    from leukotree.data.remote import scratch
    from leukotree.data.remote.stage import stage

    scratch.use(arguments.cache, arguments.cache_gb)
    trust(arguments.shards)
    print(stage(Dataset.open(arguments.shards)).line())
    return 0


def define_audit(verbs: options.Verbs) -> None:
    verb = options.verb(
        verbs,
        "audit",
        "look for leakage, duplicates, confounding and shortcuts in packed shards",
        "leukotree audit data/phantom",
        run_audit,
    )
    verb.add_argument("shards", metavar="SHARDS", help="folder of the packed data set, or its address")
    verb.add_argument(
        "--json", action="store_true", help="print JSON, with every copy, near duplicate and leaking patient"
    )
    verb.add_argument(
        "--html", metavar="FILE", help="also write a page that shows pairs of copies and near duplicates"
    )


def run_audit(arguments: Namespace) -> int:
    step("reading the index")
    from leukotree.data.audit import contact_sheet
    from leukotree.data.audit.audit import audit
    from leukotree.records import audited

    trust(arguments.shards)
    result = audit(arguments.shards)
    scores = {name: one.macro_f1 for name, one in result.shortcuts.items()}
    kept = audited.Audited(scores, result.per_leaf, result.of_source)
    audited.keep(result.dataset.folder, result.dataset.fingerprint, kept)
    if arguments.html:
        contact_sheet.write(result, Path(arguments.html))
    print(json.dumps(result.as_dict()) if arguments.json else "\n".join(result.lines()))
    return 0 if result.ok else 1


def _outside_results(table: str | None) -> Path | None:
    """The path of the table of pseudonyms. Raises InputError where it lies among runs and reports, which
    others are given."""
    if table and RESULTS.resolve() in Path(table).resolve().parents:
        raise InputError(
            f"{table}: lies in {RESULTS}, which others are given; keep the table of pseudonyms elsewhere"
        )
    return Path(table) if table else None
