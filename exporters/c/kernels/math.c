/* Elementary functions in single precision, the same bits on every machine. Errors below 2 units in the last place. */
MODEL_UNUSED MODEL_INLINE float model_log(float x)
{
    int32_t bits, exponent = 0;
    float s, z, e;
    if (!(x > 0.0f)) {
        return x == 0.0f ? -INFINITY : NAN;
    }
    if (x > 3.4028235e38f) {
        return x;
    }
    if (x < 1.17549435e-38f) {
        x *= 33554432.0f; /* 2^25: subnormals become normal */
        exponent = -25;
    }
    memcpy(&bits, &x, sizeof bits);
    exponent += (bits - 0x3F3504F3) >> 23; /* mantissa from sqrt(1/2) to sqrt(2) */
    bits -= ((bits - 0x3F3504F3) >> 23) * 8388608;
    memcpy(&x, &bits, sizeof x);
    s = (x - 1.0f) / (x + 1.0f); /* log x = 2 artanh s, |s| < 0.172 */
    z = s * s;
    e = (float)exponent;
    s += s;
    return e * 0.693145752f + (s + (s * z * (0.333333333f + z * (0.2f + z * (0.142857143f + z * 0.111111111f))) +
                                    e * 1.42860677e-6f));
}

MODEL_UNUSED MODEL_INLINE float model_exp(float x)
{
    int32_t n, bits;
    float r, power;
    if (x != x) {
        return x;
    }
    if (x > 88.72283f) {
        return INFINITY;
    }
    if (x < -87.33654f) {
        return 0.0f; /* below the smallest normal number */
    }
    n = model_round(x * 1.44269504f, 0, -126, 128);
    r = (x - (float)n * 0.693145752f) - (float)n * 1.42860677e-6f; /* |r| < 0.347 */
    r = 1.0f + r * (1.0f + r * (0.5f + r * (0.166666667f + r * (0.0416666667f + r * (0.00833333333f +
        r * (0.00138888889f + r * 0.000198412698f))))));
    bits = (n - (n > 127) + 127) * 8388608;
    memcpy(&power, &bits, sizeof power);
    return n > 127 ? r * power * 2.0f : r * power;
}

MODEL_UNUSED MODEL_INLINE float model_square(float x) { return x * x; }

MODEL_UNUSED MODEL_INLINE float model_sigmoid(float x) { return 1.0f / (1.0f + model_exp(-x)); }

MODEL_UNUSED MODEL_INLINE float model_tanh(float x)
{
    if (x > -0.1f && x < 0.1f) { /* the quotient loses digits here */
        const float z = x * x;
        return x - x * z * (0.333333333f - z * (0.133333333f - z * 0.0539682540f));
    }
    return 1.0f - 2.0f / (1.0f + model_exp(2.0f * x));
}
