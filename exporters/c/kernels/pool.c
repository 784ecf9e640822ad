/* Pooling of int8 channel-last tensors. */
typedef struct {
    int32_t in_h, in_w, channels, out_h, out_w;
    int32_t kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w, pad_top, pad_left;
    int32_t in_zero, out_zero, low, high, count_padding, in_floats;
    float in_scale, out_scale;
} model_pool_t;

MODEL_UNUSED MODEL_KERNEL void model_max_pool(const model_pool_t *p, const int8_t *x, int8_t *y)
{
    const int32_t channels = p->channels;
    for (int32_t oy = 0; oy < p->out_h; oy++) {
        for (int32_t ox = 0; ox < p->out_w; ox++, y += channels) {
            memset(y, -128, (size_t)channels);
            for (int32_t ky = 0; ky < p->kernel_h; ky++) {
                const int32_t iy = oy * p->stride_h - p->pad_top + ky * p->dilation_h;
                for (int32_t kx = 0; iy >= 0 && iy < p->in_h && kx < p->kernel_w; kx++) {
                    const int32_t ix = ox * p->stride_w - p->pad_left + kx * p->dilation_w;
                    if (ix >= 0 && ix < p->in_w) {
                        const int8_t *const in = x + (iy * p->in_w + ix) * channels;
                        for (int32_t c = 0; c < channels; c++) {
                            y[c] = in[c] > y[c] ? in[c] : y[c];
                        }
                    }
                }
            }
        }
    }
}

/* One mean as a sum of decoded floats, in the order of rows and columns, which rounds a little before a tie. */
MODEL_KERNEL int8_t model_average_in_floats(const model_pool_t *p, const int8_t *x, int32_t top, int32_t left,
                                            int32_t over)
{
    float sum = 0.0f;
    for (int32_t ky = 0; ky < p->kernel_h; ky++) {
        const int32_t iy = top + ky * p->dilation_h;
        for (int32_t kx = 0; iy >= 0 && iy < p->in_h && kx < p->kernel_w; kx++) {
            const int32_t ix = left + kx * p->dilation_w;
            if (ix >= 0 && ix < p->in_w) {
                sum += p->in_scale * (float)(x[(iy * p->in_w + ix) * p->channels] - p->in_zero);
            }
        }
    }
    sum = sum / (float)over / p->out_scale + (float)p->out_zero;
    return (int8_t)model_round(sum, 0, p->low + p->out_zero, p->high + p->out_zero);
}

/* sums: room for one int32 per channel. in_floats: a mean that stands close to a half is computed again in floats, as
 * onnxruntime computes all of them where the window is not the whole input. */
MODEL_UNUSED MODEL_KERNEL void model_average_pool(const model_pool_t *p, const int8_t *x, int8_t *y, int32_t *sums)
{
    const int32_t channels = p->channels;
    for (int32_t oy = 0; oy < p->out_h; oy++) {
        for (int32_t ox = 0; ox < p->out_w; ox++, y += channels) {
            int32_t count = 0;
            memset(sums, 0, (size_t)channels * sizeof *sums);
            for (int32_t ky = 0; ky < p->kernel_h; ky++) {
                const int32_t iy = oy * p->stride_h - p->pad_top + ky * p->dilation_h;
                for (int32_t kx = 0; iy >= 0 && iy < p->in_h && kx < p->kernel_w; kx++) {
                    const int32_t ix = ox * p->stride_w - p->pad_left + kx * p->dilation_w;
                    if (ix >= 0 && ix < p->in_w) {
                        const int8_t *const in = x + (iy * p->in_w + ix) * channels;
                        count++;
                        for (int32_t c = 0; c < channels; c++) {
                            sums[c] += in[c];
                        }
                    }
                }
            }
            {
                const int32_t over = p->count_padding ? p->kernel_h * p->kernel_w : count;
                const float multiplier = p->in_scale / (p->out_scale * (float)over);
                for (int32_t c = 0; c < channels; c++) {
                    const int32_t sum = sums[c] - count * p->in_zero;
                    y[c] = model_requantize(sum, multiplier, p->out_zero, p->low, p->high);
                    if (p->in_floats) {
                        const float steps = (float)sum * multiplier;
                        const float off = steps - (float)model_round(steps, 0, -512, 512);
                        if (off > 0.49f || off < -0.49f) {
                            y[c] = model_average_in_floats(p, x + c, oy * p->stride_h - p->pad_top,
                                                           ox * p->stride_w - p->pad_left, over);
                        }
                    }
                }
            }
        }
    }
}
