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

#if defined(__ARM_FEATURE_MVE) && (__ARM_FEATURE_MVE & 2) && !defined(MODEL_PORTABLE)
#define MODEL_MVE 1
#include <arm_mve.h>
#else
#define MODEL_MVE 0
#endif

#if MODEL_DSP
#include <arm_acle.h>
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

/* Before a loop over elements. */
#if MODEL_DSP && defined(__GNUC__) && !defined(__clang__)
#define MODEL_UNROLL _Pragma("GCC unroll 4")
#else
#define MODEL_UNROLL
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

/* The code of x steps. MODEL_FULL_RANGE: low and high, with zero added, are -128 and 127 in all of the model. */
MODEL_UNUSED MODEL_INLINE int8_t model_code(float x, int32_t zero, int32_t low, int32_t high)
{
#if MODEL_FPU && MODEL_DSP && defined(MODEL_FULL_RANGE)
    int32_t n;
    (void)low;
    (void)high;
    __asm__("vcvtr.s32.f32 %0, %1" : "=t"(x) : "t"(x));
    memcpy(&n, &x, sizeof n);
    return (int8_t)__ssat(__builtin_constant_p(zero) && zero == 0 ? n : __qadd(n, zero), 8);
#else
    return (int8_t)model_round(x, zero, low, high);
#endif
}

#if (defined(__arm__) && !defined(__ARM_FP) && !defined(MODEL_PORTABLE)) || defined(MODEL_FIXED)
#define MODEL_INTEGERS 1
/* Without a floating-point unit: round((float)sum * multiplier) by one 32 x 24 bit product. The two roundings to 24 bits
 * move a result below 512 by at most 4 units of 2^-16 together, so only what stands that close to a half, or is larger,
 * is computed in (soft) floats. */
static __attribute__((noinline)) int32_t model_soft(int32_t sum, float multiplier, int32_t zero, int32_t low,
                                                    int32_t high)
{
    return model_round((float)sum * multiplier, zero, low, high);
}

MODEL_UNUSED MODEL_INLINE int8_t model_requantize(int32_t sum, float multiplier, int32_t zero, int32_t low,
                                                  int32_t high)
{
    uint32_t bits, size = sum < 0 ? 0u - (uint32_t)sum : (uint32_t)sum;
    memcpy(&bits, &multiplier, sizeof bits);
    {
        const uint64_t product = (uint64_t)size * ((bits & 0x7FFFFFu) | 0x800000u);
        const uint32_t shift = 134u - (bits >> 23); /* leaves 16 bits of fraction */
        const uint32_t upper = (uint32_t)(product >> 32);
        if (shift - 7u < 41u && (shift >= 39u || upper >> (shift - 7u) == 0u)) { /* below 512 */
            const uint32_t fixed = (uint32_t)(product >> shift);
            if (((fixed + 0x8006u) & 0xFFFFu) > 12u) {
                int32_t n = (int32_t)((fixed + 0x8000u) >> 16);
                n = sum < 0 ? -n : n;
                n = n < low ? low : n;
                n = n > high ? high : n;
                return (int8_t)(n + zero);
            }
        }
    }
    return (int8_t)model_soft(sum, multiplier, zero, low, high);
}
#else
#define MODEL_INTEGERS 0
MODEL_UNUSED MODEL_INLINE int8_t model_requantize(int32_t sum, float multiplier, int32_t zero, int32_t low,
                                                  int32_t high)
{
    return model_code((float)sum * multiplier, zero, low, high);
}
#endif

MODEL_UNUSED MODEL_INLINE int8_t model_quantize(float x, float scale, int32_t zero)
{
    return model_code(x / scale, zero, -128 - zero, 127 - zero);
}

/* Copies of a few bytes: the C library of a small core may go byte by byte. */
MODEL_UNUSED MODEL_INLINE void model_copy(int8_t *to, const int8_t *from, int32_t size)
{
#if MODEL_MVE
    for (; size > 0; size -= 16, to += 16, from += 16) {
        const mve_pred16_t used = vctp8q((uint32_t)size);
        vstrbq_p_s8(to, vldrbq_z_s8(from, used), used);
    }
#elif defined(__ARM_FEATURE_UNALIGNED)
    for (; size >= 4; size -= 4, to += 4, from += 4) {
        memcpy(to, from, 4);
    }
    if (size & 2) { /* no loop: the compiler would make it a call of memcpy */
        memcpy(to, from, 2);
        to += 2;
        from += 2;
    }
    if (size & 1) {
        *to = *from;
    }
#else
    memcpy(to, from, (size_t)size);
#endif
}

#if MODEL_DSP
MODEL_UNUSED MODEL_INLINE int32_t model_word(const void *address)
{
    int32_t word;
    memcpy(&word, address, sizeof word); /* unaligned loads are allowed */
    return word;
}

/* The next two words, at a multiple of four bytes; the address moves on. One instruction. */
#if defined(__GNUC__)
#define MODEL_PAIR(first, second, address)                                                                             \
    __asm__("ldrd %0, %1, [%2], #8"                                                                                    \
            : "=r"(first), "=r"(second), "+r"(address)                                                                 \
            : "m"(*(const int8_t(*)[8])(const void *)(address)))
#else
#define MODEL_PAIR(first, second, address)                                                                             \
    ((first) = model_word(address), (second) = model_word((const int8_t *)(const void *)(address) + 4),                \
     (address) += 8 / sizeof *(address))
#endif

/* Bytes 0 and 2, or 1 and 3, as two int16. */
MODEL_UNUSED MODEL_INLINE int32_t model_even(int32_t word) { return __sxtb16(word); }

MODEL_UNUSED MODEL_INLINE int32_t model_odd(int32_t word)
{
    int32_t pair;
    __asm__("sxtb16 %0, %1, ror #8" : "=r"(pair) : "r"(word));
    return pair;
}
#endif

#if MODEL_MVE
/* model_requantize of four sums. */
MODEL_UNUSED MODEL_INLINE int32x4_t model_requantize_4(int32x4_t sums, float32x4_t multipliers, int32_t zero,
                                                       int32_t low, int32_t high)
{
    int32x4_t codes = vcvtnq_s32_f32(vmulq_f32(vcvtq_f32_s32(sums), multipliers));
    codes = vminq_s32(vmaxq_s32(codes, vdupq_n_s32(low)), vdupq_n_s32(high));
    return vaddq_n_s32(codes, zero);
}
#endif
