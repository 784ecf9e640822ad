/* Float kernels, for what stands outside the quantised part. Row-major tensors (channel, row, column). */
typedef struct {
    int32_t in_c, in_h, in_w, out_c, out_h, out_w;
    int32_t kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w, pad_top, pad_left, groups;
    const float *weight, *bias;
} model_real_conv_t;

MODEL_UNUSED MODEL_KERNEL void model_real_conv(const model_real_conv_t *p, const float *x, float *y)
{
    const int32_t count = p->in_c / p->groups, made = p->out_c / p->groups;
    for (int32_t c = 0; c < p->out_c; c++) {
        const float *const in = x + c / made * count * p->in_h * p->in_w;
        for (int32_t oy = 0; oy < p->out_h; oy++) {
            for (int32_t ox = 0; ox < p->out_w; ox++) {
                const float *weight = p->weight + c * count * p->kernel_h * p->kernel_w;
                float sum = p->bias[c];
                for (int32_t k = 0; k < count; k++) {
                    for (int32_t ky = 0; ky < p->kernel_h; ky++) {
                        const int32_t iy = oy * p->stride_h - p->pad_top + ky * p->dilation_h;
                        for (int32_t kx = 0; kx < p->kernel_w; kx++, weight++) {
                            const int32_t ix = ox * p->stride_w - p->pad_left + kx * p->dilation_w;
                            if (iy >= 0 && iy < p->in_h && ix >= 0 && ix < p->in_w) {
                                sum += in[(k * p->in_h + iy) * p->in_w + ix] * *weight;
                            }
                        }
                    }
                }
                *y++ = sum;
            }
        }
    }
}

/* The same for windows of one place and no padding. It stands apart: the compiler makes of model_real_conv what the
 * windows of a model have in common, and with one of these among them that is nothing. Four channels share what they
 * read; each sum has its own order, the same as alone. */
MODEL_UNUSED MODEL_KERNEL void model_real_pointwise(const model_real_conv_t *p, const float *x, float *y)
{
    const int32_t count = p->in_c / p->groups, made = p->out_c / p->groups, plane = p->in_h * p->in_w;
    const int32_t places = p->out_h * p->out_w;
    for (int32_t group = 0; group < p->groups; group++) {
        const float *const in = x + group * count * plane;
        int32_t c = group * made;
        for (; c + 4 <= (group + 1) * made; c += 4) {
            const float *const weight = p->weight + c * count;
            float *out = y + c * places;
            for (int32_t oy = 0; oy < p->out_h; oy++) {
                const float *row = in + oy * p->stride_h * p->in_w;
                for (int32_t ox = 0; ox < p->out_w; ox++, row += p->stride_w, out++) {
                    const float *at = row, *w = weight;
                    float s0 = p->bias[c], s1 = p->bias[c + 1], s2 = p->bias[c + 2], s3 = p->bias[c + 3];
                    for (int32_t k = 0; k < count; k++, at += plane, w++) {
                        const float v = *at;
                        s0 += v * w[0];
                        s1 += v * w[count];
                        s2 += v * w[2 * count];
                        s3 += v * w[3 * count];
                    }
                    out[0] = s0;
                    out[places] = s1;
                    out[2 * places] = s2;
                    out[3 * places] = s3;
                }
            }
        }
        for (; c < (group + 1) * made; c++) {
            const float *const weight = p->weight + c * count;
            float *out = y + c * places;
            for (int32_t oy = 0; oy < p->out_h; oy++) {
                const float *row = in + oy * p->stride_h * p->in_w;
                for (int32_t ox = 0; ox < p->out_w; ox++, row += p->stride_w) {
                    const float *at = row;
                    float sum = p->bias[c];
                    for (int32_t k = 0; k < count; k++, at += plane) {
                        sum += *at * weight[k];
                    }
                    *out++ = sum;
                }
            }
        }
    }
}

/* y (rows, columns) = x (rows, depth) * weight (columns, depth) transposed + bias (columns). */
MODEL_UNUSED MODEL_KERNEL void model_real_product(const float *x, const float *weight, const float *bias, float *y,
                                                  int32_t rows, int32_t depth, int32_t columns)
{
    for (int32_t row = 0; row < rows; row++, x += depth) {
        const float *w = weight;
        for (int32_t column = 0; column < columns; column++) {
            float sum = 0.0f;
            for (int32_t k = 0; k < depth; k++) {
                sum += x[k] * *w++;
            }
            *y++ = sum + bias[column];
        }
    }
}

/* Over rows of `size` floats. */
MODEL_UNUSED MODEL_KERNEL void model_softmax(const float *x, float *y, int32_t rows, int32_t size, int32_t logarithm)
{
    for (int32_t row = 0; row < rows; row++, x += size, y += size) {
        float top = x[0], sum = 0.0f;
        for (int32_t k = 1; k < size; k++) {
            top = x[k] > top ? x[k] : top;
        }
        for (int32_t k = 0; k < size; k++) {
            sum += model_exp(x[k] - top);
        }
        for (int32_t k = 0; k < size; k++) {
            y[k] = logarithm ? x[k] - top - model_log(sum) : model_exp(x[k] - top) / sum;
        }
    }
}

/* kind 0: sum, 1: mean, 2: maximum, 3: minimum, 4: root of the sum of squares. Over rows of `size` floats. */
MODEL_UNUSED MODEL_KERNEL void model_reduce(const float *x, float *y, int32_t rows, int32_t size, int32_t kind)
{
    for (int32_t row = 0; row < rows; row++, x += size) {
        float result = kind == 4 ? x[0] * x[0] : x[0];
        for (int32_t k = 1; k < size; k++) {
            if (kind == 2) {
                result = x[k] > result ? x[k] : result;
            } else if (kind == 3) {
                result = x[k] < result ? x[k] : result;
            } else {
                result += kind == 4 ? x[k] * x[k] : x[k];
            }
        }
        y[row] = kind == 1 ? result / (float)size : kind == 4 ? sqrtf(result) : result;
    }
}

typedef struct {
    int32_t channels, in_h, in_w, out_h, out_w;
    int32_t kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w, pad_top, pad_left;
    int32_t maximum, count_padding;
} model_real_pool_t;

MODEL_UNUSED MODEL_KERNEL void model_real_pool(const model_real_pool_t *p, const float *x, float *y)
{
    for (int32_t c = 0; c < p->channels; c++, x += p->in_h * p->in_w) {
        for (int32_t oy = 0; oy < p->out_h; oy++) {
            for (int32_t ox = 0; ox < p->out_w; ox++) {
                float result = p->maximum ? -INFINITY : 0.0f;
                int32_t count = 0;
                for (int32_t ky = 0; ky < p->kernel_h; ky++) {
                    const int32_t iy = oy * p->stride_h - p->pad_top + ky * p->dilation_h;
                    for (int32_t kx = 0; kx < p->kernel_w; kx++) {
                        const int32_t ix = ox * p->stride_w - p->pad_left + kx * p->dilation_w;
                        if (iy >= 0 && iy < p->in_h && ix >= 0 && ix < p->in_w) {
                            const float value = x[iy * p->in_w + ix];
                            result = !p->maximum ? result + value : value > result ? value : result;
                            count++;
                        }
                    }
                }
                if (!p->maximum) {
                    result /= (float)(p->count_padding ? p->kernel_h * p->kernel_w : count);
                }
                *y++ = result;
            }
        }
    }
}
