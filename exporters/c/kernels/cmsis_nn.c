/* Convolutions and products are those of CMSIS-NN (4.0 to 7.0), which you add to the build: its Include folder and its
 * sources. A code may differ by one from the integer kernels of onnxruntime, because it rounds twice. */
#include <arm_nnfunctions.h>

#ifndef MODEL_CHECK
#define MODEL_CHECK(holds) /* what to do where a call of CMSIS-NN fails or wants more memory than was planned */ \
    do {                                                                                                         \
        if (!(holds)) {                                                                                          \
            for (;;) {                                                                                           \
            }                                                                                                    \
        }                                                                                                        \
    } while (0)
#endif
