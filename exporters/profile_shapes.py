"""Optimisation profiles: the ranges of shapes that an engine is built for.

An engine runs every shape between a profile's smallest and largest, and is fastest at the typical one; several profiles
give several such optima (short and long texts, one image and a batch).
"""

from collections.abc import Mapping, Sequence

from onnx import ModelProto, TensorShapeProto, ValueInfoProto

from exporters import for_tensorrt
from exporters.builder import BuildOptions
from exporters.errors import ExportError
from exporters.for_tensorrt import Profile


def profiles(model: ModelProto, options: BuildOptions) -> list[Profile]:
    """One entry for each profile; none where nothing is dynamic.

    `options.profiles` are taken as they are (and checked); else `options.dims` give the sizes of named dimensions; else
    there is one, from `options.batches` and `options.shapes`.

    Raises:
        ExportError: a dynamic dimension that nothing gives a size to, or shapes that do not fit the model.
    """
    dynamic = {value.name: value for value in model.graph.input if _is_dynamic(value, _stored(model))}
    if options.profiles:
        return [_checked(dict(given), dynamic) for given in options.profiles]
    if options.dims:
        return [_from_dims(dynamic, options)] if dynamic else []
    made = for_tensorrt.profile(model, options.batches, options.shapes)
    return [made] if made else []


def _from_dims(dynamic: Mapping[str, ValueInfoProto], options: BuildOptions) -> Profile:
    known = {name: dim.dim_param for name, value in dynamic.items() for dim in _dims(value) if dim.dim_param}
    unknown = sorted(set(options.dims) - {dim.dim_param for value in dynamic.values() for dim in _dims(value)})
    if unknown:
        there = sorted({dim.dim_param for value in dynamic.values() for dim in _dims(value) if dim.dim_param})
        raise ExportError(
            f"the model has no dimension {unknown[0]!r}; its dynamic ones are {', '.join(there) or 'none with a name'}",
            fix="name one of these",
        )
    made: Profile = {}
    for name, value in dynamic.items():
        shapes: list[list[int]] = [[], [], []]
        for index, dim in enumerate(_dims(value)):
            for which in range(3):
                if dim.HasField("dim_value"):
                    shapes[which].append(dim.dim_value)
                elif dim.dim_param in options.dims:
                    shapes[which].append(options.dims[dim.dim_param][which])
                elif index == 0:
                    shapes[which].append(options.batches[which])
                else:
                    raise ExportError(
                        f"dimension {index} of input {name!r} ({dim.dim_param or 'without a name'}) has no sizes",
                        fix=f"give them: --dim {dim.dim_param or known.get(name, 'NAME')}=SMALLEST,TYPICAL,LARGEST",
                    )
        made[name] = shapes
    return made


def _checked(given: dict[str, Sequence[Sequence[int]]], dynamic: Mapping[str, ValueInfoProto]) -> Profile:
    if set(given) != set(dynamic):
        raise ExportError(
            f"a profile names {', '.join(sorted(given)) or 'no inputs'}; the dynamic ones are "
            f"{', '.join(sorted(dynamic)) or 'none'}",
            fix="give every dynamic input its shapes, and no other",
        )
    made: Profile = {}
    for name, three in given.items():
        dims = _dims(dynamic[name])
        shapes = [list(map(int, shape)) for shape in three]
        ordered = len(shapes) == 3 and all(len(shape) == len(dims) for shape in shapes)
        for index, dim in enumerate(dims if ordered else ()):
            low, middle, high = (shape[index] for shape in shapes)
            fixed = dim.dim_value if dim.HasField("dim_value") else None
            ordered = ordered and 1 <= low <= middle <= high and (fixed is None or low == high == fixed)
        if not ordered:
            shown = [dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?" for dim in dims]
            raise ExportError(
                f"the profile {shapes} does not fit input {name!r}, whose shape is {shown}",
                fix="give three shapes of that rank: smallest, typical, largest, equal where the model is fixed",
            )
        made[name] = shapes
    return made


def _is_dynamic(value: ValueInfoProto, stored: set[str]) -> bool:
    return value.name not in stored and any(not dim.HasField("dim_value") for dim in _dims(value))


def _dims(value: ValueInfoProto) -> list[TensorShapeProto.Dimension]:
    return list(value.type.tensor_type.shape.dim)


def _stored(model: ModelProto) -> set[str]:
    return {tensor.name for tensor in model.graph.initializer}
