/* Convolution, matrix product: int8 channel-last tensors, int32 sums, one multiplier per output channel.
 * Weights are stored for pairs of output channels: four of the first, four of the second, and so on, each filter
 * (row, column, input channel) padded with zeros to a multiple of four. The bias holds the input's zero point. */
typedef struct {
    int32_t in_h, in_w, in_c, out_h, out_w, out_c;
    int32_t kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w, pad_top, pad_left;
    int32_t groups, depth; /* depth: filter length, padded */
    int32_t in_zero, out_zero, low, high;
    const int8_t *weight;
    const int32_t *bias;
    const float *multiplier;
} model_conv_t;

/* One filter's worth of input around output (oy, ox), channels [first, first + count). */
static const int8_t *model_patch(const model_conv_t *p, const int8_t *x, int32_t oy, int32_t ox, int32_t first,
                                 int32_t count, int8_t *patch)
{
    const int32_t top = oy * p->stride_h - p->pad_top, left = ox * p->stride_w - p->pad_left;
    int8_t *to = patch;
    if (p->kernel_h == 1 && p->kernel_w == 1 && p->depth == count && p->pad_top == 0 && p->pad_left == 0 &&
        top < p->in_h && left < p->in_w) {
        return x + (top * p->in_w + left) * p->in_c + first;
    }
    for (int32_t ky = 0; ky < p->kernel_h; ky++) {
        const int32_t iy = top + ky * p->dilation_h;
        if (iy < 0 || iy >= p->in_h) {
            memset(to, p->in_zero, (size_t)(p->kernel_w * count));
            to += p->kernel_w * count;
        } else if (count == p->in_c && p->dilation_w == 1 && left >= 0 && left + p->kernel_w <= p->in_w) {
            memcpy(to, x + (iy * p->in_w + left) * p->in_c, (size_t)(p->kernel_w * count));
            to += p->kernel_w * count;
        } else {
            for (int32_t kx = 0; kx < p->kernel_w; kx++) {
                const int32_t ix = left + kx * p->dilation_w;
                if (ix < 0 || ix >= p->in_w) {
                    memset(to, p->in_zero, (size_t)count);
                } else {
                    memcpy(to, x + (iy * p->in_w + ix) * p->in_c + first, (size_t)count);
                }
                to += count;
            }
        }
    }
    while (to < patch + p->depth) {
        *to++ = 0;
    }
    return patch;
}

#if MODEL_DSP
/* Two patches as int16, four values of the one and four of the other in turn; the order inside four is 0 2 1 3. */
static void model_columns(const int8_t *a, const int8_t *b, int32_t depth, int32_t *columns)
{
    for (int32_t k = 0; k < depth; k += 4) {
        const int32_t wa = model_word(a + k), wb = model_word(b + k);
        columns[k + 0] = model_even(wa);
        columns[k + 1] = model_even(wb);
        columns[k + 2] = model_odd(wa);
        columns[k + 3] = model_odd(wb);
    }
}
#endif

/* sums[0..3]: channel 0 of patch a, channel 1 of a, channel 0 of b, channel 1 of b. */
MODEL_INLINE void model_dot(const int8_t *weight, const void *columns, int32_t depth, int32_t *sums)
{
    int32_t s0 = sums[0], s1 = sums[1], s2 = sums[2], s3 = sums[3];
#if MODEL_DSP
    const int32_t *x = (const int32_t *)columns;
    const int32_t *const stop = x + depth;
    do {
        const int32_t w0 = model_word(weight), w1 = model_word(weight + 4);
        const int32_t xa = x[0], xb = x[1], xc = x[2], xd = x[3];
        const int32_t e0 = model_even(w0), e1 = model_even(w1), o0 = model_odd(w0), o1 = model_odd(w1);
        s0 = __smlad(e0, xa, s0);
        s1 = __smlad(e1, xa, s1);
        s2 = __smlad(e0, xb, s2);
        s3 = __smlad(e1, xb, s3);
        s0 = __smlad(o0, xc, s0);
        s1 = __smlad(o1, xc, s1);
        s2 = __smlad(o0, xd, s2);
        s3 = __smlad(o1, xd, s3);
        x += 4;
        weight += 8;
    } while (x != stop);
#else
    const int8_t *a = (const int8_t *)columns, *b = a + depth;
    for (int32_t k = 0; k < depth; k += 4, weight += 8) {
        for (int32_t j = 0; j < 4; j++) {
            s0 += a[k + j] * weight[j];
            s1 += a[k + j] * weight[j + 4];
            s2 += b[k + j] * weight[j];
            s3 += b[k + j] * weight[j + 4];
        }
    }
#endif
    sums[0] = s0;
    sums[1] = s1;
    sums[2] = s2;
    sums[3] = s3;
}

