"""Print a planned program as model.c, model.h, an example main.c and a table of its steps."""

import json
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path

from exporters.c.arena import Plan
from exporters.c.context import Context
from exporters.c.graph import Array
from exporters.c.program import TOKEN, Buffer, Program, Step, View, literal

KERNELS = Path(__file__).parent / "kernels"
ORDER = ("math", "conv", "depthwise", "cmsis_nn", "binary", "pool", "spectrum", "spectrum_fixed", "real", "recurrent")

_HEADER = """/* {title}: inference at batch 1. Generated; do not edit.
 *
 * model_run reads and writes the caller's arrays and keeps everything else in one static arena: no heap, not
 * re-entrant. The input arrays are the caller's memory and stay unchanged.
 * Compile model.c as C99 with -O3 -ffp-contract=off; with GCC for a core with DSP instructions it uses them.
 */
#ifndef MODEL_H
#define MODEL_H

#ifdef __cplusplus
extern "C" {{
#endif

{macros}

void model_run({parameters});

/* The same with all inputs, and all outputs, one after the other in one array. */
#define MODEL_CALL(in, out) model_run({call})

#ifdef __cplusplus
}}
#endif
#endif
"""

_SOURCE = """/* {title}: inference at batch 1. Generated; do not edit. */
#include "model.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

{switches}{kernels}

{constants}

static union {{
    uint8_t bytes[MODEL_ARENA_BYTES];
    double align;
}} model_arena;

#ifndef MODEL_STEP
#define MODEL_STEP(number) /* called before each step and after the last; a profiler may define it */
#endif

{steps}

void model_run({parameters})
{{
{calls}
    MODEL_STEP({count});
}}
"""

_EXAMPLE = """/* Example: one inference on an input of zeros, and its result on standard output.
 *
 * Put samples into `input` (floats as the network was trained on, row-major, without the batch) and use `output`. Both
 * belong to the caller; any address that a float may have will do. The model's own memory is one static array of
 * MODEL_ARENA_BYTES in model.c, aligned for every type: no heap, so one inference at a time. To place it, give its
 * section (.bss.model_arena with -fdata-sections) an address in the linker script.
 */
#include "model.h"

#include <stdio.h>

static float input[MODEL_INPUT_FLOATS];
static float output[MODEL_OUTPUT_FLOATS];

int main(void)
{
    int i;
    MODEL_CALL(input, output);
    for (i = 0; i < MODEL_OUTPUT_FLOATS && i < 16; i++) {
        printf("%g\\n", (double)output[i]);
    }
    return 0;
}
"""

_MAKEFILE = """# make                    builds and runs the example on this machine
# make CROSS=arm-none-eabi-    builds the library and the example for {core}
CROSS ?=
OPTIMISE = {optimise}
STRICT = -Wall -Wextra -Wpedantic
ifeq ($(CROSS),)
all: example
\t./example
else
MACHINE = {flags}
LINK = --specs=nano.specs --specs=nosys.specs
all: example
\t$(CROSS)size example
endif

example: main.o libexample.a
\t$(CROSS)gcc $(MACHINE) $(LINK) main.o -L. -lexample -lm -o $@
libexample.a: model.o
\t$(CROSS)ar rcsD $@ $<
%.o: %.c model.h Makefile
\t$(CROSS)gcc $(MACHINE) $(OPTIMISE) $(STRICT) -c $< -o $@
clean:
\trm -f example libexample.a main.o model.o
.PHONY: all clean
"""

_CMAKE = """cmake_minimum_required(VERSION 3.13)
project(model C)
# add_subdirectory(this folder), then target_link_libraries(firmware PRIVATE model)
add_library(model STATIC model.c)
target_include_directories(model PUBLIC ${{CMAKE_CURRENT_SOURCE_DIR}})
target_compile_options(model PRIVATE {optimise})
target_link_libraries(model PUBLIC m)
if(CMAKE_SOURCE_DIR STREQUAL CMAKE_CURRENT_SOURCE_DIR)
  add_executable(example main.c)
  target_link_libraries(example PRIVATE model)
endif()
"""


def source(context: Context, plan: Plan, title: str) -> str:
    """The text of model.c."""
    program = context.program
    kernels = set().union(*(step.kernels for step in program.steps))
    if "real" in kernels:
        kernels.add("math")
    parts = [
        (KERNELS / f"{name}.c").read_text(encoding="utf-8") for name in ("base", *ORDER) if name in kernels | {"base"}
    ]
    steps, calls = [], []
    for number, step in enumerate(program.steps):
        steps.append(_step(program, step, number, plan))
        calls.append(f"    MODEL_STEP({number});\n    model_step_{number}({_arguments(step)});\n    MODEL_BARRIER;")
    return _SOURCE.format(
        title=title,
        switches="#define MODEL_FULL_RANGE 1\n" if program.full_range else "",
        kernels="\n".join(part.rstrip() + "\n" for part in parts).rstrip(),
        constants="\n".join(_constant(name, ctype, values) for name, (ctype, values) in program.constants.items()),
        steps="\n\n".join(steps),
        parameters=_parameters(program),
        calls="\n".join(calls),
        count=len(program.steps),
    )


