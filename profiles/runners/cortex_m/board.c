/* Runs the model on every input of in.bin on an emulated board, and writes out.bin and ticks.bin: semihosting does the
 * file access, SysTick counts. ticks.bin: ticks of a loop of known length, then one number per step and input. */
#include "model.h"

#include <stdint.h>

enum { CALIBRATION = 1000000, LAST_TICK = 0xFFFFFF };

extern uint32_t board_bss, board_bss_end, board_stack;
void board_reset(void);
static void board_fault(void);

__attribute__((section(".vectors"), used)) void *const board_vectors[16] = {
    &board_stack, (void *)board_reset, (void *)board_fault, (void *)board_fault, (void *)board_fault,
    (void *)board_fault, (void *)board_fault, (void *)board_fault,
};

static volatile uint32_t *const systick = (volatile uint32_t *)0xE000E010; /* control, reload, current */
static float input[MODEL_INPUT_FLOATS], output[MODEL_OUTPUT_FLOATS];
static uint32_t ticks[MODEL_STEPS + 1], before;
static int running = -1;

static int32_t semihosting(int32_t operation, const void *arguments)
{
    register int32_t r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = arguments;
    __asm__ volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

static __attribute__((noreturn)) void leave(int32_t status)
{
    const int32_t arguments[2] = {0x20026 /* application exit */, status};
    semihosting(0x20 /* SYS_EXIT_EXTENDED */, arguments);
    for (;;) {
    }
}

static void board_fault(void) { leave(3); }

static int32_t open_file(const char *name, int32_t mode)
{
    int32_t length = 0;
    while (name[length]) {
        length++;
    }
    {
        const int32_t arguments[3] = {(int32_t)name, mode, length};
        return semihosting(0x01, arguments);
    }
}

/* Bytes that were not read. */
static int32_t read_file(int32_t file, void *to, int32_t size)
{
    const int32_t arguments[3] = {file, (int32_t)to, size};
    return semihosting(0x06, arguments);
}

static void write_file(int32_t file, const void *from, int32_t size)
{
    const int32_t arguments[3] = {file, (int32_t)from, size};
    if (semihosting(0x05, arguments) != 0) {
        leave(2);
    }
}

/* SysTick counts down. */
void board_step(int number)
{
    const uint32_t now = systick[2];
    if (running >= 0) {
        ticks[running] = (before - now) & LAST_TICK;
    }
    running = number < MODEL_STEPS ? number : -1;
    before = systick[2];
}

static uint32_t calibrate(void)
{
    uint32_t left = CALIBRATION / 2;
    const uint32_t start = systick[2];
    __asm__ volatile("1: subs %0, #1\n bne 1b" : "+r"(left) : : "cc");
    return (start - systick[2]) & LAST_TICK;
}

static void work(void)
{
    const int32_t in = open_file("in.bin", 1), out = open_file("out.bin", 5), counts = open_file("ticks.bin", 5);
    uint32_t loop;
    if (in < 0 || out < 0 || counts < 0) {
        leave(1);
    }
    systick[1] = LAST_TICK;
    systick[2] = 0;
    systick[0] = 5; /* on, processor clock, no interrupt */
    loop = calibrate();
    write_file(counts, &loop, sizeof loop);
    while (read_file(in, input, sizeof input) == 0) {
        MODEL_CALL(input, output);
        write_file(out, output, sizeof output);
        write_file(counts, ticks, MODEL_STEPS * (int32_t)sizeof *ticks);
    }
    leave(0);
}

__attribute__((used, naked)) void board_reset(void)
{
    __asm__ volatile("ldr r0, =board_stack\n mov sp, r0\n b board_start\n .ltorg");
}

__attribute__((used)) void board_start(void)
{
#if defined(__ARM_FP) || defined(__ARM_FEATURE_MVE)
    *(volatile uint32_t *)0xE000ED88 |= 0xFu << 20; /* CPACR: coprocessors 10 and 11 */
    __asm__ volatile("dsb\n isb");
#endif
#if defined(__ARM_FEATURE_MVE)
    *(volatile uint32_t *)0xE000ED14 |= 1u << 19; /* CCR.LOB: low-overhead loops */
    __asm__ volatile("dsb\n isb");
#endif
    for (volatile uint32_t *word = &board_bss; word < &board_bss_end; word++) {
        *word = 0;
    }
    work();
}
