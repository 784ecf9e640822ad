/* Short-time spectrum of a float signal without a floating-point unit: each frame is scaled to 29 bits by its largest
 * sample, transformed in 32-bit integers with 64-bit products, and becomes floats again as power, magnitude or bands.
 * Bands lose what is 2^-36 of the frame's loudest bin. */
typedef struct {
    int32_t frames, hop, length; /* length: power of two */
    int32_t kind;                /* 1: power; 2: magnitude */
    int32_t bands, weight_bits;  /* bands: 0 is every bin. A weight is stored times 2^weight_bits */
    const int32_t *window;       /* times 2^30 */
    const int32_t *roots;        /* cos and -sin of 2 pi k / length, times 2^30 */
    const uint16_t *reversed;    /* bit reversal of length / 2 */
    const uint16_t *first, *count, *weights;
} model_spectrum_fixed_t;

MODEL_INLINE int32_t model_scaled(int32_t a, int32_t b) { return (int32_t)(((int64_t)a * b + (1 << 29)) >> 30); }

MODEL_INLINE int32_t model_half(int32_t a) { return (a + (a & 1)) / 2; }

/* A float's bits as an integer below 2^29 where 2^largest bounds the float; no floating-point instruction. */
MODEL_INLINE int32_t model_from_bits(uint32_t bits, int32_t largest)
{
    const int32_t exponent = (int32_t)(bits >> 23 & 0xFFu), shift = exponent - largest - 121;
    const uint32_t fraction = (bits & 0x7FFFFFu) | (exponent ? 0x800000u : 0u);
    uint32_t size = 0u;
    if (shift >= 0) {
        size = fraction << shift;
    } else if (shift > -25) {
        size = ((fraction >> (-shift - 1)) + 1u) >> 1;
    }
    return bits >> 31 ? -(int32_t)size : (int32_t)size;
}

/* Complex FFT of points in bit-reversed order, halved at every stage. */
static void model_fft_fixed(int32_t *z, int32_t size, const int32_t *roots)
{
    for (int32_t span = 1; span < size; span *= 2) {
        const int32_t step = 2 * (size / span); /* integers between roots */
        for (int32_t j = 0; j < span; j++) {
            const int32_t wr = roots[j * step], wi = roots[j * step + 1];
            for (int32_t block = j; block < size; block += 2 * span) {
                int32_t *const a = z + 2 * block, *const b = a + 2 * span;
                const int32_t re = model_scaled(b[0], wr) - model_scaled(b[1], wi);
                const int32_t im = model_scaled(b[0], wi) + model_scaled(b[1], wr);
                b[0] = model_half(a[0] - re);
                b[1] = model_half(a[1] - im);
                a[0] = model_half(a[0] + re);
                a[1] = model_half(a[1] + im);
            }
        }
    }
}

static uint64_t model_root(uint64_t square)
{
    uint64_t root = 0u, bit = (uint64_t)1 << 62;
    while (bit > square) {
        bit >>= 2;
    }
    for (; bit; bit >>= 2) {
        if (square >= root + bit) {
            square -= root + bit;
            root = (root >> 1) + bit;
        } else {
            root >>= 1;
        }
    }
    return root;
}

/* work: 2 * length + 4 integers, aligned to 8 bytes. out: frames x (length / 2 + 1), or frames x bands. */
MODEL_KERNEL void model_spectrum_fixed(const model_spectrum_fixed_t *p, const float *signal, float *out, int32_t *work)
{
    const int32_t length = p->length, half = length / 2;
    int32_t stages = 0;
    int32_t *const z = work;
    uint64_t *const bins = (uint64_t *)(void *)(work + length);
    while (1 << stages < half) {
        stages++;
    }
    for (int32_t frame = 0; frame < p->frames; frame++, signal += p->hop) {
        uint32_t bits, loudest = 0u;
        uint64_t most = 0u;
        int32_t largest, exponent;
        for (int32_t k = 0; k < length; k++) {
            memcpy(&bits, signal + k, sizeof bits);
            bits &= 0x7FFFFFFFu;
            loudest = bits > loudest ? bits : loudest;
        }
        largest = (int32_t)(loudest >> 23) - 126;
        for (int32_t k = 0; k < length; k++) {
            memcpy(&bits, signal + k, sizeof bits);
            z[2 * p->reversed[k / 2] + (k & 1)] = model_scaled(model_from_bits(bits, largest), p->window[k]);
        }
        model_fft_fixed(z, half, p->roots);
        for (int32_t k = 0; k <= half / 2; k++) { /* bins k and half - k from the points k and half - k */
            const int32_t *const a = z + 2 * k, *const b = z + 2 * ((half - k) % half);
            const int32_t er = model_half(a[0] + b[0]), ei = model_half(a[1] - b[1]);
            const int32_t dr = model_half(a[1] + b[1]), di = model_half(b[0] - a[0]);
            const int32_t wr = p->roots[2 * k], wi = p->roots[2 * k + 1];
            const int64_t tr = model_scaled(dr, wr) - model_scaled(di, wi);
            const int64_t ti = model_scaled(dr, wi) + model_scaled(di, wr);
            const uint64_t one = (uint64_t)((er + tr) * (er + tr) + (ei + ti) * (ei + ti));
            const uint64_t two = (uint64_t)((er - tr) * (er - tr) + (ti - ei) * (ti - ei));
            bins[k] = p->kind == 2 ? model_root(one) : one;
            bins[half - k] = p->kind == 2 ? model_root(two) : two;
            most = bins[k] > most ? bins[k] : most;
            most = bins[half - k] > most ? bins[half - k] : most;
        }
        exponent = (largest - 29 + stages) * (p->kind == 2 ? 1 : 2);
        if (p->bands == 0) {
            for (int32_t k = 0; k <= half; k++) {
                *out++ = loudest ? ldexpf((float)bins[k], exponent) : 0.0f;
            }
        } else {
            const uint16_t *weight = p->weights;
            int32_t drop = 0;
            while (most >> drop >= (uint64_t)1 << 36) {
                drop++;
            }
            for (int32_t band = 0; band < p->bands; band++) {
                const uint64_t *in = bins + p->first[band];
                uint64_t sum = 0u;
                for (int32_t k = 0; k < p->count[band]; k++) {
                    sum += (*in++ >> drop) * *weight++;
                }
                *out++ = loudest ? ldexpf((float)sum, exponent + drop - p->weight_bits) : 0.0f;
            }
        }
    }
}
