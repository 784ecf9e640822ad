/* Shared by every kernel. Needs a C99 compiler and IEEE floats; compile with -ffp-contract=off for the same bits on
 * every machine. */
#if defined(__ARM_FEATURE_DSP) && !defined(MODEL_PORTABLE)
#define MODEL_DSP 1
#else
#define MODEL_DSP 0
#endif
#if defined(__ARM_FP) && (__ARM_FP & 4) && !defined(MODEL_PORTABLE)
#define MODEL_FPU 1
#else
#define MODEL_FPU 0
#endif

/* Between steps: buffers of different types take turns in the arena, which a compiler that orders loads and stores by
 * type must not see as independent. */
#if defined(__GNUC__)
#define MODEL_BARRIER __asm__ volatile("" : : : "memory")
#define MODEL_UNUSED __attribute__((unused))
#define MODEL_ALIGNED __attribute__((aligned(8)))
#define MODEL_KERNEL static __attribute__((noinline))
#define MODEL_INLINE static inline __attribute__((always_inline))
#else
#define MODEL_BARRIER ((void)0)
#define MODEL_UNUSED
#define MODEL_ALIGNED
#define MODEL_KERNEL static
#define MODEL_INLINE static inline
#endif

/* Nearest integer to x, halves to even, held between low and high, plus zero. low and high do not include zero. */
MODEL_UNUSED MODEL_INLINE int32_t model_round(float x, int32_t zero, int32_t low, int32_t high)
{
#if MODEL_FPU
    int32_t n;
    __asm__("vcvtr.s32.f32 %0, %1" : "=t"(x) : "t"(x)); /* rounds as FPSCR says: to nearest, unless changed */
    memcpy(&n, &x, sizeof n);
    n = n < low ? low : n;
    n = n > high ? high : n;
    return n + zero;
#else
    const float bottom = (float)low, top = (float)high;
    int32_t n;
    x = x > bottom ? x : bottom; /* not-a-number becomes low */
    x = x < top ? x : top;
    x += 12582912.0f; /* 1.5 * 2^23: the sum's last bit weighs one */
    memcpy(&n, &x, sizeof n);
    return n - 0x4B400000 + zero;
#endif
}

MODEL_UNUSED MODEL_INLINE int8_t model_requantize(int32_t sum, float multiplier, int32_t zero, int32_t low,
                                                  int32_t high)
{
    return (int8_t)model_round((float)sum * multiplier, zero, low, high);
}

MODEL_UNUSED MODEL_INLINE int8_t model_quantize(float x, float scale, int32_t zero)
{
    return (int8_t)model_round(x / scale, zero, -128 - zero, 127 - zero);
}

#if MODEL_DSP
#include <arm_acle.h>

MODEL_UNUSED MODEL_INLINE int32_t model_word(const void *address)
{
    int32_t word;
    memcpy(&word, address, sizeof word); /* unaligned loads are allowed */
    return word;
}

/* Bytes 0 and 2, or 1 and 3, as two int16. */
MODEL_UNUSED MODEL_INLINE int32_t model_even(int32_t word) { return __sxtb16(word); }

MODEL_UNUSED MODEL_INLINE int32_t model_odd(int32_t word)
{
    int32_t pair;
    __asm__("sxtb16 %0, %1, ror #8" : "=r"(pair) : "r"(word));
    return pair;
}
#endif
