/* Short-time spectrum of a float signal, frame by frame: window, real FFT, and power, magnitude or mel bands. Only one
 * frame's spectrum is in memory at a time. */
typedef struct {
    int32_t frames, hop, length; /* length: power of two */
    int32_t kind;                /* 0: real and imaginary parts; 1: power; 2: magnitude */
    int32_t bands;               /* 0: every bin */
    const float *window;         /* half the window: the spectrum comes out unscaled */
    const float *roots;          /* cos and -sin of 2 pi k / length, k < length / 2 */
    const uint16_t *reversed;    /* bit reversal of length / 2 */
    const uint16_t *first, *count;
    const float *weights; /* of the bins first[b] .. first[b] + count[b] - 1, band after band */
} model_spectrum_t;

/* Complex FFT of `size` points that stand in bit-reversed order; `step` roots apart. */
static void model_fft(float *z, int32_t size, const float *roots)
{
    int32_t span = 1, bits = 0;
    while ((1 << bits) < size) {
        bits++;
    }
    if (bits & 1) {
        for (int32_t k = 0; k < 2 * size; k += 4) {
            const float re = z[k + 2], im = z[k + 3];
            z[k + 2] = z[k] - re;
            z[k + 3] = z[k + 1] - im;
            z[k] += re;
            z[k + 1] += im;
        }
        span = 2;
    }
    for (; span < size; span *= 4) { /* two radix-2 stages in one pass */
        const int32_t step = 4 * (size / (4 * span)); /* floats between roots of the second stage */
        for (int32_t j = 0; j < span; j++) {
            const float w1r = roots[2 * j * step], w1i = roots[2 * j * step + 1];
            const float w2r = roots[j * step], w2i = roots[j * step + 1];
            for (int32_t block = j; block < size; block += 4 * span) {
                float *const a = z + 2 * block, *const b = a + 2 * span, *const c = b + 2 * span,
                             *const d = c + 2 * span;
                float re, im;
                const float br = b[0] * w1r - b[1] * w1i, bi = b[0] * w1i + b[1] * w1r;
                const float dr = d[0] * w1r - d[1] * w1i, di = d[0] * w1i + d[1] * w1r;
                const float p0r = a[0] + br, p0i = a[1] + bi, p1r = a[0] - br, p1i = a[1] - bi;
                const float p2r = c[0] + dr, p2i = c[1] + di, p3r = c[0] - dr, p3i = c[1] - di;
                re = p2r * w2r - p2i * w2i;
                im = p2r * w2i + p2i * w2r;
                a[0] = p0r + re;
                a[1] = p0i + im;
                c[0] = p0r - re;
                c[1] = p0i - im;
                re = p3r * w2i + p3i * w2r; /* -i w2 p3 */
                im = p3i * w2i - p3r * w2r;
                b[0] = p1r + re;
                b[1] = p1i + im;
                d[0] = p1r - re;
                d[1] = p1i - im;
            }
        }
    }
}

/* work: 3 * length + 8 floats. out: frames x (length / 2 + 1) x 2, frames x (length / 2 + 1), or frames x bands. */
MODEL_KERNEL void model_spectrum(const model_spectrum_t *p, const float *signal, float *out, float *work)
{
    const int32_t half = p->length / 2;
    float *const z = work, *const spectrum = work + p->length, *const power = spectrum + p->length + 2;
    for (int32_t frame = 0; frame < p->frames; frame++, signal += p->hop) {
        float *const bins = p->kind == 0 ? out : spectrum;
        for (int32_t k = 0; k < half; k++) {
            const int32_t to = 2 * p->reversed[k];
            z[to] = signal[2 * k] * p->window[2 * k];
            z[to + 1] = signal[2 * k + 1] * p->window[2 * k + 1];
        }
        model_fft(z, half, p->roots);
        bins[0] = 2.0f * (z[0] + z[1]);
        bins[1] = 0.0f;
        bins[2 * half] = 2.0f * (z[0] - z[1]);
        bins[2 * half + 1] = 0.0f;
        for (int32_t k = 1; k <= half / 2; k++) {
            const float *const a = z + 2 * k, *const b = z + 2 * (half - k);
            const float er = a[0] + b[0], ei = a[1] - b[1]; /* even samples' spectrum */
            const float dr = a[1] + b[1], di = b[0] - a[0]; /* odd samples' */
            const float wr = p->roots[2 * k], wi = p->roots[2 * k + 1];
            const float tr = dr * wr - di * wi, ti = dr * wi + di * wr;
            bins[2 * k] = er + tr;
            bins[2 * k + 1] = ei + ti;
            bins[2 * (half - k)] = er - tr;
            bins[2 * (half - k) + 1] = ti - ei;
        }
        if (p->kind == 0) {
            out += 2 * (half + 1);
        } else {
            float *const to = p->bands ? power : out;
            for (int32_t k = 0; k <= half; k++) {
                const float sum = bins[2 * k] * bins[2 * k] + bins[2 * k + 1] * bins[2 * k + 1];
                to[k] = p->kind == 2 ? sqrtf(sum) : sum;
            }
            if (p->bands == 0) {
                out += half + 1;
            } else {
                const float *weight = p->weights;
                for (int32_t band = 0; band < p->bands; band++) {
                    const float *in = power + p->first[band];
                    float sum = 0.0f;
                    for (int32_t k = 0; k < p->count[band]; k++) {
                        sum += *in++ * *weight++;
                    }
                    *out++ = sum;
                }
            }
        }
    }
}