/* columns: room for 6 * depth bytes (two patches as int16, two as int8). Exactly one of y and real is used: real gets
 * sum * multiplier + offset[channel] as floats. */
MODEL_KERNEL void model_conv(const model_conv_t *p, const int8_t *x, int8_t *y, float *real, const float *offset,
                             int32_t *columns)
{
    const int32_t pixels = p->out_h * p->out_w, depth = p->depth;
    const int32_t count = p->in_c / p->groups, made = p->out_c / p->groups, pairs = (made + 1) / 2;
    /* Copies: a store through int8_t may change anything as far as the compiler knows. */
    const int32_t out_c = p->out_c, out_w = p->out_w, zero = p->out_zero, low = p->low, high = p->high;
    const int32_t *const bias = p->bias;
    const float *const multiplier = p->multiplier;
    int8_t *const patch = (int8_t *)columns + 4 * depth;
    for (int32_t group = 0; group < p->groups; group++) {
        int32_t oy = 0, ox = 0;
        for (int32_t pixel = 0; pixel < pixels; pixel += 2) {
            const int32_t both = pixel + 1 < pixels;
            const int8_t *weight = p->weight + group * pairs * depth * 2;
            const int8_t *const a = model_patch(p, x, oy, ox, group * count, count, patch);
            const int8_t *b = a;
            if (++ox == out_w) {
                ox = 0;
                oy++;
            }
            if (both) {
                b = model_patch(p, x, oy, ox, group * count, count, patch + depth);
                if (++ox == out_w) {
                    ox = 0;
                    oy++;
                }
            }
#if MODEL_DSP
            model_columns(a, b, depth, columns);
#else
            memcpy(columns, a, (size_t)depth);
            memcpy((int8_t *)columns + depth, b, (size_t)depth);
#endif
            for (int32_t channel = group * made; channel < (group + 1) * made; channel += 2) {
                const int32_t two = channel + 1 < (group + 1) * made;
                const float m0 = multiplier[channel], m1 = multiplier[channel + two];
                const int32_t at = pixel * out_c + channel;
                int32_t sums[4];
                sums[0] = sums[2] = bias[channel];
                sums[1] = sums[3] = bias[channel + two];
                model_dot(weight, columns, depth, sums);
                weight += 2 * depth;
                if (y) {
                    y[at] = model_requantize(sums[0], m0, zero, low, high);
                    if (two) {
                        y[at + 1] = model_requantize(sums[1], m1, zero, low, high);
                    }
                    if (both) {
                        y[at + out_c] = model_requantize(sums[2], m0, zero, low, high);
                        if (two) {
                            y[at + out_c + 1] = model_requantize(sums[3], m1, zero, low, high);
                        }
                    }
                } else {
                    real[at] = (float)sums[0] * m0 + offset[channel];
                    if (two) {
                        real[at + 1] = (float)sums[1] * m1 + offset[channel + 1];
                    }
                    if (both) {
                        real[at + out_c] = (float)sums[2] * m0 + offset[channel];
                        if (two) {
                            real[at + out_c + 1] = (float)sums[3] * m1 + offset[channel + 1];
                        }
                    }
                }
            }
        }
    }
}
