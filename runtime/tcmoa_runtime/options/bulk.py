"""Options of `tcmoa bulk`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final, Literal

from tcmoa_runtime.cluster.address import check_address
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.options.cluster import CLUSTER_GROUP, ClusterOptions
from tcmoa_runtime.options.fuse import ImageFormat
from tcmoa_runtime.options.fuser import BACKEND_GROUP, FuserOptions
from tcmoa_runtime.options.option import Option, check_minimum
from tcmoa_runtime.options.pairs import PAIRS_GROUP, XPattern, YPattern, check_patterns

Container = Literal["files", "parquet", "webdataset"]
"""`files`: one image file for each pair. Others: tables or tar files that hold many."""

OUTPUT_GROUP: Final = "Output"
DEFAULT_COLUMNS: Final = ("x", "y", "name")


@dataclass(frozen=True, kw_only=True)
class BulkOptions(FuserOptions, ClusterOptions):
    """Options for fusing many pairs on Ray."""

    threads: Annotated[
        int | None, Option("Number of CPU threads of each Fuser; 1 if not given.", group=BACKEND_GROUP)
    ] = None
    actors: Annotated[
        int | None,
        Option(
            "Number of Fusers, each in a process of its own; as many as the CPUs of the cluster allow, or its GPUs for "
            "a backend that uses them, if not given.",
            group=CLUSTER_GROUP,
        ),
    ] = None
    container: Annotated[
        Container | None,
        Option(
            "How results are stored: as image files, in Parquet files with the columns name and fused, or in tar files "
            "of the WebDataset format. As the input if not given.",
            group=OUTPUT_GROUP,
        ),
    ] = None
    format: Annotated[ImageFormat, Option("File format of fused images.", group=OUTPUT_GROUP)] = "png"
    overwrite: Annotated[
        bool,
        Option("Remove the results that are there, and fuse all pairs again.", group=OUTPUT_GROUP),
    ] = False
    update: Annotated[
        bool,
        Option(
            "Fuse again the pairs whose result is older than a source, by the times of their files, and replace each "
            "result when the new one is there. Without it, they are only counted: copying an archive may give new "
            "times to its files.",
            group=OUTPUT_GROUP,
        ),
    ] = False
    x_pattern: XPattern = None
    y_pattern: YPattern = None
    columns: Annotated[
        tuple[str, ...],
        Option(
            "Columns of a Parquet file with the first sources, the second ones, and the names. Sources are the bytes "
            "of image files, or their paths. Without a column of names, a pair has the name of its file and row. In a "
            "tar file, the files of a sample are KEY.X.png and KEY.Y.png.",
            group=PAIRS_GROUP,
            metavar="X,Y,NAME",
        ),
    ] = DEFAULT_COLUMNS

    def __post_init__(self) -> None:
        """Check every field; raises InputError whose subject is the field's name."""
        super().__post_init__()
        if self.actors is not None:
            check_minimum("actors", self.actors, 1)
        if self.address is not None:
            check_address(self.address)
        if self.update and self.overwrite:
            raise InputError(
                "given too, but there is no older result when all are removed first; expected one of the two",
                subject="update",
                remedy="Leave out {overwrite}, to keep the results that are not outdated",
                settings={"overwrite": ...},
            )
        check_patterns(self.x_pattern, self.y_pattern)
        if len(self.columns) not in (2, 3) or len(set(self.columns)) != len(self.columns):
            raise InputError(
                f"{','.join(self.columns)}; expected two or three different names, e.g. x,y,name",
                subject="columns",
            )
