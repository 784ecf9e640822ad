/* Stands in for CMSIS-NN in tests: the same names, arguments and structures, computed plainly. */
#ifndef ARM_NNFUNCTIONS_H
#define ARM_NNFUNCTIONS_H
#include <stdint.h>

typedef enum { ARM_CMSIS_NN_SUCCESS = 0, ARM_CMSIS_NN_ARG_ERROR = -1 } arm_cmsis_nn_status;
typedef struct { int32_t w, h; } cmsis_nn_tile;
typedef struct { void *buf; int32_t size; } cmsis_nn_context;
typedef struct { int32_t n, h, w, c; } cmsis_nn_dims;
typedef struct { int32_t *multiplier, *shift; } cmsis_nn_per_channel_quant_params;
typedef struct { int32_t min, max; } cmsis_nn_activation;
typedef struct {
    int32_t input_offset, output_offset;
    cmsis_nn_tile stride, padding, dilation;
    cmsis_nn_activation activation;
} cmsis_nn_conv_params;
typedef struct {
    int32_t input_offset, output_offset, ch_mult;
    cmsis_nn_tile stride, padding, dilation;
    cmsis_nn_activation activation;
} cmsis_nn_dw_conv_params;

/* A doubling high product, rounded, then a right shift, rounded: the reference of TensorFlow Lite. */
static inline int32_t arm_nn_requantize(int32_t sum, int32_t multiplier, int32_t shift)
{
    const int32_t left = shift > 0 ? shift : 0, right = shift > 0 ? 0 : -shift;
    const int64_t product = (int64_t)sum * (1 << left) * multiplier;
    const int64_t nudge = product >= 0 ? (1LL << 30) : 1 - (1LL << 30);
    const int32_t high = (int32_t)((product + nudge) / (1LL << 31));
    const int32_t mask = (int32_t)((1u << right) - 1u);
    return (high >> right) + ((high & mask) > (mask >> 1) + (high < 0));
}

static inline arm_cmsis_nn_status fake_windows(const cmsis_nn_conv_params *p, int32_t depthwise,
                                               const cmsis_nn_per_channel_quant_params *q, const cmsis_nn_dims *in,
                                               const int8_t *x, const cmsis_nn_dims *filter, const int8_t *w,
                                               const int32_t *bias, const cmsis_nn_dims *out, int8_t *y)
{
    for (int32_t oy = 0; oy < out->h; oy++) {
        for (int32_t ox = 0; ox < out->w; ox++) {
            for (int32_t c = 0; c < out->c; c++) {
                int32_t sum = bias[c];
                for (int32_t ky = 0; ky < filter->h; ky++) {
                    for (int32_t kx = 0; kx < filter->w; kx++) {
                        const int32_t iy = oy * p->stride.h - p->padding.h + ky * p->dilation.h;
                        const int32_t ix = ox * p->stride.w - p->padding.w + kx * p->dilation.w;
                        if (iy < 0 || iy >= in->h || ix < 0 || ix >= in->w) {
                            continue;
                        }
                        for (int32_t k = 0; k < (depthwise ? 1 : in->c); k++) {
                            const int32_t from = depthwise ? c : k;
                            const int32_t place = depthwise ? (ky * filter->w + kx) * out->c + c
                                                            : ((c * filter->h + ky) * filter->w + kx) * in->c + k;
                            sum += (x[(iy * in->w + ix) * in->c + from] + p->input_offset) * w[place];
                        }
                    }
                }
                sum = arm_nn_requantize(sum, q->multiplier[c], q->shift[c]) + p->output_offset;
                sum = sum < p->activation.min ? p->activation.min : sum;
                y[(oy * out->w + ox) * out->c + c] = (int8_t)(sum > p->activation.max ? p->activation.max : sum);
            }
        }
    }
    return ARM_CMSIS_NN_SUCCESS;
}

static inline int32_t arm_convolve_wrapper_s8_get_buffer_size(const cmsis_nn_conv_params *p, const cmsis_nn_dims *in,
                                                              const cmsis_nn_dims *filter, const cmsis_nn_dims *out)
{
    (void)p;
    (void)out;
    return 4 * ((in->c * filter->w * filter->h + 7) / 8) * 8;
}

static inline arm_cmsis_nn_status arm_convolve_wrapper_s8(const cmsis_nn_context *context,
                                                          const cmsis_nn_conv_params *p,
                                                          const cmsis_nn_per_channel_quant_params *q,
                                                          const cmsis_nn_dims *in, const int8_t *x,
                                                          const cmsis_nn_dims *filter, const int8_t *w,
                                                          const cmsis_nn_dims *bias_dims, const int32_t *bias,
                                                          const cmsis_nn_dims *out, int8_t *y)
{
    if (!context->buf || filter->n != out->c || filter->c != in->c || bias_dims->c != out->c) {
        return ARM_CMSIS_NN_ARG_ERROR;
    }
    return fake_windows(p, 0, q, in, x, filter, w, bias, out, y);
}

static inline int32_t arm_depthwise_conv_wrapper_s8_get_buffer_size(const cmsis_nn_dw_conv_params *p,
                                                                    const cmsis_nn_dims *in,
                                                                    const cmsis_nn_dims *filter,
                                                                    const cmsis_nn_dims *out)
{
    (void)p;
    (void)out;
    return 2 * in->c * filter->w * filter->h;
}

static inline arm_cmsis_nn_status arm_depthwise_conv_wrapper_s8(const cmsis_nn_context *context,
                                                                const cmsis_nn_dw_conv_params *p,
                                                                const cmsis_nn_per_channel_quant_params *q,
                                                                const cmsis_nn_dims *in, const int8_t *x,
                                                                const cmsis_nn_dims *filter, const int8_t *w,
                                                                const cmsis_nn_dims *bias_dims, const int32_t *bias,
                                                                const cmsis_nn_dims *out, int8_t *y)
{
    cmsis_nn_conv_params plain;
    plain.input_offset = p->input_offset;
    plain.output_offset = p->output_offset;
    plain.stride = p->stride;
    plain.padding = p->padding;
    plain.dilation = p->dilation;
    plain.activation = p->activation;
    if (!context->buf || p->ch_mult != 1 || filter->n != 1 || filter->c != out->c || bias_dims->c != out->c) {
        return ARM_CMSIS_NN_ARG_ERROR;
    }
    return fake_windows(&plain, 1, q, in, x, filter, w, bias, out, y);
}
#endif
