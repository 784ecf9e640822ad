"""Subjects of 2,708 papers on machine learning by 1,433 words, with 5,278 citations between them.

Source: McCallum, Nigam, Rennie, Seymore, "Automating the Construction of Internet Portals with Machine Learning",
Information Retrieval 3, 2000; see `compress.citation_graphs`. `--data` names the folder that holds cora.npz.
"""

from typing import final

from compress.citation_graphs import CitationGraph


@final
class Cora(CitationGraph):
    """140 labelled papers, 20 of each class; all others are known without a label."""

    name = "cora"
    file = "cora.npz"
    input_shape = (1433,)
    labels = (
        "theory",
        "reinforcement learning",
        "genetic algorithms",
        "neural networks",
        "probabilistic methods",
        "case-based",
        "rule learning",
    )


TASK = Cora()
