/* Convolution, matrix product: int8 channel-last tensors, int32 sums, one multiplier per output channel.
 * Weights are stored for pairs of output channels: four of the first, four of the second, and so on, each filter
 * (row, column, input channel) padded with zeros to a multiple of four. The bias holds the input's zero point. */
typedef struct {
    int32_t in_h, in_w, in_c, out_h, out_w, out_c;
    int32_t kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w, pad_top, pad_left;
    int32_t groups, depth, in_place; /* depth: filter length, padded; in_place: windows of one place, no padding */
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
    if (p->in_place && top < p->in_h && left < p->in_w) { /* what stands after it meets weights of zero */
        return x + (top * p->in_w + left) * p->in_c + first;
    }
    memset(patch + p->depth - 4, 0, 4); /* the padding, where there is any */
    if (count == p->in_c && p->dilation_w == 1 && top >= 0 && left >= 0 && left + p->kernel_w <= p->in_w &&
        top + (p->kernel_h - 1) * p->dilation_h < p->in_h) {
        const int32_t size = p->kernel_w * count, step = p->dilation_h * p->in_w * p->in_c;
        const int8_t *from = x + (top * p->in_w + left) * p->in_c;
        for (int32_t ky = 0; ky < p->kernel_h; ky++, to += size, from += step) {
            model_copy(to, from, size);
        }
        return patch;
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

/* Channels [channel, end) of one group at two pixels whose patches are a and b. */
static void model_two_pixels(const model_conv_t *p, const int8_t *weight, const int8_t *a, const int8_t *b,
                             int32_t pixel, int32_t channel, int32_t end, int8_t *y, float *real, const float *offset,
                             int32_t *sums)
{
    const int32_t depth = p->depth, out_c = p->out_c;
    const int32_t zero = p->out_zero, low = p->low, high = p->high;
    const int32_t *const bias = p->bias;
    for (; channel < end; channel += MODEL_BLOCK) {
        const int32_t here = end - channel < MODEL_BLOCK ? end - channel : MODEL_BLOCK;
        for (int32_t j = 0; j < here; j += 2, weight += 2 * depth) {
            const int32_t two = j + 1 < here;
            model_dot(weight, a, b, depth, bias[channel + j], bias[channel + j + two], sums + j,
                      sums + MODEL_BLOCK + j);
        }
        for (int32_t j = 0; j < here; j += 4) {
            const mve_pred16_t used = vctp32q((uint32_t)(here - j));
            const float32x4_t factors = vldrwq_z_f32(p->multiplier + channel + j, used);
            int32_t at = pixel * out_c + channel + j;
            for (int32_t which = 0; which < 2; which++, at += out_c) {
                const int32x4_t four = vldrwq_s32(sums + which * MODEL_BLOCK + j);
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

/* The same at one pixel, four channels at a time. Filters of channels that are not there are read as those before. */
static void model_one_pixel(const model_conv_t *p, const int8_t *weights, const int8_t *patch, int32_t pixel,
                            int32_t channel, int32_t end, int8_t *y, float *real, const float *offset)
{
    const int32_t depth = p->depth, zero = p->out_zero, low = p->low, high = p->high;
    int32_t at = pixel * p->out_c + channel;
    for (; channel < end; channel += 4, at += 4, weights += 4 * depth) {
        const mve_pred16_t present = vctp32q((uint32_t)(end - channel));
        const int8_t *weight = weights, *next = end - channel > 2 ? weights + 2 * depth : weights, *a = patch;
        int32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0, left = depth;
        int32x4_t sums;
        for (; left >= 16; left -= 16, weight += 32, next += 32, a += 16) {
            const uint32x4x2_t pair = vld2q_u32((const uint32_t *)(const void *)weight);
            const uint32x4x2_t more = vld2q_u32((const uint32_t *)(const void *)next);
            const int8x16_t x = vldrbq_s8(a);
            s0 = vmladavaq_s8(s0, vreinterpretq_s8_u32(pair.val[0]), x);
            s1 = vmladavaq_s8(s1, vreinterpretq_s8_u32(pair.val[1]), x);
            s2 = vmladavaq_s8(s2, vreinterpretq_s8_u32(more.val[0]), x);
            s3 = vmladavaq_s8(s3, vreinterpretq_s8_u32(more.val[1]), x);
        }
        if (left > 0) {
            const mve_pred16_t words = vctp32q((uint32_t)left >> 2);
            const uint32x4_t first = vidupq_n_u32(0, 8), second = vaddq_n_u32(first, 4);
            const uint32_t *const pair = (const uint32_t *)(const void *)weight;
            const uint32_t *const more = (const uint32_t *)(const void *)next;
            const int8x16_t x = vldrbq_z_s8(a, vctp8q((uint32_t)left));
            s0 = vmladavaq_s8(s0, vreinterpretq_s8_u32(vldrwq_gather_offset_z_u32(pair, first, words)), x);
            s1 = vmladavaq_s8(s1, vreinterpretq_s8_u32(vldrwq_gather_offset_z_u32(pair, second, words)), x);
            s2 = vmladavaq_s8(s2, vreinterpretq_s8_u32(vldrwq_gather_offset_z_u32(more, first, words)), x);
            s3 = vmladavaq_s8(s3, vreinterpretq_s8_u32(vldrwq_gather_offset_z_u32(more, second, words)), x);
        }
        sums = vsetq_lane_s32(s3, vsetq_lane_s32(s2, vsetq_lane_s32(s1, vdupq_n_s32(s0), 1), 2), 3);
        sums = vaddq_s32(sums, vldrwq_z_s32(p->bias + channel, present));
        {
            const float32x4_t factors = vldrwq_z_f32(p->multiplier + channel, present);
            if (y) {
                vstrbq_p_s32(y + at, model_requantize_4(sums, factors, zero, low, high), present);
            } else {
                const float32x4_t scaled = vmulq_f32(vcvtq_f32_s32(sums), factors);
                vstrwq_p_f32(real + at, vaddq_f32(scaled, vldrwq_z_f32(offset + channel, present)), present);
            }
        }
    }
}
#else
/* Sums of two channels at two pixels, or of four channels at one. */
typedef struct {
    int32_t s0, s1, s2, s3;
} model_four_t;

#if MODEL_DSP
/* Two patches as int16, four values of the one and four of the other in turn; the order inside four is 0 2 1 3. */
static void model_columns(const int8_t *a, const int8_t *b, int32_t depth, int32_t *columns)
{
    const int8_t *const stop = a + depth;
    for (; a != stop; a += 4, b += 4, columns += 4) {
        const int32_t wa = model_word(a), wb = model_word(b);
        columns[0] = model_even(wa);
        columns[1] = model_even(wb);
        columns[2] = model_odd(wa);
        columns[3] = model_odd(wb);
    }
}

/* Four places of a filter: two channels, two pixels. Both addresses move on. */
MODEL_INLINE void model_square_of_sums(const int8_t **weights, const int32_t **columns, model_four_t *sums)
{
    const int8_t *weight = *weights;
    const int32_t *x = *columns;
    int32_t w0, w1, xa, xb, xc, xd;
    MODEL_PAIR(w0, w1, weight);
    MODEL_PAIR(xa, xb, x);
    MODEL_PAIR(xc, xd, x);
    *weights = weight;
    *columns = x;
    const int32_t e0 = model_even(w0), e1 = model_even(w1), o0 = model_odd(w0), o1 = model_odd(w1);
    sums->s0 = __smlad(o0, xc, __smlad(e0, xa, sums->s0));
    sums->s1 = __smlad(o1, xc, __smlad(e1, xa, sums->s1));
    sums->s2 = __smlad(o0, xd, __smlad(e0, xb, sums->s2));
    sums->s3 = __smlad(o1, xd, __smlad(e1, xb, sums->s3));
}

/* Four places of a filter: four channels, one pixel. The addresses of the weights move on. */
MODEL_INLINE void model_row_of_sums(const int8_t **weights, const int8_t **others, const int8_t *x,
                                    model_four_t *sums)
{
    const int8_t *weight = *weights, *next = *others;
    const int32_t word = model_word(x), xe = model_even(word), xo = model_odd(word);
    int32_t w0, w1, w2, w3;
    MODEL_PAIR(w0, w1, weight);
    MODEL_PAIR(w2, w3, next);
    *weights = weight;
    *others = next;
    sums->s0 = __smlad(model_odd(w0), xo, __smlad(model_even(w0), xe, sums->s0));
    sums->s1 = __smlad(model_odd(w1), xo, __smlad(model_even(w1), xe, sums->s1));
    sums->s2 = __smlad(model_odd(w2), xo, __smlad(model_even(w2), xe, sums->s2));
    sums->s3 = __smlad(model_odd(w3), xo, __smlad(model_even(w3), xe, sums->s3));
}
#endif

/* Channels 0 and 1 at patch a, then at patch b. With DSP instructions `a` is what model_columns made of both.
 * `*filters` moves to the next two channels. */
MODEL_INLINE model_four_t model_dot(const int8_t **filters, const int8_t *a, const int8_t *b, int32_t depth,
                                    int32_t first, int32_t second)
{
    const int8_t *weight = *filters;
    model_four_t sums = {first, second, first, second};
#if MODEL_DSP
    const int32_t *x = (const int32_t *)(const void *)a;
    const int8_t *const stop = weight + 2 * depth;
    (void)b;
    if (depth & 4) {
        model_square_of_sums(&weight, &x, &sums);
    }
    while (weight != stop) {
        model_square_of_sums(&weight, &x, &sums);
        model_square_of_sums(&weight, &x, &sums);
    }
#else
    for (int32_t left = depth; left > 0; left -= 4, a += 4, b += 4, weight += 8) {
        for (int32_t j = 0; j < 4; j++) {
            sums.s0 += a[j] * weight[j];
            sums.s1 += a[j] * weight[j + 4];
            sums.s2 += b[j] * weight[j];
            sums.s3 += b[j] * weight[j + 4];
        }
    }
#endif
    *filters = weight;
    return sums;
}

/* Adds to `sums` what channels 0 to 3 give at patch a; 2 and 3 stand at `next`. */
MODEL_INLINE model_four_t model_dot_one(const int8_t *weight, const int8_t *next, const int8_t *a, int32_t depth,
                                        model_four_t sums)
{
#if MODEL_DSP
    if (depth & 4) {
        model_row_of_sums(&weight, &next, a, &sums);
        a += 4;
    }
    for (int32_t left = depth >> 3; left > 0; left--, a += 8) {
        model_row_of_sums(&weight, &next, a, &sums);
        model_row_of_sums(&weight, &next, a + 4, &sums);
    }
#else
    for (int32_t left = depth; left > 0; left -= 4, a += 4, weight += 8, next += 8) {
        for (int32_t j = 0; j < 4; j++) {
            sums.s0 += a[j] * weight[j];
            sums.s1 += a[j] * weight[j + 4];
            sums.s2 += a[j] * next[j];
            sums.s3 += a[j] * next[j + 4];
        }
    }
#endif
    return sums;
}

/* Channels [channel, end) of one group at two pixels whose patches are a and b. */
static void model_two_pixels(const model_conv_t *p, const int8_t *weight, const int8_t *a, const int8_t *b,
                             int32_t pixel, int32_t channel, int32_t end, int8_t *y, float *real, const float *offset)
{
    /* Copies: a store through int8_t may change anything as far as the compiler knows. */
    const int32_t depth = p->depth, out_c = p->out_c, zero = p->out_zero, low = p->low, high = p->high;
    const int32_t *bias = p->bias + channel;
    const float *multiplier = p->multiplier + channel;
    int32_t left = end - channel;
    if (y) {
        int8_t *top = y + pixel * out_c + channel;
        for (; left > 1; left -= 2, bias += 2, multiplier += 2, top += 2) {
            const model_four_t sums = model_dot(&weight, a, b, depth, bias[0], bias[1]);
            const float m0 = multiplier[0], m1 = multiplier[1];
            top[0] = model_requantize(sums.s0, m0, zero, low, high);
            top[1] = model_requantize(sums.s1, m1, zero, low, high);
            top[out_c] = model_requantize(sums.s2, m0, zero, low, high);
            top[out_c + 1] = model_requantize(sums.s3, m1, zero, low, high);
        }
        if (left > 0) {
            const model_four_t sums = model_dot(&weight, a, b, depth, bias[0], 0);
            top[0] = model_requantize(sums.s0, *multiplier, zero, low, high);
            top[out_c] = model_requantize(sums.s2, *multiplier, zero, low, high);
        }
    } else {
        float *top = real + pixel * out_c + channel;
        for (int32_t k = 0; k < left; k += 2, top += 2) {
            const int32_t two = k + 1 < left;
            const model_four_t sums = model_dot(&weight, a, b, depth, bias[k], bias[k + two]);
            top[0] = (float)sums.s0 * multiplier[k] + offset[channel + k];
            top[out_c] = (float)sums.s2 * multiplier[k] + offset[channel + k];
            if (two) {
                top[1] = (float)sums.s1 * multiplier[k + 1] + offset[channel + k + 1];
                top[out_c + 1] = (float)sums.s3 * multiplier[k + 1] + offset[channel + k + 1];
            }
        }
    }
}

/* The same at one pixel. */
static void model_one_pixel(const model_conv_t *p, const int8_t *weight, const int8_t *a, int32_t pixel,
                            int32_t channel, int32_t end, int8_t *y, float *real, const float *offset)
{
    const int32_t depth = p->depth, zero = p->out_zero, low = p->low, high = p->high;
    const int32_t *bias = p->bias + channel;
    const float *multiplier = p->multiplier + channel;
    int32_t left = end - channel;
    y = y ? y + pixel * p->out_c + channel : 0;
    for (; y && left > 3; left -= 4, bias += 4, multiplier += 4, y += 4, channel += 4, weight += 4 * depth) {
        model_four_t sums = {bias[0], bias[1], bias[2], bias[3]};
        sums = model_dot_one(weight, weight + 2 * depth, a, depth, sums);
        y[0] = model_requantize(sums.s0, multiplier[0], zero, low, high);
        y[1] = model_requantize(sums.s1, multiplier[1], zero, low, high);
        y[2] = model_requantize(sums.s2, multiplier[2], zero, low, high);
        y[3] = model_requantize(sums.s3, multiplier[3], zero, low, high);
    }
    for (; left > 0; left -= 2, bias += 2, multiplier += 2, channel += 2, weight += 2 * depth) {
        model_four_t sums = {bias[0], left > 1 ? bias[1] : 0, 0, 0};
        sums = model_dot_one(weight, weight, a, depth, sums);
        if (y) {
            *y++ = model_requantize(sums.s0, multiplier[0], zero, low, high);
            if (left > 1) {
                *y++ = model_requantize(sums.s1, multiplier[1], zero, low, high);
            }
        } else {
            float *const to = real + pixel * p->out_c + channel;
            to[0] = (float)sums.s0 * multiplier[0] + offset[channel];
            if (left > 1) {
                to[1] = (float)sums.s1 * multiplier[1] + offset[channel + 1];
            }
        }
    }
}
#endif

/* scratch: none for a single pixel in place, else max(4 * depth, 128) bytes (two patches as int16, or sums) and two
 * patches as int8. Exactly one of y and real is used: real gets
 * sum * multiplier + offset[channel] as floats. */
MODEL_KERNEL void model_conv(const model_conv_t *p, const int8_t *x, int8_t *y, float *real, const float *offset,
                             int32_t *scratch)
{
    const int32_t pixels = p->out_h * p->out_w, depth = p->depth;
    const int32_t count = p->in_c / p->groups, made = p->out_c / p->groups, pairs = (made + 1) / 2;
    const int32_t out_w = p->out_w;
    int8_t *const patch = (int8_t *)scratch + (depth < 32 ? 128 : 4 * depth);
    for (int32_t group = 0; group < p->groups; group++) {
        const int8_t *const weight = p->weight + group * pairs * depth * 2;
        int32_t oy = 0, ox = 0;
        for (int32_t pixel = 0; pixel < pixels; pixel += 2) {
            const int32_t both = pixel + 1 < pixels;
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
            if (!both) {
                model_one_pixel(p, weight, a, pixel, group * made, (group + 1) * made, y, real, offset);
                continue;
            }
#if MODEL_MVE
            model_two_pixels(p, weight, a, b, pixel, group * made, (group + 1) * made, y, real, offset, scratch);
#elif MODEL_DSP
            model_columns(a, b, depth, scratch);
            model_two_pixels(p, weight, (const int8_t *)scratch, 0, pixel, group * made, (group + 1) * made, y, real,
                             offset);
#else
            model_two_pixels(p, weight, a, b, pixel, group * made, (group + 1) * made, y, real, offset);
#endif
        }
    }
}
