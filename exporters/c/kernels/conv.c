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
            model_copy(to, x + (iy * p->in_w + left) * p->in_c, p->kernel_w * count);
            to += p->kernel_w * count;
        } else {
            for (int32_t kx = 0; kx < p->kernel_w; kx++) {
                const int32_t ix = left + kx * p->dilation_w;
                if (ix < 0 || ix >= p->in_w) {
                    memset(to, p->in_zero, (size_t)count);
                } else {
                    model_copy(to, x + (iy * p->in_w + ix) * p->in_c + first, count);
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

#if MODEL_MVE
enum { MODEL_BLOCK = 16 }; /* channels whose sums are kept until they are requantised four at a time */

/* Sums of two channels (weight) and the patches a and b, from `first` and `second` on. */
MODEL_INLINE void model_dot(const int8_t *weight, const int8_t *a, const int8_t *b, int32_t depth, int32_t first,
                            int32_t second, int32_t *sums_a, int32_t *sums_b)
{
    int32_t s0 = first, s1 = second, s2 = first, s3 = second, left = depth;
    for (; left >= 16; left -= 16, weight += 32, a += 16, b += 16) {
        const uint32x4x2_t pair = vld2q_u32((const uint32_t *)(const void *)weight);
        const int8x16_t w0 = vreinterpretq_s8_u32(pair.val[0]), w1 = vreinterpretq_s8_u32(pair.val[1]);
        const int8x16_t xa = vldrbq_s8(a), xb = vldrbq_s8(b);
        s0 = vmladavaq_s8(s0, w0, xa);
        s1 = vmladavaq_s8(s1, w1, xa);
        s2 = vmladavaq_s8(s2, w0, xb);
        s3 = vmladavaq_s8(s3, w1, xb);
    }
    if (left > 0) {
        const mve_pred16_t used = vctp8q((uint32_t)left), words = vctp32q((uint32_t)left >> 2);
        const uint32x4_t at = vidupq_n_u32(0, 8), next = vaddq_n_u32(at, 4);
        const uint32_t *const pair = (const uint32_t *)(const void *)weight;
        const int8x16_t w0 = vreinterpretq_s8_u32(vldrwq_gather_offset_z_u32(pair, at, words));
        const int8x16_t w1 = vreinterpretq_s8_u32(vldrwq_gather_offset_z_u32(pair, next, words));
        const int8x16_t xa = vldrbq_z_s8(a, used), xb = vldrbq_z_s8(b, used);
        s0 = vmladavaq_s8(s0, w0, xa);
        s1 = vmladavaq_s8(s1, w1, xa);
        s2 = vmladavaq_s8(s2, w0, xb);
        s3 = vmladavaq_s8(s3, w1, xb);
    }
    sums_a[0] = s0;
    sums_a[1] = s1;
    sums_b[0] = s2;
    sums_b[1] = s3;
}

/* Channels [channel, end) of one group at one or two pixels whose patches are a and b. */
static void model_pixels(const model_conv_t *p, const int8_t *weight, const int8_t *a, const int8_t *b, int32_t both,
                         int32_t pixel, int32_t channel, int32_t end, int8_t *y, float *real, const float *offset)
{
    const int32_t depth = p->depth, out_c = p->out_c;
    const int32_t zero = p->out_zero, low = p->low, high = p->high;
    const int32_t *const bias = p->bias;
    int32_t sums[2][MODEL_BLOCK];
    for (; channel < end; channel += MODEL_BLOCK) {
        const int32_t here = end - channel < MODEL_BLOCK ? end - channel : MODEL_BLOCK;
        for (int32_t j = 0; j < here; j += 2, weight += 2 * depth) {
            const int32_t two = j + 1 < here;
            model_dot(weight, a, b, depth, bias[channel + j], bias[channel + j + two], &sums[0][j], &sums[1][j]);
        }
        for (int32_t j = 0; j < here; j += 4) {
            const mve_pred16_t used = vctp32q((uint32_t)(here - j));
            const float32x4_t factors = vldrwq_z_f32(p->multiplier + channel + j, used);
            int32_t at = pixel * out_c + channel + j;
            for (int32_t which = 0; which <= both; which++, at += out_c) {
                const int32x4_t four = vldrwq_s32(&sums[which][j]);
                if (y) {
                    vstrbq_p_s32(y + at, model_requantize_4(four, factors, zero, low, high), used);
                } else {
                    const float32x4_t scaled = vmulq_f32(vcvtq_f32_s32(four), factors);
                    vstrwq_p_f32(real + at, vaddq_f32(scaled, vldrwq_z_f32(offset + channel + j, used)), used);
                }
            }
        }
    }
}
#else
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

/* Adds to sums[0..3] what channel 0 of patch a, channel 1 of a, channel 0 of b and channel 1 of b give. With DSP
 * instructions `a` is what model_columns made of both patches. */
MODEL_INLINE void model_dot(const int8_t *weight, const int8_t *a, const int8_t *b, int32_t depth, int32_t *sums)
{
    int32_t s0 = sums[0], s1 = sums[1], s2 = sums[2], s3 = sums[3];
    const int8_t *const stop = weight + 2 * depth;
#if MODEL_DSP
    const int32_t *x = (const int32_t *)(const void *)a;
    (void)b;
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
    } while (weight != stop);
#else
    do {
        for (int32_t j = 0; j < 4; j++) {
            s0 += a[j] * weight[j];
            s1 += a[j] * weight[j + 4];
            s2 += b[j] * weight[j];
            s3 += b[j] * weight[j + 4];
        }
        a += 4;
        b += 4;
        weight += 8;
    } while (weight != stop);
#endif
    sums[0] = s0;
    sums[1] = s1;
    sums[2] = s2;
    sums[3] = s3;
}

/* The same for patch a alone: sums[0] and sums[1]. */
MODEL_INLINE void model_dot_one(const int8_t *weight, const int8_t *a, int32_t depth, int32_t *sums)
{
    int32_t s0 = sums[0], s1 = sums[1];
    const int8_t *const stop = weight + 2 * depth;
#if MODEL_DSP
    const int32_t *x = (const int32_t *)(const void *)a;
    do {
        const int32_t w0 = model_word(weight), w1 = model_word(weight + 4), xa = x[0], xc = x[2];
        s0 = __smlad(model_even(w0), xa, s0);
        s1 = __smlad(model_even(w1), xa, s1);
        s0 = __smlad(model_odd(w0), xc, s0);
        s1 = __smlad(model_odd(w1), xc, s1);
        x += 4;
        weight += 8;
    } while (weight != stop);
#else
    do {
        for (int32_t j = 0; j < 4; j++) {
            s0 += a[j] * weight[j];
            s1 += a[j] * weight[j + 4];
        }
        a += 4;
        weight += 8;
    } while (weight != stop);
#endif
    sums[0] = s0;
    sums[1] = s1;
}

/* Channels [channel, end) of one group at one or two pixels whose patches are a and b. */
static void model_pixels(const model_conv_t *p, const int8_t *weight, const int8_t *a, const int8_t *b, int32_t both,
                         int32_t pixel, int32_t channel, int32_t end, int8_t *y, float *real, const float *offset)
{
    /* Copies: a store through int8_t may change anything as far as the compiler knows. */
    const int32_t depth = p->depth, out_c = p->out_c, zero = p->out_zero, low = p->low, high = p->high;
    const int32_t *const bias = p->bias;
    const float *const multiplier = p->multiplier;
    for (; channel < end; channel += 2) {
        const int32_t two = channel + 1 < end;
        const float m0 = multiplier[channel], m1 = multiplier[channel + two];
        const int32_t at = pixel * out_c + channel;
        int32_t sums[4];
        sums[0] = sums[2] = bias[channel];
        sums[1] = sums[3] = bias[channel + two];
        if (both) {
            model_dot(weight, a, b, depth, sums);
        } else {
            model_dot_one(weight, a, depth, sums);
        }
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
#endif

/* columns: room for 6 * depth bytes (two patches as int16, two as int8). Exactly one of y and real is used: real gets
 * sum * multiplier + offset[channel] as floats. */
MODEL_KERNEL void model_conv(const model_conv_t *p, const int8_t *x, int8_t *y, float *real, const float *offset,
                             int32_t *columns)
{
    const int32_t pixels = p->out_h * p->out_w, depth = p->depth;
    const int32_t count = p->in_c / p->groups, made = p->out_c / p->groups, pairs = (made + 1) / 2;
    const int32_t out_w = p->out_w;
    int8_t *const patch = (int8_t *)columns + 4 * depth;
    for (int32_t group = 0; group < p->groups; group++) {
        int32_t oy = 0, ox = 0;
        for (int32_t pixel = 0; pixel < pixels; pixel += 2) {
            const int32_t both = pixel + 1 < pixels;
            const int8_t *const weight = p->weight + group * pairs * depth * 2;
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
#if MODEL_DSP && !MODEL_MVE
            model_columns(a, b, depth, columns);
            model_pixels(p, weight, (const int8_t *)columns, 0, both, pixel, group * made, (group + 1) * made, y, real,
                         offset);
#else
            model_pixels(p, weight, a, b, both, pixel, group * made, (group + 1) * made, y, real, offset);
#endif
        }
    }
}
