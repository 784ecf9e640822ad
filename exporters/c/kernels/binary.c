/* Sum or product of two int8 tensors. b repeats: its element is (i / inner) % b_size. */
typedef struct {
    int32_t size, inner, b_size;
    int32_t a_zero, b_zero, out_zero, low, high;
    float a_scale, b_scale; /* over the result's scale; of a product, both together in the first */
} model_binary_t;

MODEL_UNUSED MODEL_KERNEL void model_add(const model_binary_t *p, const int8_t *a, const int8_t *b, int8_t *y)
{
    const model_binary_t q = *p; /* a copy: a store through int8_t may change anything as far as the compiler knows */
    for (int32_t i = 0; i < q.size; i++) {
        const int32_t j = q.b_size == q.size ? i : (i / q.inner) % q.b_size;
        const float sum = (float)(a[i] - q.a_zero) * q.a_scale + (float)(b[j] - q.b_zero) * q.b_scale;
        y[i] = model_code(sum, q.out_zero, q.low, q.high);
    }
}

MODEL_UNUSED MODEL_KERNEL void model_multiply(const model_binary_t *p, const int8_t *a, const int8_t *b, int8_t *y)
{
    const model_binary_t q = *p;
    const float zero = (float)q.out_zero;
    for (int32_t i = 0; i < q.size; i++) {
        const int32_t j = q.b_size == q.size ? i : (i / q.inner) % q.b_size;
        const float product = (float)((a[i] - q.a_zero) * (b[j] - q.b_zero)) * q.a_scale + zero; /* then rounded */
        y[i] = model_code(product, 0, q.low + q.out_zero, q.high + q.out_zero);
    }
}
