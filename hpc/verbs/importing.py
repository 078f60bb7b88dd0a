"""The manifest of a data set: `import`."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from hpc import options
from leukotree.data.sources import SOURCES
from leukotree.progress import step


def define_import(verbs: options.Verbs) -> None:
    verb = options.verb(
        verbs,
        "import",
        "write the manifest of a public data set in its own layout",
        "leukotree import deepapl downloads/deepapl deepapl.csv --cell-types",
        run_import,
    )
    verb.add_argument(
        "source",
        metavar="SOURCE",
        help=f"one of: {', '.join(SOURCES)}; folder is ROOT/<leaf>/<patient>/*",
    )
    verb.add_argument("root", metavar="ROOT", help="the folder of the data set")
    verb.add_argument("manifest", metavar="MANIFEST", help="the .csv or .parquet file to write")
    verb.add_argument(
        "--cell-types",
        action="store_true",
        help="also use cell types as leaves, where a source has them",
    )
    verb.add_argument(
        "--benign",
        metavar="LEAF",
        help="the leaf of images that a source labels as benign (default: they are left out)",
    )
    verb.add_argument(
        "--tumoral",
        metavar="LEAF",
        help="the leaf of images that a source labels as tumoral, as a proxy (default: they are left out)",
    )
    verb.add_argument(
        "--cells",
        action="store_true",
        help="single cells instead of whole fields, where a source says where they are: the manifest gets a "
        "column box",
    )
    verb.add_argument(
        "--leaf",
        metavar="OLD=NEW",
        action="append",
        default=[],
        help="read a label, or a folder's name, as a leaf, such as APL=APML; may be repeated",
    )
    verb.add_argument(
        "--table",
        metavar="FILE",
        help="for table: the table, if ROOT has several; for coco: the .json; for yolo: the names of classes",
    )
    verb.add_argument(
        "--map",
        metavar="COLUMN=NAME",
        action="append",
        default=[],
        help="for table and wds: how a column of a manifest is named in the data, such as leaf=Diagnosis; "
        "may be repeated",
    )
    verb.add_argument(
        "--patient",
        metavar="REGEX",
        help="for table, coco, yolo, voc and wds: the first group of this regular expression in an image's "
        "path is the patient's id, as in '(P[0-9]+)/'",
    )
    verb.add_argument("--slide", metavar="REGEX", help="the same for the id of a slide")
    verb.add_argument(
        "--extract",
        metavar="DIR",
        help="for wds: the folder into which the images are written (default: beside the manifest)",
    )
    verb.add_argument(
        "--skip",
        metavar="NAME",
        action="append",
        default=[],
        help="leave out a folder or file, named by its path below ROOT; may be repeated",
    )
    verb.add_argument(
        "--follow-links", action="store_true", help="also follow links that lead out of the data set"
    )
    verb.add_argument("--taxonomy", metavar="YAML", help="a label tree other than the paper's, as for pack")
    verb.add_argument(
        "--columns",
        metavar="CSV",
        help="a table with the column image (path below ROOT) and any of site, scanner, reader:<name>; they "
        "are added to the manifest",
    )


def run_import(arguments: Namespace) -> int:
    step(f"reading {arguments.root}")
    from leukotree.data.sources.importer import import_source, mapped
    from leukotree.data.sources.leaves import renames
    from leukotree.records import made
    from leukotree.taxonomy import Taxonomy

    summary = import_source(
        arguments.source,
        Path(arguments.root),
        Path(arguments.manifest),
        cell_types=arguments.cell_types,
        benign=arguments.benign,
        tumoral=arguments.tumoral,
        cells=arguments.cells,
        table=Path(arguments.table) if arguments.table else None,
        mapped=mapped(arguments.map),
        patient=arguments.patient,
        slide=arguments.slide,
        extract=Path(arguments.extract) if arguments.extract else None,
        taxonomy=Taxonomy.load(arguments.taxonomy) if arguments.taxonomy else None,
        new_names=renames(arguments.leaf),
        skip=arguments.skip,
        follow_links=arguments.follow_links,
        columns=Path(arguments.columns) if arguments.columns else None,
    )
    imported = made.Imported(summary.rows, summary.skipped)
    made.note_manifest(Path(arguments.manifest), arguments.words, imported)
    print(*summary.lines(), sep="\n")
    return 0
