"""Subjects of 3,327 papers on computing by 3,703 words, with 4,552 citations between them.

Source: Giles, Bollacker, Lawrence, "CiteSeer: An Automatic Citation Indexing System", ACM DL 1998; see
`compress.citation_graphs`. `--data` names the folder that holds citeseer.npz. 15 papers have no words and no label.
"""

from typing import final

from compress.citation_graphs import CitationGraph


@final
class CiteSeer(CitationGraph):
    """120 labelled papers, 20 of each class; all others are known without a label."""

    name = "citeseer"
    file = "citeseer.npz"
    input_shape = (3703,)
    labels = (
        "artificial intelligence",
        "machine learning",
        "information retrieval",
        "databases",
        "agents",
        "human-computer interaction",
    )


TASK = CiteSeer()
