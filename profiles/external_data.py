"""Files beside an ONNX file that hold its large tensors; none may lie outside its folder."""

from pathlib import Path

from profiles.errors import ProfileError


def locations(path: Path) -> list[str]:
    """Names of the data files, relative to the model's folder, sorted; empty where everything is inside the model.

    Raises:
        ProfileError: the file is no ONNX file, or a data file is missing, or lies elsewhere: by its name, or by a link.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from onnx import external_data_helper

    try:
        model = onnx.load(str(path), load_external_data=False)
    except (DecodeError, ValueError) as error:
        raise ProfileError(f"{path.name} is not an ONNX file", fix="export the model again") from error
    found = set()
    for tensor in external_data_helper._get_all_tensors(model):
        if external_data_helper.uses_external_data(tensor):
            location = {entry.key: entry.value for entry in tensor.external_data}.get("location", "")
            inside = (path.parent / location).resolve()
            if not location or not inside.is_relative_to(path.parent.resolve()) or not inside.is_file():
                raise ProfileError(
                    f"{path.name} keeps {tensor.name!r} in {location!r}, which is no file in its folder",
                    fix="save it again with its data beside it",
                )
            found.add(location)
    return sorted(found)
