"""Grey 28x28 pictures of ten kinds of clothing; see `compress.clothing`."""

from pathlib import Path
from typing import final

from compress.clothing import VALIDATION, Clothing
from compress.contracts.examples import Splits, TensorExamples
from compress.data_checks import check_splits


@final
class FashionMnist(Clothing):
    """55,000 / 5,000 / 10,000 pictures; the test split is the published one."""

    name = "fashion_mnist"

    def load(self, data: Path | None) -> Splits:
        pixels, labels, digest = self.read(data, "train")
        cut = len(pixels) - VALIDATION
        splits = Splits(
            train=TensorExamples(pixels[:cut], labels[:cut], f"{digest}:train", scale=1 / 255),
            val=TensorExamples(pixels[cut:], labels[cut:], f"{digest}:val", scale=1 / 255),
            test=TensorExamples(*self.read(data, "t10k"), scale=1 / 255),
        )
        check_splits(self, splits)
        return splits


TASK = FashionMnist()
