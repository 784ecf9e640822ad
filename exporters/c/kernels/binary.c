/* Sum or product of two int8 tensors. b repeats: its element is (i / inner) % b_size. */
typedef struct {
    int32_t size, inner, b_size;
    int32_t a_zero, b_zero, out_zero, low, high;
    float a_scale, b_scale; /* over the result's scale; of a product, both together in the first */
    float offset;           /* of a sum: what the three zero points come to, in steps of the result */
    int32_t a_fixed, b_fixed, offset_fixed; /* the same three times 2^20; 0, 0, 2^19 where they do not fit */
    int32_t a_first;                /* a's product is added to the offset before b's */
    float a_step, b_step, out_step; /* scales of the three tensors, where a sum is one of decoded floats */
} model_binary_t;

/* A sum in the order and with the roundings of onnxruntime's kernel: two fused multiplications and additions. */
MODEL_UNUSED MODEL_INLINE float model_sum(const model_binary_t *q, int32_t a, int32_t b)
{
    return q->a_first ? fmaf((float)b, q->b_scale, fmaf((float)a, q->a_scale, q->offset))
                      : fmaf((float)a, q->a_scale, fmaf((float)b, q->b_scale, q->offset));
}

#if MODEL_INTEGERS
static __attribute__((noinline)) int32_t model_soft_sum(const model_binary_t *p, int32_t a, int32_t b)
{
    return model_round(model_sum(p, a, b), 0, p->low + p->out_zero, p->high + p->out_zero);
}

/* The three fixed-point numbers are off by at most 129 units of 2^-20, and the float sum by 72 where its code is not at
 * an end, so only what stands within 256 of a half is computed in (soft) floats. */
MODEL_UNUSED MODEL_INLINE int8_t model_add_codes(const model_binary_t *p, const model_binary_t *q, int32_t a, int32_t b)
{
    const int32_t sum = a * q->a_fixed + b * q->b_fixed + q->offset_fixed;
    if ((((uint32_t)sum + 0x80100u) & 0xFFFFFu) > 0x200u) {
        int32_t n = ((sum >> 19) + 1) >> 1;
        n = n < q->low + q->out_zero ? q->low + q->out_zero : n;
        return (int8_t)(n > q->high + q->out_zero ? q->high + q->out_zero : n);
    }
    return (int8_t)model_soft_sum(p, a, b);
}
#else
MODEL_UNUSED MODEL_INLINE int8_t model_add_codes(const model_binary_t *p, const model_binary_t *q, int32_t a, int32_t b)
{
    (void)p;
    return model_code(model_sum(q, a, b), 0, q->low + q->out_zero, q->high + q->out_zero);
}
#endif

MODEL_UNUSED MODEL_KERNEL void model_add(const model_binary_t *p, const int8_t *a, const int8_t *b, int8_t *y)
{
    model_binary_t q = *p; /* a copy: a store through int8_t may change anything as far as the compiler knows */
    int32_t i = 0;
    if (q.b_size != q.size) {
        for (; i < q.size; i++) {
            y[i] = model_add_codes(p, &q, a[i], b[(i / q.inner) % q.b_size]);
        }
        return;
    }
    q.a_first = 0;
#if MODEL_MVE
    for (; i < q.size; i += 4) {
        const mve_pred16_t used = vctp32q((uint32_t)(q.size - i));
        const float32x4_t first = vcvtq_f32_s32(vldrbq_z_s32(a + i, used));
        const float32x4_t second = vcvtq_f32_s32(vldrbq_z_s32(b + i, used));
        const float32x4_t inner = vfmaq_n_f32(vdupq_n_f32(q.offset), second, q.b_scale);
        int32x4_t codes = vcvtnq_s32_f32(vfmaq_n_f32(inner, first, q.a_scale));
        codes = vminq_s32(vmaxq_s32(codes, vdupq_n_s32(q.low + q.out_zero)), vdupq_n_s32(q.high + q.out_zero));
        vstrbq_p_s32(y + i, codes, used);
    }
#else
    MODEL_UNROLL
    for (; i < q.size; i++) {
        y[i] = model_add_codes(p, &q, a[i], b[i]);
    }
#endif
}

/* A sum before a clamp that the result's range does not hold: onnxruntime adds decoded floats and divides. */
MODEL_UNUSED MODEL_KERNEL void model_add_decoded(const model_binary_t *p, const int8_t *a, const int8_t *b, int8_t *y)
{
    const model_binary_t q = *p;
    for (int32_t i = 0; i < q.size; i++) {
        const int32_t j = q.b_size == q.size ? i : (i / q.inner) % q.b_size;
        const float first = (float)(a[i] - q.a_zero), second = (float)(b[j] - q.b_zero);
        const float sum = first * q.a_scale + second * q.b_scale;
        const float off = sum - (float)model_round(sum, 0, -4096, 4096);
        y[i] = model_code(off > 0.499f || off < -0.499f ? (first * q.a_step + second * q.b_step) / q.out_step : sum,
                          q.out_zero, q.low, q.high);
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
