/* Runs the model on every input of in.bin on this machine, and writes out.bin. */
#include "model.h"

#include <stdio.h>

static float input[MODEL_INPUT_FLOATS], output[MODEL_OUTPUT_FLOATS];

int main(void)
{
    FILE *in = fopen("in.bin", "rb"), *out = fopen("out.bin", "wb");
    if (!in || !out) {
        return 1;
    }
    while (fread(input, sizeof input, 1, in) == 1) {
        MODEL_CALL(input, output);
        if (fwrite(output, sizeof output, 1, out) != 1) {
            return 2;
        }
    }
    return fclose(out) ? 2 : 0;
}
