/* Recurrent layers in floats, one direction, batch 1. Weights are floats, or int8 codes with one scale per row, decoded
 * while they are read: flash holds a quarter of the bytes. */
typedef struct {
    int32_t steps, inputs, units, gates; /* gates: 3 for a GRU, 4 for an LSTM */
    int32_t backward;                    /* from the last step to the first */
    int32_t reset_after;                 /* GRU: the reset gate scales the product, not the state */
    const float *input_real, *state_real; /* rows of `inputs` and `units` weights, gate after gate; or 0 and */
    const int8_t *input_codes, *state_codes;
    const float *input_scale, *state_scale; /* per row */
    const float *bias, *state_bias;         /* per row; a GRU keeps both, an LSTM has their sum in the first */
} model_recurrent_t;

/* out[row] = bias[row] + weights[row] . x */
static void model_recurrent_rows(const float *real, const int8_t *codes, const float *scale, const float *bias,
                                 const float *x, int32_t rows, int32_t size, float *out)
{
    for (int32_t row = 0; row < rows; row++) {
        float sum = 0.0f;
        if (codes) {
            for (int32_t k = 0; k < size; k++) {
                sum += (float)codes[k] * x[k];
            }
            sum *= scale[row];
            codes += size;
        } else {
            for (int32_t k = 0; k < size; k++) {
                sum += real[k] * x[k];
            }
            real += size;
        }
        out[row] = sum + bias[row];
    }
}

/* x (steps, inputs), state (units) in and out, all (steps, units) or 0. work: (gates + 3 for a GRU, else 4) * units:
 * products of the input, products of the state. cell: an LSTM's second state (units). */
MODEL_UNUSED MODEL_KERNEL void model_recurrent(const model_recurrent_t *p, const float *x, float *state, float *cell,
                                               float *all, float *work)
{
    const int32_t units = p->units, rows = p->gates * units;
    float *const of_state = work + rows;
    for (int32_t step = 0; step < p->steps; step++) {
        const int32_t at = p->backward ? p->steps - 1 - step : step;
        const int32_t early = p->gates == 3 && !p->reset_after ? 2 * units : rows;
        model_recurrent_rows(p->input_real, p->input_codes, p->input_scale, p->bias, x + at * p->inputs, rows,
                             p->inputs, work);
        model_recurrent_rows(p->state_real, p->state_codes, p->state_scale, p->state_bias, state, early, units,
                             of_state);
        if (p->gates == 3) { /* update, reset, candidate */
            for (int32_t k = 0; k < 2 * units; k++) {
                work[k] = model_sigmoid(work[k] + of_state[k]);
            }
            if (p->reset_after) {
                for (int32_t k = 0; k < units; k++) {
                    of_state[2 * units + k] *= work[units + k];
                }
            } else {
                for (int32_t k = 0; k < units; k++) {
                    of_state[k] = state[k] * work[units + k];
                }
                model_recurrent_rows(p->state_real ? p->state_real + 2 * units * units : 0,
                                     p->state_codes ? p->state_codes + 2 * units * units : 0,
                                     p->state_codes ? p->state_scale + 2 * units : 0, p->state_bias + 2 * units,
                                     of_state, units, units, of_state + 2 * units);
            }
            for (int32_t k = 0; k < units; k++) {
                const float candidate = model_tanh(work[2 * units + k] + of_state[2 * units + k]);
                state[k] = (1.0f - work[k]) * candidate + work[k] * state[k];
            }
        } else { /* input, output, forget, candidate */
            for (int32_t k = 0; k < units; k++) {
                const float in = model_sigmoid(work[k] + of_state[k]);
                const float out = model_sigmoid(work[units + k] + of_state[units + k]);
                const float kept = model_sigmoid(work[2 * units + k] + of_state[2 * units + k]);
                const float candidate = model_tanh(work[3 * units + k] + of_state[3 * units + k]);
                cell[k] = kept * cell[k] + in * candidate;
                state[k] = out * model_tanh(cell[k]);
            }
        }
        if (all) {
            memcpy(all + at * units, state, (size_t)units * sizeof *state);
        }
    }
}
