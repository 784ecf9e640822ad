/* Sum or product of two int8 tensors. b repeats: its element is (i / inner) % b_size. */
typedef struct {
    int32_t size, inner, b_size;
    int32_t a_zero, b_zero, out_zero, low, high;
    float a_scale, b_scale; /* over the result's scale; a product uses a_scale alone */
} model_binary_t;

MODEL_UNUSED MODEL_KERNEL void model_add(const model_binary_t *p, const int8_t *a, const int8_t *b, int8_t *y)
{
    if (p->b_size == p->size) {
        for (int32_t i = 0; i < p->size; i++) {
            const float sum = (float)(a[i] - p->a_zero) * p->a_scale + (float)(b[i] - p->b_zero) * p->b_scale;
            y[i] = (int8_t)model_round(sum, p->out_zero, p->low, p->high);
        }
        return;
    }
    for (int32_t i = 0; i < p->size; i++) {
        const int32_t j = (i / p->inner) % p->b_size;
        const float sum = (float)(a[i] - p->a_zero) * p->a_scale + (float)(b[j] - p->b_zero) * p->b_scale;
        y[i] = (int8_t)model_round(sum, p->out_zero, p->low, p->high);
    }
}

MODEL_UNUSED MODEL_KERNEL void model_multiply(const model_binary_t *p, const int8_t *a, const int8_t *b, int8_t *y)
{
    for (int32_t i = 0; i < p->size; i++) {
        const int32_t j = p->b_size == p->size ? i : (i / p->inner) % p->b_size;
        const int32_t product = (a[i] - p->a_zero) * (b[j] - p->b_zero);
        y[i] = model_requantize(product, p->a_scale, p->out_zero, p->low, p->high);
    }
}
