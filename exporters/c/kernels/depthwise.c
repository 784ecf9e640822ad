/* Depthwise convolution: one filter per channel, int8 channel-last tensors. Weights are (row, column, channel) as
 * int16, as wide as the multiplier takes them, because each is used once per pixel; channels are padded with zeros to a
 * multiple of four, and those of bias and multiplier to a multiple of eight. */
typedef struct {
    int32_t in_h, in_w, channels, out_h, out_w;
    int32_t kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w, pad_top, pad_left;
    int32_t in_zero, out_zero, low, high;
    const int16_t *weight;
    const int32_t *bias;
    const float *multiplier;
} model_depthwise_t;

/* zeros: room for channels + 4 bytes. taps: room for kernel_h * kernel_w pointers. Inlined into each layer's function,
 * where its sizes are constants: a third fewer instructions for about a kilobyte. */
MODEL_INLINE void model_depthwise(const model_depthwise_t *p, const int8_t *x, int8_t *y, int8_t *zeros,
                                  const int8_t **taps)
{
    const int32_t channels = p->channels, padded = (channels + 3) & ~3, count = p->kernel_h * p->kernel_w;
    const int32_t zero = p->out_zero, low = p->low, high = p->high;
    const int32_t *const bias = p->bias;
    const float *const multiplier = p->multiplier;
    memset(zeros, p->in_zero, (size_t)channels + 4);
    for (int32_t oy = 0; oy < p->out_h; oy++) {
        for (int32_t ox = 0; ox < p->out_w; ox++) {
            const int32_t top = oy * p->stride_h - p->pad_top, left = ox * p->stride_w - p->pad_left;
            const int32_t whole = top >= 0 && left >= 0 && top + (p->kernel_h - 1) * p->dilation_h < p->in_h &&
                                  left + (p->kernel_w - 1) * p->dilation_w < p->in_w;
            const int8_t **tap = taps;
            for (int32_t ky = 0; ky < p->kernel_h; ky++) {
                const int32_t iy = top + ky * p->dilation_h;
                const int8_t *const row = x + (iy * p->in_w + left) * channels;
                if (whole) {
                    for (int32_t kx = 0; kx < p->kernel_w; kx++) {
                        *tap++ = row + kx * p->dilation_w * channels;
                    }
                    continue;
                }
                for (int32_t kx = 0; kx < p->kernel_w; kx++) {
                    const int32_t ix = left + kx * p->dilation_w;
                    const int32_t inside = iy >= 0 && iy < p->in_h && ix >= 0 && ix < p->in_w;
                    *tap++ = inside ? row + kx * p->dilation_w * channels : zeros;
                }
            }
#if MODEL_MVE
            for (int32_t c = 0; c < channels; c += 8) {
                const mve_pred16_t used = vctp16q((uint32_t)(channels - c));
                const int16_t *weight = p->weight + c;
                const int32x4x2_t start = vld2q_s32(bias + c); /* even channels, odd channels */
                const float32x4x2_t factors = vld2q_f32(multiplier + c);
                int32x4_t even = start.val[0], odd = start.val[1];
                for (int32_t t = 0; t < count; t++, weight += padded) {
                    const int16x8_t xs = vldrbq_z_s16(taps[t] + c, used), ws = vldrhq_z_s16(weight, used);
                    even = vaddq_s32(even, vmullbq_int_s16(xs, ws));
                    odd = vaddq_s32(odd, vmulltq_int_s16(xs, ws));
                }
                even = model_requantize_4(even, factors.val[0], zero, low, high);
                odd = model_requantize_4(odd, factors.val[1], zero, low, high);
                vstrbq_p_s16(y + c, vmovntq_s32(vreinterpretq_s16_s32(even), odd), used);
            }
#else
            for (int32_t c = 0; c < channels; c += 4) {
                const int32_t left_over = channels - c;
                const int16_t *weight = p->weight + c;
                int32_t s0 = bias[c], s1 = bias[c + 1], s2 = bias[c + 2], s3 = bias[c + 3];
                for (int32_t t = 0; t < count; t++, weight += padded) {
                    const int8_t *const in = taps[t] + c;
#if MODEL_DSP
                    const int32_t xs = model_word(in), we = model_word(weight), wo = model_word(weight + 2);
                    const int32_t xe = model_even(xs), xo = model_odd(xs);
                    s0 = __smlabb(xe, we, s0);
                    s1 = __smlabt(xo, we, s1);
                    s2 = __smlatb(xe, wo, s2);
                    s3 = __smlatt(xo, wo, s3);
#else
                    s0 += in[0] * weight[0];
                    s1 += in[1] * weight[1]; /* past the last channel: any byte, and a weight of zero */
                    s2 += in[2] * weight[2];
                    s3 += in[3] * weight[3];
#endif
                }
                y[c] = model_requantize(s0, multiplier[c], zero, low, high);
                if (left_over > 1) {
                    y[c + 1] = model_requantize(s1, multiplier[c + 1], zero, low, high);
                }
                if (left_over > 2) {
                    y[c + 2] = model_requantize(s2, multiplier[c + 2], zero, low, high);
                }
                if (left_over > 3) {
                    y[c + 3] = model_requantize(s3, multiplier[c + 3], zero, low, high);
                }
            }
#endif
            y += channels;
        }
    }
}