def header(context: Context, plan: Plan, title: str) -> str:
    """The text of model.h."""
    program = context.program
    inputs, outputs = _callers(program, "input"), _callers(program, "output")
    macros = {
        "MODEL_INPUT_FLOATS": sum(buffer.size for buffer in inputs),
        "MODEL_OUTPUT_FLOATS": sum(buffer.size for buffer in outputs),
        "MODEL_ARENA_BYTES": max(8, plan.bytes),
        "MODEL_STEPS": len(program.steps),
    }
    call = []
    for name, buffers in (("in", inputs), ("out", outputs)):
        at = 0
        for buffer in buffers:
            call.append(f"({name}) + {at}" if at else f"({name})")
            at += buffer.size
    return _HEADER.format(
        title=title,
        macros="\n".join(f"#define {name} {value}" for name, value in macros.items()),
        parameters=_parameters(program),
        call=", ".join(call),
    )


def example() -> str:
    """The text of main.c."""
    return _EXAMPLE


def makefile(flags: Sequence[str], optimise: Sequence[str], core: str) -> str:
    """The text of Makefile: for this machine, and with CROSS for the core."""
    return _MAKEFILE.format(flags=" ".join(flags), optimise=" ".join(optimise), core=core)


def cmake(optimise: Sequence[str]) -> str:
    """The text of CMakeLists.txt."""
    return _CMAKE.format(optimise=" ".join(optimise))


def table(context: Context, plan: Plan, core: str) -> str:
    """model.json: what the steps are, for whoever counts or measures them."""
    program = context.program
    inputs, outputs = _callers(program, "input"), _callers(program, "output")
    steps = [
        {
            "name": step.name,
            "ops": list(step.ops),
            "macs": step.macs,
            "outputs": sum(buffer.size for buffer in step.writes) if step.macs and step.integer else 0,
            "weight_bytes": step.weight_bytes,
            "activation_bytes": sum(buffer.bytes for buffer in (*step.reads, *step.writes)),
            "precision": "int8" if step.integer else "fp32",
        }
        for step in program.steps
    ]
    facts = {
        "core": core,
        "inputs": {buffer.label: buffer.size for buffer in inputs},
        "outputs": {buffer.label: buffer.size for buffer in outputs},
        "output_shapes": _output_shapes(context),
        "arena_bytes": plan.bytes,
        "weight_bytes": sum(values.nbytes for _, values in program.constants.values()),
        "macs": sum(step.macs for step in program.steps),
        "params": sum(step.params for step in program.steps),
        "fallback": context.fallback,
        "steps": steps,
    }
    return json.dumps(facts, indent=1) + "\n"


def _output_shapes(context: Context) -> dict[str, list[int]]:
    """Without the batch; whole where the first axis is another."""
    values = {name: context.values[name] for name in context.graph.outputs}
    return {
        name: list(value.shape[value.shape[:1] == (1,) :]) for name, value in values.items() if isinstance(value, View)
    }


def _callers(program: Program, place: str) -> list[Buffer]:
    return [buffer for buffer in program.buffers if buffer.place == place]


def _identifier(buffer: Buffer) -> str:
    return f"{buffer.place}_{re.sub(r'[^A-Za-z0-9_]', '_', buffer.label)}"


def _parameters(program: Program) -> str:
    inputs = [f"const float {_identifier(buffer)}[{buffer.size}]" for buffer in _callers(program, "input")]
    outputs = [f"float {_identifier(buffer)}[{buffer.size}]" for buffer in _callers(program, "output")]
    return ", ".join((*inputs, *outputs))


def _outside(step: Step) -> list[Buffer]:
    touched = dict.fromkeys((*step.reads, *step.writes))
    return [buffer for buffer in touched if buffer.place != "arena"]


def _arguments(step: Step) -> str:
    return ", ".join(_identifier(buffer) for buffer in _outside(step))


def _step(program: Program, step: Step, number: int, plan: Plan) -> str:
    used = {int(found) for found in TOKEN.findall(step.code)}
    lines = []
    for place in sorted(used):
        buffer = program.buffers[place]
        if buffer.place == "arena":
            constant = "const " if buffer in step.reads and buffer not in step.writes else ""
            lines.append(
                f"{constant}{buffer.ctype} *const b{place} = ({constant}{buffer.ctype} *)"
                f"(void *)(model_arena.bytes + {plan.offsets[place]});"
            )
    code = TOKEN.sub(
        lambda found: (
            f"b{found[1]}"
            if program.buffers[int(found[1])].place == "arena"
            else _identifier(program.buffers[int(found[1])])
        ),
        step.code,
    )
    parameters = ", ".join(
        f"{'const ' if buffer.place == 'input' else ''}float *{_identifier(buffer)}" for buffer in _outside(step)
    )
    body = textwrap.indent("\n".join((*lines, code)), "    ")
    title = f"/* {step.name.replace('*/', '')}: {', '.join(step.ops) or 'copy'} */"
    return f"{title}\nstatic void model_step_{number}({parameters or 'void'})\n{{\n{body}\n}}"


def _constant(name: str, ctype: str, values: Array) -> str:
    texts = [literal(value) if ctype == "float" else str(int(value)) for value in values]
    lines = textwrap.fill(", ".join(texts), width=116, break_long_words=False, break_on_hyphens=False)
    return f"MODEL_ALIGNED static const {ctype} {name}[{len(values)}] = {{\n{textwrap.indent(lines, '    ')}\n}};"
